//! Who may do what: the implementation of the two traits in `sabir_model::access`.
//!
//! [`Gatekeeper`] turns a name and a password into a principal: a users file with Argon2id hashes, read again when it
//! changes, with a limit on failed attempts per address and on computations at once; it also lets a client prove its
//! password without sending it (SCRAM-SHA-256). [`Rules`] decide what a principal may do. [`check_exposure`] keeps a server without users away from the network. What a refusal looks like on the wire
//! is each protocol's affair; where the users file is and which rules hold is the configuration's.

mod attempts;
mod authenticate;
mod exchange;
mod exposure;
mod password;
mod permits;
mod rules;
mod scram;
mod users;

pub use authenticate::{AnonymousLocal, Gatekeeper, Options};
pub use exposure::check_exposure;
pub use rules::{Effect, Rule, Rules, Who};
pub use users::{UserName, Users, UsersError};
