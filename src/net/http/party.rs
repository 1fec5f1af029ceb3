//! The broker's side of HTTP requests: a connection of the broker without a socket, and an inbox that its deliveries land
//! in. Whoever publishes puts a message there and wakes the request that waits; nothing is encoded before somebody takes it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
pub(super) use sabir_admin::kept;
use sabir_broker::{Connection, ConnectionInfo, Writer};
use sabir_model::access::Principal;
use sabir_model::addresses::AddressBook;
use sabir_model::chunks::Chunks;
use sabir_model::clock::Timestamp;
use sabir_model::command::{AckName, Command, Outcome, Promise, Subscribe, WireAck};
use sabir_model::delivery::{Admission, Delivery, EncodeCache};
use sabir_model::destination::Destination;
use sabir_model::error::Refusal;
use sabir_model::event::Event;
use sabir_model::ids::{DeliveryToken, SubscriptionKey};
use sabir_model::message::Message;
use sabir_model::session::{Egress, EgressNote, Host, Settled};
use sabir_model::settlement::{SettleMode, Settlement};

use crate::net::Shared;
use crate::net::socket::Peer;

/// The one subscription a party has.
const SUBSCRIPTION: SubscriptionKey = SubscriptionKey(1);

/// A delivery that waits to be taken.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) message: Message,
    /// The queue's own name, where the consumer reads a queue by it.
    pub(super) queue: Option<Destination>,
    /// Names the attempt; `None` for a live message, which nobody settles.
    pub(super) token: Option<DeliveryToken>,
    pub(super) attempt: u32,
    pub(super) redelivered: bool,
}

impl Received {
    /// What it was as the broker delivered it.
    pub(super) fn delivery(&self) -> Delivery<'_> {
        Delivery {
            message: &self.message,
            subscription: SUBSCRIPTION,
            queue: self.queue.as_ref(),
            token: self.token,
            attempt: self.attempt,
            redelivered: self.redelivered,
            browsed: false,
            grant: None,
            sequence: None,
            progress: 0,
        }
    }
}

#[derive(Debug, Default)]
struct Slot {
    items: VecDeque<Received>,
    /// Deliveries of queues that are still wanted.
    wanted: usize,
    /// Live messages that may wait; beyond, the oldest is dropped.
    live_max: usize,
    /// Live messages dropped since somebody looked.
    dropped: u64,
    /// A look at a queue has seen everything.
    browsed: bool,
    waker: Option<Waker>,
}

/// Where deliveries land.
#[derive(Debug, Default)]
pub(super) struct Inbox(Mutex<Slot>);

impl Inbox {
    /// An inbox in which so many live messages may wait.
    pub(super) fn for_live(live_max: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Slot { live_max, ..Slot::default() })))
    }

    /// From now on deliveries of queues are taken in until there are so many, those that are here already included.
    pub(super) fn want(&self, count: usize) {
        let mut slot = self.0.lock();
        slot.wanted = count.saturating_sub(slot.items.len());
    }

    /// What is there, at most so many.
    pub(super) fn take(&self, most: usize) -> Vec<Received> {
        let mut slot = self.0.lock();
        let count = most.min(slot.items.len());
        slot.items.drain(..count).collect()
    }

    /// Live messages dropped since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.0.lock().dropped)
    }

    /// Whether a look at a queue has seen everything.
    pub(super) fn is_browsed(&self) -> bool {
        self.0.lock().browsed
    }

    fn register(&self, waker: &Waker) -> bool {
        let mut slot = self.0.lock();
        if !slot.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            slot.waker = Some(waker.clone());
        }
        !slot.items.is_empty() || slot.browsed
    }
}

/// Puts deliveries into an inbox.
struct InboxEgress(Arc<Inbox>);

impl Egress for InboxEgress {
    fn deliver(
        &mut self,
        _now: Timestamp,
        delivery: &Delivery<'_>,
        _cache: Option<&mut EncodeCache>,
        _out: &mut Chunks,
    ) -> Admission {
        let mut slot = self.0.0.lock();
        if delivery.browsed {
            // A look takes nothing away, so what is beyond its bounds needs no place.
            if slot.items.len() >= slot.live_max {
                return Admission::Sent;
            }
        } else if delivery.token.is_some() {
            if slot.wanted == 0 {
                return Admission::NoCredit;
            }
            slot.wanted -= 1;
        } else if slot.items.len() >= slot.live_max {
            slot.items.pop_front();
            slot.dropped += 1;
        }
        slot.items.push_back(Received {
            message: delivery.message.clone(),
            queue: delivery.queue.cloned(),
            token: delivery.token.filter(|_| !delivery.browsed),
            attempt: delivery.attempt,
            redelivered: delivery.redelivered,
        });
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
        Admission::Sent
    }

    fn acknowledged(&mut self, acks: &[WireAck], settled: &mut Vec<Settled>, unknown: &mut Vec<usize>) {
        for (ack, wire) in acks.iter().enumerate() {
            match wire.name {
                AckName::Token(token) => settled.push(Settled { token, settlement: wire.settlement, ack }),
                AckName::Number(_) | AckName::Text(_) => unknown.push(ack),
            }
        }
    }

    fn browsed(&mut self, _key: SubscriptionKey, _out: &mut Chunks) {
        let mut slot = self.0.0.lock();
        slot.browsed = true;
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn note(&mut self, _note: EgressNote<'_>) {}
}

/// The way of no bytes.
struct NoWriter;

impl Writer for NoWriter {
    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn poll_write(&mut self, _cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.try_write(slices))
    }
}

/// Who a party acts for, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Role {
    pub(super) principal: Principal,
    pub(super) virtual_host: Box<str>,
    pub(super) client_id: Option<Box<str>>,
}

/// A connection of the broker that acts for HTTP requests. Dropping it gives back what it holds.
pub(super) struct Party {
    pub(super) connection: Connection,
    pub(super) addresses: AddressBook,
    shared: Arc<Shared>,
}

impl Party {
    /// Connects to the broker; deliveries land in `inbox`.
    ///
    /// # Errors
    /// The broker takes in nobody, or not this principal.
    pub(super) fn open(
        shared: &Arc<Shared>,
        peer: &Peer,
        role: &Role,
        inbox: Arc<Inbox>,
    ) -> Result<Self, Refusal> {
        let info = ConnectionInfo {
            remote: peer.remote,
            local: peer.remote.is_none_or(|address| address.is_loopback()),
            peer: peer.name.as_str().into(),
            listener: peer.listener,
        };
        let mut connection = shared.broker.connect(info, Box::new(InboxEgress(inbox)), Box::new(NoWriter))?;
        connection.introduce(role.principal.clone(), &role.virtual_host, role.client_id.as_deref())?;
        Ok(Self { connection, addresses: AddressBook::default(), shared: Arc::clone(shared) })
    }

    /// Starts the party's subscription. It takes nothing before the inbox wants something.
    ///
    /// # Errors
    /// Those of the broker.
    pub(super) fn subscribe(&mut self, request: Subscribe<'_>) -> Result<Option<Promise>, Refusal> {
        match self.connection.ask(Command::Subscribe(request)) {
            Outcome::Accepted(promise) => {
                self.end_batch();
                Ok(promise)
            }
            Outcome::Refused(refusal) => Err(refusal),
            Outcome::Later => unreachable!("subscribing is answered at once"),
        }
    }

    /// Has the broker hand over again what the inbox wants.
    pub(super) fn resume(&mut self) {
        self.connection.resume(SUBSCRIPTION);
        self.end_batch();
    }

    /// Whether messages for it are being read from the log.
    pub(super) fn is_being_read_for(&self) -> bool {
        self.connection.is_being_read_for(SUBSCRIPTION)
    }

    /// Settles deliveries; tells which of them could not be, by their place in the list. `receipted` says whether somebody
    /// waits for the promise.
    pub(super) fn settle(
        &mut self,
        items: &[(DeliveryToken, Settlement)],
        receipted: bool,
    ) -> (Option<Promise>, Vec<usize>) {
        let settled = self.connection.settle_tokens(items, receipted);
        self.end_batch();
        settled
    }

    /// Carries out what was asked so far.
    pub(super) fn end_batch(&mut self) {
        self.connection.end_batch(self.shared.clock.refresh(), &mut Chunks::new());
        self.connection.finish();
    }

    /// Whether an operator has closed it since somebody looked.
    pub(super) fn has_ended(&mut self) -> bool {
        self.poll_end(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// The broker's next news for this party, of those that end its business.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        let now = self.shared.clock.refresh();
        loop {
            match self.connection.poll_event(cx, now) {
                Poll::Ready(Event::SubscriptionEnded { refusal, .. } | Event::Closing(refusal)) => {
                    return Poll::Ready(refusal);
                }
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The runtime's time so much later, for waiting until then: nothing is decided by it that the broker's clock decides.
pub(super) fn deadline_after(span: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + span
}

/// Waits until there is something in the inbox.
pub(super) async fn arrival(inbox: &Inbox) {
    poll_fn(|cx| if inbox.register(cx.waker()) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// What holds once all of these do.
pub(super) fn all_of(promises: impl IntoIterator<Item = Promise>) -> Option<Promise> {
    let newest = |a: Promise, b: Promise| Promise {
        position: a.position.max(b.position),
        synced: a.synced || b.synced,
    };
    promises.into_iter().reduce(newest)
}

/// A subscription to one pattern in which each delivery is settled by itself.
pub(super) fn leased<'a>(
    patterns: &'a [sabir_model::pattern::Pattern],
    selector: Option<&'a str>,
) -> Subscribe<'a> {
    Subscribe {
        key: SUBSCRIPTION,
        patterns,
        settle: SettleMode::Individual,
        credit: Some(u32::MAX),
        selector,
        selector_converts_text: true,
        durable: None,
        browse: false,
        no_local: false,
        priority: 0,
        must_exist: false,
    }
}
