//! How often one address may fail: a leaky bucket per address, one number each, in a bounded table.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;
use sabir_model::access::Remote;
use sabir_model::clock::Instant;

/// Most addresses remembered at once. Beyond it the address with the fewest failures is forgotten.
const ADDRESSES_MAX: usize = 4096;

/// Failed attempts per address. An attempt is counted before it is computed and given back when it succeeds, so that
/// many at once cannot pass together.
pub(crate) struct Attempts {
    /// Zero: no limit.
    per_minute: u32,
    /// For each address, when its bucket will be empty again. An address whose time has passed need not be here.
    empty_at: Mutex<HashMap<Remote, Instant>>,
}

impl Attempts {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute, empty_at: Mutex::new(HashMap::new()) }
    }

    /// Whether an attempt would be heard, without counting one; if not, the time to wait until it will be.
    pub(crate) fn hear(&self, remote: Remote, now: Instant) -> Result<(), Duration> {
        let Some(cost) = self.cost() else { return Ok(()) };
        level(&self.empty_at.lock(), bucket(remote), cost, now).map(drop)
    }

    /// Counts an attempt; if there are too many, the time to wait until the next one will be heard.
    pub(crate) fn take(&self, remote: Remote, now: Instant) -> Result<(), Duration> {
        let Some(cost) = self.cost() else { return Ok(()) };
        let mut table = self.empty_at.lock();
        let key = bucket(remote);
        let level = level(&table, key, cost, now)?;
        if table.len() >= ADDRESSES_MAX && !table.contains_key(&key) {
            make_room(&mut table, now);
        }
        table.insert(key, level.after(cost));
        Ok(())
    }

    /// Takes back the count of an attempt that succeeded or was never computed.
    pub(crate) fn give_back(&self, remote: Remote, now: Instant) {
        let Some(cost) = self.cost() else { return };
        let mut table = self.empty_at.lock();
        let key = bucket(remote);
        if let Some(level) = table.get_mut(&key) {
            let micros = u64::try_from(cost.as_micros()).unwrap_or(u64::MAX);
            *level = Instant(level.0.saturating_sub(micros));
            if *level <= now {
                table.remove(&key);
            }
        }
    }

    fn cost(&self) -> Option<Duration> {
        Duration::from_secs(60).checked_div(self.per_minute)
    }
}

/// When the bucket will be empty; if it has no room for `cost` now, the time until it has.
fn level(
    table: &HashMap<Remote, Instant>,
    key: Remote,
    cost: Duration,
    now: Instant,
) -> Result<Instant, Duration> {
    let level = table.get(&key).copied().unwrap_or(now).max(now);
    let full = now.after(Duration::from_secs(60)).since(Instant(0)).saturating_sub(cost);
    let level_span = level.since(Instant(0));
    if level_span > full {
        return Err(level_span.saturating_sub(full));
    }
    Ok(level)
}

/// Who shares a count. A site owns a /64 of IPv6 at least, so the lower half names nobody.
fn bucket(remote: Remote) -> Remote {
    match remote {
        Remote::Local => Remote::Local,
        Remote::Address(address) => Remote::Address(match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            other => other,
        }),
    }
}

fn make_room(table: &mut HashMap<Remote, Instant>, now: Instant) {
    table.retain(|_, empty_at| *empty_at > now);
    if table.len() >= ADDRESSES_MAX
        && let Some(mildest) = table.iter().min_by_key(|(_, empty_at)| **empty_at).map(|(key, _)| *key)
    {
        table.remove(&mildest);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(0).after(Duration::from_secs(seconds))
    }

    fn address(text: &str) -> Remote {
        Remote::Address(text.parse().unwrap())
    }

    #[test]
    fn an_address_has_its_minutes_worth_at_once_and_then_one_at_a_time() {
        let attempts = Attempts::new(3);
        let bad = address("10.0.0.1");
        for _ in 0..3 {
            assert!(attempts.take(bad, at(100)).is_ok());
        }
        assert_eq!(attempts.take(bad, at(100)), Err(Duration::from_secs(20)));
        assert_eq!(attempts.take(bad, at(115)), Err(Duration::from_secs(5)));
        assert!(attempts.take(bad, at(120)).is_ok());
        assert!(attempts.take(bad, at(121)).is_err());
        assert!(attempts.take(address("10.0.0.2"), at(121)).is_ok(), "another address is not held to it");
        for _ in 0..3 {
            assert!(attempts.take(bad, at(500)).is_ok());
        }
    }

    #[test]
    fn success_costs_nothing() {
        let attempts = Attempts::new(2);
        let good = address("10.0.0.1");
        for _ in 0..1000 {
            assert!(attempts.take(good, at(7)).is_ok());
            attempts.give_back(good, at(7));
        }
        assert!(attempts.empty_at.lock().is_empty());
    }

    #[test]
    fn zero_means_no_limit() {
        let attempts = Attempts::new(0);
        assert!((0..10_000).all(|_| attempts.take(Remote::Local, at(1)).is_ok()));
    }

    #[test]
    fn a_site_counts_as_one_and_mapped_addresses_as_themselves() {
        let attempts = Attempts::new(1);
        assert!(attempts.take(address("2001:db8::1"), at(1)).is_ok());
        assert!(attempts.take(address("2001:db8::ffff:2"), at(1)).is_err());
        assert!(attempts.take(address("2001:db8:0:1::1"), at(1)).is_ok());
        assert!(attempts.take(address("10.0.0.1"), at(1)).is_ok());
        assert!(attempts.take(address("::ffff:10.0.0.1"), at(1)).is_err());
        assert!(attempts.take(Remote::Local, at(1)).is_ok());
        assert!(attempts.take(Remote::Local, at(1)).is_err());
    }

    #[test]
    fn a_full_table_forgets_the_mildest_and_keeps_the_worst() {
        let attempts = Attempts::new(5);
        let worst = address("192.0.2.1");
        for _ in 0..5 {
            assert!(attempts.take(worst, at(1)).is_ok());
        }
        for n in 0..3 * u32::try_from(ADDRESSES_MAX).unwrap() {
            let one = Remote::Address(IpAddr::from(n.wrapping_add(0x0b00_0000).to_be_bytes()));
            assert!(attempts.take(one, at(1)).is_ok());
        }
        assert_eq!(attempts.empty_at.lock().len(), ADDRESSES_MAX);
        assert!(attempts.take(worst, at(1)).is_err());
        assert!(attempts.take(address("10.0.0.1"), at(100)).is_ok());
        assert_eq!(attempts.empty_at.lock().len(), 1, "buckets that have emptied are let go first");
    }
}
