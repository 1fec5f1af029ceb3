//! The writing half, behind the outbox's lock: encodes deliveries straight into the outbox and resolves acknowledgements.

use sabir_model::chunks::Chunks;
use sabir_model::clock::Timestamp;
use sabir_model::command::{AckName, WireAck};
use sabir_model::delivery::{Admission, Delivery, EncodeCache};
use sabir_model::headers::write_json_text;
use sabir_model::ids::{DeliveryToken, SubscriptionKey};
use sabir_model::message::Tag;
use sabir_model::session::{Egress, EgressNote, Settled};
use sabir_model::settlement::SettleMode;

use crate::replies::Replies;
use crate::token::DeliveryName;
use crate::view::{RenderOptions, View};
use crate::window::{InTransactions, Window};

/// This protocol's number among the dialects of an encode cache.
const DIALECT: u32 = 0x4a53_4f4e;
/// Option of a subscription: replies to the connection's own requests arrive there.
pub(crate) const OPTION_REPLIES: u32 = 1;
/// Room for what is not the body.
const HINT: usize = 512;

#[derive(Debug)]
struct Subscription {
    key: SubscriptionKey,
    /// The client's name for it, as a JSON string.
    id: Box<[u8]>,
    settle: SettleMode,
    replies: bool,
    window: Window,
}

/// JSON's encoding half for one connection.
#[derive(Debug)]
pub struct JsonEgress {
    /// By ascending key: keys are given in that order.
    subscriptions: Vec<Subscription>,
    in_transactions: InTransactions,
    replies: Replies,
    /// Largest body of one that is not in memory.
    body_bytes_max: usize,
}

impl JsonEgress {
    pub(crate) fn new(replies: Replies, body_bytes_max: usize) -> Self {
        Self {
            subscriptions: Vec::new(),
            in_transactions: InTransactions::default(),
            replies,
            body_bytes_max,
        }
    }

    fn position(&self, key: SubscriptionKey) -> Result<usize, usize> {
        self.subscriptions.binary_search_by_key(&key, |subscription| subscription.key)
    }

    fn get_mut(&mut self, key: SubscriptionKey) -> Option<&mut Subscription> {
        let at = self.position(key).ok()?;
        self.subscriptions.get_mut(at)
    }

    fn resolve(&mut self, ack: &WireAck, mut settled: impl FnMut(DeliveryToken)) -> bool {
        let AckName::Token(token) = &ack.name else { return false };
        let Some(key) = ack.subscription else {
            settled(*token);
            return true;
        };
        let Ok(at) = self.position(key) else { return false };
        let Self { subscriptions, in_transactions, .. } = self;
        let Some(subscription) = subscriptions.get_mut(at) else { return false };
        subscription.window.take_up_to(token, |entry| {
            settled(entry.1);
            if let Some(transaction) = ack.transaction {
                in_transactions.note(transaction, key, entry);
            }
        })
    }

    /// Answers the request that a reply is for. A reply to a request that waits no more is done with: there is nobody to
    /// tell. Any other belongs to a message that asked for replies itself.
    fn deliver_reply(&mut self, delivery: &Delivery<'_>, out: &mut Chunks) {
        let fields = delivery.message.fields();
        let correlation = fields.find(Tag::CorrelationText).or_else(|| fields.find(Tag::CorrelationBytes));
        let reference = correlation.and_then(|id| self.replies.take_named(id));
        if reference.is_none() && correlation.is_some_and(Replies::is_named) {
            return;
        }
        out.write(HINT + body_bytes(delivery), |out| {
            out.extend_from_slice(b"{\"op\":\"reply\"");
            if let Some(reference) = reference {
                out.extend_from_slice(b",\"ref\":");
                out.extend_from_slice(reference.to_string().as_bytes());
            }
            put_message(delivery, out);
        });
    }
}

fn body_bytes(delivery: &Delivery<'_>) -> usize {
    delivery.message.body().octets().map_or(0, <[u8]>::len)
}

/// Appends the message and ends the line.
fn put_message(delivery: &Delivery<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"message\":");
    View::of(delivery).object(&RenderOptions::default(), out);
    out.extend_from_slice(b"}\n");
}

impl Egress for JsonEgress {
    fn deliver(
        &mut self,
        _now: Timestamp,
        delivery: &Delivery<'_>,
        cache: Option<&mut EncodeCache>,
        out: &mut Chunks,
    ) -> Admission {
        let whole;
        let loaded;
        let delivery = match delivery.message.stored_body() {
            None => delivery,
            // An object is written whole.
            Some(_) => match delivery.message.loaded(self.body_bytes_max) {
                Ok(message) => {
                    whole = message;
                    loaded = Delivery { message: &whole, ..*delivery };
                    &loaded
                }
                Err(_) => {
                    return Admission::Undeliverable(
                        "its body is too large for a JSON object, or unreadable",
                    );
                }
            },
        };
        let Some(subscription) = self.get_mut(delivery.subscription) else { return Admission::NoCredit };
        if subscription.replies {
            self.deliver_reply(delivery, out);
            return Admission::Sent;
        }
        let name = DeliveryName::of(subscription.key, subscription.settle, delivery.token);
        let opening = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"{\"op\":\"message\",\"id\":");
            out.extend_from_slice(&subscription.id);
            if let Some(name) = name {
                out.extend_from_slice(b",\"deliveryId\":\"");
                name.write(out);
                out.push(b'"');
            }
        };
        let hint = HINT + body_bytes(delivery);
        // The rest is the same for every receiver of a fan-out.
        let shareable = delivery.queue.is_none() && delivery.attempt <= 1 && !delivery.redelivered;
        match cache.filter(|_| shareable) {
            Some(cache) => {
                let shared = cache.get_or_encode(DIALECT, |shared| put_message(delivery, shared));
                out.write(subscription.id.len() + 96 + shared.len(), |out| {
                    opening(out);
                    out.extend_from_slice(shared);
                });
            }
            None => out.write(hint, |out| {
                opening(out);
                put_message(delivery, out);
            }),
        }
        if let Some(token) = delivery.token
            && subscription.settle == SettleMode::Cumulative
        {
            subscription.window.sent(token);
        }
        Admission::Sent
    }

    fn acknowledged(&mut self, acks: &[WireAck], settled: &mut Vec<Settled>, unknown: &mut Vec<usize>) {
        for (index, ack) in acks.iter().enumerate() {
            let settle = |token| settled.push(Settled { token, settlement: ack.settlement, ack: index });
            if !self.resolve(ack, settle) {
                unknown.push(index);
            }
        }
    }

    fn browsed(&mut self, key: SubscriptionKey, out: &mut Chunks) {
        let Some(subscription) = self.get_mut(key) else { return };
        out.write(subscription.id.len() + 32, |out| {
            out.extend_from_slice(b"{\"op\":\"end\",\"id\":");
            out.extend_from_slice(&subscription.id);
            out.extend_from_slice(b"}\n");
        });
    }

    fn note(&mut self, note: EgressNote<'_>) {
        match note {
            EgressNote::Attach { key, label, settle, options } => {
                let mut id = Vec::with_capacity(label.len() + 2);
                write_json_text(&String::from_utf8_lossy(label), &mut id);
                let replies = options & OPTION_REPLIES != 0;
                let subscription =
                    Subscription { key, id: id.into(), settle, replies, window: Window::default() };
                match self.position(key) {
                    Ok(at) => {
                        if let Some(old) = self.subscriptions.get_mut(at) {
                            *old = subscription;
                        }
                    }
                    Err(at) => self.subscriptions.insert(at, subscription),
                }
            }
            EgressNote::Detach(key) => {
                if let Ok(at) = self.position(key) {
                    self.subscriptions.remove(at);
                }
            }
            EgressNote::TransactionEnded { transaction, committed } => {
                for (key, entry) in self.in_transactions.ended(transaction, committed) {
                    // The subscription may have ended meanwhile; then the broker has its deliveries back.
                    if let Some(subscription) = self.get_mut(key) {
                        subscription.window.put_back(entry);
                    }
                }
            }
            // There is one dialect, no bound of the receiver's own, and temporary destinations go by the broker's names.
            EgressNote::Dialect(_) | EgressNote::Receiver { .. } | EgressNote::Temporary { .. } => {}
        }
    }
}
