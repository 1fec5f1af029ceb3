//! What the broker says about itself below `$SYS/broker`, in the topics and units of Mosquitto, so that dashboards made
//! for that show something here. Nothing of it is logged; a topic is published only when its value has changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sabir_broker::BrokerStats;
use sabir_model::clock::Clock;
use sabir_model::destination::{Destination, Kind, LEVEL_SEPARATOR};

use super::{SERVER_NAME, Shared};

/// Publishes until the server ends.
pub(super) async fn run(shared: Arc<Shared>, interval: Duration) {
    let mut ticker = tokio::time::interval(interval);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said: HashMap<&'static str, String> = HashMap::new();
    let mut loads = Loads::new(interval);
    let most = AtomicU64::new(0);
    loop {
        ticker.tick().await;
        let stats = shared.broker.stats();
        let net = shared.census.snapshot();
        most.fetch_max(stats.connections, Ordering::Relaxed);
        let uptime = shared.clock.now().0 / 1_000_000;
        let totals = Totals {
            received: stats.published,
            sent: stats.dispatched,
            dropped: stats.discarded,
            bytes_received: net.read_bytes,
            bytes_sent: net.written_bytes,
            connections: stats.connections_total,
            sockets: net.accepted,
        };
        let mut say = |topic: &'static str, value: String| {
            if said.get(topic) == Some(&value) {
                return;
            }
            let canonical =
                format!("$SYS/broker/{topic}").replace('/', LEVEL_SEPARATOR.encode_utf8(&mut [0; 4]));
            if let Ok(destination) = Destination::from_canonical(Kind::Topic, false, &canonical)
                && shared.broker.tell(&destination, value.as_bytes()).is_ok()
            {
                said.insert(topic, value);
            }
        };
        say("version", SERVER_NAME.replace('/', " version "));
        say("uptime", format!("{uptime} seconds"));
        for (topic, value) in gauges(&stats, most.load(Ordering::Relaxed), &totals) {
            say(topic, value.to_string());
        }
        for (topic, value) in loads.update(&totals) {
            say(topic, format!("{value:.2}"));
        }
    }
}

/// What only grows.
#[derive(Clone, Copy, Default)]
struct Totals {
    received: u64,
    sent: u64,
    dropped: u64,
    bytes_received: u64,
    bytes_sent: u64,
    connections: u64,
    sockets: u64,
}

fn gauges(stats: &BrokerStats, most: u64, totals: &Totals) -> [(&'static str, u64); 24] {
    let stored: u64 = stats.queues.iter().map(|queue| queue.ready + queue.unsettled).sum();
    let stored_bytes: u64 = stats.queues.iter().map(|queue| queue.bytes).sum();
    let away = stats.sessions.saturating_sub(stats.sessions_connected);
    [
        ("clients/connected", stats.connections),
        ("clients/active", stats.connections),
        ("clients/disconnected", away),
        ("clients/inactive", away),
        ("clients/total", stats.connections + away),
        ("clients/maximum", most),
        ("clients/expired", stats.sessions_expired),
        ("bytes/received", totals.bytes_received),
        ("bytes/sent", totals.bytes_sent),
        ("messages/received", totals.received),
        ("messages/sent", totals.sent),
        ("messages/stored", stored + stats.retained),
        ("publish/messages/received", totals.received),
        ("publish/messages/sent", totals.sent),
        ("publish/messages/dropped", totals.dropped),
        ("publish/bytes/received", stats.published_bytes),
        ("retained messages/count", stats.retained),
        ("store/messages/count", stored + stats.retained),
        ("store/messages/bytes", stored_bytes + stats.retained_bytes),
        ("subscriptions/count", stats.topic_subscriptions),
        ("shared_subscriptions/count", stats.shared_subscriptions),
        ("heap/current", stats.memory_bytes),
        ("heap/maximum", stats.memory_bytes_max),
        ("heap/current size", stats.memory_bytes),
    ]
}

/// Moving averages per minute over one, five and fifteen minutes.
struct Loads {
    seconds: f64,
    last: Totals,
    averages: [[f64; 3]; 9],
}

impl Loads {
    fn new(interval: Duration) -> Self {
        Self { seconds: interval.as_secs_f64(), last: Totals::default(), averages: [[0.0; 3]; 9] }
    }

    fn update(&mut self, now: &Totals) -> Vec<(&'static str, f64)> {
        let last = std::mem::replace(&mut self.last, *now);
        let grown = [
            now.received - last.received,
            now.sent - last.sent,
            now.received - last.received,
            now.sent - last.sent,
            now.dropped - last.dropped,
            now.bytes_received - last.bytes_received,
            now.bytes_sent - last.bytes_sent,
            now.connections - last.connections,
            now.sockets - last.sockets,
        ];
        let mut rows = Vec::with_capacity(27);
        for ((grown, averages), topics) in grown.into_iter().zip(&mut self.averages).zip(LOAD_TOPICS) {
            let per_minute = grown as f64 * 60.0 / self.seconds;
            for ((average, minutes), topic) in averages.iter_mut().zip([1.0, 5.0, 15.0]).zip(topics) {
                let keep = (-self.seconds / (60.0 * minutes)).exp();
                *average = per_minute.mul_add(1.0 - keep, *average * keep);
                rows.push((topic, *average));
            }
        }
        rows
    }
}

macro_rules! load {
    ($what:literal) => {
        [
            concat!("load/", $what, "/1min"),
            concat!("load/", $what, "/5min"),
            concat!("load/", $what, "/15min"),
        ]
    };
}

const LOAD_TOPICS: [[&str; 3]; 9] = [
    load!("messages/received"),
    load!("messages/sent"),
    load!("publish/received"),
    load!("publish/sent"),
    load!("publish/dropped"),
    load!("bytes/received"),
    load!("bytes/sent"),
    load!("connections"),
    load!("sockets"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_load_is_what_the_averages_come_to() {
        let mut loads = Loads::new(Duration::from_secs(10));
        let mut totals = Totals::default();
        let mut rows = Vec::new();
        for _ in 0..1000 {
            totals.received += 50;
            rows = loads.update(&totals);
        }
        for minutes in ["1min", "5min", "15min"] {
            let topic = format!("load/publish/received/{minutes}");
            let (_, value) = rows.iter().find(|(known, _)| *known == topic).expect("the topic is there");
            assert!((value - 300.0).abs() < 0.5, "{topic} {value}");
        }
    }
}
