//! Messages as the broker makes them of drafts, and their deliveries.

use sabir_json::Draft;
use sabir_model::clock::Timestamp;
use sabir_model::command::TargetKey;
use sabir_model::delivery::Delivery;
use sabir_model::destination::{Destination, Targets};
use sabir_model::ids::SubscriptionKey;
use sabir_model::message::{Body, FieldsWriter, Message, Tag};

/// The message that a draft becomes.
pub(crate) fn message(draft: &Draft<'_>, destination: &Destination) -> Message {
    let targets = Targets::from_iter([destination.clone()]);
    let mut fields = FieldsWriter::new();
    let key = TargetKey { slot: 0, generation: 0 };
    let now = Timestamp(1_700_000_000_000);
    let publish = draft.publish(&targets, key, now, &mut fields).expect("the draft can be sent");
    let mut first = FieldsWriter::new();
    first.destination(Tag::Destination, destination);
    let mut facts = publish.facts;
    facts.timestamp = if facts.timestamp == Timestamp(0) { now } else { facts.timestamp };
    Message::new(
        facts,
        &[first.as_slice(), publish.fields],
        Body::Borrowed(publish.body.octets().unwrap_or_default()),
    )
}

/// Its first delivery.
pub(crate) fn delivery(message: &Message) -> Delivery<'_> {
    Delivery {
        message,
        subscription: SubscriptionKey(1),
        queue: None,
        token: None,
        attempt: 1,
        redelivered: false,
        browsed: false,
        grant: None,
        sequence: None,
        progress: 0,
    }
}
