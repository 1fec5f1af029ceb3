//! The writing half, behind the outbox's lock: encodes deliveries straight into the outbox and resolves the names of
//! acknowledgements.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::chunks::{Chunks, REFERENCE_BYTES_MIN};
use sabir_model::clock::Timestamp;
use sabir_model::command::{AckName, WireAck};
use sabir_model::delivery::{Admission, Delivery, EncodeCache};
use sabir_model::destination::{DestinationRef, Kind};
use sabir_model::ids::SubscriptionKey;
use sabir_model::message::Tag;
use sabir_model::rare::Rare;
use sabir_model::session::{Egress, EgressNote, Settled};
use sabir_model::settlement::SettleMode;

use crate::encode::{put_hex, put_token};
use crate::frame::Version;
use crate::render::{OwnNames, Renderer, Shown, body, is_sound_id, put_destination_line, size_hint};
use crate::window::{Lookup, Name, Window, Windows};

/// Marks this protocol's numbers among the dialects of an encode cache.
const DIALECT_BASE: u32 = 0x5354_4f00;

const NOWHERE: Admission = Admission::Undeliverable("the message names no destination");

/// Option of a subscription: it is a browser, and its label holds a line end and the destination behind the id.
pub(crate) const OPTION_BROWSER: u32 = 1;

/// The number under which the other half tells us the version.
pub(crate) fn dialect(version: Version) -> u32 {
    DIALECT_BASE + version as u32
}

#[derive(Debug)]
struct Subscription {
    key: SubscriptionKey,
    /// `MESSAGE` and the subscription's line.
    opening: Box<[u8]>,
    settle: SettleMode,
    /// A browser's destination, for its last frame.
    destination: Box<[u8]>,
    window: Window,
    /// Some of its deliveries need no settling; acknowledging them is not wrong.
    unsettled_free: bool,
}

#[derive(Debug, Default)]
struct Subscriptions {
    /// By ascending key: keys are given in that order.
    list: Vec<Subscription>,
}

impl Subscriptions {
    fn position(&self, key: SubscriptionKey) -> Result<usize, usize> {
        match self.list.first() {
            Some(only) if only.key == key => Ok(0),
            _ => self.list.binary_search_by_key(&key, |subscription| subscription.key),
        }
    }

    fn get_mut(&mut self, key: SubscriptionKey) -> Option<&mut Subscription> {
        let at = self.position(key).ok()?;
        self.list.get_mut(at)
    }
}

impl Lookup for Subscriptions {
    fn window(&mut self, key: SubscriptionKey) -> Option<(&mut Window, bool)> {
        let subscription = self.get_mut(key)?;
        Some((&mut subscription.window, subscription.settle == SettleMode::Cumulative))
    }
}

/// The client's names for its temporary destinations, by the broker's.
#[derive(Debug, Default)]
struct Labels(Rare<Maps>);

#[derive(Debug, Default)]
struct Maps {
    queues: HashMap<Box<str>, Box<str>, RandomState>,
    topics: HashMap<Box<str>, Box<str>, RandomState>,
}

impl Labels {
    fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }
}

impl OwnNames for Labels {
    fn own_name(&self, destination: DestinationRef<'_>) -> Option<&str> {
        let maps = self.0.get()?;
        let labels = match destination.kind {
            Kind::Queue => &maps.queues,
            Kind::Topic => &maps.topics,
        };
        labels.get(destination.canonical).map(|label| &**label)
    }
}

/// The `destination` line last written: most connections see few destinations, and runs of one.
#[derive(Debug, Default)]
struct DestinationLine {
    /// The stored form of its destination; empty if there is none.
    of: Vec<u8>,
    line: Vec<u8>,
}

impl DestinationLine {
    /// The line of where `delivery` goes; empty if that has no name.
    fn get(&mut self, delivery: &Delivery<'_>, version: Version, own: &Labels) -> &[u8] {
        if !delivery.goes_to(&self.of) {
            self.of.clear();
            self.line.clear();
            if let Some(destination) = delivery.destination() {
                destination.encode(&mut self.of);
                put_destination_line(&mut self.line, "destination", destination, version, own);
            }
        }
        &self.line
    }

    fn forget(&mut self) {
        self.of.clear();
    }
}

/// STOMP's encoding half for one connection.
#[derive(Debug)]
pub struct StompEgress {
    version: Version,
    subscriptions: Subscriptions,
    labels: Labels,
    windows: Rare<Windows>,
    destination: DestinationLine,
}

impl StompEgress {
    pub(crate) fn new() -> Self {
        Self {
            version: Version::V10,
            subscriptions: Subscriptions::default(),
            labels: Labels::default(),
            windows: Rare::new(),
            destination: DestinationLine::default(),
        }
    }

    /// Whether the frame is the same for every receiver of this version but for its first lines.
    fn is_shareable(&self, delivery: &Delivery<'_>) -> bool {
        let temporary = |tag| {
            let field = delivery.message.fields().find(tag);
            field.and_then(DestinationRef::decode).is_some_and(|found| found.temporary)
        };
        delivery.queue.is_none()
            && delivery.attempt <= 1
            && !delivery.redelivered
            && (self.labels.is_empty() || !(temporary(Tag::Destination) || temporary(Tag::ReplyTo)))
    }

    fn attach(&mut self, key: SubscriptionKey, label: &[u8], settle: SettleMode, options: u32) {
        let mut parts = label.splitn(2, |byte| *byte == b'\n');
        let id = parts.next().unwrap_or_default();
        let destination =
            if options & OPTION_BROWSER == 0 { &[][..] } else { parts.next().unwrap_or_default() };
        let mut opening = b"MESSAGE\n".to_vec();
        // A subscription of 1.0 may have no id.
        if !id.is_empty() {
            opening.extend_from_slice(b"subscription:");
            opening.extend_from_slice(id);
            opening.push(b'\n');
        }
        let subscription = Subscription {
            key,
            opening: opening.into(),
            settle,
            destination: destination.into(),
            window: Window::default(),
            unsettled_free: false,
        };
        match self.subscriptions.position(key) {
            Ok(at) => {
                if let Some(old) = self.subscriptions.list.get_mut(at) {
                    *old = subscription;
                }
            }
            Err(at) => {
                if self.subscriptions.list.is_empty() {
                    // Most connections have one.
                    self.subscriptions.list.reserve_exact(1);
                }
                self.subscriptions.list.insert(at, subscription);
            }
        }
    }

    fn detach(&mut self, key: SubscriptionKey) {
        if let Ok(at) = self.subscriptions.position(key) {
            let subscription = self.subscriptions.list.remove(at);
            if let Some(windows) = self.windows.get_mut() {
                windows.detached(key, subscription.window);
            }
        }
    }

    fn resolve(&mut self, ack: &WireAck, settled: &mut impl FnMut(sabir_model::ids::DeliveryToken)) -> bool {
        let Self { subscriptions, windows, .. } = self;
        match (&ack.name, ack.subscription) {
            (AckName::Token(token), None) => {
                settled(*token);
                true
            }
            (AckName::Token(token), Some(key)) => {
                windows.make().take_up_to(key, token, ack.transaction, subscriptions, settled)
            }
            (AckName::Text(text), subscription) => {
                let Ok(text) = std::str::from_utf8(text) else { return false };
                let name = Name::new(text);
                windows.make().take_named(subscription, &name, ack.transaction, subscriptions, settled)
                    || self.may_be_free(subscription)
            }
            (AckName::Number(_), _) => false,
        }
    }

    /// Whether a name that nothing out goes by may be that of a delivery that needs no settling.
    fn may_be_free(&mut self, subscription: Option<SubscriptionKey>) -> bool {
        match subscription {
            Some(key) => self.subscriptions.get_mut(key).is_some_and(|found| found.unsettled_free),
            None => self.subscriptions.list.iter().any(|found| found.unsettled_free),
        }
    }
}

impl Egress for StompEgress {
    fn protocol(&self) -> &'static str {
        match self.version {
            Version::V10 => "STOMP 1.0",
            Version::V11 => "STOMP 1.1",
            Version::V12 => "STOMP 1.2",
        }
    }

    fn deliver(
        &mut self,
        _now: Timestamp,
        delivery: &Delivery<'_>,
        cache: Option<&mut EncodeCache>,
        out: &mut Chunks,
    ) -> Admission {
        let version = self.version;
        let cache = cache.filter(|_| self.is_shareable(delivery));
        let Self { subscriptions, labels, windows, destination, .. } = self;
        let Some(subscription) = subscriptions.get_mut(delivery.subscription) else {
            return Admission::NoCredit;
        };
        let message = delivery.message;
        let renderer = Renderer { version, own: labels };
        match cache {
            Some(cache) => {
                let small = message.is_small();
                let shared = cache.get_or_encode(dialect(version), |shared| {
                    // What goes nowhere leaves nothing, which is no frame.
                    let Some(to) = delivery.destination() else { return };
                    put_destination_line(shared, "destination", to, version, labels);
                    let body = body(message);
                    renderer.put_headers(shared, delivery, body.length());
                    if small && let Shown::Octets(body) = &body {
                        shared.extend_from_slice(body);
                        shared.push(0);
                    }
                });
                if shared.is_empty() {
                    return NOWHERE;
                }
                out.write(subscription.opening.len() + 64 + shared.len(), |out| {
                    put_opening(out, subscription, delivery, version);
                    out.extend_from_slice(shared);
                });
                if !small {
                    put_large_body(out, delivery);
                }
            }
            None => {
                let line = destination.get(delivery, version, labels);
                if line.is_empty() {
                    return NOWHERE;
                }
                let body = body(message);
                let inline = match &body {
                    Shown::Octets(body) if body.len() < REFERENCE_BYTES_MIN => Some(&**body),
                    Shown::Octets(_) | Shown::Stored(_) => None,
                };
                let hint = size_hint(message, subscription.opening.len() + line.len())
                    + inline.map_or(0, <[u8]>::len);
                out.write(hint, |out| {
                    put_opening(out, subscription, delivery, version);
                    out.extend_from_slice(line);
                    renderer.put_headers(out, delivery, body.length());
                    if let Some(inline) = inline {
                        out.extend_from_slice(inline);
                        out.push(0);
                    }
                });
                if inline.is_none() {
                    put_large_body(out, delivery);
                }
            }
        }
        let Some(token) = delivery.token else {
            subscription.unsettled_free = true;
            return Admission::Sent;
        };
        let cumulative = match subscription.settle {
            SettleMode::Auto => return Admission::Sent,
            SettleMode::Cumulative => true,
            SettleMode::Individual if version == Version::V12 => return Admission::Sent,
            SettleMode::Individual => false,
        };
        let name = (version != Version::V12).then(|| {
            let sender = message.fields().find_text(Tag::SenderMessageId).filter(|id| is_sound_id(id));
            sender.map_or_else(|| Name::Id(message.id()), Name::new)
        });
        windows.make().sent(delivery.subscription, &mut subscription.window, cumulative, name, token);
        Admission::Sent
    }

    fn acknowledged(&mut self, acks: &[WireAck], settled: &mut Vec<Settled>, unknown: &mut Vec<usize>) {
        for (index, ack) in acks.iter().enumerate() {
            let mut settle = |token| settled.push(Settled { token, settlement: ack.settlement, ack: index });
            if !self.resolve(ack, &mut settle) {
                unknown.push(index);
            }
        }
    }

    fn browsed(&mut self, key: SubscriptionKey, out: &mut Chunks) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        out.write(subscription.opening.len() + subscription.destination.len() + 64, |out| {
            out.extend_from_slice(&subscription.opening);
            out.extend_from_slice(b"destination:");
            out.extend_from_slice(&subscription.destination);
            out.extend_from_slice(b"\nmessage-id:0\nbrowser:end\ncontent-length:0\n\n\0");
        });
    }

    fn note(&mut self, note: EgressNote<'_>) {
        match note {
            EgressNote::Dialect(number) => {
                let version = Version::ALL.into_iter().find(|version| dialect(*version) == number);
                self.version = version.unwrap_or(self.version);
                self.destination.forget();
            }
            // STOMP knows no bound of its receiver and no short names.
            EgressNote::Receiver { .. } => {}
            EgressNote::Attach { key, label, settle, options } => self.attach(key, label, settle, options),
            EgressNote::Detach(key) => self.detach(key),
            EgressNote::Temporary { destination, label } => {
                let maps = self.labels.0.make();
                let labels = match destination.kind() {
                    Kind::Queue => &mut maps.queues,
                    Kind::Topic => &mut maps.topics,
                };
                labels.insert(destination.canonical().into(), label.into());
                self.destination.forget();
            }
            EgressNote::TransactionEnded { transaction, committed } => {
                if let Some(windows) = self.windows.get_mut() {
                    windows.transaction_ended(transaction, committed, &mut self.subscriptions);
                }
            }
        }
    }
}

/// Appends what differs between the receivers of one message.
fn put_opening(out: &mut Vec<u8>, subscription: &Subscription, delivery: &Delivery<'_>, version: Version) {
    out.extend_from_slice(&subscription.opening);
    if version != Version::V12 || subscription.settle == SettleMode::Auto {
        return;
    }
    out.extend_from_slice(b"ack:");
    match &delivery.token {
        Some(token) => {
            put_token(out, token);
            if subscription.settle == SettleMode::Cumulative {
                out.push(b'-');
                put_hex(out, u64::from(subscription.key.0));
            }
        }
        // Nobody waits for this one, but 1.2 promises the header. The name says so when it comes back.
        None => {
            out.push(b'u');
            put_hex(out, u64::from(subscription.key.0));
            let id = delivery.message.id();
            for part in [id.origin, id.number] {
                out.push(b'-');
                put_hex(out, part);
            }
        }
    }
    out.push(b'\n');
}

fn put_large_body(out: &mut Chunks, delivery: &Delivery<'_>) {
    match (body(delivery.message), delivery.message.shared_body()) {
        (Shown::Stored(stored), _) => out.put_stored(stored),
        (Shown::Octets(std::borrow::Cow::Borrowed(_)), Some(shared)) => out.put_shared(shared),
        (Shown::Octets(body), _) => out.put(&body),
    }
    out.put(b"\0");
}
