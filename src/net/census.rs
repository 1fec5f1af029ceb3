//! What the net layer counts, and the places for connections it gives out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use sabir_model::error::{Code, Refusal};
use tokio::sync::Notify;

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There are as many as there may be.
    Connections,
    /// Its address has as many as it may.
    Address,
    /// The process has no file descriptors left.
    Descriptors,
    /// It did not say in time what it speaks.
    Silent,
}

impl Reason {
    /// All of them, in the order of their numbers.
    const ALL: [Self; 4] = [Self::Connections, Self::Address, Self::Descriptors, Self::Silent];

    fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Address => "address",
            Self::Descriptors => "descriptors",
            Self::Silent => "silent",
        }
    }
}

/// Counters of one server's sockets.
#[derive(Debug)]
pub(crate) struct Census {
    live: AtomicUsize,
    live_max: usize,
    /// Connections by address, kept only where they are limited.
    by_address: Mutex<HashMap<IpAddr, usize>>,
    by_address_max: Option<usize>,
    accepted: AtomicU64,
    /// By [`Reason`].
    turned_away: [AtomicU64; Reason::ALL.len()],
    unknown: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    violations: Box<[AtomicU64]>,
    /// Told when the last connection has gone.
    empty: Notify,
}

impl Census {
    /// With at most `live_max` connections at a time, and at most `by_address_max` of one address.
    pub(crate) fn new(live_max: usize, by_address_max: Option<usize>) -> Self {
        Self {
            live: AtomicUsize::new(0),
            live_max,
            by_address: Mutex::new(HashMap::new()),
            by_address_max,
            accepted: AtomicU64::new(0),
            turned_away: Default::default(),
            unknown: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            violations: Code::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            empty: Notify::new(),
        }
    }

    /// A place for one more connection from `address`.
    ///
    /// # Errors
    /// All places, or all that one address may have, are taken.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Permit, Refusal> {
        let refuse = |reason, sentence| {
            self.turn_away(reason);
            Err(Refusal::new(Code::LimitReached, sentence))
        };
        let one_more = |live| (live < self.live_max).then_some(live + 1);
        if self.live.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_err() {
            return refuse(
                Reason::Connections,
                "the server has as many connections as it may (limits.connections_max)",
            );
        }
        // From here on a drop gives the place back.
        let mut permit = Permit { census: Arc::clone(self), address: None };
        if let (Some(most), Some(address)) = (self.by_address_max, address) {
            let mut by_address = self.by_address.lock();
            let count = by_address.entry(address).or_default();
            if *count >= most {
                drop(by_address);
                return refuse(
                    Reason::Address,
                    "this address has as many connections as it may (limits.connections_per_address_max)",
                );
            }
            *count += 1;
            permit.address = Some(address);
        }
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(permit)
    }

    /// A connection is not served.
    pub(crate) fn turn_away(&self, reason: Reason) {
        if let Some(counter) = self.turned_away.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A connection spoke nothing that this server understands.
    pub(crate) fn not_understood(&self) {
        self.unknown.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ended by its peer's fault.
    pub(crate) fn violated(&self, code: Code) {
        let index = Code::ALL.iter().position(|known| *known == code);
        if let Some(counter) = index.and_then(|index| self.violations.get(index)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Connections open now.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    /// Waits until no connection is left.
    pub(crate) async fn emptied(&self) {
        loop {
            let notified = self.empty.notified();
            if self.live() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// The counters as metrics show them.
    pub(crate) fn snapshot(&self) -> sabir_admin::NetStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        sabir_admin::NetStats {
            sockets: self.live() as u64,
            sockets_max: self.live_max as u64,
            accepted: read(&self.accepted),
            turned_away: Reason::ALL
                .iter()
                .zip(&self.turned_away)
                .map(|(why, n)| (why.word(), read(n)))
                .collect(),
            not_understood: read(&self.unknown),
            read_bytes: read(&self.read_bytes),
            written_bytes: read(&self.written_bytes),
            violations: Code::ALL
                .iter()
                .zip(&self.violations)
                .map(|(code, counter)| (code.as_str(), read(counter)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }
}

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Permit {
    census: Arc<Census>,
    address: Option<IpAddr>,
}

// The permit travels with the connection's task: dropping the task frees the place, whatever the path out.
impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            let mut by_address = self.census.by_address.lock();
            if let Some(count) = by_address.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    by_address.remove(&address);
                }
            }
        }
        if self.census.live.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.census.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_house_admits_nobody_until_somebody_leaves() {
        let census = Arc::new(Census::new(2, None));
        let first = census.admit(None);
        let second = census.admit(None);
        assert!(first.is_ok() && second.is_ok());
        assert!(census.admit(None).is_err());
        drop(first);
        assert!(census.admit(None).is_ok());
        assert_eq!(census.live(), 1);
        assert_eq!(census.snapshot().accepted, 3);
        let reasons = [("connections", 1), ("address", 0), ("descriptors", 0), ("silent", 0)];
        assert_eq!(census.snapshot().turned_away, reasons);
    }

    #[test]
    fn one_address_may_not_take_every_place() {
        let census = Arc::new(Census::new(10, Some(1)));
        let address = |last| Some(IpAddr::from([10, 0, 0, last]));
        let first = census.admit(address(1));
        assert!(first.is_ok());
        assert_eq!(census.admit(address(1)).map_err(|refusal| refusal.code).err(), Some(Code::LimitReached));
        assert!(census.admit(address(2)).is_ok());
        assert!(census.admit(None).is_ok());
        assert_eq!(census.live(), 1, "a refused connection gives its place back");
        drop(first);
        assert!(census.admit(address(1)).is_ok());
        assert!(census.by_address.lock().is_empty());
    }

    #[test]
    fn violations_are_counted_by_code() {
        let census = Census::new(1, None);
        census.violated(Code::MalformedFrame);
        census.violated(Code::MalformedFrame);
        census.violated(Code::HeartbeatTimeout);
        assert_eq!(census.snapshot().violations, [("malformed-frame", 2), ("heartbeat-timeout", 1)]);
    }
}
