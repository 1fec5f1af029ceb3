//! Logging in step by step: the gate's side of an exchange of `scram`, which counts the attempt and words the refusals.

use std::sync::Arc;
use std::time::Duration;

use sabir_model::access::{Exchange, Principal, Remote, Step};
use sabir_model::clock::Clock;
use sabir_model::error::{Code, Refusal};

use crate::attempts::Attempts;
use crate::scram::{self, Challenged, Fault, Pretender, Verifier};

/// What exchanges need of the gate, also after the call that began them.
pub(crate) struct Exchanges {
    clock: Arc<dyn Clock>,
    attempts: Arc<Attempts>,
    pretender: Pretender,
}

impl Exchanges {
    pub(crate) fn new(clock: Arc<dyn Clock>, attempts: Arc<Attempts>, pretender: Pretender) -> Self {
        Self { clock, attempts, pretender }
    }

    /// Answers a client's first message. It is refused where a password would be refused unheard, but does not count:
    /// it guesses nothing and its answer tells nothing, and clients behind one address may begin by the hundred.
    pub(crate) fn begin(
        &self,
        initial: &[u8],
        remote: Remote,
        find: impl FnOnce(&str) -> Option<Verifier>,
    ) -> Result<Step, Refusal> {
        self.attempts.hear(remote, self.clock.now()).map_err(too_many)?;
        let nonce = scram::nonce().map_err(|error| {
            tracing::error!(%error, "the system's random numbers are not to be had");
            Refusal::new(Code::Internal, "a login cannot be checked at the moment")
        })?;
        let (data, challenged) = scram::start(initial, &nonce, find, &self.pretender)
            .map_err(|fault| refused(fault, None, remote))?;
        let (clock, attempts) = (Arc::clone(&self.clock), Arc::clone(&self.attempts));
        Ok(Step::Challenge { data, next: Box::new(Proving { challenged, clock, attempts, remote }) })
    }
}

/// Waits for the proof.
struct Proving {
    challenged: Challenged,
    clock: Arc<dyn Clock>,
    attempts: Arc<Attempts>,
    remote: Remote,
}

impl Exchange for Proving {
    fn step(self: Box<Self>, response: &[u8]) -> Result<Step, Refusal> {
        let Self { challenged, clock, attempts, remote } = *self;
        let now = clock.now();
        attempts.take(remote, now).map_err(too_many)?;
        let claimed: Box<str> = challenged.claimed().into();
        let (user, data) =
            challenged.finish(response).map_err(|fault| refused(fault, Some(&claimed), remote))?;
        attempts.give_back(remote, now);
        Ok(Step::Done { principal: Principal::user(&user, remote), data })
    }
}

fn refused(fault: Fault, claimed: Option<&str>, remote: Remote) -> Refusal {
    tracing::warn!(user = claimed.map(tracing::field::debug), %remote, ?fault, "login refused");
    match fault {
        Fault::Unreadable => {
            Refusal::new(Code::AuthenticationFailed, "the authentication message cannot be read")
        }
        Fault::ChannelBinding => Refusal::new(Code::Unsupported, "channel binding is not built"),
        Fault::Extension => Refusal::new(Code::Unsupported, "no extension of the mechanism is built"),
        Fault::Wrong => wrong(),
    }
}

/// For whatever part of it is wrong.
pub(crate) fn wrong() -> Refusal {
    Refusal::new(Code::AuthenticationFailed, "the user name or the password is wrong")
}

pub(crate) fn too_many(wait: Duration) -> Refusal {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Refusal::new(
        Code::TooManyAttempts,
        format!("too many failed attempts from this address; try again in {seconds} s"),
    )
}
