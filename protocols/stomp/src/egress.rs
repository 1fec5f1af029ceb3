//! The writing half (being built).
use sabir_model::chunks::Chunks;
use sabir_model::clock::Timestamp;
use sabir_model::command::WireAck;
use sabir_model::delivery::{Admission, Delivery, EncodeCache};
use sabir_model::ids::SubscriptionKey;
use sabir_model::session::{Egress, EgressNote, Settled};

/// STOMP's encoding half for one connection.
#[derive(Debug, Default)]
pub struct StompEgress {}

impl StompEgress {
    pub(crate) fn new() -> Self {
        Self {}
    }
}

impl Egress for StompEgress {
    fn deliver(&mut self, _: Timestamp, _: &Delivery<'_>, _: Option<&mut EncodeCache>, _: &mut Chunks) -> Admission {
        Admission::Undeliverable("being built")
    }
    fn acknowledged(&mut self, _: &[WireAck], _: &mut Vec<Settled>, _: &mut Vec<usize>) {}
    fn browsed(&mut self, _: SubscriptionKey, _: &mut Chunks) {}
    fn note(&mut self, _: EgressNote<'_>) {}
}
