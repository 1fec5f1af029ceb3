//! A broker on a disk in memory, and clients that drive it by calling methods.

use std::collections::BTreeMap;
use std::io::{self};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use sabir_model::access::{Authenticator, Authorizer};
use sabir_model::chunks::Chunks;
use sabir_model::clock::{Clock, ManualClock, Timestamp};
use sabir_model::command::{
    AckName, Command, Open, Outcome, Promise, Publish, Subscribe, TargetKey, WireAck,
};
use sabir_model::destination::{Destination, Kind, Targets};
use sabir_model::error::{Code, Refusal};
use sabir_model::event::{Event, Opened};
use sabir_model::ids::{SubscriptionKey, TransactionKey};
use sabir_model::message::{Body, Facts, FieldsWriter};
use sabir_model::pattern::Pattern;
use sabir_model::session::{Egress, EgressNote, Host, Now};
use sabir_model::settlement::{SettleMode, Settlement};
use sabir_store::StoreOptions;
use sabir_store::fault_fs::{FaultFs, Survival};

use super::access::Access;
use super::fake::{FIELD, FakeWriter, Lines, Wire, Woken};
pub(super) use super::fake::{Got, Line};
use super::large::all_stored;
use crate::stats::QueueStats;
use crate::{
    Broker, BrokerLimits, BrokerOptions, BrokerStats, Connection, ConnectionInfo, Policies, Policy, Rules,
};

/// How a world differs from the usual.
#[derive(Clone, Default)]
pub(super) struct Setup {
    pub(super) policies: Policies,
    pub(super) rules: Rules,
    pub(super) limits: BrokerLimits,
    /// The log and the logins have threads of their own.
    pub(super) threads: bool,
}

impl Setup {
    pub(super) fn policy(mut self, pattern: &str, policy: Policy) -> Self {
        self.policies.add(Pattern::parse_qualified(pattern, Kind::Queue).unwrap(), policy);
        self
    }

    pub(super) fn open(mut self) -> World {
        // All of these tests hold whatever is in memory: `SABIR_TEST_QUEUE_MEMORY=1` has nothing stay there.
        let bytes = std::env::var("SABIR_TEST_QUEUE_MEMORY").ok().and_then(|text| text.parse().ok());
        let own = self.limits.queue_memory_bytes_max;
        let usual = BrokerLimits::default().queue_memory_bytes_max;
        self.limits.queue_memory_bytes_max = bytes.filter(|_| own == usual).unwrap_or(own);
        World::on(FaultFs::new(), self, Arc::new(ManualClock::starting_at(Timestamp(1_700_000_000_000))))
    }
}

/// A broker on a disk in memory, with time that stands still.
pub(super) struct World {
    pub(super) broker: Broker,
    pub(super) clock: Arc<ManualClock>,
    pub(super) access: Arc<Access>,
    pub(super) disk: FaultFs,
    setup: Setup,
}

impl World {
    pub(super) fn new() -> Self {
        Setup::default().open()
    }

    fn on(disk: FaultFs, setup: Setup, clock: Arc<ManualClock>) -> Self {
        let access = Arc::new(Access::default());
        let mut store = StoreOptions::new("/log");
        store.segment_bytes = 1 << 20;
        store.manual = !setup.threads;
        let (broker, _) = Broker::open(BrokerOptions {
            store,
            fs: Arc::new(disk.clone()),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            authenticator: Arc::clone(&access) as Arc<dyn Authenticator>,
            authorizer: Arc::clone(&access) as Arc<dyn Authorizer>,
            rules: setup.rules.clone(),
            policies: setup.policies.clone(),
            limits: setup.limits.clone(),
            virtual_hosts: vec!["other".to_owned()],
            single_threaded: !setup.threads,
        })
        .unwrap();
        Self { broker, clock, access, disk, setup }
    }

    /// Stops in good order and starts again. Clients must be gone.
    pub(super) fn restart(self) -> Self {
        self.broker.close().unwrap();
        let Self { broker, clock, disk, setup, .. } = self;
        drop(broker);
        clock.advance(Duration::from_secs(1));
        Self::on(disk, setup, clock)
    }

    /// Loses power and starts again.
    pub(super) fn crash(self) -> Self {
        self.crash_as(Survival::None)
    }

    /// Loses power and starts again; so much of what was not synced survives.
    pub(super) fn crash_as(self, survival: Survival) -> Self {
        let Self { broker, clock, disk, setup, .. } = self;
        let disk = disk.crash(survival);
        drop(broker);
        clock.advance(Duration::from_secs(1));
        Self::on(disk, setup, clock)
    }

    pub(super) fn client(&self) -> Client {
        self.client_as(&Open::default()).unwrap()
    }

    pub(super) fn named(&self, client_id: &str) -> Client {
        self.client_as(&Open { client_id: Some(client_id), ..Open::default() }).unwrap()
    }

    pub(super) fn client_as(&self, open: &Open<'_>) -> Result<Client, Refusal> {
        let wire = Arc::new(Mutex::new(Wire::default()));
        let egress = Lines { wire: Arc::clone(&wire), subscriptions: BTreeMap::new() };
        self.client_on(open, wire, Box::new(egress)).map(|(client, _)| client)
    }

    /// A client with an egress of its own. Tells what it learnt when it was let in.
    pub(super) fn client_on(
        &self,
        open: &Open<'_>,
        wire: Arc<Mutex<Wire>>,
        egress: Box<dyn Egress>,
    ) -> Result<(Client, Opened), Refusal> {
        let info = ConnectionInfo { remote: None, local: true, peer: "test".into(), listener: "test" };
        let writer = FakeWriter(Arc::clone(&wire));
        let connection = self.broker.connect(info, egress, Box::new(writer))?;
        let mut client = Client {
            connection: Some(connection),
            clock: Arc::clone(&self.clock),
            broker: self.broker.clone(),
            wire,
            batching: false,
            replies: Chunks::new(),
            addresses: Vec::new(),
            next_key: 1,
            next_transaction: 1,
            woken: Arc::default(),
            text: String::new(),
            events: Vec::new(),
        };
        let outcome = client.host().ask(Command::Open(*open));
        assert_eq!(outcome, Outcome::Later);
        client.end_batch();
        loop {
            client.pump();
            // Somebody may have taken over by now: that is the next news.
            let first = (!client.events.is_empty()).then(|| client.events.remove(0));
            match first {
                Some(Event::Opened(opened)) => {
                    // What may follow the greeting follows it.
                    client.end_batch();
                    return Ok((client, opened));
                }
                Some(Event::OpenRefused(refusal)) => return Err(refusal),
                Some(other) => panic!("{other:?}"),
                // With threads the answer takes a moment; without, the log is turned by hand.
                None => {
                    if let Some(sentence) = self.broker.store().failed() {
                        return Err(Refusal::new(Code::Internal, sentence));
                    }
                    self.broker.store().turn();
                    std::thread::yield_now();
                }
            }
        }
    }

    pub(super) fn now(&self) -> Now {
        Now { instant: self.clock.now(), wall: self.clock.wall() }
    }

    /// Lets time pass, with the ticks that belong to it.
    pub(super) fn pass(&self, span: Duration) {
        for _ in 0..span.as_millis().div_ceil(100).min(1000) {
            self.clock.advance(Duration::from_millis(100).min(span));
            self.broker.tick(self.now());
        }
    }

    pub(super) fn stats(&self) -> BrokerStats {
        self.broker.stats()
    }

    pub(super) fn queue(&self, name: &str) -> Option<QueueStats> {
        self.stats().queues.into_iter().find(|queue| queue.name == name && queue.host == "/")
    }

    /// Messages that a queue holds, delivered ones included.
    pub(super) fn depth(&self, name: &str) -> u64 {
        self.queue(name).map_or(0, |queue| queue.ready + queue.unsettled)
    }

    pub(super) fn memory(&self) -> u64 {
        self.stats().memory_bytes
    }

    /// The bodies that a queue holds, by browsing.
    pub(super) fn browse(&self, queue: &str) -> Vec<String> {
        let mut client = self.client();
        client.subscribe(queue).browse().ok();
        client.bodies()
    }
}

/// One client and its connection.
pub(super) struct Client {
    pub(super) connection: Option<Connection>,
    clock: Arc<ManualClock>,
    pub(super) broker: Broker,
    pub(super) wire: Arc<Mutex<Wire>>,
    batching: bool,
    replies: Chunks,
    addresses: Vec<String>,
    next_key: u32,
    next_transaction: u32,
    woken: Arc<Woken>,
    text: String,
    pub(super) events: Vec<Event>,
}

impl Client {
    pub(super) fn host(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it is not closed")
    }

    fn now(&self) -> Now {
        Now { instant: self.clock.now(), wall: self.clock.wall() }
    }

    /// Runs everything in `what` as one batch.
    pub(super) fn batch<R>(&mut self, what: impl FnOnce(&mut Self) -> R) -> R {
        self.batching = true;
        let result = what(self);
        self.batching = false;
        self.end_batch();
        result
    }

    pub(super) fn end_batch(&mut self) {
        if self.batching {
            return;
        }
        let now = self.now();
        let connection = self.connection.as_mut().expect("it is not closed");
        connection.end_batch(now, &mut self.replies);
        self.pump();
    }

    /// What a driver does when it is woken.
    pub(super) fn pump(&mut self) {
        let now = self.now();
        let Some(connection) = self.connection.as_mut() else { return };
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut cx = Context::from_waker(&waker);
        while let Poll::Ready(event) = connection.poll_event(&mut cx, now) {
            self.events.push(event);
        }
        let _ = connection.poll_flush(&mut cx, now);
    }

    /// Runs the driver for as long as it is woken.
    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            if !self.woken.0.swap(false, Ordering::AcqRel) {
                return;
            }
            self.pump();
        }
        panic!("woken for ever");
    }

    pub(super) fn try_flush(&mut self) -> Poll<io::Result<()>> {
        let now = self.now();
        self.host().poll_flush(&mut Context::from_waker(Waker::noop()), now)
    }

    /// Lets the log catch up, and takes the receipts that are due.
    pub(super) fn synced(&mut self) {
        self.broker.store().sync();
        self.pump();
    }

    /// The socket takes this many bytes more, and then none.
    pub(super) fn block_after(&self, bytes: usize) {
        self.wire.lock().room = Some(bytes);
    }

    /// The socket takes everything again.
    pub(super) fn unblock(&mut self) {
        self.wire.lock().room = None;
        self.pump();
    }

    /// What has come since the last look.
    pub(super) fn lines(&mut self) -> Vec<Line> {
        self.pump();
        let bytes = std::mem::take(&mut self.wire.lock().bytes);
        self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        let Some(end) = self.text.rfind('\n') else { return Vec::new() };
        let rest = self.text.split_off(end + 1);
        let whole = std::mem::replace(&mut self.text, rest);
        whole.lines().map(Line::parse).collect()
    }

    /// The deliveries that have come since the last look.
    pub(super) fn drain(&mut self) -> Vec<Got> {
        let lines = self.lines().into_iter();
        lines.filter_map(|line| if let Line::Message(got) = line { Some(*got) } else { None }).collect()
    }

    pub(super) fn bodies(&mut self) -> Vec<String> {
        self.drain().into_iter().map(|got| got.body).collect()
    }

    /// The one delivery that has come.
    pub(super) fn one(&mut self) -> Got {
        let mut all = self.drain();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    pub(super) fn send<'a>(&'a mut self, to: &'a str, body: &'a str) -> Send<'a> {
        Send {
            client: self,
            to,
            body,
            facts: Facts { priority: 4, ..Facts::default() },
            fields: FieldsWriter::new(),
            transaction: None,
            stores: all_stored(),
        }
    }

    pub(super) fn send_all(&mut self, to: &str, bodies: &[&str]) {
        for body in bodies {
            self.send(to, body).ok();
        }
    }

    pub(super) fn subscribe<'a>(&'a mut self, to: &'a str) -> Subscription<'a> {
        Subscription {
            client: self,
            to,
            settle: SettleMode::Individual,
            credit: None,
            selector: None,
            durable: None,
            browse: false,
            no_local: false,
            priority: 0,
            must_exist: false,
        }
    }

    pub(super) fn ask(&mut self, command: Command<'_>) -> Outcome {
        let outcome = self.host().ask(command);
        self.end_batch();
        outcome
    }

    pub(super) fn unsubscribe(&mut self, key: u32) {
        assert!(matches!(self.try_unsubscribe(key, false), Outcome::Accepted(_)));
    }

    pub(super) fn try_unsubscribe(&mut self, key: u32, forget_durable: bool) -> Outcome {
        let outcome = self.host().ask(Command::Unsubscribe { key: SubscriptionKey(key), forget_durable });
        self.host().note(EgressNote::Detach(SubscriptionKey(key)));
        self.end_batch();
        outcome
    }

    pub(super) fn wire_ack(got: &Got, settlement: Settlement, transaction: Option<u32>) -> WireAck {
        WireAck {
            subscription: Some(SubscriptionKey(got.subscription)),
            name: AckName::Token(got.token.expect("it is to be settled")),
            settlement,
            transaction: transaction.map(TransactionKey),
            cookie: 77,
        }
    }

    pub(super) fn settle(&mut self, got: &Got, settlement: Settlement) {
        self.host().settle(Self::wire_ack(got, settlement, None));
        self.end_batch();
    }

    pub(super) fn ack(&mut self, got: &Got) {
        self.settle(got, Settlement::Accepted);
    }

    pub(super) fn ack_all(&mut self, all: &[Got]) {
        self.batch(|client| all.iter().for_each(|got| client.ack(got)));
    }

    pub(super) fn ack_in(&mut self, transaction: u32, got: &Got) {
        self.host().settle(Self::wire_ack(got, Settlement::Accepted, Some(transaction)));
        self.end_batch();
    }

    pub(super) fn ack_now(&mut self, got: &Got) -> Outcome {
        let outcome = self.host().settle_now(Self::wire_ack(got, Settlement::Accepted, None));
        self.end_batch();
        outcome
    }

    /// Whether the last settlement was refused.
    pub(super) fn settle_refused(&mut self) -> bool {
        self.pump();
        matches!(self.events.pop(), Some(Event::SettleRefused { cookie: 77, .. }))
    }

    pub(super) fn begin(&mut self) -> u32 {
        let key = self.next_transaction;
        self.next_transaction += 1;
        assert_eq!(self.ask(Command::Begin(TransactionKey(key))), Outcome::Accepted(None));
        key
    }

    pub(super) fn commit(&mut self, key: u32) -> Outcome {
        self.ask(Command::Commit(TransactionKey(key)))
    }

    pub(super) fn abort(&mut self, key: u32) {
        assert_eq!(self.ask(Command::Abort(TransactionKey(key))), Outcome::Accepted(None));
    }

    pub(super) fn temporary(&mut self, kind: Kind, label: &str) -> String {
        self.host().temporary(kind, label).unwrap().to_string()
    }

    /// Leaves in good order.
    pub(super) fn close(mut self) {
        self.connection.take().expect("it is not closed").close(true);
    }

    /// Vanishes.
    pub(super) fn vanish(mut self) {
        self.connection.take().expect("it is not closed").close(false);
    }

    /// Leaves or vanishes; what had reached the wire can still be read.
    pub(super) fn leave(&mut self, clean: bool) {
        self.connection.take().expect("it is not closed").close(clean);
    }

    pub(super) fn key(&mut self, address: &str) -> TargetKey {
        let slot = self.addresses.iter().position(|known| known == address).unwrap_or_else(|| {
            self.addresses.push(address.to_owned());
            self.addresses.len() - 1
        });
        TargetKey { slot: u16::try_from(slot).unwrap(), generation: 1 }
    }
}

/// A send in the making.
pub(super) struct Send<'a> {
    client: &'a mut Client,
    to: &'a str,
    body: &'a str,
    facts: Facts,
    fields: FieldsWriter,
    transaction: Option<u32>,
    pub(super) stores: bool,
}

impl Send<'_> {
    pub(super) fn persistent(mut self) -> Self {
        self.facts.persistent = true;
        self
    }

    pub(super) fn ttl(mut self, ms: u64) -> Self {
        self.facts.expires = Timestamp(self.client.clock.wall().0 + ms);
        self
    }

    pub(super) fn retained(mut self) -> Self {
        self.facts.retain = true;
        self
    }

    pub(super) fn priority(mut self, priority: u8) -> Self {
        self.facts.priority = priority;
        self
    }

    pub(super) fn property(mut self, name: &str, value: &str) -> Self {
        self.fields.text_property(name, value);
        self
    }

    pub(super) fn in_transaction(mut self, key: u32) -> Self {
        self.transaction = Some(key);
        self
    }

    pub(super) fn outcome(self) -> Outcome {
        let Self { client, to, body, facts, fields, transaction, stores } = self;
        let target = |one| Destination::parse_qualified(one, Kind::Queue).unwrap();
        let targets: Targets = to.split(',').map(target).collect();
        let (key, fields, transaction) = (client.key(to), fields.as_slice(), transaction.map(TransactionKey));
        let publish = |body| Publish { targets: &targets, key, facts, fields, body, transaction, once: None };
        let body = match client.body(stores, &publish(Body::Borrowed(b"")), body) {
            Ok(body) => body,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let outcome = client.host().publish(publish(body));
        client.end_batch();
        outcome
    }

    pub(super) fn ok(self) {
        let outcome = self.outcome();
        assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    }

    pub(super) fn outcome_is_accepted(self) -> bool {
        matches!(self.outcome(), Outcome::Accepted(_))
    }

    pub(super) fn promise(self) -> Option<Promise> {
        match self.outcome() {
            Outcome::Accepted(promise) => promise,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn refused(self) -> Code {
        refusal(self.outcome())
    }
}

/// The code of a refusal.
pub(super) fn refusal(outcome: Outcome) -> Code {
    match outcome {
        Outcome::Refused(refusal) => refusal.code,
        other => panic!("{other:?}"),
    }
}

/// A subscription in the making.
pub(super) struct Subscription<'a> {
    client: &'a mut Client,
    to: &'a str,
    settle: SettleMode,
    credit: Option<u32>,
    selector: Option<&'a str>,
    durable: Option<&'a str>,
    browse: bool,
    no_local: bool,
    priority: i8,
    must_exist: bool,
}

impl<'a> Subscription<'a> {
    pub(super) fn auto(mut self) -> Self {
        self.settle = SettleMode::Auto;
        self
    }

    pub(super) fn cumulative(mut self) -> Self {
        self.settle = SettleMode::Cumulative;
        self
    }

    pub(super) fn credit(mut self, credit: u32) -> Self {
        self.credit = Some(credit);
        self
    }

    pub(super) fn selector(mut self, selector: &'a str) -> Self {
        self.selector = Some(selector);
        self
    }

    pub(super) fn durable(mut self, name: &'a str) -> Self {
        self.durable = Some(name);
        self
    }

    pub(super) fn browse(mut self) -> Self {
        self.browse = true;
        self
    }

    pub(super) fn no_local(mut self) -> Self {
        self.no_local = true;
        self
    }

    pub(super) fn priority(mut self, priority: i8) -> Self {
        self.priority = priority;
        self
    }

    pub(super) fn must_exist(mut self) -> Self {
        self.must_exist = true;
        self
    }

    pub(super) fn outcome(self) -> (u32, Outcome) {
        let client = self.client;
        let key = client.next_key;
        client.next_key += 1;
        let patterns: Vec<Pattern> =
            self.to.split(',').map(|one| Pattern::parse_qualified(one, Kind::Queue).unwrap()).collect();
        let command = Command::Subscribe(Subscribe {
            key: SubscriptionKey(key),
            patterns: &patterns,
            settle: self.settle,
            credit: self.credit,
            selector: self.selector,
            selector_converts_text: false,
            durable: self.durable,
            browse: self.browse,
            no_local: self.no_local,
            priority: self.priority,
            must_exist: self.must_exist,
        });
        let outcome = client.host().ask(command);
        if matches!(outcome, Outcome::Accepted(_)) {
            let note =
                EgressNote::Attach { key: SubscriptionKey(key), label: b"", settle: self.settle, options: 0 };
            client.host().note(note);
            client.replies.put(format!("SUB{FIELD}{key}\n").as_bytes());
        }
        client.end_batch();
        (key, outcome)
    }

    /// The key of the subscription.
    pub(super) fn ok(self) -> u32 {
        match self.outcome() {
            (key, Outcome::Accepted(_)) => key,
            (_, other) => panic!("{other:?}"),
        }
    }

    pub(super) fn refused(self) -> Code {
        refusal(self.outcome().1)
    }
}
