//! The smallest protocol there is: an egress that writes one line per delivery, and a wire that can be blocked.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use sabir_model::chunks::Chunks;
use sabir_model::clock::Timestamp;
use sabir_model::command::{AckName, WireAck};
use sabir_model::delivery::{Admission, Delivery, EncodeCache};
use sabir_model::headers::ValueRef;
use sabir_model::ids::{DeliveryToken, QueueId, SubscriptionKey};
use sabir_model::message::{Field, Message};
use sabir_model::session::{Egress, EgressNote, Settled};
use sabir_model::settlement::SettleMode;

use crate::Writer;

pub(super) const FIELD: char = '\u{1f}';

/// The other end of a connection.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) bytes: Vec<u8>,
    /// Bytes the socket takes before it is full; no limit if absent.
    pub(super) room: Option<usize>,
    pub(super) waker: Option<Waker>,
    /// The protocol's own window, if it has one.
    pub(super) window: Option<usize>,
    pub(super) unsettled: usize,
    /// Called when the stream towards the peer ends.
    pub(super) ended: Option<Box<dyn FnOnce() + Send>>,
}

pub(super) struct FakeWriter(pub(super) Arc<Mutex<Wire>>);

impl Writer for FakeWriter {
    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut wire = self.0.lock();
        let mut left = wire.room.unwrap_or(usize::MAX);
        let mut taken = 0;
        for slice in slices {
            let now = slice.len().min(left);
            wire.bytes.extend_from_slice(&slice[..now]);
            taken += now;
            left -= now;
        }
        wire.room = wire.room.map(|_| left);
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.try_write(slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.0.lock().waker = Some(cx.waker().clone());
                Poll::Pending
            }
            other => Poll::Ready(other),
        }
    }
}

impl Drop for FakeWriter {
    fn drop(&mut self) {
        let ended = self.0.lock().ended.take();
        if let Some(ended) = ended {
            ended();
        }
    }
}

/// Encodes each delivery as one line.
pub(super) struct Lines {
    pub(super) wire: Arc<Mutex<Wire>>,
    pub(super) subscriptions: BTreeMap<SubscriptionKey, (SettleMode, VecDeque<DeliveryToken>)>,
}

impl Egress for Lines {
    fn deliver(
        &mut self,
        now: Timestamp,
        delivery: &Delivery<'_>,
        cache: Option<&mut EncodeCache>,
        out: &mut Chunks,
    ) -> Admission {
        let Some((settle, window)) = self.subscriptions.get_mut(&delivery.subscription) else {
            return Admission::NoCredit;
        };
        if text_of(delivery.message).starts_with("undeliverable") {
            return Admission::Undeliverable("too large for the receiver");
        }
        assert!(
            !delivery.message.facts().expires.has_passed(now) || delivery.browsed,
            "expired, yet delivered"
        );
        let mut wire = self.wire.lock();
        if wire.window.is_some_and(|most| wire.unsettled >= most) {
            return Admission::NoCredit;
        }
        wire.unsettled += 1;
        if let (SettleMode::Cumulative, Some(token)) = (&*settle, delivery.token) {
            window.push_back(token);
        }
        out.put(format!("MSG{FIELD}{}{FIELD}", delivery.subscription.0).as_bytes());
        let encode = |out: &mut Vec<u8>| {
            let token = delivery.token.map_or_else(String::new, |token| {
                format!("{}.{}.{}.{}", token.boot, token.queue.0, token.slot, token.generation)
            });
            let message = delivery.message;
            let mut properties = String::new();
            for field in message.fields() {
                if let Field::Property(name, value) = field {
                    let value = match value {
                        ValueRef::Str(text) => text.to_owned(),
                        ValueRef::I32(number) => number.to_string(),
                        ValueRef::I64(number) => number.to_string(),
                        other => format!("{other:?}"),
                    };
                    properties.push_str(&format!("{name}={value};"));
                }
            }
            let fields = [
                delivery.destination().map_or_else(String::new, |to| to.to_string()),
                text_of(message),
                token,
                delivery.attempt.to_string(),
                delivery.redelivered.to_string(),
                delivery.original_destination().unwrap_or_default(),
                message.facts().persistent.to_string(),
                message.facts().expires.0.to_string(),
                properties,
                message.fields().find_text(sabir_model::message::Tag::UserId).unwrap_or_default().to_owned(),
            ];
            out.extend_from_slice(fields.join(&FIELD.to_string()).as_bytes());
            out.push(b'\n');
        };
        match cache {
            Some(cache) => out.put(cache.get_or_encode(1, encode)),
            None => {
                let mut line = Vec::new();
                encode(&mut line);
                out.put(&line);
            }
        }
        Admission::Sent
    }

    fn acknowledged(&mut self, acks: &[WireAck], settled: &mut Vec<Settled>, unknown: &mut Vec<usize>) {
        for (index, ack) in acks.iter().enumerate() {
            let AckName::Token(token) = ack.name else {
                unknown.push(index);
                continue;
            };
            let settlement = ack.settlement;
            let before = settled.len();
            let window = ack.subscription.and_then(|key| self.subscriptions.get_mut(&key));
            match window {
                Some((SettleMode::Cumulative, window)) if window.contains(&token) => {
                    while let Some(earlier) = window.pop_front() {
                        settled.push(Settled { token: earlier, settlement, ack: index });
                        if earlier == token {
                            break;
                        }
                    }
                }
                _ => settled.push(Settled { token, settlement, ack: index }),
            }
            let mut wire = self.wire.lock();
            wire.unsettled = wire.unsettled.saturating_sub(settled.len() - before);
        }
    }

    fn browsed(&mut self, key: SubscriptionKey, out: &mut Chunks) {
        out.put(format!("END{FIELD}{}\n", key.0).as_bytes());
    }

    fn note(&mut self, note: EgressNote<'_>) {
        match note {
            EgressNote::Attach { key, settle, .. } => {
                self.subscriptions.insert(key, (settle, VecDeque::new()));
            }
            EgressNote::Detach(key) => {
                self.subscriptions.remove(&key);
            }
            EgressNote::Dialect(_)
            | EgressNote::Receiver { .. }
            | EgressNote::TransactionEnded { .. }
            | EgressNote::Temporary { .. } => {}
        }
    }
}

/// A delivery as the client got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) subscription: u32,
    pub(super) destination: String,
    pub(super) body: String,
    pub(super) token: Option<DeliveryToken>,
    pub(super) attempt: u32,
    pub(super) redelivered: bool,
    pub(super) original: String,
    pub(super) persistent: bool,
    pub(super) expires: u64,
    pub(super) properties: BTreeMap<String, String>,
    pub(super) user: String,
}

/// One line of what a client has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The answer to a subscription.
    Reply(u32),
    Message(Box<Got>),
    /// A browser has seen everything.
    End(u32),
}

impl Line {
    pub(super) fn parse(line: &str) -> Self {
        let fields: Vec<&str> = line.split(FIELD).collect();
        match fields.as_slice() {
            ["SUB", key] => Self::Reply(key.parse().unwrap()),
            ["END", key] => Self::End(key.parse().unwrap()),
            [
                "MSG",
                key,
                destination,
                body,
                token,
                attempt,
                redelivered,
                original,
                persistent,
                expires,
                properties,
                user,
            ] => {
                let numbers: Vec<u64> = token.split('.').filter_map(|part| part.parse().ok()).collect();
                let token = match numbers.as_slice() {
                    &[boot, queue, slot, generation] => Some(DeliveryToken {
                        boot: u32::try_from(boot).unwrap(),
                        queue: QueueId(queue),
                        slot: u32::try_from(slot).unwrap(),
                        generation: u32::try_from(generation).unwrap(),
                    }),
                    _ => None,
                };
                Self::Message(Box::new(Got {
                    subscription: key.parse().unwrap(),
                    destination: (*destination).to_owned(),
                    body: (*body).to_owned(),
                    token,
                    attempt: attempt.parse().unwrap(),
                    redelivered: redelivered.parse().unwrap(),
                    original: (*original).to_owned(),
                    persistent: persistent.parse().unwrap(),
                    expires: expires.parse().unwrap(),
                    properties: properties
                        .split(';')
                        .filter_map(|pair| pair.split_once('='))
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                        .collect(),
                    user: (*user).to_owned(),
                }))
            }
            other => panic!("not a line: {other:?}"),
        }
    }
}

/// Whether a driver would be called.
#[derive(Default)]
pub(super) struct Woken(pub(super) AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// The body, wherever it lies.
pub(super) fn text_of(message: &Message) -> String {
    let message = message.loaded(usize::MAX).expect("it is readable");
    String::from_utf8_lossy(message.body().octets().unwrap_or_default()).into_owned()
}
