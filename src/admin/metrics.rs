//! Every metric by name: the page that `/metrics` shows.
//!
//! Names follow Prometheus: base units, counters end in `_total`. Broker-wide counters do not depend on connections or
//! queues that come and go. Rows per queue and topic are bounded, the busiest first, so that a million queues are no million
//! rows.

use sabir_broker::BrokerStats;
use sabir_store::SYNC_US_BOUNDS;

use crate::exposition::{Format, Kind, Page};
use crate::process::Process;

/// How the page is to be.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// In which format.
    pub format: Format,
    /// Queues, and as many topics, that get rows of their own.
    pub rows_max: usize,
}

/// What the net layer counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetStats {
    /// Sockets open now, HTTP included.
    pub sockets: u64,
    /// Most sockets at a time.
    pub sockets_max: u64,
    /// Sockets ever accepted.
    pub accepted: u64,
    /// Sockets that were not served, by the reason.
    pub turned_away: Vec<(&'static str, u64)>,
    /// Sockets that spoke nothing known here.
    pub not_understood: u64,
    /// Bytes of messaging protocols read.
    pub read_bytes: u64,
    /// Bytes of messaging protocols written.
    pub written_bytes: u64,
    /// Connections ended by their peer's fault, by stable code; only those above zero.
    pub violations: Vec<(&'static str, u64)>,
}

/// The whole page.
#[must_use]
pub fn metrics(broker: &BrokerStats, net: &NetStats, process: &Process, shape: Shape) -> String {
    let mut page = Page::new(shape.format);
    process_metrics(&mut page, process);
    net_metrics(&mut page, net);
    broker_metrics(&mut page, broker);
    queue_metrics(&mut page, broker, shape.rows_max);
    topic_metrics(&mut page, broker, shape.rows_max);
    store_metrics(&mut page, broker);
    page.into_text()
}

fn process_metrics(page: &mut Page, process: &Process) {
    page.family("sabir_info", Kind::Gauge, "The version that runs; always 1.");
    page.labelled("sabir_info", &[("version", process.version)], 1);
    page.single("sabir_uptime_seconds", Kind::Gauge, "Time since the start.", process.uptime_seconds);
    let Some(usage) = process.usage else { return };
    page.single(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Resident memory of the process.",
        usage.resident_bytes,
    );
    page.single("process_cpu_seconds_total", Kind::Counter, "User and system time.", usage.cpu_seconds);
    page.single("process_open_fds", Kind::Gauge, "Open file descriptors.", usage.descriptors);
    if let Some(most) = usage.descriptors_max {
        page.single("process_max_fds", Kind::Gauge, "Most file descriptors.", most);
    }
}

fn net_metrics(page: &mut Page, net: &NetStats) {
    use Kind::{Counter, Gauge};
    for (name, kind, help, value) in [
        ("sabir_sockets", Gauge, "Sockets open now, HTTP included.", net.sockets),
        ("sabir_sockets_max", Gauge, "Most sockets at a time (limits.connections_max).", net.sockets_max),
        ("sabir_sockets_accepted_total", Counter, "Sockets accepted.", net.accepted),
        (
            "sabir_sockets_not_understood_total",
            Counter,
            "Sockets that spoke no protocol known here.",
            net.not_understood,
        ),
        ("sabir_read_bytes_total", Counter, "Bytes of messaging protocols read.", net.read_bytes),
        ("sabir_written_bytes_total", Counter, "Bytes of messaging protocols written.", net.written_bytes),
    ] {
        page.single(name, kind, help, value);
    }
    let name = "sabir_sockets_refused_total";
    page.family(name, Counter, "Sockets that were not served, by the reason.");
    for (reason, count) in &net.turned_away {
        page.labelled(name, &[("reason", reason)], count);
    }
    let name = "sabir_protocol_errors_total";
    page.family(name, Counter, "Connections ended by their peer's fault, by code.");
    for (code, count) in &net.violations {
        page.labelled(name, &[("code", code)], count);
    }
}

fn broker_metrics(page: &mut Page, broker: &BrokerStats) {
    use Kind::{Counter, Gauge};
    for (name, kind, help, value) in [
        ("sabir_connections", Gauge, "Messaging connections open now.", broker.connections),
        ("sabir_connections_total", Counter, "Messaging connections ever.", broker.connections_total),
        ("sabir_logins_failed_total", Counter, "Logins refused.", broker.logins_failed),
        ("sabir_messages_received_total", Counter, "Messages accepted from producers.", broker.published),
        ("sabir_messages_received_bytes_total", Counter, "Bytes of their bodies.", broker.published_bytes),
        (
            "sabir_messages_unreadable_total",
            Counter,
            "Messages that the log could not give back.",
            broker.unreadable,
        ),
        (
            "sabir_messages_spilled_total",
            Counter,
            "Messages that are not persistent and went to the log for want of memory.",
            broker.spilled,
        ),
        (
            "sabir_messages_spilled_bytes",
            Gauge,
            "Bytes of those of them that are held still, about.",
            broker.spilled_bytes,
        ),
        (
            "sabir_messages_unrouted_total",
            Counter,
            "Messages that nobody was interested in.",
            broker.unrouted,
        ),
        ("sabir_messages_delivered_total", Counter, "Deliveries handed to connections.", broker.dispatched),
        (
            "sabir_messages_acknowledged_total",
            Counter,
            "Deliveries accepted by consumers.",
            broker.acknowledged,
        ),
        ("sabir_messages_redelivered_total", Counter, "Deliveries returned and counted.", broker.redelivered),
        ("sabir_messages_expired_total", Counter, "Messages that expired.", broker.expired),
        (
            "sabir_messages_dead_lettered_total",
            Counter,
            "Messages that became dead letters.",
            broker.dead_lettered,
        ),
        ("sabir_messages_dropped_total", Counter, "Messages dropped by policy.", broker.discarded),
        (
            "sabir_transactions_committed_total",
            Counter,
            "Transactions committed.",
            broker.transactions_committed,
        ),
        ("sabir_transactions_aborted_total", Counter, "Transactions aborted.", broker.transactions_aborted),
        (
            "sabir_topic_subscriptions",
            Gauge,
            "Topic subscriptions, durable ones included.",
            broker.topic_subscriptions,
        ),
        ("sabir_client_sessions", Gauge, "Client sessions, connected or not.", broker.sessions),
        (
            "sabir_client_sessions_connected",
            Gauge,
            "Client sessions that somebody is connected to.",
            broker.sessions_connected,
        ),
        (
            "sabir_client_sessions_expired_total",
            Counter,
            "Client sessions whose time was over.",
            broker.sessions_expired,
        ),
        (
            "sabir_shared_subscriptions",
            Gauge,
            "Groups that share a subscription.",
            broker.shared_subscriptions,
        ),
        ("sabir_retained_messages", Gauge, "Topics that keep a last value.", broker.retained),
        ("sabir_retained_bytes", Gauge, "Bytes of these values in memory.", broker.retained_bytes),
        ("sabir_memory_bytes", Gauge, "Bytes of messages held in memory, wherever.", broker.memory_bytes),
        ("sabir_memory_bytes_max", Gauge, "Most bytes of messages held in memory.", broker.memory_bytes_max),
        (
            "sabir_memory_outbox_bytes",
            Gauge,
            "Of these: what waits for sockets that take no more.",
            broker.memory_outboxes,
        ),
        ("sabir_memory_frame_bytes", Gauge, "Of these: frames that arrived in part.", broker.memory_frames),
        (
            "sabir_memory_transaction_bytes",
            Gauge,
            "Of these: sends that wait for their commit.",
            broker.memory_transactions,
        ),
        (
            "sabir_store_pending_bytes",
            Gauge,
            "Bytes on their way to the log, not synced where that is asked for.",
            broker.pending_bytes,
        ),
        (
            "sabir_store_pending_bytes_soft",
            Gauge,
            "Above this those who sent them wait.",
            broker.pending_bytes_soft,
        ),
        (
            "sabir_store_pending_bytes_max",
            Gauge,
            "At this persistent sends are refused (store.pending_bytes_max).",
            broker.pending_bytes_max,
        ),
        (
            "sabir_connections_slow",
            Gauge,
            "Connections whose sockets take no more although something waits.",
            broker.connections_slow,
        ),
        (
            "sabir_connections_cut_off_total",
            Counter,
            "Connections ended for reading too slowly.",
            broker.cut_off,
        ),
    ] {
        page.single(name, kind, help, value);
    }
    let name = "sabir_messages_refused_total";
    page.family(name, Counter, "Sends and commits refused, by the code of the refusal.");
    for (code, count) in &broker.refused_by_code {
        page.labelled(name, &[("code", code)], count);
    }
    let name = "sabir_producers_paused";
    page.family(name, Gauge, "Connections that are not read now, by what they filled.");
    page.labelled(name, &[("by", "log")], broker.waiting_for_log);
    page.labelled(name, &[("by", "memory")], broker.waiting_for_memory);
    let name = "sabir_producers_paused_total";
    page.family(name, Counter, "How often a connection was not read for a while, by what it filled.");
    page.labelled(name, &[("by", "log")], broker.waits_for_log);
    page.labelled(name, &[("by", "memory")], broker.waits_for_memory);
    let name = "sabir_protocol_connections";
    page.family(name, Gauge, "Messaging connections open now, by what they speak.");
    for (protocol, count) in &broker.connections_by_protocol {
        page.labelled(name, &[("protocol", protocol)], count);
    }
}

fn queue_metrics(page: &mut Page, broker: &BrokerStats, rows_max: usize) {
    let total = |field: fn(&sabir_broker::QueueStats) -> u64| broker.queues.iter().map(field).sum::<u64>();
    page.single("sabir_queues", Kind::Gauge, "Queues, durable subscriptions included.", broker.queues.len());
    page.single(
        "sabir_messages_ready",
        Kind::Gauge,
        "Messages ready for a consumer, in all queues.",
        total(|q| q.ready),
    );
    page.single(
        "sabir_messages_unsettled",
        Kind::Gauge,
        "Messages delivered and not settled, in all queues.",
        total(|q| q.unsettled),
    );

    let rows = busiest(&broker.queues, rows_max, |q| q.enqueued + q.delivered + q.ready + q.unsettled);
    page.single(
        "sabir_queues_without_rows",
        Kind::Gauge,
        "Queues that are not among the busiest, which have rows of their own (http.metrics_rows_max).",
        broker.queues.len() - rows.len(),
    );
    type Field = fn(&sabir_broker::QueueStats) -> u64;
    let families: [(&str, Kind, &str, Field); 12] = [
        ("sabir_queue_messages_ready", Kind::Gauge, "Messages ready for a consumer.", |q| q.ready),
        ("sabir_queue_messages_unsettled", Kind::Gauge, "Messages delivered and not settled.", |q| {
            q.unsettled
        }),
        ("sabir_queue_bytes", Kind::Gauge, "Bytes held, in memory or not.", |q| q.bytes),
        ("sabir_queue_messages_paged", Kind::Gauge, "Messages ready that are in the log only.", |q| q.paged),
        ("sabir_queue_consumers", Kind::Gauge, "Consumers attached.", |q| q.consumers),
        ("sabir_queue_messages_enqueued_total", Kind::Counter, "Messages enqueued since the start.", |q| {
            q.enqueued
        }),
        (
            "sabir_queue_messages_delivered_total",
            Kind::Counter,
            "Deliveries handed to consumers since the start.",
            |q| q.delivered,
        ),
        (
            "sabir_queue_messages_redelivered_total",
            Kind::Counter,
            "Deliveries that came back and were counted since the start.",
            |q| q.redelivered,
        ),
        ("sabir_queue_paused", Kind::Gauge, "1 while an operator lets it hand nothing out.", |q| {
            u64::from(q.paused)
        }),
        (
            "sabir_queue_messages_acknowledged_total",
            Kind::Counter,
            "Messages accepted by consumers since the start.",
            |q| q.acknowledged,
        ),
        ("sabir_queue_messages_expired_total", Kind::Counter, "Messages expired since the start.", |q| {
            q.expired
        }),
        (
            "sabir_queue_messages_dead_lettered_total",
            Kind::Counter,
            "Messages that became dead letters since the start.",
            |q| q.dead_lettered,
        ),
    ];
    for (name, kind, help, field) in families {
        page.family(name, kind, help);
        for queue in &rows {
            page.labelled(name, &labels(queue), field(queue));
        }
    }
    let name = "sabir_queue_oldest_message_age_seconds";
    page.family(name, Kind::Gauge, "How long ago the oldest message held was sent, by its own account.");
    for queue in &rows {
        // A message may claim to be from the future.
        let age = queue.oldest.map_or(0, |sent| broker.time.0.saturating_sub(sent.0));
        page.labelled(name, &labels(queue), age as f64 / 1000.0);
    }
    let name = "sabir_queue_info";
    page.family(name, Kind::Gauge, "What a receipt for a persistent message promises; always 1.");
    for queue in &rows {
        let durability = queue.durability.to_string();
        let mut labels = labels(queue);
        labels.push(("durability", &durability));
        page.labelled(name, &labels, 1);
    }
}

fn topic_metrics(page: &mut Page, broker: &BrokerStats, rows_max: usize) {
    let rows = busiest(&broker.topics, rows_max, |topic| topic.published);
    page.single(
        "sabir_topics_without_rows",
        Kind::Gauge,
        "Topics that were sent to and are not among the busiest, which have rows of their own.",
        broker.topics.len() - rows.len(),
    );
    let name = "sabir_topic_messages_received_total";
    page.family(name, Kind::Counter, "Messages that clients have sent to it by name since the start.");
    for topic in rows {
        let mut labels = vec![("topic", topic.name.as_str())];
        if !matches!(topic.host.as_str(), "/" | "") {
            labels.push(("host", &topic.host));
        }
        page.labelled(name, &labels, topic.published);
    }
}

/// The busiest of some that are in the order of their names, in that order.
fn busiest<T>(all: &[T], most: usize, busy: impl Fn(&T) -> u64) -> Vec<&T> {
    let mut places: Vec<usize> = (0..all.len()).collect();
    places.sort_by_key(|at| std::cmp::Reverse(all.get(*at).map(&busy)));
    places.truncate(most);
    places.sort_unstable();
    places.into_iter().filter_map(|at| all.get(at)).collect()
}

/// The labels of a queue's rows: its name, and its virtual host where that is not the default one.
fn labels(queue: &sabir_broker::QueueStats) -> Vec<(&'static str, &str)> {
    let mut labels = vec![("queue", queue.name.as_str())];
    if !matches!(queue.host.as_str(), "/" | "") {
        labels.push(("host", &queue.host));
    }
    labels
}

fn store_metrics(page: &mut Page, broker: &BrokerStats) {
    use Kind::{Counter, Gauge};
    let store = &broker.store;
    for (name, kind, help, value) in [
        (
            "sabir_store_written_bytes_total",
            Counter,
            "Bytes of frames written to the log.",
            store.bytes_written,
        ),
        ("sabir_store_frames_total", Counter, "Frames written.", store.frames),
        ("sabir_store_groups_total", Counter, "Op groups written.", store.groups),
        ("sabir_store_messages_total", Counter, "Messages appended to the log.", store.messages_appended),
        ("sabir_store_disk_bytes", Gauge, "Bytes of all segments and page files.", store.disk_bytes),
        ("sabir_store_blobs", Gauge, "Files of large bodies.", store.blobs),
        ("sabir_store_blob_bytes", Gauge, "Bytes of all files of large bodies.", store.blob_bytes),
        (
            "sabir_store_disk_bytes_max",
            Gauge,
            "Most of these (store.disk_bytes_max); 0 is all there is.",
            broker.disk_bytes_max.unwrap_or(0),
        ),
        (
            "sabir_store_live_bytes",
            Gauge,
            "Bytes of unacknowledged messages in the log, about, once for each queue.",
            store.bytes_live,
        ),
        (
            "sabir_store_live_ranges",
            Gauge,
            "Ranges of unacknowledged messages: what the log's memory is proportional to.",
            store.live_ranges,
        ),
        ("sabir_store_reads_total", Counter, "Reads of messages out of the log.", store.reads),
        ("sabir_store_read_bytes_total", Counter, "Bytes read from segments for them.", store.read_bytes),
        (
            "sabir_store_scrubbed_bytes_total",
            Counter,
            "Bytes of old segments read in the background.",
            store.scrubbed_bytes,
        ),
        ("sabir_store_scrubs_total", Counter, "Passes over all old segments completed.", store.scrubs),
        (
            "sabir_store_damaged",
            Gauge,
            "Places in files in use where unacknowledged messages cannot be read.",
            store.damaged,
        ),
        (
            "sabir_store_disk_free_bytes",
            Gauge,
            "Free space of the disk when it was last looked.",
            store.disk_free_bytes,
        ),
        ("sabir_store_segments_live", Gauge, "Segments in use.", store.segments_live),
        ("sabir_store_segments_free", Gauge, "Segments ready for use.", store.segments_free),
        ("sabir_store_segments_recycled_total", Counter, "Segments used again.", store.recycled),
        (
            "sabir_store_evacuated_bytes_total",
            Counter,
            "Bytes copied out of old segments.",
            store.evacuated_bytes,
        ),
        ("sabir_store_pages", Gauge, "Page files, and segments kept as such.", store.pages_live),
        ("sabir_store_page_bytes", Gauge, "Bytes of pages.", store.page_bytes),
        ("sabir_store_paged_bytes_total", Counter, "Bytes written into page files.", store.paged_bytes),
        ("sabir_store_checkpoints_total", Counter, "Checkpoints written.", store.checkpoints),
        ("sabir_store_checkpoint_bytes", Gauge, "Size of the newest checkpoint.", store.checkpoint_bytes),
        (
            "sabir_store_disk_full",
            Gauge,
            "1 while persistent sends are refused for want of disk space.",
            u64::from(store.disk_full),
        ),
    ] {
        page.single(name, kind, help, value);
    }
    let name = "sabir_store_sync_seconds";
    page.family(name, Kind::Histogram, "Duration of syncs of the log.");
    let mut cumulative = 0;
    for (index, count) in store.sync_us_histogram.iter().enumerate() {
        cumulative += count;
        let bound =
            SYNC_US_BOUNDS.get(index).map_or_else(|| "+Inf".to_owned(), |us| (*us as f64 / 1e6).to_string());
        page.labelled(&format!("{name}_bucket"), &[("le", &bound)], cumulative);
    }
    page.sample(&format!("{name}_sum"), store.sync_us_sum as f64 / 1e6);
    page.sample(&format!("{name}_count"), store.syncs);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashSet;

    use sabir_broker::{QueueStats, TopicStats};

    use super::*;

    fn page(broker: &BrokerStats) -> String {
        let net = NetStats { violations: vec![("malformed-frame", 2)], ..NetStats::default() };
        let process = Process { uptime_seconds: 1.5, version: "1.2.3", usage: None };
        metrics(broker, &net, &process, Shape { format: Format::Prometheus, rows_max: 1000 })
    }

    fn value(page: &str, series: &str) -> String {
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{page}")).to_owned()
    }

    #[test]
    fn every_sample_belongs_to_the_family_announced_before_it_and_no_family_comes_twice() {
        let queues = vec![QueueStats { name: "queue://a".into(), ..QueueStats::default() }];
        let page = page(&BrokerStats { queues, ..BrokerStats::default() });
        let mut seen = HashSet::new();
        let mut family = String::new();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
                assert!(seen.insert(name.to_owned()), "{name} twice");
                family = name.to_owned();
            } else if !line.starts_with('#') {
                assert!(line.starts_with(&family), "{line} outside of {family}");
                assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn queues_and_topics_have_rows_up_to_a_bound_and_the_busiest_come_first() {
        let queues: Vec<QueueStats> = (0..1500u64)
            .map(|n| QueueStats {
                name: format!("queue://q{n:04}"),
                ready: n,
                unsettled: 1,
                ..QueueStats::default()
            })
            .collect();
        let topic =
            |n| TopicStats { name: format!("topic://t{n:04}"), published: n, ..TopicStats::default() };
        let topics = (0..1001).map(topic).collect();
        let page = page(&BrokerStats { queues, topics, ..BrokerStats::default() });
        assert_eq!(value(&page, "sabir_topics_without_rows"), "1");
        assert_eq!(value(&page, "sabir_topic_messages_received_total{topic=\"topic://t1000\"}"), "1000");
        assert!(!page.contains("topic://t0000\""));
        assert_eq!(value(&page, "sabir_queues"), "1500");
        assert_eq!(value(&page, "sabir_queues_without_rows"), "500");
        assert_eq!(value(&page, "sabir_messages_unsettled"), "1500");
        assert_eq!(value(&page, "sabir_queue_messages_ready{queue=\"queue://q1499\"}"), "1499");
        assert!(!page.contains("queue://q0499\""));
    }

    #[test]
    fn a_queue_tells_the_age_of_its_oldest_message_and_an_empty_one_none() {
        let sent = |name: &str, oldest| QueueStats { name: name.into(), oldest, ..QueueStats::default() };
        let at = sabir_model::clock::Timestamp;
        let queues = vec![
            sent("queue://a", Some(at(1000))),
            sent("queue://b", None),
            sent("queue://c", Some(at(9000))),
        ];
        let page = page(&BrokerStats { queues, time: at(3500), ..BrokerStats::default() });
        for (queue, age) in [("a", "2.5"), ("b", "0"), ("c", "0")] {
            let series = format!("sabir_queue_oldest_message_age_seconds{{queue=\"queue://{queue}\"}}");
            assert_eq!(value(&page, &series), age, "{queue}");
        }
    }

    #[test]
    fn open_metrics_names_the_families_of_counters_without_their_ending_and_ends() {
        let process = Process { uptime_seconds: 1.5, version: "1.2.3", usage: None };
        let shape = Shape { format: Format::OpenMetrics, rows_max: 1 };
        let page = metrics(&BrokerStats::default(), &NetStats::default(), &process, shape);
        assert!(page.contains("# TYPE sabir_logins_failed counter\nsabir_logins_failed_total 0\n"), "{page}");
        assert!(!page.lines().any(|line| line.starts_with("# TYPE") && line.contains("_total")), "{page}");
        assert!(page.ends_with("\n# EOF\n"), "{page}");
    }

    #[test]
    fn queues_tell_their_durability_and_their_virtual_host() {
        let queue = |host: &str, durability| QueueStats {
            name: "queue://a".into(),
            host: host.into(),
            durability,
            ..QueueStats::default()
        };
        let interval = sabir_store::Level::Interval(std::time::Duration::from_millis(250));
        let queues = vec![queue("/", sabir_store::Level::Fsync), queue("shop", interval)];
        let page = page(&BrokerStats { queues, ..BrokerStats::default() });
        assert_eq!(value(&page, r#"sabir_queue_info{queue="queue://a",durability="fsync"}"#), "1");
        let shop = r#"sabir_queue_info{queue="queue://a",host="shop",durability="interval(250)"}"#;
        assert_eq!(value(&page, shop), "1");
        assert_eq!(value(&page, r#"sabir_queue_messages_ready{queue="queue://a",host="shop"}"#), "0");
    }

    #[test]
    fn sync_times_are_a_cumulative_histogram_in_seconds() {
        let mut broker = BrokerStats::default();
        broker.store.sync_us_histogram = [1, 2, 0, 0, 0, 0, 0, 4];
        (broker.store.syncs, broker.store.sync_us_sum) = (7, 1_500_000);
        let page = page(&broker);
        assert_eq!(value(&page, "sabir_store_sync_seconds_bucket{le=\"0.0001\"}"), "1");
        assert_eq!(value(&page, "sabir_store_sync_seconds_bucket{le=\"0.1\"}"), "3");
        assert_eq!(value(&page, "sabir_store_sync_seconds_bucket{le=\"+Inf\"}"), "7");
        assert_eq!(value(&page, "sabir_store_sync_seconds_sum"), "1.5");
        assert_eq!(value(&page, "sabir_store_sync_seconds_count"), "7");
    }

    #[test]
    fn protocol_errors_are_counted_by_code() {
        let page = page(&BrokerStats::default());
        assert_eq!(value(&page, "sabir_protocol_errors_total{code=\"malformed-frame\"}"), "2");
    }
}
