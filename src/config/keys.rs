//! The flat table of every key: name, type, bounds, default and one line of documentation. The reader, the sample file,
//! `--help` and `docs/configuration.md` are made from it, so a key that is not here does not exist.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::table::{bytes, count, ms, table};
use super::targets::Target;
use super::types::{AnonymousLocal, Durability, HostName, LogFilter, LogFormat, Origin, SlowConsumer};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

table! {
    /// Where clients connect.
    Listeners "listeners" {
        /// STOMP over TCP.
        stomp: Vec<SocketAddr> = "127.0.0.1:61613";
        /// MQTT over TCP.
        mqtt: Vec<SocketAddr> = "127.0.0.1:1883";
        /// Every protocol over TCP; the first bytes tell which.
        any: Vec<SocketAddr> = "127.0.0.1:61616";
        /// HTTP: WebSocket for STOMP at /stomp and for MQTT at /mqtt, health at /healthz/live and /healthz/ready, metrics at /metrics.
        http: Vec<SocketAddr> = "127.0.0.1:8161";
        /// Every protocol over Unix sockets, by path.
        unix: Vec<PathBuf> = "off";
    }
}

table! {
    /// Where messages are kept, and how safely.
    Store "store" {
        /// The directory of the message log; made if absent. One server at a time.
        dir: PathBuf = "./sabir-data";
        /// What a receipt for a persistent message promises where no policy says otherwise.
        durability: Durability = "fsync";
        /// Size of one file of the log.
        segment_bytes: u64 [bytes(4 * KIB, 4 * GIB)] = "64 MiB";
        /// Size of the journal above which its oldest part is put into pages or compacted. A restart reads less than this.
        journal_bytes_max: u64 [bytes(16 * KIB, 64 * TIB)] = "1 GiB";
        /// Most disk space; beyond it persistent sends are refused. 0 is all there is.
        disk_bytes_max: u64 [bytes(0, 1024 * TIB)] = "0";
        /// Free disk space below which persistent sends are refused, whoever filled the disk. 0 is none.
        disk_free_bytes_min: u64 [bytes(0, 1024 * TIB)] = "0";
        /// Free disk space from which on they are accepted again. 0 is the same.
        disk_free_bytes_resume: u64 [bytes(0, 1024 * TIB)] = "0";
        /// Most bytes that may wait to be written; beyond it persistent sends are refused.
        pending_bytes_max: usize [bytes(64 * KIB, 64 * GIB)] = "64 MiB";
        /// Longest time between two checkpoints while anything changes.
        checkpoint_interval_ms: u64 [ms(100, DAY_MS)] = "30000";
        /// How fast the old part of the log is read in the background, to notice a disk that rots: one pass, then a day's rest.
        /// 0 is not at all.
        scrub_bytes_per_second: u64 [bytes(0, TIB)] = "1 MiB";
        /// Copies damaged parts of the log aside and goes on without them, instead of refusing to start.
        quarantine: bool = "false";
    }
}

table! {
    /// What one client, and all of them together, may use.
    Limits "limits" {
        /// Most connections at once.
        connections_max: usize [count(1, 10_000_000)] = "100000";
        /// Most connections at once from one address; 0 is no limit.
        connections_per_address_max: usize [count(0, 10_000_000)] = "0";
        /// Largest frame, packet or document that is in memory whole. Large bodies are not: see blob_bytes_min.
        frame_bytes_max: usize [bytes(KIB, 2 * GIB)] = "110 MiB";
        /// Largest message body. One that must be in memory whole is bounded by frame_bytes_max, too.
        body_bytes_max: usize [bytes(1, 2 * GIB)] = "1 GiB";
        /// Bodies from this size up, whose length is known ahead, go into a file of their own as they arrive and are never in
        /// memory whole. Bodies above frame_bytes_max do so in any case.
        blob_bytes_min: usize [bytes(KIB, 2 * GIB)] = "1 MiB";
        /// Largest body before the login.
        body_bytes_before_login: usize [bytes(0, GIB)] = "64 KiB";
        /// Longest header line.
        header_line_bytes_max: usize [bytes(128, MIB)] = "10 KiB";
        /// Most headers of one frame.
        headers_max: usize [count(8, 100_000)] = "1000";
        /// Time in which a connection must introduce itself.
        connect_timeout_ms: u64 [ms(100, 3_600_000)] = "10000";
        /// Most subscriptions of one connection.
        subscriptions_per_connection_max: usize [count(1, 1_000_000)] = "10000";
        /// Most open transactions of one connection.
        transactions_per_connection_max: usize [count(1, 1_000_000)] = "1000";
        /// Most bytes in one open transaction.
        transaction_bytes_max: usize [bytes(KIB, 64 * GIB)] = "128 MiB";
        /// Most receipts of one connection that wait for the disk; beyond it the connection is read no further.
        receipts_pending_max: usize [count(1, 10_000_000)] = "100000";
        /// Bytes waiting for one reader above which it is sent nothing more from queues.
        outbox_bytes_soft: usize [bytes(4 * KIB, 2 * GIB)] = "1 MiB";
        /// Bytes waiting for one reader above which its connection is closed.
        outbox_bytes_hard: usize [bytes(4 * KIB, 4 * GIB)] = "8 MiB";
        /// Time without progress after which a reader that owes us reading is disconnected.
        write_stall_ms: u64 [ms(100, DAY_MS)] = "30000";
        /// Most topics that keep a last value (a retained message).
        retained_max: usize [count(0, 100_000_000)] = "10000000";
        /// Most queues and topics.
        destinations_max: usize [count(1, 100_000_000)] = "1000000";
        /// Most memory for messages; beyond it sends are refused. 0 is 40 % of the machine's.
        memory_bytes_max: usize [bytes(0, 64 * TIB)] = "0";
        /// Most memory for the messages of one queue, as far as the log holds them, too; what is beyond is read from the disk
        /// when its turn comes. Less of it when memory runs low.
        queue_memory_bytes_max: usize [bytes(65536, 64 * TIB)] = "16 MiB";
        /// Most bytes of messages that are not persistent in the log, where they go once they do not fit into a queue's
        /// memory. 0 keeps them all in memory.
        spilled_bytes_max: usize [bytes(0, 64 * TIB)] = "1 GiB";
    }
}

table! {
    /// What STOMP leaves open.
    Stomp "stomp" {
        /// Shortest heart-beat interval granted.
        heartbeat_min_ms: u64 [ms(1, DAY_MS)] = "1000";
        /// Longest heart-beat interval granted.
        heartbeat_max_ms: u64 [ms(1, DAY_MS)] = "86400000";
        /// Whether a body with a content-length and no content-type is bytes rather than text.
        content_length_means_bytes: bool = "true";
    }
}

table! {
    /// What MQTT leaves open.
    Mqtt "mqtt" {
        /// Unacknowledged deliveries at a time to a client that names no number; also the most that one gets that does.
        inflight_max: u32 [count(1, 65_535)] = "100";
        /// Unacknowledged publishes at a time that an MQTT 5 client is allowed.
        receive_max: u32 [count(1, 65_535)] = "1000";
        /// Short names for topics that an MQTT 5 client may use.
        topic_aliases_max: u32 [count(0, 65_535)] = "64";
        /// Most levels of a topic or a filter.
        topic_levels_max: usize [count(1, 32_768)] = "128";
        /// Longest client id.
        client_id_bytes_max: usize [bytes(23, 65_535)] = "1 KiB";
        /// Longest keep-alive interval granted to an MQTT 5 client.
        keep_alive_max_ms: u64 [ms(1000, 65_535_000)] = "65535000";
        /// Time between two publications of the topics below $SYS/broker; 0 publishes none.
        sys_interval_ms: u64 [ms(0, DAY_MS)] = "10000";
    }
}

table! {
    /// What belongs to a client id and may outlive its connection: subscriptions and what waits for them.
    Sessions "sessions" {
        /// How long a session outlives its connection where the client cannot say (MQTT 3 without clean session).
        lasts_default_ms: u64 [ms(1000, 3650 * DAY_MS)] = "604800000";
        /// The longest that a client may ask for; 0 is no limit.
        lasts_max_ms: u64 [ms(0, 3650 * DAY_MS)] = "0";
        /// Most messages that wait for one session.
        messages_max: u64 [count(1, 1_000_000_000)] = "100000";
        /// Most bytes that wait for one session.
        bytes_max: u64 [bytes(KIB, TIB)] = "256 MiB";
        /// What happens beyond: the oldest or the newest message is dropped, or the client is disconnected.
        when_full: SlowConsumer = "drop-oldest";
        /// Most subscriptions of one session.
        subscriptions_max: usize [count(1, 10_000_000)] = "10000";
    }
}

table! {
    /// HTTP and WebSocket.
    Http "http" {
        /// Web pages of these origins may connect; "*" is every origin. A page of this very server always may.
        allowed_origins: Vec<Origin> = "";
        /// Time in which the body of a request must have arrived.
        request_timeout_ms: u64 [ms(100, DAY_MS)] = "30000";
        /// Most messages that may be on lease at once.
        leases_max: usize [count(1, 100_000_000)] = "100000";
        /// Most queues, and as many topics, with rows of their own on /metrics; the busiest have them.
        metrics_rows_max: usize [count(0, 1_000_000)] = "1000";
        /// How long a pulled message is its consumer's where the request does not say.
        lease_default_ms: u64 [ms(100, DAY_MS)] = "30000";
        /// The longest lease that a request may ask for.
        lease_max_ms: u64 [ms(100, DAY_MS)] = "43200000";
        /// The longest that a request may wait for a message or a reply.
        wait_max_ms: u64 [ms(0, DAY_MS)] = "60000";
        /// How long an Idempotency-Key is remembered.
        idempotency_ms: u64 [ms(0, DAY_MS)] = "600000";
        /// Most Idempotency-Keys remembered; beyond it the oldest is forgotten.
        idempotency_max: usize [count(0, 10_000_000)] = "100000";
        /// Whether WebSocket messages may be compressed (permessage-deflate): it saves bandwidth and costs CPU time.
        websocket_compression: bool = "false";
        /// Whether there is /ws/echo, which sends back every WebSocket message: for conformance suites.
        websocket_echo: bool = "false";
        /// How long a login of the console lasts.
        login_lasts_ms: u64 [ms(1000, 30 * DAY_MS)] = "28800000";
    }
}

table! {
    /// Webhooks: messages that the broker sends to URLs.
    Webhooks "webhooks" {
        /// Most webhooks; 0 allows none.
        count_max: usize [count(0, 100_000)] = "1000";
        /// Most requests at a time, of all webhooks together: what they may ask for in sum.
        concurrency_max: usize [count(1, 100_000)] = "1000";
        /// Bytes of requests under way of one webhook, beyond which its next one waits; a larger message goes alone.
        bytes_max: usize [bytes(64 * KIB, 4 * GIB)] = "8 MiB";
        /// Hosts, addresses and networks that may be called although they are private, local or reserved.
        allowed_targets: Vec<Target> = "";
        /// Certificate authorities in PEM to trust besides the public ones.
        ca_file: Option<PathBuf> = unset;
    }
}

table! {
    /// Who is let in. What they may do is said by `[[permission]]`.
    Security "security" {
        /// Whether processes of this machine need no name: true, false, or auto, which is true until there are users.
        allow_anonymous_local: AnonymousLocal = "auto";
        /// Whether other machines need no name.
        allow_anonymous_remote: bool = "false";
        /// The users file, kept by `sabir user`; unset, it is users.toml in store.dir.
        users_file: Option<PathBuf> = unset;
        /// Failed logins of one address in a minute, beyond which it must wait; 0 is no limit.
        login_attempts_per_minute: u32 [count(0, 1_000_000)] = "30";
    }
}

table! {
    /// The process.
    Server "server" {
        /// Time that connections have to finish once the server is told to stop.
        drain_timeout_ms: u64 [ms(0, 3_600_000)] = "10000";
        /// Threads that serve sockets; 0 is one per core.
        worker_threads: usize [count(0, 1024)] = "0";
        /// Virtual hosts besides "/": namespaces apart. A client that names none of them when it connects is in "/".
        virtual_hosts: Vec<HostName> = "";
    }
}

table! {
    /// What the server says about itself, on standard error.
    Log "log" {
        /// error, warn, info, debug or trace, for everything or by module: info,sabir_store=debug.
        level: LogFilter = "info";
        /// auto is human on a terminal and json elsewhere.
        format: LogFormat = "auto";
    }
}

table! {
    /// How many unacknowledged messages a consumer gets that does not say.
    Destinations "destinations" {
        /// Queue consumers.
        queue_prefetch: u32 [count(1, 1_000_000)] = "1000";
        /// Topic subscribers.
        topic_prefetch: u32 [count(1, 1_000_000)] = "32767";
        /// Durable topic subscribers.
        durable_prefetch: u32 [count(1, 1_000_000)] = "100";
        /// Queue browsers.
        browser_prefetch: u32 [count(1, 1_000_000)] = "500";
    }
}

table! {
    /// A copy of every message sent to a queue, published on a topic first.
    MirroredQueues "mirrored_queues" {
        /// Whether queues are mirrored.
        enabled: bool = "false";
        /// Before the queue's name in the topic's.
        prefix: String = "VirtualTopic.Mirror.";
        /// After the queue's name in the topic's.
        postfix: String = "";
    }
}
