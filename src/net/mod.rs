//! Sockets: listeners accept, `detect` tells protocols apart, the driver runs any protocol over any transport, and
//! `http` serves requests.
//!
//! What travels inside is the business of the protocol crates and of the broker; which addresses and limits hold is
//! decided by [`crate::server`]. Here alone are sockets, and here alone the machine's clock is read.

mod census;
mod clock;
mod detect;
mod driver;
mod http;
mod listener;
mod reader;
mod shedding;
mod socket;
mod sys_topics;
mod timer;
mod turn_away;
mod websocket;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sabir_broker::Broker;
use sabir_model::limits::Limits;
use tokio::sync::{Semaphore, watch};

pub use clock::SystemClock;
pub use listener::{BindError, Endpoint, Listeners, Speaks};

use census::Census;
use timer::Wheel;

use crate::config::{self, Origin};

/// What connections are told about this server.
pub const SERVER_NAME: &str = concat!("Sabir/", env!("CARGO_PKG_VERSION"));

/// Connections too many that are told why at the same time.
pub(crate) const REFUSALS_MAX: usize = 64;

/// What the net layer is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most connections at a time.
    pub connections_max: usize,
    /// Most connections of one address.
    pub connections_per_address_max: Option<usize>,
    /// Time in which a connection must show what it speaks, or send the head of its HTTP request.
    pub greeting_timeout: Duration,
    /// Pages of these origins may open a WebSocket.
    pub origins: Vec<Origin>,
    /// Time between two publications of the topics below `$SYS/broker`; none if absent.
    pub sys_interval: Option<Duration>,
    /// What HTTP requests may do.
    pub http: HttpOptions,
    /// What protocols refuse to exceed.
    pub limits: Limits,
}

/// Bounds of HTTP requests; times in milliseconds.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Time in which a body must have arrived.
    pub request_timeout_ms: u64,
    /// Most messages on lease.
    pub leases_max: usize,
    /// Queues, and as many topics, with rows of their own on the page of metrics.
    pub metrics_rows_max: usize,
    /// A lease where the request does not say.
    pub lease_default_ms: u64,
    /// The longest lease.
    pub lease_max_ms: u64,
    /// The longest wait for a message or a reply.
    pub wait_max_ms: u64,
    /// How long an Idempotency-Key is remembered.
    pub idempotency_ms: u64,
    /// Most keys remembered.
    pub idempotency_max: usize,
    /// How long a login of the console lasts.
    pub login_lasts_ms: u64,
    /// Messages sent to URLs.
    pub webhooks: config::Webhooks,
    /// Whether WebSocket messages may be compressed.
    pub websocket_compression: bool,
    /// Whether there is `/ws/echo`.
    pub websocket_echo: bool,
}

/// What every connection of one server shares.
pub(crate) struct Shared {
    pub(crate) broker: Broker,
    pub(crate) clock: Arc<SystemClock>,
    pub(crate) wheel: Arc<Wheel>,
    pub(crate) census: Arc<Census>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) options: Options,
    pub(crate) http: http::Desk,
    /// What listens where, for the page at `/`.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Places for saying no politely; when they are taken, a connection too many is just closed.
    pub(crate) refusals: Semaphore,
    /// For closing those for whom there is no file descriptor.
    pub(crate) reserve: shedding::Reserve,
    /// Told when the server stops accepting.
    closing: watch::Sender<bool>,
    /// Turns of the ticker that have ended, for whoever wants to know that it still turns.
    turns: watch::Sender<u64>,
    /// Connections end at once, whatever they are doing.
    cut: AtomicBool,
}

impl Shared {
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }
}

/// The running net layer.
pub struct Net {
    shared: Arc<Shared>,
}

impl Net {
    /// Starts serving `listeners`, and the ticker. Call it inside a runtime.
    #[must_use]
    pub fn start(broker: Broker, clock: Arc<SystemClock>, options: Options, listeners: Listeners) -> Self {
        let shared = Arc::new(Shared {
            http: http::Desk::new(&options.http, &options.limits, &clock),
            broker,
            clock,
            wheel: Arc::new(Wheel::new()),
            census: Arc::new(Census::new(options.connections_max, options.connections_per_address_max)),
            limits: Arc::new(options.limits.clone()),
            options,
            endpoints: listeners.endpoints(),
            refusals: Semaphore::new(REFUSALS_MAX),
            reserve: shedding::Reserve::new(),
            closing: watch::Sender::new(false),
            turns: watch::Sender::new(0),
            cut: AtomicBool::new(false),
        });
        tokio::spawn(tick(Arc::clone(&shared)));
        if let Some(interval) = shared.options.sys_interval {
            tokio::spawn(sys_topics::run(Arc::clone(&shared), interval));
        }
        shared.http.start(&shared);
        listeners.serve(&shared);
        Self { shared }
    }

    /// Counts the whole turns of the ticker: of the clock, the timers and the broker's own sweep.
    #[must_use]
    pub fn turns(&self) -> watch::Receiver<u64> {
        self.shared.turns.subscribe()
    }

    /// Stops accepting and lets every connection take its leave; returns when all have gone or `patience` is over, with
    /// the number of those that had to be cut off.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.shared.closing.send_replace(true);
        self.shared.http.close();
        self.shared.broker.drain();
        let (emptied, ()) = tokio::join!(
            tokio::time::timeout(patience, self.shared.census.emptied()),
            self.shared.http.ended(patience)
        );
        if emptied.is_ok() {
            return 0;
        }
        let left = self.shared.census.live();
        self.shared.cut.store(true, Ordering::Relaxed);
        self.shared.wheel.wake_all();
        // Cutting takes a moment; a task that does not end in it is left behind.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.shared.census.emptied()).await;
        left
    }
}

/// Turns the clock, the wheel and the broker's own timers.
async fn tick(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(timer::TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = shared.clock.tick();
        shared.wheel.turn(now.instant);
        shared.broker.tick(now);
        shared.http.tick(now.instant);
        shared.turns.send_modify(|turns| *turns += 1);
    }
}
