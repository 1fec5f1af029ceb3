//! The gate: who is let in, and at what cost.
//!
//! A login costs one Argon2id computation unless the same name and password were found right within the last minutes,
//! so that ten thousand clients which reconnect at once do not cost ten thousand. Unknown names cost what known ones do.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use blake2::Blake2bMac512;
use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
use parking_lot::{Mutex, RwLock};
use sabir_model::access::{Attempt, Authenticator, Credentials, Principal, Remote, Step};
use sabir_model::clock::{Clock, Instant};
use sabir_model::error::{Code, Refusal};

use crate::attempts::Attempts;
use crate::exchange::{Exchanges, too_many, wrong};
use crate::password::{Cost, Stored};
use crate::permits::Permits;
use crate::scram::{self, Pretender};
use crate::users::{Users, UsersError};

/// How long a login that was found right need not be computed again.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Most attempts that may wait for their computation.
const WAITING_MAX: usize = 256;

/// Whether a process of this machine may connect without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnonymousLocal {
    /// While there are no users; not once there are.
    UntilUsersExist,
    /// Always.
    Yes,
    /// Never.
    No,
}

/// What the gate needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the users are kept. The file need not exist.
    pub users_file: PathBuf,
    /// Whether anonymous is let in from this machine.
    pub anonymous_local: AnonymousLocal,
    /// Whether anonymous is let in from other machines.
    pub anonymous_remote: bool,
    /// Failed attempts per address and minute; zero is no limit.
    pub attempts_per_minute: u32,
    /// Passwords computed at once; each takes 19 MiB and a core.
    pub computations_max: usize,
}

/// The authenticator of the users file.
pub struct Gatekeeper {
    options: Options,
    clock: Arc<dyn Clock>,
    directory: RwLock<Directory>,
    attempts: Arc<Attempts>,
    exchanges: Exchanges,
    permits: Permits,
    remembered: Mutex<Remembered>,
    nobody: Stored,
}

impl fmt::Debug for Gatekeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gatekeeper").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The users as last read.
struct Directory {
    users: Arc<Users>,
    edition: u64,
    stamp: Option<Stamp>,
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// Logins found right, by user: at most one each, so never more than there are users.
struct Remembered {
    /// Random; without it the table says nothing about any password.
    key: [u8; 64],
    edition: u64,
    right: HashMap<Box<str>, (Instant, [u8; 64])>,
}

impl Gatekeeper {
    /// Reads the users file.
    ///
    /// # Errors
    /// If the file exists and cannot be read or understood, or the system has no random numbers.
    pub fn open(options: Options, clock: Arc<dyn Clock>) -> Result<Self, UsersError> {
        Self::with_cost(options, clock, Cost::RECOMMENDED)
    }

    fn with_cost(options: Options, clock: Arc<dyn Clock>, cost: Cost) -> Result<Self, UsersError> {
        let path = &options.users_file;
        let stamp = stamp(path);
        let users = Arc::new(Users::load(path)?);
        warn_if_open(path);
        let nobody = Stored::nobody(cost).map_err(|problem| UsersError::new(path, problem))?;
        let no_random = |error| UsersError::new(path, format!("no random numbers to be had: {error}"));
        let mut key = [0; 64];
        getrandom::fill(&mut key).map_err(no_random)?;
        let pretender = Pretender::new(cost.iterations()).map_err(no_random)?;
        let attempts = Arc::new(Attempts::new(options.attempts_per_minute));
        Ok(Self {
            exchanges: Exchanges::new(Arc::clone(&clock), Arc::clone(&attempts), pretender),
            clock,
            directory: RwLock::new(Directory { users, edition: 0, stamp }),
            attempts,
            permits: Permits::new(options.computations_max, WAITING_MAX),
            remembered: Mutex::new(Remembered { key, edition: 0, right: HashMap::new() }),
            nobody,
            options,
        })
    }

    /// Whether anybody has a name here.
    #[must_use]
    pub fn users_exist(&self) -> bool {
        !self.users().0.is_empty()
    }

    /// The users as the file has them now. A file that has become unreadable or has gone changes nothing: locking
    /// everybody out and letting everybody in would both be worse.
    fn users(&self) -> (Arc<Users>, u64) {
        let path = &self.options.users_file;
        let now = stamp(path);
        {
            let known = self.directory.read();
            if known.stamp == now {
                return (Arc::clone(&known.users), known.edition);
            }
        }
        let mut known = self.directory.write();
        if known.stamp != now {
            // Remembered also on failure: one complaint for each state of the file.
            known.stamp = now;
            if now.is_none() {
                tracing::error!(file = %path.display(), "the users file is gone; the users read before stay valid");
            } else {
                match Users::load(path) {
                    Ok(users) => {
                        warn_if_open(path);
                        tracing::info!(file = %path.display(), users = users.names().count(), "users read again");
                        known.users = Arc::new(users);
                        known.edition += 1;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the users file is unusable; the users read before stay valid");
                    }
                }
            }
        }
        (Arc::clone(&known.users), known.edition)
    }

    fn anonymous(&self, users: &Users, remote: Remote) -> Result<Principal, Refusal> {
        let allowed = if remote.is_loopback() {
            match self.options.anonymous_local {
                AnonymousLocal::UntilUsersExist => users.is_empty(),
                AnonymousLocal::Yes => true,
                AnonymousLocal::No => false,
            }
        } else {
            self.options.anonymous_remote
        };
        if allowed {
            return Ok(Principal::anonymous(remote));
        }
        Err(Refusal::new(Code::AuthenticationFailed, "a user name and a password are needed here"))
    }

    fn verify(&self, login: &str, passcode: &[u8], remote: Remote) -> Result<Principal, Refusal> {
        let (users, edition) = self.users();
        if users.is_empty() {
            // Nothing to compare with. Many clients cannot leave the two fields out, so this is no reason to refuse; the
            // claimed name is not believed either.
            return self.anonymous(&users, remote);
        }
        let now = self.clock.now();
        let stored = users.get(login);
        let proof = self.proof(login, passcode);
        self.attempts.take(remote, now).map_err(too_many)?;
        // Behind the limit, or a guess would be answered for as long as the right password is remembered.
        if stored.is_some() && self.remembers(login, &proof, edition, now) {
            self.attempts.give_back(remote, now);
            return Ok(Principal::user(login, remote));
        }
        let Some(permit) = self.permits.acquire() else {
            self.attempts.give_back(remote, now);
            return Err(Refusal::new(
                Code::LimitReached,
                "too many logins are being checked at the moment; try again soon",
            ));
        };
        let right = match stored {
            Some(stored) => stored.matches(passcode),
            None => {
                self.nobody.matches(passcode);
                false
            }
        };
        drop(permit);
        if !right {
            tracing::warn!(user = ?login, %remote, "login refused");
            return Err(wrong());
        }
        let now = self.clock.now();
        self.attempts.give_back(remote, now);
        self.remember(login, proof, edition, now);
        Ok(Principal::user(login, remote))
    }

    /// A keyed hash of name and password, under a key that nobody knows.
    fn proof(&self, login: &str, passcode: &[u8]) -> [u8; 64] {
        let key = self.remembered.lock().key;
        let mut hash = Blake2bMac512::new(&key.into());
        hash.update(&(login.len() as u64).to_le_bytes());
        hash.update(login.as_bytes());
        hash.update(passcode);
        hash.finalize_fixed().into()
    }

    /// Plain comparison: who could learn something from its time would have to know the key.
    fn remembers(&self, login: &str, proof: &[u8; 64], edition: u64, now: Instant) -> bool {
        let remembered = self.remembered.lock();
        remembered.edition == edition
            && remembered.right.get(login).is_some_and(|(until, right)| now < *until && right == proof)
    }

    fn remember(&self, login: &str, proof: [u8; 64], edition: u64, now: Instant) {
        let mut remembered = self.remembered.lock();
        if remembered.edition < edition {
            remembered.edition = edition;
            remembered.right.clear();
        }
        if remembered.edition == edition {
            remembered.right.insert(login.into(), (now.after(REMEMBERED), proof));
        }
    }
}

impl Authenticator for Gatekeeper {
    fn authenticate(&self, attempt: &Attempt<'_>) -> Result<Principal, Refusal> {
        match attempt.credentials {
            Credentials::None => self.anonymous(&self.users().0, attempt.remote),
            Credentials::Password { login, passcode } => self.verify(login, passcode, attempt.remote),
            _ => Err(Refusal::new(
                Code::AuthenticationFailed,
                "only a user name and a password are accepted here",
            )),
        }
    }

    fn mechanisms(&self) -> &'static [&'static str] {
        &[scram::MECHANISM]
    }

    /// Needs no permit: it costs no more than a handful of hashes.
    fn begin(&self, mechanism: &str, initial: &[u8], remote: Remote) -> Result<Step, Refusal> {
        if mechanism != scram::MECHANISM {
            return Err(Refusal::new(
                Code::Unsupported,
                format!("the only authentication mechanism here is {}", scram::MECHANISM),
            ));
        }
        let users = self.users().0;
        self.exchanges.begin(initial, remote, |name| users.verifier(name).cloned())
    }
}

fn stamp(path: &std::path::Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Some(Stamp { modified: metadata.modified().ok(), bytes: metadata.len(), inode })
}

fn warn_if_open(path: &std::path::Path) {
    #[cfg(unix)]
    if let Ok(metadata) = fs::metadata(path)
        && std::os::unix::fs::MetadataExt::mode(&metadata) & 0o077 != 0
    {
        tracing::warn!(file = %path.display(), "other users of this machine can read the users file; chmod 600 it");
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use sabir_model::clock::ManualClock;

    use super::*;
    use crate::users::UserName;

    struct Gate {
        gate: Gatekeeper,
        clock: Arc<ManualClock>,
        path: PathBuf,
        _directory: tempfile::TempDir,
    }

    impl Gate {
        fn new(users: &[(&str, &str)], anonymous_local: AnonymousLocal, anonymous_remote: bool) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("users.toml");
            for (name, password) in users {
                set(&path, name, password);
            }
            let clock = Arc::new(ManualClock::default());
            let options = Options {
                users_file: path.clone(),
                anonymous_local,
                anonymous_remote,
                attempts_per_minute: 3,
                computations_max: 2,
            };
            let gate = Gatekeeper::with_cost(options, Arc::<ManualClock>::clone(&clock), Cost::TEST).unwrap();
            Self { gate, clock, path, _directory: directory }
        }

        fn login(&self, login: &str, passcode: &str, from: &str) -> String {
            let remote = match from {
                "local" => Remote::Local,
                address => Remote::Address(address.parse().unwrap()),
            };
            let attempt = Attempt::new(Some(login), Some(passcode.as_bytes()), remote);
            match self.gate.authenticate(&attempt) {
                Ok(principal) => principal.to_string(),
                Err(refusal) => refusal.code.to_string(),
            }
        }
    }

    fn set(path: &std::path::Path, name: &str, password: &str) {
        let name = UserName::parse(name).unwrap();
        Users::edit(path, |users| users.store(name, password.as_bytes(), Cost::TEST)).unwrap();
    }

    #[test]
    fn anonymous_is_let_in_as_configured() {
        use AnonymousLocal::{No, UntilUsersExist, Yes};
        const FAILED: &str = "authentication-failed";
        let some: &[(&str, &str)] = &[("alice", "secret")];
        for (users, local, remote, from_here, from_elsewhere) in [
            (&[][..], UntilUsersExist, false, "anonymous", FAILED),
            (some, UntilUsersExist, false, FAILED, FAILED),
            (some, UntilUsersExist, true, FAILED, "anonymous"),
            (some, Yes, false, "anonymous", FAILED),
            (&[], No, false, FAILED, FAILED),
            (&[], No, true, FAILED, "anonymous"),
        ] {
            let gate = Gate::new(users, local, remote);
            for here in ["local", "127.0.0.1", "::1"] {
                assert_eq!(gate.login("", "", here), from_here, "{local:?} {remote} {here}");
            }
            assert_eq!(gate.login("", "", "10.0.0.1"), from_elsewhere, "{local:?} {remote}");
        }
    }

    #[test]
    fn names_are_believed_only_with_their_password() {
        let gate = Gate::new(&[("alice", "secret"), ("bob", "other")], AnonymousLocal::Yes, false);
        assert_eq!(gate.login("alice", "secret", "10.0.0.1"), "alice");
        assert_eq!(gate.login("bob", "other", "10.0.0.1"), "bob");
        for (n, (login, passcode)) in
            [("alice", "other"), ("bob", "secret"), ("alice", ""), ("", "secret"), ("carol", "secret")]
                .into_iter()
                .enumerate()
        {
            assert_eq!(
                gate.login(login, passcode, &format!("10.0.1.{n}")),
                "authentication-failed",
                "{login}"
            );
        }
    }

    #[test]
    fn without_users_a_claimed_name_is_neither_refused_nor_believed() {
        let gate = Gate::new(&[], AnonymousLocal::UntilUsersExist, false);
        assert_eq!(gate.login("guest", "guest", "127.0.0.1"), "anonymous");
        assert_eq!(gate.login("guest", "guest", "10.0.0.1"), "authentication-failed");
    }

    #[test]
    fn the_file_counts_as_it_is_now() {
        let gate = Gate::new(&[("alice", "old")], AnonymousLocal::UntilUsersExist, false);
        assert_eq!(gate.login("alice", "old", "local"), "alice");
        set(&gate.path, "alice", "new");
        assert_eq!(gate.login("alice", "old", "local"), "authentication-failed", "also a remembered login");
        assert_eq!(gate.login("alice", "new", "local"), "alice");
        set(&gate.path, "bob", "b");
        assert_eq!(gate.login("bob", "b", "local"), "bob");
        Users::edit(&gate.path, |users| users.remove(&UserName::parse("alice").unwrap())).unwrap();
        assert_eq!(gate.login("alice", "new", "local"), "authentication-failed");
        fs::write(&gate.path, "[users]\nbob = 7").unwrap();
        assert_eq!(gate.login("bob", "b", "local"), "bob", "a damaged file changes nothing");
        fs::remove_file(&gate.path).unwrap();
        assert_eq!(gate.login("bob", "b", "local"), "bob", "nor does one that is gone");
        assert_eq!(gate.login("", "", "local"), "authentication-failed");
    }

    #[test]
    fn failures_are_counted_by_address_and_forgiven_by_time() {
        let gate = Gate::new(&[("alice", "secret")], AnonymousLocal::No, false);
        for _ in 0..3 {
            assert_eq!(gate.login("alice", "guess", "10.0.0.1"), "authentication-failed");
        }
        assert_eq!(gate.login("alice", "guess", "10.0.0.1"), "too-many-attempts");
        assert_eq!(
            gate.login("alice", "secret", "10.0.0.1"),
            "too-many-attempts",
            "right or wrong is not told"
        );
        assert_eq!(gate.login("alice", "secret", "10.0.0.2"), "alice");
        gate.clock.advance(Duration::from_secs(20));
        assert_eq!(gate.login("alice", "secret", "10.0.0.1"), "alice");
    }

    #[test]
    fn ten_thousand_reconnects_cost_one_computation_and_are_never_limited() {
        let gate = Gate::new(&[("alice", "secret")], AnonymousLocal::No, false);
        for _ in 0..10_000 {
            assert_eq!(gate.login("alice", "secret", "10.0.0.1"), "alice");
        }
        for _ in 0..3 {
            assert_eq!(gate.login("alice", "guess", "10.0.0.1"), "authentication-failed");
        }
        assert_eq!(
            gate.login("alice", "secret", "10.0.0.1"),
            "too-many-attempts",
            "remembered, but a guesser must not learn it"
        );
        assert_eq!(gate.login("alice", "secret", "10.0.0.2"), "alice");
        gate.clock.advance(REMEMBERED);
        for _ in 0..3 {
            assert_eq!(gate.login("alice", "guess", "10.0.0.1"), "authentication-failed");
        }
        assert_eq!(gate.login("alice", "secret", "10.0.0.1"), "too-many-attempts", "forgotten in the end");
    }

    impl Gate {
        /// The whole exchange.
        fn prove(&self, login: &str, passcode: &str, from: &str) -> String {
            let first = format!("n,,n={login},r=nonce");
            let outcome = self.begin(&first, from).and_then(|step| match step {
                Step::Challenge { data, next } => {
                    next.step(scram::answer(&first, &data, passcode).as_bytes())
                }
                done @ Step::Done { .. } => Ok(done),
            });
            match outcome {
                Ok(Step::Done { principal, .. }) => principal.to_string(),
                Ok(Step::Challenge { .. }) => "another challenge".to_owned(),
                Err(refusal) => refusal.code.to_string(),
            }
        }

        fn begin(&self, first: &str, from: &str) -> Result<Step, Refusal> {
            let remote = Remote::Address(from.parse().unwrap());
            self.gate.begin("SCRAM-SHA-256", first.as_bytes(), remote)
        }
    }

    #[test]
    fn a_password_can_be_proved_without_being_sent() {
        let gate = Gate::new(&[("alice", "secret"), ("bob", "other")], AnonymousLocal::Yes, true);
        assert_eq!(gate.gate.mechanisms(), ["SCRAM-SHA-256"]);
        assert_eq!(gate.prove("alice", "secret", "10.0.0.1"), "alice");
        assert_eq!(gate.prove("bob", "other", "10.0.0.1"), "bob");
        for (n, (login, passcode)) in
            [("alice", "other"), ("carol", "secret"), ("anonymous", "secret")].into_iter().enumerate()
        {
            assert_eq!(
                gate.prove(login, passcode, &format!("10.0.1.{n}")),
                "authentication-failed",
                "{login}"
            );
        }
        let nobody = Gate::new(&[], AnonymousLocal::Yes, true);
        assert_eq!(nobody.prove("alice", "secret", "127.0.0.1"), "authentication-failed");
    }

    #[test]
    fn what_the_mechanism_cannot_do_is_unsupported() {
        let gate = Gate::new(&[("alice", "secret")], AnonymousLocal::Yes, true);
        for mechanism in ["SCRAM-SHA-256-PLUS", "scram-sha-256", "PLAIN", ""] {
            let refusal = gate.gate.begin(mechanism, b"n,,n=alice,r=x", Remote::Local).unwrap_err();
            assert_eq!(refusal.code, Code::Unsupported, "{mechanism}");
        }
        for (first, code) in [
            ("p=tls-exporter,,n=alice,r=x", Code::Unsupported),
            ("n,,m=1,n=alice,r=x", Code::Unsupported),
            ("", Code::AuthenticationFailed),
        ] {
            assert_eq!(gate.begin(first, "10.0.0.1").unwrap_err().code, code, "{first}");
        }
    }

    #[test]
    fn users_of_an_old_file_have_a_password_but_no_proof_of_it() {
        let gate = Gate::new(&[("alice", "secret"), ("bob", "other")], AnonymousLocal::Yes, true);
        let text = fs::read_to_string(&gate.path).unwrap();
        let hash = text.split('"').find(|piece| piece.starts_with("$argon2id$")).unwrap();
        fs::write(&gate.path, format!("[users]\nalice = \"{hash}\"\n")).unwrap();
        assert_eq!(gate.login("alice", "secret", "10.0.0.1"), "alice");
        assert_eq!(gate.prove("alice", "secret", "10.0.0.1"), "authentication-failed");
        set(&gate.path, "alice", "secret");
        assert_eq!(gate.prove("alice", "secret", "10.0.0.1"), "alice");
    }

    #[test]
    fn wrong_proofs_and_wrong_passwords_are_counted_together() {
        let gate = Gate::new(&[("alice", "secret")], AnonymousLocal::No, false);
        for _ in 0..100 {
            drop(gate.begin("n,,n=alice,r=x", "10.0.0.1").unwrap());
            assert_eq!(
                gate.prove("alice", "secret", "10.0.0.1"),
                "alice",
                "neither beginning nor success counts"
            );
        }
        let waiting = gate.begin("n,,n=alice,r=x", "10.0.0.1").unwrap();
        assert_eq!(gate.prove("alice", "guess", "10.0.0.1"), "authentication-failed");
        assert_eq!(gate.login("alice", "guess", "10.0.0.1"), "authentication-failed");
        assert_eq!(gate.prove("carol", "guess", "10.0.0.1"), "authentication-failed");
        assert_eq!(gate.prove("alice", "secret", "10.0.0.1"), "too-many-attempts");
        assert_eq!(gate.login("alice", "secret", "10.0.0.1"), "too-many-attempts");
        let Step::Challenge { data, next } = waiting else { panic!("a challenge comes first") };
        let last = scram::answer("n,,n=alice,r=x", &data, "secret");
        let refusal = next.step(last.as_bytes()).unwrap_err();
        assert_eq!(refusal.code, Code::TooManyAttempts, "begun before, proved after");
        assert_eq!(gate.prove("alice", "secret", "10.0.0.2"), "alice");
        gate.clock.advance(Duration::from_secs(20));
        assert_eq!(gate.prove("alice", "secret", "10.0.0.1"), "alice");
    }

    #[test]
    fn a_damaged_file_at_the_start_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        fs::write(&path, "[users]\nbob = 7").unwrap();
        let options = Options {
            users_file: path.clone(),
            anonymous_local: AnonymousLocal::Yes,
            anonymous_remote: false,
            attempts_per_minute: 3,
            computations_max: 1,
        };
        let problem = Gatekeeper::open(options, Arc::new(ManualClock::default())).unwrap_err();
        assert_eq!(
            problem.to_string(),
            format!("{}: line 2: the password hash of bob is not a string", path.display())
        );
    }
}
