//! Bounds that sessions keep; the configuration fills them in.

/// What a protocol's decoder and session refuse to exceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest command word, in bytes.
    pub command_bytes_max: usize,
    /// Longest header line, in bytes.
    pub header_line_bytes_max: usize,
    /// Most headers in one frame.
    pub headers_max: usize,
    /// Largest body, in bytes.
    pub body_bytes_max: usize,
    /// Bodies from this size up are written where they are kept as they arrive, and are never in memory whole, where
    /// their length is known ahead.
    pub blob_bytes_min: usize,
    /// Largest body before the connection has introduced itself, in bytes.
    pub body_bytes_before_login_max: usize,
    /// Largest frame that is in memory whole, in bytes.
    pub frame_bytes_max: usize,
    /// Time a connection has to introduce itself, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Shortest heart-beat or keep-alive interval granted, in milliseconds.
    pub heartbeat_ms_min: u64,
    /// Longest heart-beat or keep-alive interval granted, in milliseconds.
    pub heartbeat_ms_max: u64,
    /// Most subscriptions of one connection.
    pub subscriptions_max: usize,
    /// Most open transactions of one connection.
    pub transactions_max: usize,
    /// Most receipts of one connection that wait for the disk; beyond, its reading pauses.
    pub receipts_pending_max: usize,
    /// Unacknowledged deliveries granted where the client names no number.
    pub prefetch: Prefetch,
    /// Longest client id, in bytes.
    pub client_id_bytes_max: usize,
    /// Most levels in a topic or a topic filter.
    pub topic_levels_max: usize,
    /// Unacknowledged deliveries to a client session at a time where the client names no number; also the most it gets.
    pub session_credit_max: u32,
    /// Unacknowledged messages taken from a client session at a time.
    pub receive_max: u16,
    /// Short names for topics that a client may use.
    pub topic_aliases_max: u16,
    /// Longest keep-alive interval of a client session, in milliseconds.
    pub keep_alive_ms_max: u64,
    /// Longest time a client session may outlive its connection, in milliseconds.
    pub session_lasts_ms_max: u64,
    /// How long a client session without a stated lifetime outlives its connection, in milliseconds.
    pub session_lasts_ms_default: u64,
    /// Whether a body with a length but without a content type is taken for bytes rather than text.
    pub length_means_bytes: bool,
}

/// Default windows of unacknowledged deliveries, as ActiveMQ's users know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// For queue consumers.
    pub queue: u32,
    /// For non-durable topic subscriptions.
    pub topic: u32,
    /// For durable topic subscriptions.
    pub durable: u32,
    /// For queue browsers.
    pub browser: u32,
}

impl Default for Prefetch {
    fn default() -> Self {
        Self { queue: 1000, topic: 32_767, durable: 100, browser: 500 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command_bytes_max: 64,
            header_line_bytes_max: 10 * 1024,
            headers_max: 1000,
            body_bytes_max: 1024 * 1024 * 1024,
            blob_bytes_min: 1024 * 1024,
            body_bytes_before_login_max: 64 * 1024,
            frame_bytes_max: 110 * 1024 * 1024,
            connect_timeout_ms: 10_000,
            heartbeat_ms_min: 1000,
            heartbeat_ms_max: 24 * 60 * 60 * 1000,
            subscriptions_max: 10_000,
            transactions_max: 1000,
            receipts_pending_max: 100_000,
            prefetch: Prefetch::default(),
            client_id_bytes_max: 1024,
            topic_levels_max: 128,
            session_credit_max: 100,
            receive_max: 1000,
            topic_aliases_max: 64,
            keep_alive_ms_max: 65_535_000,
            session_lasts_ms_max: u64::MAX,
            session_lasts_ms_default: 7 * 24 * 60 * 60 * 1000,
            length_means_bytes: true,
        }
    }
}
