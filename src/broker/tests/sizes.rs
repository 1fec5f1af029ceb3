//! What an idle connection and a subscription are made of stays small: there may be very many.

use std::mem::size_of;

use sabir_model::pattern::Pattern;

use crate::bindings::{SessionBinding, Subscriber};
use crate::client_session::ClientSession;
use crate::connection::Connection;
use crate::mailbox::Mailbox;
use crate::outbox::Outbox;
use crate::registry::Interest;

// With the two counts of a shared allocation these fill a size that allocators have: 208 a block of 224, 240 one of 256.
#[test]
fn what_every_connection_has_stays_small() {
    for (what, bytes, most) in [
        ("connection", size_of::<Connection>(), 192),
        ("outbox", size_of::<Outbox>(), 240),
        ("mailbox", size_of::<Mailbox>(), 208),
        ("client session", size_of::<ClientSession>(), 208),
    ] {
        assert!(bytes <= most, "{what}: {bytes}");
    }
}

#[test]
fn what_every_subscription_has_stays_small() {
    for (what, bytes, most) in [
        ("pattern", size_of::<Pattern>(), 24),
        ("binding", size_of::<SessionBinding>(), 64),
        ("subscriber", size_of::<Subscriber>(), 24),
        ("interest", size_of::<Interest>(), 24),
    ] {
        assert!(bytes <= most, "{what}: {bytes}");
    }
}
