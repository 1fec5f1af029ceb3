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
use sabir_model::pattern::Pattern;
use sabir_model::settlement::Settlement;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::party::{Inbox, Party, Received, Role, arrival, leased};
use crate::net::Shared;
use crate::net::socket::Peer;

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
        party.subscribe(&request)?;
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
    ) -> Result<Vec<Received>, Refusal> {
        let Ok(_turn) = tokio::time::timeout_at(deadline, self.turn.lock()).await else {
            return Ok(Vec::new());
        };
        let mut ended = self.ended.clone();
        let _wish = Wish { puller: self };
        self.inbox.want(most);
        self.party.lock().resume();
        let mut got = self.inbox.take(most);
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
            got = self.inbox.take(most);
        }
        // What arrived between the two looks is taken along.
        self.inbox.want(0);
        got.append(&mut self.inbox.take(most - got.len()));
        Ok(got)
    }

    /// Keeps `count` deliveries coming, besides those that have come.
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

    pub(super) fn settle(&self, items: &[(DeliveryToken, Settlement)]) -> (Option<Promise>, Vec<usize>) {
        self.party.lock().settle(items)
    }

    /// Gives back what came and was not taken.
    pub(super) fn give_back(&self) {
        self.inbox.want(0);
        let left = self.inbox.take(usize::MAX);
        let items: Vec<_> =
            left.iter().filter_map(|one| one.token.map(|token| (token, Settlement::Released))).collect();
        if !items.is_empty() {
            self.settle(&items);
        }
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

/// What names a lease: 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LeaseId(pub(super) u128);

impl LeaseId {
    fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system has random bytes");
        Self(u128::from_ne_bytes(bytes))
    }
}

/// What is to be settled.
type Settlements = Vec<(DeliveryToken, Settlement)>;

struct Lease {
    puller: Arc<Puller>,
    token: DeliveryToken,
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

    /// Room for that many more leases.
    ///
    /// # Errors
    /// [`Code::LimitReached`].
    pub(super) fn check_room(&self, more: usize) -> Result<(), Refusal> {
        if self.book.lock().leases.len() + more <= self.max {
            return Ok(());
        }
        let sentence = format!("{} messages are on lease, the most there may be (http.leases_max)", self.max);
        Err(Refusal::new(Code::LimitReached, sentence))
    }

    /// Leases a delivery until `until`; `then` happens to it if it is not settled by then.
    pub(super) fn lease(
        &self,
        puller: &Arc<Puller>,
        owner: &Principal,
        token: DeliveryToken,
        until: Instant,
        then: Settlement,
    ) -> LeaseId {
        let id = LeaseId::random();
        let lease =
            Lease { puller: Arc::clone(puller), token, owner: owner.clone(), until, then, given_up: false };
        let mut book = self.book.lock();
        book.due.insert((until, id));
        book.leases.insert(id, lease);
        id
    }

    /// Takes the verdict on a lease. What it promises holds once the promise is kept.
    ///
    /// # Errors
    /// [`Code::UnknownDelivery`].
    pub(super) fn settle(
        &self,
        id: LeaseId,
        owner: &Principal,
        verdict: Verdict,
        now: Instant,
    ) -> Result<Option<Promise>, Refusal> {
        let mut book = self.book.lock();
        let Some(lease) = book.leases.get_mut(&id) else { return Err(unknown()) };
        if lease.owner != *owner || lease.given_up {
            return Err(unknown());
        }
        let settlement = match verdict {
            Verdict::Ack => Settlement::Accepted,
            Verdict::Reject => Settlement::Rejected,
            Verdict::Return => Settlement::Released,
            Verdict::Release(Duration::ZERO) => Settlement::Failed,
            Verdict::Release(delay) => {
                let before = lease.until;
                let until = now.after(delay);
                (lease.until, lease.then, lease.given_up) = (until, Settlement::Failed, true);
                book.due.remove(&(before, id));
                book.due.insert((until, id));
                return Ok(None);
            }
        };
        let until = lease.until;
        book.due.remove(&(until, id));
        let Some(lease) = book.leases.remove(&id) else { return Err(unknown()) };
        drop(book);
        let (promise, refused) = lease.puller.settle(&[(lease.token, settlement)]);
        if refused.is_empty() { Ok(promise) } else { Err(unknown()) }
    }

    /// Gives a lease more time, from now on.
    ///
    /// # Errors
    /// [`Code::UnknownDelivery`].
    pub(super) fn extend(&self, id: LeaseId, owner: &Principal, until: Instant) -> Result<(), Refusal> {
        let mut book = self.book.lock();
        let Some(lease) = book.leases.get_mut(&id) else { return Err(unknown()) };
        if lease.owner != *owner || lease.given_up {
            return Err(unknown());
        }
        let before = std::mem::replace(&mut lease.until, until);
        book.due.remove(&(before, id));
        book.due.insert((until, id));
        Ok(())
    }

    /// Changes what happens to leases at the end of their time, and when that is; unknown ones are left out.
    pub(super) fn rewrite(&self, ids: &[LeaseId], until: Instant, then: Settlement) {
        let mut book = self.book.lock();
        let book = &mut *book;
        for id in ids {
            if let Some(lease) = book.leases.get_mut(id).filter(|lease| !lease.given_up) {
                book.due.remove(&(lease.until, *id));
                (lease.until, lease.then) = (until, then);
                book.due.insert((until, *id));
            }
        }
    }

    /// Whether a lease is still held.
    pub(super) fn holds(&self, id: LeaseId) -> bool {
        self.book.lock().leases.get(&id).is_some_and(|lease| !lease.given_up)
    }

    /// Ends what is due.
    pub(super) fn tick(&self, now: Instant) {
        let mut ended: Vec<(Arc<Puller>, Settlements)> = Vec::new();
        {
            let mut book = self.book.lock();
            while let Some((until, id)) = book.due.first().copied() {
                if until > now {
                    break;
                }
                book.due.pop_first();
                let Some(lease) = book.leases.remove(&id) else { continue };
                let item = (lease.token, lease.then);
                match ended.iter_mut().find(|(puller, _)| Arc::ptr_eq(puller, &lease.puller)) {
                    Some((_, items)) => items.push(item),
                    None => ended.push((lease.puller, vec![item])),
                }
            }
            book.pullers.retain(|_, puller| puller.strong_count() > 0);
        }
        for (puller, items) in ended {
            puller.settle(&items);
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
