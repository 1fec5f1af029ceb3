//! What the security crate is told.

use sabir_security::{AnonymousLocal as Local, Options, Rule, Rules};

use super::{AnonymousLocal, Config};

/// Passwords computed at once, at most: each takes 19 MiB.
const COMPUTATIONS_MAX: usize = 4;

impl Config {
    /// The rules of `[[permission]]`, in order.
    #[must_use]
    pub fn access_rules(&self) -> Rules {
        let rule = |permission: &super::Permission| Rule {
            effect: permission.effect,
            users: permission.users.clone(),
            actions: permission.actions.clone(),
            destinations: permission.destinations.clone(),
        };
        Rules::new(self.permission.iter().map(rule).collect())
    }

    /// How the gate is opened; `cores` bounds the passwords computed at once.
    #[must_use]
    pub fn gate_options(&self, cores: usize) -> Options {
        Options {
            users_file: self.users_file(),
            anonymous_local: match self.security.allow_anonymous_local {
                AnonymousLocal::Auto => Local::UntilUsersExist,
                AnonymousLocal::Yes => Local::Yes,
                AnonymousLocal::No => Local::No,
            },
            anonymous_remote: self.security.allow_anonymous_remote,
            attempts_per_minute: self.security.login_attempts_per_minute,
            computations_max: cores.clamp(1, COMPUTATIONS_MAX),
        }
    }

    /// Refuses listeners that would let other machines in without anybody having a name.
    ///
    /// # Errors
    /// One sentence, as [`sabir_security::check_exposure`].
    pub fn check_exposure(&self, users_exist: bool) -> Result<(), String> {
        let all = [
            ("listeners.stomp", &self.listeners.stomp),
            ("listeners.mqtt", &self.listeners.mqtt),
            ("listeners.any", &self.listeners.any),
            ("listeners.http", &self.listeners.http),
        ];
        let listeners: Vec<_> =
            all.iter().flat_map(|(key, list)| list.iter().map(|address| (*key, *address))).collect();
        sabir_security::check_exposure(&listeners, users_exist, self.security.allow_anonymous_remote)
    }
}
