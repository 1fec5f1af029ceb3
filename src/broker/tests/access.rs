//! Who is who and who may do what, in tests.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sabir_model::access::{Action, Attempt, Authenticator, Authorizer, Credentials, Principal, Resource};
use sabir_model::error::{Code, Refusal};

/// Lets everybody in under the name they give, and denies what it is told to deny.
#[derive(Default)]
pub(super) struct Access {
    denied: Mutex<Vec<(Action, String)>>,
    generation: AtomicU64,
}

impl Access {
    pub(super) fn deny(&self, action: Action, what: &str) {
        self.denied.lock().push((action, what.to_owned()));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

impl Authenticator for Access {
    fn authenticate(&self, attempt: &Attempt<'_>) -> Result<Principal, Refusal> {
        match attempt.credentials {
            Credentials::Password { login: "mallory", .. } => {
                Err(Refusal::new(Code::AuthenticationFailed, "not you"))
            }
            Credentials::Password { login, .. } => Ok(Principal::user(login, attempt.remote)),
            _ => Ok(Principal::anonymous(attempt.remote)),
        }
    }
}

impl Authorizer for Access {
    fn allows(&self, _: &Principal, action: Action, resource: Resource<'_>) -> bool {
        let text = match resource {
            Resource::Server => "server".to_owned(),
            Resource::Destination(destination) => destination.to_string(),
            Resource::Pattern(pattern) => pattern.to_string(),
        };
        !self.denied.lock().iter().any(|(denied, what)| *denied == action && *what == text)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}
