//! The broker, its disk and its clients, all driven from one thread.

use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sabir_broker::{
    Broker, BrokerLimits, BrokerOptions, Connection, ConnectionInfo, OpenError, Policies, Rules, Writer,
};
use sabir_model::access::{Action, Attempt, Authenticator, Authorizer, Principal, Resource};
use sabir_model::chunks::Chunks;
use sabir_model::clock::{Clock, ManualClock, Timestamp};
use sabir_model::error::Refusal;
use sabir_model::limits::Limits;
use sabir_model::session::{Flow, Input, Now, Session};
use sabir_stomp::StompSession;
use sabir_stomp::client::{self, Connect, Decoder, Version};
use sabir_store::StoreOptions;
use sabir_store::fault_fs::FaultFs;

struct Everybody;

impl Authenticator for Everybody {
    fn authenticate(&self, attempt: &Attempt<'_>) -> Result<Principal, Refusal> {
        Ok(Principal::anonymous(attempt.remote))
    }
}

impl Authorizer for Everybody {
    fn allows(&self, _: &Principal, _: Action, _: Resource<'_>) -> bool {
        true
    }
    fn generation(&self) -> u64 {
        0
    }
}

/// A broker over a simulated disk.
pub(crate) struct World {
    broker: Broker,
    clock: Arc<ManualClock>,
}

impl World {
    pub(crate) fn open(disk: FaultFs) -> Result<Self, OpenError> {
        let clock = Arc::new(ManualClock::starting_at(Timestamp(1_700_000_000_000)));
        let mut store = StoreOptions::new("/sim");
        store.manual = true;
        store.segment_bytes = 64 * 1024;
        let (broker, _) = Broker::open(BrokerOptions {
            store,
            fs: Arc::new(disk),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            authenticator: Arc::new(Everybody),
            authorizer: Arc::new(Everybody),
            rules: Rules::default(),
            policies: Policies::default(),
            limits: BrokerLimits::default(),
            virtual_hosts: Vec::new(),
            single_threaded: true,
        })?;
        Ok(Self { broker, clock })
    }

    /// A connection that has introduced itself; `None` if the broker does not answer any more.
    pub(crate) fn connect(&self, headers: &[(&str, &str)]) -> Option<Client> {
        let wire = Arc::new(Mutex::new(Vec::new()));
        let (session, egress) = sabir_stomp::open(Arc::new(Limits::default()), "sim", self.clock.now());
        let info =
            ConnectionInfo { remote: None, local: true, peer: "simulated".into(), listener: "simulation" };
        let writer = Wire(Arc::clone(&wire));
        let connection = self.broker.connect(info, Box::new(egress), Box::new(writer)).ok()?;
        let mut client = Client {
            connection,
            session,
            broker: self.broker.clone(),
            clock: Arc::clone(&self.clock),
            rest: Vec::new(),
            wire,
            decoder: Decoder::new(Version::V12),
            receipts: Vec::new(),
            messages: Vec::new(),
            connected: false,
            closed: false,
        };
        let mut out = Vec::new();
        client::connect(&mut out, &Connect { versions: &[Version::V12], headers, ..Connect::default() });
        client.feed(&out);
        client.turn_until(|client| client.connected)?;
        Some(client)
    }
}

/// What the broker writes, without a socket.
struct Wire(Arc<Mutex<Vec<u8>>>);

impl Writer for Wire {
    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut wire = self.0.lock().unwrap();
        slices.iter().for_each(|slice| wire.extend_from_slice(slice));
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }
    fn poll_write(&mut self, _: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.try_write(slices))
    }
}

/// A message a client received.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub body: String,
    pub ack: String,
}

/// A STOMP client and the broker's session that serves it.
pub(crate) struct Client {
    connection: Connection,
    session: StompSession,
    broker: Broker,
    clock: Arc<ManualClock>,
    rest: Vec<u8>,
    wire: Arc<Mutex<Vec<u8>>>,
    decoder: Decoder,
    receipts: Vec<String>,
    messages: Vec<Received>,
    connected: bool,
    closed: bool,
}

impl Client {
    fn now(&self) -> Now {
        Now { instant: self.clock.now(), wall: self.clock.wall() }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        self.receive();
        self.pump();
    }

    fn receive(&mut self) {
        let (now, mut out) = (self.now(), Chunks::new());
        let bytes = std::mem::take(&mut self.rest);
        let mut input = Input::new(&bytes);
        let flow = self.session.receive(now, &mut input, &mut self.connection, &mut out);
        self.rest = bytes[input.consumed()..].to_vec();
        self.closed |= !matches!(flow, Ok(Flow::More | Flow::Parked));
        self.connection.end_batch(now, &mut out);
    }

    /// Lets the broker say what it has to say to this client.
    fn pump(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let now = self.now();
        while let Poll::Ready(event) = self.connection.poll_event(&mut cx, now) {
            let mut out = Chunks::new();
            let flow = self.session.notify(now, event, &mut self.connection, &mut out);
            self.closed |= !matches!(flow, Ok(Flow::More | Flow::Parked));
            self.connection.end_batch(now, &mut out);
            if !self.rest.is_empty() && !self.closed {
                self.receive();
            }
        }
        let _ = self.connection.poll_flush(&mut cx, now);
        let mut input = std::mem::take(&mut *self.wire.lock().unwrap());
        loop {
            let decoded = self.decoder.next(&input).expect("the broker writes frames");
            let (consumed, found) = (decoded.consumed, decoded.frame.is_some());
            if let Some(frame) = decoded.frame {
                match frame.command() {
                    "CONNECTED" => self.connected = true,
                    "RECEIPT" => self.receipts.push(frame.get("receipt-id").unwrap().into_owned()),
                    "MESSAGE" => self.messages.push(Received {
                        body: String::from_utf8(frame.body().to_vec()).unwrap(),
                        ack: frame.get("ack").map(|ack| ack.into_owned()).unwrap_or_default(),
                    }),
                    "ERROR" => self.closed = true,
                    other => panic!("unexpected {other}"),
                }
            }
            input.drain(..consumed);
            if !found || input.is_empty() {
                break;
            }
        }
        *self.wire.lock().unwrap() = input;
    }

    /// Lets disk and broker work until something is so; `None` if it cannot become so.
    fn turn_until(&mut self, mut done: impl FnMut(&Self) -> bool) -> Option<()> {
        for _ in 0..50 {
            self.pump();
            if done(self) {
                return Some(());
            }
            if self.closed || self.broker.store().failed().is_some() {
                return None;
            }
            self.broker.store().turn();
            self.clock.advance(Duration::from_millis(1));
        }
        None
    }

    pub(crate) fn send_frame(&mut self, command: &str, headers: &[(&str, &str)]) {
        let mut out = Vec::new();
        client::frame(&mut out, Version::V12, command, headers.iter().copied(), None);
        self.feed(&out);
    }

    pub(crate) fn send(&mut self, destination: &str, body: &str, headers: &[(&str, &str)]) {
        let mut out = Vec::new();
        client::send(&mut out, Version::V12, destination, headers, body.as_bytes());
        self.feed(&out);
    }

    pub(crate) fn subscribe(&mut self, destination: &str, ack: &str) {
        self.send_frame("SUBSCRIBE", &[("id", "0"), ("destination", destination), ("ack", ack)]);
    }

    /// Waits for a receipt.
    pub(crate) fn receipt(&mut self, id: &str) -> Option<()> {
        self.turn_until(|client| client.receipts.iter().any(|known| known == id))?;
        let at = self.receipts.iter().position(|known| known == id)?;
        self.receipts.remove(at);
        Some(())
    }

    /// Waits for this many messages.
    pub(crate) fn messages(&mut self, count: usize) -> Option<Vec<Received>> {
        self.turn_until(|client| client.messages.len() >= count)?;
        Some(self.messages.drain(..count).collect())
    }

    /// All messages that come.
    pub(crate) fn drain(&mut self) -> Vec<Received> {
        for _ in 0..5 {
            self.broker.store().turn();
            self.pump();
        }
        std::mem::take(&mut self.messages)
    }

    /// Says DISCONNECT and closes.
    pub(crate) fn leave(mut self) {
        self.send_frame("DISCONNECT", &[]);
        self.connection.close(true);
    }
}
