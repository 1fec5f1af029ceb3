//! Pulled messages and who holds them: a lease is a delivery that its consumer settles by a token, from any connection,
//! before its time is over. What is not settled in time goes back to its queue, the attempt counted.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use sabir_model::access::Principal;
use sabir_model::clock::Instant;
use sabir_model::command::Promise;
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::DeliveryToken;
use sabir_model::message::Message;
use sabir_model::pattern::Pattern;
use sabir_model::settlement::Settlement;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::party::{Inbox, Party, Received, Role, all_of, arrival, leased};
use super::random;
use crate::net::Shared;
use crate::net::socket::Peer;

/// Milliseconds for which a pull waits for what is being read from the log, whatever its own patience.
const READING_MS_MAX: u32 = 5000;
/// Most consumers of the broker that hold leases or wait for messages: each is a connection of the broker.
const PULLERS_MAX: usize = 10_000;

/// What pullers share: requests for the same messages in the same name take them by one consumer of the broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source {
    pub(super) role: Role,
    /// The queue, or the topic of a durable subscription.
    pub(super) pattern: Pattern,
    pub(super) durable: Option<Box<str>>,
    pub(super) selector: Option<Box<str>>,
}

/// A consumer of the broker on behalf of requests. It takes a message only while a request waits for one.
pub(super) struct Puller {
    party: Mutex<Party>,
    inbox: Arc<Inbox>,
    /// Requests wait in line, so that messages go to whoever came first.
    turn: tokio::sync::Mutex<()>,
    ended: watch::Receiver<Option<Refusal>>,
    watcher: AbortHandle,
}

impl Puller {
    /// A new consumer.
    ///
    /// # Errors
    /// Those of connecting and subscribing.
    pub(super) fn open(shared: &Arc<Shared>, peer: &Peer, source: &Source) -> Result<Arc<Self>, Refusal> {
        let inbox = Arc::new(Inbox::default());
        let mut party = Party::open(shared, peer, &source.role, Arc::clone(&inbox))?;
        let patterns = std::slice::from_ref(&source.pattern);
        let mut request = leased(patterns, source.selector.as_deref());
        request.durable = source.durable.as_deref();
        party.subscribe(request)?;
        let (ending, ended) = watch::channel(None);
        Ok(Arc::new_cyclic(|weak: &Weak<Self>| {
            let watcher = tokio::spawn(watch_end(Weak::clone(weak), ending)).abort_handle();
            Self { party: Mutex::new(party), inbox, turn: tokio::sync::Mutex::new(()), ended, watcher }
        }))
    }

    /// Takes up to `most` messages, waiting for the first until `deadline`.
    ///
    /// # Errors
    /// The queue was deleted, or the broker shuts down.
    pub(super) async fn pull(
        &self,
        most: usize,
        deadline: tokio::time::Instant,
    ) -> Result<Pulled<'_>, Refusal> {
        let mut pulled = Pulled { puller: self, items: Vec::new() };
        let Ok(_turn) = tokio::time::timeout_at(deadline, self.turn.lock()).await else {
            return Ok(pulled);
        };
        let got = &mut pulled.items;
        let mut ended = self.ended.clone();
        let _wish = Wish { puller: self };
        self.inbox.want(most);
        self.party.lock().resume();
        got.append(&mut self.inbox.take(most));
        // What has to be read from the log is there, too, for somebody who will not wait for what is not.
        for _ in 0..READING_MS_MAX {
            if got.len() >= most || !self.party.lock().is_being_read_for() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            got.append(&mut self.inbox.take(most - got.len()));
        }
        if got.is_empty() {
            tokio::select! {
                () = arrival(&self.inbox) => {}
                () = tokio::time::sleep_until(deadline) => {}
                refusal = ended.wait_for(Option::is_some) => {
                    if let Ok(Some(refusal)) = refusal.as_deref() {
                        return Err(refusal.clone());
                    }
                }
            }
            got.append(&mut self.inbox.take(most));
        }
        // What arrived between the two looks is taken along.
        self.inbox.want(0);
        got.append(&mut self.inbox.take(most - got.len()));
        Ok(pulled)
    }

    /// Has deliveries come until `count` are here, those that have come included.
    pub(super) fn want(&self, count: usize) {
        self.inbox.want(count);
        if count > 0 {
            self.party.lock().resume();
        }
    }

    /// What has come.
    pub(super) fn take(&self, most: usize) -> Vec<Received> {
        self.inbox.take(most)
    }

    /// Waits until something has come, or tells why nothing will.
    pub(super) async fn arrival(&self) -> Result<(), Refusal> {
        let mut ended = self.ended.clone();
        tokio::select! {
            () = arrival(&self.inbox) => Ok(()),
            refusal = ended.wait_for(Option::is_some) => match refusal.as_deref() {
                Ok(Some(refusal)) => Err(refusal.clone()),
                _ => Err(Refusal::new(Code::Internal, "the subscription has ended")),
            },
        }
    }

    /// Settles deliveries; `receipted` says whether somebody waits for the promise. What could not be settled is told by its
    /// place.
    pub(super) fn settle(
        &self,
        items: &[(DeliveryToken, Settlement)],
        receipted: bool,
    ) -> (Option<Promise>, Vec<usize>) {
        self.party.lock().settle(items, receipted)
    }

    /// Gives deliveries back as if they had never left.
    pub(super) fn release(&self, tokens: impl IntoIterator<Item = DeliveryToken>) {
        let items: Settlements = tokens.into_iter().map(|token| (token, Settlement::Released)).collect();
        if !items.is_empty() {
            self.settle(&items, false);
        }
    }

    /// Gives back what came and was not taken.
    pub(super) fn give_back(&self) {
        self.inbox.want(0);
        self.release(self.inbox.take(usize::MAX).iter().filter_map(|one| one.token));
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

async fn watch_end(puller: Weak<Puller>, ending: watch::Sender<Option<Refusal>>) {
    let refusal = std::future::poll_fn(|cx| match puller.upgrade() {
        Some(puller) => puller.party.lock().poll_end(cx).map(Some),
        None => std::task::Poll::Ready(None),
    })
    .await;
    ending.send_replace(refusal);
}

/// A request that waits. If it goes away nothing that came for it stays behind.
struct Wish<'a> {
    puller: &'a Puller,
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.puller.give_back();
    }
}

/// What a request has pulled. Unless it keeps them, to lease them at once, the messages go back: it may be gone while it
/// waits for something.
pub(super) struct Pulled<'a> {
    puller: &'a Puller,
    items: Vec<Received>,
}

impl Pulled<'_> {
    pub(super) fn items(&self) -> &[Received] {
        &self.items
    }

    /// They are the caller's, who must not wait for anything before they are leased.
    pub(super) fn keep(mut self) -> Vec<Received> {
        std::mem::take(&mut self.items)
    }
}

impl Drop for Pulled<'_> {
    fn drop(&mut self) {
        self.puller.release(self.items.iter().filter_map(|one| one.token));
    }
}

/// What names a lease: 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LeaseId(pub(super) u128);

/// What is to be settled.
type Settlements = Vec<(DeliveryToken, Settlement)>;

struct Lease {
    puller: Arc<Puller>,
    token: DeliveryToken,
    message: Message,
    owner: Principal,
    until: Instant,
    /// What becomes of it then.
    then: Settlement,
    /// Released by its consumer and waiting for its time: cannot be settled any more.
    given_up: bool,
}

#[derive(Default)]
struct Book {
    leases: HashMap<LeaseId, Lease>,
    due: BTreeSet<(Instant, LeaseId)>,
    pullers: HashMap<Source, Weak<Puller>>,
    closed: bool,
}

impl Book {
    /// A lease that this owner may decide on.
    fn held_by(&self, id: LeaseId, owner: &Principal) -> Option<&Lease> {
        self.leases.get(&id).filter(|lease| lease.owner == *owner && !lease.given_up)
    }

    fn reschedule(&mut self, id: LeaseId, until: Instant, then: Settlement) {
        if let Some(lease) = self.leases.get_mut(&id) {
            self.due.remove(&(lease.until, id));
            (lease.until, lease.then) = (until, then);
            self.due.insert((until, id));
        }
    }

    /// Takes a lease out, with what is to become of it; one that is released with a delay stays until then.
    fn take(&mut self, id: LeaseId, verdict: Verdict, now: Instant) -> Option<(Lease, Settlement)> {
        let settlement = match verdict {
            Verdict::Ack => Settlement::Accepted,
            Verdict::Reject => Settlement::Rejected,
            Verdict::Return => Settlement::Released,
            Verdict::Release(Duration::ZERO) => Settlement::Failed,
            Verdict::Release(delay) => {
                self.reschedule(id, now.after(delay), Settlement::Failed);
                self.leases.get_mut(&id)?.given_up = true;
                return None;
            }
        };
        let lease = self.leases.remove(&id)?;
        self.due.remove(&(lease.until, id));
        Some((lease, settlement))
    }
}

/// What is to be settled by one consumer of the broker.
struct Part {
    puller: Arc<Puller>,
    items: Settlements,
    /// Where each stood in the list it came from.
    places: Vec<usize>,
}

/// Parts by their consumers.
type Parts = HashMap<*const Puller, Part>;

fn add(parts: &mut Parts, lease: Lease, settlement: Settlement, place: usize) {
    let Lease { puller, token, .. } = lease;
    let key = Arc::as_ptr(&puller);
    let part = parts.entry(key).or_insert_with(|| Part { puller, items: Vec::new(), places: Vec::new() });
    part.items.push((token, settlement));
    part.places.push(place);
}

/// All leases of the server.
pub(super) struct Leases {
    book: Mutex<Book>,
    max: usize,
}

/// What a consumer does with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done.
    Ack,
    /// Back to the queue after this time, the attempt counted.
    Release(Duration),
    /// A dead letter.
    Reject,
    /// Back to the queue as if it had never left: its consumer has not had it.
    Return,
}

fn unknown() -> Refusal {
    Refusal::new(
        Code::UnknownDelivery,
        "no lease goes by that token: it was settled, its time was over, or it is somebody else's",
    )
}

impl Leases {
    /// With at most `max` leases at a time.
    pub(super) fn new(max: usize) -> Self {
        Self { book: Mutex::default(), max }
    }

    /// The consumer for a source, shared with others that want the same.
    ///
    /// # Errors
    /// Those of connecting and subscribing.
    pub(super) fn puller(
        &self,
        shared: &Arc<Shared>,
        peer: &Peer,
        source: Source,
    ) -> Result<Arc<Puller>, Refusal> {
        let known = self.book.lock().pullers.get(&source).and_then(Weak::upgrade);
        if let Some(puller) = known.filter(|puller| puller.ended.borrow().is_none()) {
            return Ok(puller);
        }
        {
            let mut book = self.book.lock();
            if book.closed {
                return Err(Refusal::new(Code::ShuttingDown, "the broker is shutting down"));
            }
            if book.pullers.len() >= PULLERS_MAX {
                book.pullers.retain(|_, puller| puller.strong_count() > 0);
            }
            if book.pullers.len() >= PULLERS_MAX {
                let sentence = format!(
                    "messages of {PULLERS_MAX} different queues and selectors are on lease, the most there may be"
                );
                return Err(Refusal::new(Code::LimitReached, sentence));
            }
        }
        let puller = Puller::open(shared, peer, &source)?;
        let mut book = self.book.lock();
        if book.closed {
            return Err(Refusal::new(Code::ShuttingDown, "the broker is shutting down"));
        }
        book.pullers.insert(source, Arc::downgrade(&puller));
        Ok(puller)
    }

    /// How many more leases there may be.
    pub(super) fn room(&self) -> usize {
        self.max.saturating_sub(self.book.lock().leases.len())
    }

    /// The refusal for want of room.
    pub(super) fn full(&self) -> Refusal {
        let sentence = format!("{} messages are on lease, the most there may be (http.leases_max)", self.max);
        Refusal::new(Code::LimitReached, sentence)
    }

    /// Leases a delivery until `until`; `then` happens to it if it is not settled by then. `None` if there is no room.
    pub(super) fn lease(
        &self,
        puller: &Arc<Puller>,
        owner: &Principal,
        (message, token): (&Message, DeliveryToken),
        until: Instant,
        then: Settlement,
    ) -> Option<LeaseId> {
        let id = LeaseId(random());
        let mut book = self.book.lock();
        if book.leases.len() >= self.max {
            return None;
        }
        book.due.insert((until, id));
        let (puller, owner, message) = (Arc::clone(puller), owner.clone(), message.clone());
        book.leases.insert(id, Lease { puller, token, message, owner, until, then, given_up: false });
        Some(id)
    }

    /// Takes verdicts on leases, in one step for each consumer of the broker; whether each was taken stands at its place.
    /// What they promise holds once the promise is kept.
    pub(super) fn settle(
        &self,
        verdicts: &[(LeaseId, Verdict)],
        owner: &Principal,
        now: Instant,
    ) -> (Option<Promise>, Vec<Result<(), Refusal>>) {
        let mut results = Vec::with_capacity(verdicts.len());
        let mut parts = Parts::new();
        {
            let mut book = self.book.lock();
            for (at, (id, verdict)) in verdicts.iter().enumerate() {
                results.push(match book.held_by(*id, owner) {
                    None => Err(unknown()),
                    Some(_) => {
                        if let Some((lease, settlement)) = book.take(*id, *verdict, now) {
                            add(&mut parts, lease, settlement, at);
                        }
                        Ok(())
                    }
                });
            }
        }
        let mut promises = Vec::new();
        for Part { puller, items, places } in parts.into_values() {
            let (promise, refused) = puller.settle(&items, true);
            promises.extend(promise);
            for place in refused.iter().filter_map(|at| places.get(*at)) {
                if let Some(result) = results.get_mut(*place) {
                    *result = Err(unknown());
                }
            }
        }
        (all_of(promises), results)
    }

    /// Takes the verdict on one lease.
    ///
    /// # Errors
    /// [`Code::UnknownDelivery`].
    pub(super) fn settle_one(
        &self,
        id: LeaseId,
        verdict: Verdict,
        owner: &Principal,
        now: Instant,
    ) -> Result<Option<Promise>, Refusal> {
        let (promise, mut results) = self.settle(&[(id, verdict)], owner, now);
        results.pop().unwrap_or_else(|| Err(unknown())).map(|()| promise)
    }

    /// The message that is on lease.
    ///
    /// # Errors
    /// [`Code::UnknownDelivery`].
    pub(super) fn message(&self, id: LeaseId, owner: &Principal) -> Result<Message, Refusal> {
        let book = self.book.lock();
        book.held_by(id, owner).map(|lease| lease.message.clone()).ok_or_else(unknown)
    }

    /// Gives a lease more time, from now on.
    ///
    /// # Errors
    /// [`Code::UnknownDelivery`].
    pub(super) fn extend(&self, id: LeaseId, owner: &Principal, until: Instant) -> Result<(), Refusal> {
        let mut book = self.book.lock();
        let then = book.held_by(id, owner).ok_or_else(unknown)?.then;
        book.reschedule(id, until, then);
        Ok(())
    }

    /// Changes what happens to leases at the end of their time, and when that is; unknown ones are left out. Where the end
    /// stays the same, time that somebody was given is not taken away.
    pub(super) fn rewrite(&self, ids: &[LeaseId], until: Instant, then: Settlement) {
        let mut book = self.book.lock();
        for id in ids {
            match book.leases.get(id).filter(|lease| !lease.given_up).map(|lease| (lease.until, lease.then)) {
                Some((before, same)) if same == then => book.reschedule(*id, before.max(until), then),
                Some(_) => book.reschedule(*id, until, then),
                None => {}
            }
        }
    }

    /// Whether a lease is still held.
    pub(super) fn holds(&self, id: LeaseId) -> bool {
        self.book.lock().leases.get(&id).is_some_and(|lease| !lease.given_up)
    }

    /// Ends what is due.
    pub(super) fn tick(&self, now: Instant) {
        let mut ended = Parts::new();
        {
            let mut book = self.book.lock();
            while let Some((until, id)) = book.due.first().copied() {
                if until > now {
                    break;
                }
                book.due.pop_first();
                if let Some(lease) = book.leases.remove(&id) {
                    let then = lease.then;
                    add(&mut ended, lease, then, 0);
                }
            }
            book.pullers.retain(|_, puller| puller.strong_count() > 0);
        }
        for Part { puller, items, .. } in ended.into_values() {
            // Nobody waits for it: it goes with the next sync.
            puller.settle(&items, false);
        }
    }

    /// Gives back everything: the server ends.
    pub(super) fn close(&self) {
        let mut book = self.book.lock();
        book.closed = true;
        book.due.clear();
        book.pullers.clear();
        let leases = std::mem::take(&mut book.leases);
        drop(book);
        drop(leases);
    }
}
