//! The composition root: joins configuration, security, broker and net, and carries the process from start to stop.
//!
//! Whatever keeps the server from starting is one sentence on standard error and a non-zero status. What the parts do is
//! their own affair; what the keys mean for them is said in `broker_options` and `net_options`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sabir_broker::{
    Broker, BrokerLimits, BrokerOptions, CompositeRule, DeadLetters, Expired, Forward, MirroredQueues,
    Negative, OpenError, OutboxLimits, Policies, Policy, Rules, SlowConsumer, VirtualTopicRule,
};
use sabir_model::clock::Clock;
use sabir_model::error::Refusal;
use sabir_model::limits::{Limits, Prefetch};
use sabir_model::selector::{self, Selector};
use sabir_security::{Gatekeeper, UsersError};
use sabir_store::{Level, RealFs, StoreOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Config};
use crate::net::{
    BindError, HttpOptions, Listeners, Net, Options, REFUSALS_MAX, SERVER_NAME, Speaks, SystemClock,
};
use crate::notify::Supervisor;

/// File descriptors that are not connections: the log, the listeners, the runtime; and connections too many that are told so.
const DESCRIPTORS_RESERVED: u64 = 64 + REFUSALS_MAX as u64;
/// Files of old and of large messages that may be open at a time; but no more than one of so many of all descriptors, for with
/// fewer it goes on, only slower.
const DESCRIPTORS_OF_FILES: u64 = 512;
const DESCRIPTORS_PER_FILE: u64 = 4;
/// Webhooks call others; of all descriptors they may have one of so many, and no more than they may make calls at a time.
const DESCRIPTORS_PER_CALL: u64 = 8;
/// Unsynced bytes above which publishers' reading pauses.
const PENDING_BYTES_SOFT: usize = 4 << 20;
/// Most sends and settlements in one transaction; its bytes are limited by the configuration.
const TRANSACTION_ITEMS_MAX: usize = 1_000_000;
/// Most temporary destinations of one connection.
const TEMPORARIES_MAX: usize = 10_000;
/// Memory for messages if the machine does not say how much it has.
const MEMORY_BYTES_FALLBACK: u64 = 1 << 30;

/// Why the server did not start, or did not end well. Each is one sentence.
#[derive(Debug)]
enum Failure {
    Runtime(io::Error),
    Users(UsersError),
    Exposed(String),
    Rule(String, Refusal),
    Bind(BindError),
    Open(OpenError),
    Close(sabir_store::StoreError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(error) => write!(f, "cannot start: {error}"),
            Self::Users(error) => error.fmt(f),
            Self::Exposed(sentence) => f.write_str(sentence),
            Self::Rule(what, refusal) => write!(f, "{what}: {}", refusal.sentence),
            Self::Bind(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Close(error) => write!(f, "the message log could not be closed: {error}"),
        }
    }
}

/// Runs the server until a signal ends it.
#[must_use]
pub fn run(config: Config) -> ExitCode {
    let supervisor = Arc::new(Supervisor::from_environment());
    match start(&config, &supervisor) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say_last_words(&failure.to_string());
            supervisor.failed(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

/// For the log, and for whoever started the server by hand and filters the log away.
fn say_last_words(sentence: &str) {
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("{sentence}");
    } else {
        eprintln!("sabir: {sentence}");
    }
}

fn start(config: &Config, supervisor: &Arc<Supervisor>) -> Result<(), Failure> {
    let clock = Arc::new(SystemClock::start());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let gate = Gatekeeper::open(config.gate_options(cores), Arc::clone(&clock) as Arc<dyn Clock>)
        .map_err(Failure::Users)?;
    config.check_exposure(gate.users_exist()).map_err(Failure::Exposed)?;
    let calls = if config.webhooks.count_max == 0 { 0 } else { config.webhooks.concurrency_max };
    let connections_max = connections_max(config.limits.connections_max, calls);
    let broker = broker_options(config, connections_max, gate, Arc::clone(&clock) as Arc<dyn Clock>)?;
    let workers = if config.server.worker_threads == 0 { cores } else { config.server.worker_threads };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("sabir-net")
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let result = runtime.block_on(serve(config, connections_max, broker, clock, supervisor));
    // Tasks that were cut off and did not end are not waited for.
    runtime.shutdown_background();
    result
}

async fn serve(
    config: &Config,
    connections_max: usize,
    broker: BrokerOptions,
    clock: Arc<SystemClock>,
    supervisor: &Arc<Supervisor>,
) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(Failure::Runtime)?;
    let listeners = Listeners::bind_patiently(&tcp_listeners(config), &config.listeners.unix)
        .await
        .map_err(Failure::Bind)?;
    let endpoints = listeners.endpoints();

    // Clients that connect meanwhile wait in the backlog instead of being refused.
    let opening = tokio::task::spawn_blocking(|| Broker::open(broker));
    let opening = supervisor.during("recovering the message log", opening);
    let (broker, summary) = tokio::select! {
        opened = opening => match opened {
            Ok(opened) => opened.map_err(Failure::Open)?,
            Err(error) => return Err(Failure::Runtime(io::Error::other(error))),
        },
        // Recovery only reads until it is done; leaving it in the middle loses nothing.
        number = signals.next() => exit_by_signal(number),
    };
    tracing::info!("{SERVER_NAME} keeps its data in {}", shown_dir(config));
    for line in summary.to_string().lines() {
        if summary.is_damaged() {
            tracing::warn!("{line}");
        } else {
            tracing::info!("{line}");
        }
    }

    let net = Net::start(broker.clone(), clock, net_options(config, connections_max), listeners);
    if endpoints.is_empty() {
        tracing::warn!("every listener is off; nobody can connect");
    }
    for endpoint in &endpoints {
        tracing::info!("listening: {endpoint}");
    }
    let listening: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    supervisor.ready(&format!("serving {}", listening.join(", "))).await;
    supervisor.watch(broker.clone(), net.turns());

    signals.next().await;
    let connections = broker.connections();
    tracing::info!("stopping: {connections} connections may finish; a second signal stops at once");
    let patience = Duration::from_millis(config.server.drain_timeout_ms);
    let stop = async {
        supervisor.stopping(connections, patience).await;
        let cut = net.drain(patience).await;
        if cut > 0 {
            tracing::warn!("{cut} connections did not finish in time and were cut off");
        }
        tokio::task::spawn_blocking(move || broker.close()).await
    };
    tokio::select! {
        closed = stop => match closed {
            Ok(closed) => closed.map_err(Failure::Close)?,
            Err(error) => return Err(Failure::Runtime(io::Error::other(error))),
        },
        number = signals.next() => exit_by_signal(number),
    }
    tracing::info!("stopped");
    Ok(())
}

/// The signals that ask for a stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next, and says which.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
        }
    }
}

/// Ends at once, with the status that shells give a process which the signal killed.
fn exit_by_signal(number: i32) -> ! {
    tracing::warn!("stopped at once by a signal");
    std::process::exit(128 + number)
}

fn shown_dir(config: &Config) -> String {
    let dir = &config.store.dir;
    std::path::absolute(dir).unwrap_or_else(|_| dir.clone()).display().to_string()
}

/// Asks for as many file descriptors as this process may have, and keeps connections below that.
fn connections_max(wanted: usize, calls: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    // Without a limit the system says none.
    let Some(descriptors) = current else { return wanted };
    let calls = (calls as u64).min(descriptors / DESCRIPTORS_PER_CALL);
    let files = DESCRIPTORS_OF_FILES.min(descriptors / DESCRIPTORS_PER_FILE);
    let possible = descriptors.saturating_sub(DESCRIPTORS_RESERVED + files + calls);
    let possible = usize::try_from(possible).unwrap_or(usize::MAX).max(1);
    if possible < wanted {
        tracing::info!(
            "at most {possible} connections: the system allows this process {descriptors} open files (limits.connections_max is {wanted})"
        );
    }
    wanted.min(possible)
}

fn tcp_listeners(config: &Config) -> Vec<(Speaks, SocketAddr)> {
    let listeners = &config.listeners;
    let by_protocol = [
        (Speaks::Stomp, &listeners.stomp),
        (Speaks::Mqtt, &listeners.mqtt),
        (Speaks::Any, &listeners.any),
        (Speaks::Http, &listeners.http),
    ];
    by_protocol
        .into_iter()
        .flat_map(|(speaks, addresses)| addresses.iter().map(move |address| (speaks, *address)))
        .collect()
}

fn net_options(config: &Config, connections_max: usize) -> Options {
    let per_address = config.limits.connections_per_address_max;
    Options {
        connections_max,
        connections_per_address_max: (per_address > 0).then_some(per_address),
        greeting_timeout: Duration::from_millis(config.limits.connect_timeout_ms),
        origins: config.http.allowed_origins.clone(),
        sys_interval: (config.mqtt.sys_interval_ms > 0)
            .then(|| Duration::from_millis(config.mqtt.sys_interval_ms)),
        http: HttpOptions {
            request_timeout_ms: config.http.request_timeout_ms,
            leases_max: config.http.leases_max,
            metrics_rows_max: config.http.metrics_rows_max,
            lease_default_ms: config.http.lease_default_ms,
            lease_max_ms: config.http.lease_max_ms,
            wait_max_ms: config.http.wait_max_ms,
            idempotency_ms: config.http.idempotency_ms,
            idempotency_max: config.http.idempotency_max,
            websocket_compression: config.http.websocket_compression,
            websocket_echo: config.http.websocket_echo,
            login_lasts_ms: config.http.login_lasts_ms,
            webhooks: config.webhooks.clone(),
        },
        limits: session_limits(config),
    }
}

fn prefetch(config: &Config) -> Prefetch {
    let destinations = &config.destinations;
    Prefetch {
        queue: destinations.queue_prefetch,
        topic: destinations.topic_prefetch,
        durable: destinations.durable_prefetch,
        browser: destinations.browser_prefetch,
    }
}

fn session_limits(config: &Config) -> Limits {
    let (limits, stomp, mqtt, sessions) = (&config.limits, &config.stomp, &config.mqtt, &config.sessions);
    Limits {
        header_line_bytes_max: limits.header_line_bytes_max,
        headers_max: limits.headers_max,
        body_bytes_max: limits.body_bytes_max,
        blob_bytes_min: limits.blob_bytes_min.min(limits.frame_bytes_max),
        body_bytes_before_login_max: limits.body_bytes_before_login,
        frame_bytes_max: limits.frame_bytes_max,
        connect_timeout_ms: limits.connect_timeout_ms,
        heartbeat_ms_min: stomp.heartbeat_min_ms,
        heartbeat_ms_max: stomp.heartbeat_max_ms,
        subscriptions_max: limits.subscriptions_per_connection_max,
        transactions_max: limits.transactions_per_connection_max,
        receipts_pending_max: limits.receipts_pending_max,
        prefetch: prefetch(config),
        length_means_bytes: stomp.content_length_means_bytes,
        command_bytes_max: Limits::default().command_bytes_max,
        client_id_bytes_max: mqtt.client_id_bytes_max,
        topic_levels_max: mqtt.topic_levels_max,
        session_credit_max: mqtt.inflight_max,
        receive_max: u16::try_from(mqtt.receive_max).unwrap_or(u16::MAX),
        topic_aliases_max: u16::try_from(mqtt.topic_aliases_max).unwrap_or(u16::MAX),
        keep_alive_ms_max: mqtt.keep_alive_max_ms,
        session_lasts_ms_max: if sessions.lasts_max_ms == 0 { u64::MAX } else { sessions.lasts_max_ms },
        session_lasts_ms_default: sessions.lasts_default_ms,
    }
}

fn broker_options(
    config: &Config,
    connections_max: usize,
    gate: Gatekeeper,
    clock: Arc<dyn Clock>,
) -> Result<BrokerOptions, Failure> {
    let limits = &config.limits;
    let memory = u64::try_from(limits.memory_bytes_max).unwrap_or(u64::MAX);
    Ok(BrokerOptions {
        store: store_options(&config.store),
        fs: Arc::new(RealFs::new()),
        clock,
        authenticator: Arc::new(gate),
        authorizer: Arc::new(config.access_rules()),
        rules: rules(config)?,
        policies: policies(config),
        limits: BrokerLimits {
            connections_max,
            destinations_max: limits.destinations_max,
            memory_bytes_max: if memory == 0 { machine_memory() / 5 * 2 } else { memory },
            queue_memory_bytes_max: u64::try_from(limits.queue_memory_bytes_max).unwrap_or(u64::MAX),
            spilled_bytes_max: u64::try_from(limits.spilled_bytes_max).unwrap_or(u64::MAX),
            pending_bytes_soft: PENDING_BYTES_SOFT.min(config.store.pending_bytes_max / 2),
            pending_bytes_max: config.store.pending_bytes_max,
            transaction_bytes_max: limits.transaction_bytes_max,
            transaction_items_max: TRANSACTION_ITEMS_MAX,
            temporaries_max: TEMPORARIES_MAX,
            session_subscriptions_max: config.sessions.subscriptions_max,
            session_messages_max: config.sessions.messages_max,
            session_bytes_max: config.sessions.bytes_max,
            session_when_full: slow_consumer(config.sessions.when_full),
            session_durability: level(config.store.durability),
            retained_max: limits.retained_max,
            outbox: OutboxLimits {
                bytes_soft: limits.outbox_bytes_soft,
                bytes_hard: limits.outbox_bytes_hard,
                stall_ms_max: limits.write_stall_ms,
            },
            prefetch: prefetch(config),
        },
        virtual_hosts: config.server.virtual_hosts.iter().map(|name| name.0.to_string()).collect(),
        single_threaded: false,
    })
}

fn store_options(store: &config::Store) -> StoreOptions {
    StoreOptions {
        segment_bytes: store.segment_bytes,
        journal_bytes_max: store.journal_bytes_max,
        disk_bytes_max: (store.disk_bytes_max > 0).then_some(store.disk_bytes_max),
        disk_free_bytes_min: store.disk_free_bytes_min,
        disk_free_bytes_resume: store.disk_free_bytes_resume,
        scrub_bytes_per_second: store.scrub_bytes_per_second,
        pending_bytes_max: store.pending_bytes_max,
        checkpoint_interval: Duration::from_millis(store.checkpoint_interval_ms),
        quarantine: store.quarantine,
        on_fatal: Some(Arc::new(|sentence: &str| {
            say_last_words(sentence);
            // Not a panic and no destructors: nothing that is still in memory may be promised to anybody.
            std::process::exit(1)
        })),
        ..StoreOptions::new(&store.dir)
    }
}

/// What the machine, or the control group this process is in, has.
fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = info.totalram.saturating_mul(u64::from(info.mem_unit.max(1)));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match (machine, group_memory(Path::new("/sys/fs/cgroup"), &groups)) {
        (0, None) => MEMORY_BYTES_FALLBACK,
        (0, Some(group)) => group,
        (machine, group) => machine.min(group.unwrap_or(u64::MAX)),
    }
}

/// The least that a control group allows of those in `groups` (`/proc/self/cgroup`) and of those above them. A container
/// sees its own at `root`; a service of systemd finds its own further down.
fn group_memory(root: &Path, groups: &str) -> Option<u64> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let limit = |group: &Path| {
        let text = std::fs::read_to_string(root.join(group).join("memory.max")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    Path::new(own).ancestors().filter_map(limit).min()
}

fn level(durability: config::Durability) -> Level {
    match durability {
        config::Durability::Memory => Level::Memory,
        config::Durability::Os => Level::Os,
        config::Durability::Interval(span) => Level::Interval(span),
        config::Durability::Fsync => Level::Fsync,
    }
}

fn policies(config: &Config) -> Policies {
    let durability = level(config.store.durability);
    let mut policies = Policies::new(Policy { durability, ..Policy::default() });
    for entry in &config.policy {
        policies.add(entry.destination.clone(), policy(entry, durability));
    }
    policies
}

fn policy(entry: &config::Policy, durability: Level) -> Policy {
    // The only answer to a full destination there is so far; a second one would have to be mapped here.
    let config::WhenFull::Refuse = entry.when_full;
    let bound = |value: u64| if value == 0 { u64::MAX } else { value };
    let span = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
    Policy {
        durability: entry.durability.map_or(durability, level),
        messages_max: bound(entry.messages_max),
        bytes_max: bound(entry.bytes_max),
        delivery_limit: entry.delivery_limit,
        negative: match entry.nack {
            config::Nack::Redeliver => Negative::Redeliver,
            config::Nack::DeadLetter => Negative::DeadLetter,
        },
        dead_letters: match entry.dead_letter {
            config::DeadLetter::Shared => DeadLetters::Shared(entry.shared_dead_letters().clone()),
            config::DeadLetter::Individual => DeadLetters::Individual {
                prefix: entry.dead_letter_prefix.clone(),
                suffix: entry.dead_letter_suffix.clone(),
            },
            config::DeadLetter::Discard => DeadLetters::Discard,
        },
        expired: match entry.expired {
            config::Expired::Drop => Expired::Drop,
            config::Expired::DeadLetter => Expired::DeadLetter,
        },
        prioritized: entry.prioritized,
        slow_consumer: slow_consumer(entry.slow_consumer),
        pending_max: entry.pending_max,
        prefetch: entry.prefetch,
        gc_after: span(entry.gc_after_ms),
        ttl_max: span(entry.ttl_max_ms),
    }
}

fn slow_consumer(configured: config::SlowConsumer) -> SlowConsumer {
    match configured {
        config::SlowConsumer::DropOldest => SlowConsumer::DropOldest,
        config::SlowConsumer::DropNewest => SlowConsumer::DropNewest,
        config::SlowConsumer::Disconnect => SlowConsumer::Disconnect,
    }
}

fn rules(config: &Config) -> Result<Rules, Failure> {
    let composites = config.composite.iter().map(composite).collect::<Result<_, _>>()?;
    let virtual_topics = config
        .virtual_topic
        .iter()
        .map(|entry| VirtualTopicRule {
            name: entry.name.0.clone(),
            prefix: entry.prefix.0.clone(),
            postfix: entry.postfix.0.clone(),
            selector_aware: entry.selector_aware,
            drop_on_resource_limit: entry.drop_on_resource_limit,
            set_original_destination: entry.set_original_destination,
        })
        .collect();
    let mirrored = &config.mirrored_queues;
    let mirrored_queues = mirrored
        .enabled
        .then(|| MirroredQueues { prefix: mirrored.prefix.clone(), postfix: mirrored.postfix.clone() });
    Ok(Rules { composites, virtual_topics, mirrored_queues })
}

fn composite(entry: &config::Composite) -> Result<CompositeRule, Failure> {
    let forward = |target: &config::Forward| {
        let selector = match target.selector.as_deref().map(parse_selector) {
            None => None,
            Some(Ok(selector)) => Some(Arc::new(selector)),
            Some(Err(refusal)) => {
                return Err(Failure::Rule(
                    format!("composite {} to {}", entry.name, target.destination),
                    refusal,
                ));
            }
        };
        Ok(Forward { destination: target.destination.clone(), selector })
    };
    Ok(CompositeRule {
        name: entry.name.clone(),
        forward_to: entry.forward_to.iter().map(forward).collect::<Result<_, _>>()?,
        forward_only: entry.forward_only,
        send_when_not_matched: entry.send_when_not_matched,
    })
}

/// A selector of the configuration: properties that only know text compare with numbers, as in a subscription over STOMP.
fn parse_selector(text: &str) -> Result<Selector, Refusal> {
    Selector::parse_with(text, selector::Options { convert_strings: true })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_defaults_become_limits_that_hang_together() {
        let config = Config::default();
        let limits = session_limits(&config);
        assert!(limits.blob_bytes_min < limits.frame_bytes_max);
        assert!(limits.frame_bytes_max < limits.body_bytes_max);
        assert_eq!(limits.prefetch, Prefetch::default());
        assert_eq!(
            policies(&config).lookup(&sabir_model::destination::Destination::queue("a")).delivery_limit,
            7
        );
        assert!(
            rules(&config).is_ok_and(|rules| rules.virtual_topics.len() == 1 && rules.composites.is_empty())
        );
    }

    /// A broker with its data in `dir`.
    fn broker(dir: &Path) -> Broker {
        let mut config = Config::default();
        config.store.dir = dir.to_owned();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let gate = Gatekeeper::open(config.gate_options(1), Arc::clone(&clock)).unwrap();
        Broker::open(broker_options(&config, 10, gate, clock).unwrap()).unwrap().0
    }

    #[test]
    fn no_sign_of_life_comes_from_a_broker_that_time_has_stopped_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let broker = broker(dir.path());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let turns = tokio::sync::watch::Sender::new(0);
            let supervisor = Arc::new(Supervisor::new(&path, Duration::from_millis(400)));
            supervisor.watch(broker.clone(), turns.subscribe());
            let mut message = [0; 100];
            // The ticker stands still; many a sign would have come meanwhile.
            tokio::time::sleep(Duration::from_millis(1000)).await;
            assert!(manager.recv(&mut message).is_err());
            // It goes on.
            let count = loop {
                turns.send_modify(|turns| *turns += 1);
                tokio::time::sleep(Duration::from_millis(5)).await;
                if let Ok(count) = manager.recv(&mut message) {
                    break count;
                }
            };
            assert_eq!(&message[..count], b"WATCHDOG=1\nSTATUS=serving 0 connections");
        });
        broker.close().unwrap();
    }

    #[test]
    fn the_narrowest_control_group_above_the_process_limits_its_memory() {
        let root = tempfile::tempdir().unwrap();
        let service = root.path().join("system.slice/sabir.service");
        std::fs::create_dir_all(&service).unwrap();
        let groups = "1:name=systemd:/x\n0::/system.slice/sabir.service\n";
        assert_eq!(group_memory(root.path(), groups), None);
        std::fs::write(service.join("memory.max"), "1000\n").unwrap();
        std::fs::write(root.path().join("system.slice/memory.max"), "max\n").unwrap();
        assert_eq!(group_memory(root.path(), groups), Some(1000));
        std::fs::write(root.path().join("memory.max"), "700\n").unwrap();
        assert_eq!(group_memory(root.path(), groups), Some(700));
        assert_eq!(group_memory(root.path(), "0::/\n"), Some(700), "in a container");
    }

    #[test]
    fn some_memory_is_always_found() {
        assert!(machine_memory() > 0);
    }
}
