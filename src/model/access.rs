//! Who may do what, as the core and the driver see it: a principal, an action, a resource, and the two traits that
//! decide, one of them in several steps if the client likes. How users and rules are kept is the business of the implementation (`sabir-security`).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::destination::DestinationRef;
use crate::error::{Code, Refusal};
use crate::pattern::Pattern;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Open a session at all.
    Connect,
    /// Send a message to a destination.
    Send,
    /// Take messages from a queue, or subscribe to a topic.
    Consume,
    /// Look at a queue's messages without taking them.
    Browse,
    /// Bring a destination into being, a temporary one included.
    Create,
    /// Change or delete destinations, and read the server's state.
    Manage,
}

impl Action {
    /// Every action, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Send, Self::Consume, Self::Browse, Self::Create, Self::Manage];

    /// The word used in rules and refusals.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Send => "send",
            Self::Consume => "consume",
            Self::Browse => "browse",
            Self::Create => "create",
            Self::Manage => "manage",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Where a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Remote {
    /// A process of this machine, over a socket that has no address.
    Local,
    /// A peer by its address; it may still be this machine.
    Address(IpAddr),
}

impl Remote {
    /// Whether the peer is a process of this machine.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        match self {
            Self::Local => true,
            Self::Address(address) => address.to_canonical().is_loopback(),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Address(address) => address.to_canonical().fmt(f),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Inner {
    user: Option<Box<str>>,
    remote: Remote,
}

/// Somebody whose identity is settled: a user, or anonymous, at a place. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal(Arc<Inner>);

impl Principal {
    /// A user who has proved to be one.
    #[must_use]
    pub fn user(name: &str, remote: Remote) -> Self {
        Self(Arc::new(Inner { user: Some(name.into()), remote }))
    }

    /// Somebody without a name, whom the rules let in.
    #[must_use]
    pub fn anonymous(remote: Remote) -> Self {
        Self(Arc::new(Inner { user: None, remote }))
    }

    /// The user's name; `None` for anonymous. This, and nothing a client says, is a message's user id.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    /// Where the peer is.
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.0.remote
    }
}

/// `alice` or `anonymous`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("anonymous"))
    }
}

/// What an action is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The server itself: for [`Action::Connect`] and for management that concerns no destination.
    Server,
    /// One destination.
    Destination(DestinationRef<'a>),
    /// Every destination that the pattern matches, now or later.
    Pattern(&'a Pattern),
}

/// Decides whether a principal may do an action. Called on the hot path: must not block, and should not allocate.
pub trait Authorizer: Send + Sync {
    /// Whether `principal` may do `action` to `resource`. A pattern is allowed only if each destination it could match
    /// would be.
    fn allows(&self, principal: &Principal, action: Action, resource: Resource<'_>) -> bool;

    /// Changes whenever an answer of [`Authorizer::allows`] may have changed, so that callers may keep answers.
    fn generation(&self) -> u64;
}

/// Proof that somebody offers for being who they are.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Credentials<'a> {
    /// None: anonymous.
    None,
    /// A name and a password. The password is bytes: its encoding is the client's affair.
    Password {
        /// The claimed user name.
        login: &'a str,
        /// The password.
        passcode: &'a [u8],
    },
}

impl fmt::Debug for Credentials<'_> {
    /// Names the user, never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Password { login, .. } => write!(f, "Password {{ login: {login:?}, .. }}"),
        }
    }
}

/// One attempt to be let in.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// What is offered as proof.
    pub credentials: Credentials<'a>,
    /// Where it comes from.
    pub remote: Remote,
}

impl<'a> Attempt<'a> {
    /// The attempt that a login and a passcode make, as protocols carry them: both may be absent, and both empty is the
    /// same as absent.
    #[must_use]
    pub fn new(login: Option<&'a str>, passcode: Option<&'a [u8]>, remote: Remote) -> Self {
        let (login, passcode) = (login.unwrap_or(""), passcode.unwrap_or(b""));
        let credentials = if login.is_empty() && passcode.is_empty() {
            Credentials::None
        } else {
            Credentials::Password { login, passcode }
        };
        Self { credentials, remote }
    }
}

/// Turns credentials into a principal.
pub trait Authenticator: Send + Sync {
    /// Who this is. Slow on purpose (tens of milliseconds of computing) and it may wait: never call it on a thread that
    /// serves sockets.
    ///
    /// # Errors
    /// [`AuthenticationFailed`](crate::error::Code::AuthenticationFailed) for wrong or absent credentials,
    /// [`TooManyAttempts`](crate::error::Code::TooManyAttempts) after repeated failures from one address,
    /// [`LimitReached`](crate::error::Code::LimitReached) when too many attempts are being computed at once.
    fn authenticate(&self, attempt: &Attempt<'_>) -> Result<Principal, Refusal>;

    /// The mechanisms that [`begin`](Self::begin) knows, by their registered names, the best first. Empty: none.
    fn mechanisms(&self) -> &'static [&'static str] {
        &[]
    }

    /// Begins an exchange in which somebody proves to be a user without showing a password. `initial` is the first
    /// message of the client, empty if it sent none. Whatever the mechanism, the claimed name is inside its messages.
    ///
    /// As slow as [`authenticate`](Self::authenticate): never call it, or [`Exchange::step`], on a thread that serves
    /// sockets.
    ///
    /// # Errors
    /// [`Unsupported`](crate::error::Code::Unsupported) for a mechanism that is none of
    /// [`mechanisms`](Self::mechanisms), compared exactly, or for a feature of it that is not built; otherwise those of
    /// [`authenticate`](Self::authenticate), [`AuthenticationFailed`](crate::error::Code::AuthenticationFailed) also
    /// for messages that cannot be read. Whether a user exists shows in no refusal. Any of them ends the exchange.
    fn begin(&self, mechanism: &str, initial: &[u8], remote: Remote) -> Result<Step, Refusal> {
        let _ = (mechanism, initial, remote);
        Err(Refusal::new(Code::Unsupported, "no authentication mechanism is offered here"))
    }
}

/// How an exchange stands after a message of the client.
pub enum Step {
    /// It goes on.
    Challenge {
        /// What the client must be sent.
        data: Vec<u8>,
        /// Takes the answer to it. Dropping it gives the exchange up, which costs nothing.
        next: Box<dyn Exchange>,
    },
    /// The client is who it says.
    Done {
        /// Who that is.
        principal: Principal,
        /// What the client must be sent with the good news; by it the server proves itself. May be empty.
        data: Vec<u8>,
    },
}

impl fmt::Debug for Step {
    /// Names the user, never what is exchanged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Challenge { .. } => f.write_str("Challenge { .. }"),
            Self::Done { principal, .. } => write!(f, "Done {{ principal: {principal:?}, .. }}"),
        }
    }
}

/// An exchange that waits for the client's next message.
pub trait Exchange: Send {
    /// Takes that message. Each state answers once.
    ///
    /// # Errors
    /// Those of [`Authenticator::begin`].
    fn step(self: Box<Self>, response: &[u8]) -> Result<Step, Refusal>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_credentials_are_none_and_secrets_are_not_printed() {
        let attempt = Attempt::new(Some(""), None, Remote::Local);
        assert_eq!(format!("{attempt:?}"), "Attempt { credentials: None, remote: Local }");
        let attempt = Attempt::new(Some("alice"), Some(b"secret"), Remote::Local);
        assert!(!format!("{attempt:?}").contains("secret"));
        assert!(matches!(
            Attempt::new(None, Some(b"x"), Remote::Local).credentials,
            Credentials::Password { .. }
        ));
    }

    #[test]
    fn an_authenticator_without_mechanisms_refuses_all_of_them() {
        struct Nobody;
        impl Authenticator for Nobody {
            fn authenticate(&self, attempt: &Attempt<'_>) -> Result<Principal, Refusal> {
                Ok(Principal::anonymous(attempt.remote))
            }
        }
        assert!(Nobody.mechanisms().is_empty());
        let refusal = Nobody.begin("PLAIN", b"", Remote::Local).expect_err("nothing is offered");
        assert_eq!(refusal.code, Code::Unsupported);
    }

    #[test]
    fn loopback_is_seen_through_mapped_addresses() {
        for (address, loopback) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
        ] {
            let address: IpAddr = address.parse().expect("a literal address");
            assert_eq!(Remote::Address(address).is_loopback(), loopback, "{address}");
        }
    }
}
