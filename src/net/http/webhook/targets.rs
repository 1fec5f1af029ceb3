//! Which addresses may be called. Whoever may define a webhook must not reach by it what only this machine can reach:
//! loopback, private networks, the metadata services of clouds. So names are resolved here, every address is looked at,
//! and the connection goes to the very address that was looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::config::Target;

/// Names that are looked up at the same time: each takes a thread for as long as the resolver likes.
const LOOKUPS_MAX: usize = 16;
/// Addresses of one name that are looked at; a name that has more is refused.
const ADDRESSES_MAX: usize = 64;

/// What is never called, unless it is listed: IPv4 by prefix and length (IANA's registry of special-purpose addresses).
const FORBIDDEN_V4: [([u8; 4], u32, &str); 15] = [
    ([0, 0, 0, 0], 8, "unspecified"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "of a carrier's shared network"),
    ([127, 0, 0, 0], 8, "loopback"),
    ([169, 254, 0, 0], 16, "link-local"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "reserved"),
    ([192, 0, 2, 0], 24, "for documentation"),
    ([192, 88, 99, 0], 24, "of a 6to4 relay"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "for benchmarks"),
    ([198, 51, 100, 0], 24, "for documentation"),
    ([203, 0, 113, 0], 24, "for documentation"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

/// The same for IPv6, the first that fits; what is in none of them and not in 2000::/3 is reserved.
const FORBIDDEN_V6: [([u16; 8], u32, &str); 16] = [
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified"),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback"),
    ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "an IPv4 address in disguise"),
    ([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, "an IPv4 address in disguise"),
    ([0, 0, 0, 0, 0, 0, 0, 0], 96, "an IPv4 address in disguise"),
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 32, "translated to IPv4 (NAT64)"),
    ([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "discarded"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "of a tunnel or reserved"),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "for documentation"),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "of a tunnel (6to4)"),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "for documentation"),
    ([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "of a segment router"),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "private"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local"),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "private"),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast"),
];

/// What is wrong with an address, completing "it is …"; `None` if it is one of the public internet.
fn forbidden(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            let is = |(base, length, _): &&([u8; 4], u32, &str)| {
                (bits ^ Ipv4Addr::from(*base).to_bits()).leading_zeros() >= *length
            };
            FORBIDDEN_V4.iter().find(is).map(|(_, _, what)| *what)
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let is = |(base, length, _): &&([u16; 8], u32, &str)| {
                (bits ^ Ipv6Addr::from(*base).to_bits()).leading_zeros() >= *length
            };
            let found = FORBIDDEN_V6.iter().find(is).map(|(_, _, what)| *what);
            found.or_else(|| (bits >> 125 != 1).then_some("reserved"))
        }
    }
}

/// Decides what may be called.
pub(super) struct Targets {
    allowed: Vec<Target>,
    lookups: Arc<Semaphore>,
}

impl Targets {
    /// With what is listed besides the public internet.
    pub(super) fn new(allowed: Vec<Target>) -> Self {
        Self { allowed, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// The addresses of a host to connect to, each of them allowed. `turn` keeps one webhook from looking up more than one
    /// name at a time, for a resolver that hangs would take the places of all others.
    ///
    /// # Errors
    /// A sentence: the name has no address, or one that may not be called. Such a name is refused as a whole, whatever its
    /// other addresses are.
    pub(super) async fn resolve(
        &self,
        host: &str,
        port: u16,
        turn: &Arc<Semaphore>,
    ) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            self.check(host, address)?;
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let closed = |_| "the server is shutting down".to_owned();
        let turn = Arc::clone(turn).acquire_owned().await.map_err(closed)?;
        let place = Arc::clone(&self.lookups).acquire_owned().await.map_err(closed)?;
        let name = host.to_owned();
        let lookup = tokio::task::spawn_blocking(move || {
            // They stay taken until the resolver has answered, whoever still waits for it.
            let _held = (turn, place);
            (name.as_str(), port)
                .to_socket_addrs()
                .map(|addresses| addresses.take(ADDRESSES_MAX + 1).collect::<Vec<_>>())
        });
        let addresses = match lookup.await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => return Err(format!("the host {host} cannot be resolved: {error}")),
            Err(_) => return Err(format!("the host {host} could not be looked up")),
        };
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(format!("the host {host} has no address, or more than {ADDRESSES_MAX}"));
        }
        for address in &addresses {
            self.check(host, address.ip())?;
        }
        Ok(addresses)
    }

    fn check(&self, host: &str, address: IpAddr) -> Result<(), String> {
        let Some(what) = forbidden(address) else { return Ok(()) };
        if self.allowed.iter().any(|target| target.is_host(host) || target.holds(address)) {
            return Ok(());
        }
        let named = if host.parse() == Ok(address) {
            format!("{address} may not be called: it is {what}")
        } else {
            format!("{host} may not be called: its address {address} is {what}")
        };
        Err(format!("{named} (webhooks.allowed_targets lists exceptions)"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_the_public_internet_is_called() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.168.255.255",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
            "200::1",
            "8000::1",
        ] {
            assert!(forbidden(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450::1",
            "3ffe::1",
        ] {
            assert_eq!(forbidden(text.parse().unwrap()), None, "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_listed_may_be_called_by_name_or_by_address() {
        let list = |text: &[&str]| {
            use crate::config::Target;
            let network = |text: &str| {
                let (base, bits) = text.split_once('/').unwrap();
                Target::Network { base: base.parse().unwrap(), bits: bits.parse().unwrap() }
            };
            let read = |text: &&str| match text.contains('/') {
                true => network(text),
                false => Target::Host((*text).into()),
            };
            Targets::new(text.iter().map(read).collect())
        };
        let turn = Arc::new(Semaphore::new(1));
        let refused = list(&[]).resolve("localhost", 80, &turn).await.unwrap_err();
        assert!(refused.contains("localhost") && refused.contains("is loopback"), "{refused}");
        assert!(!list(&["localhost"]).resolve("localhost", 80, &turn).await.unwrap().is_empty());
        assert!(list(&["localhost"]).resolve("127.0.0.1", 80, &turn).await.is_err());
        let network = list(&["127.0.0.0/8"]);
        assert_eq!(network.resolve("127.1.2.3", 80, &turn).await.unwrap(), ["127.1.2.3:80".parse().unwrap()]);
        // What the system's resolver makes of odd spellings is looked at like everything else.
        for odd in ["2130706433", "0x7f.1", "127.1", "::ffff:127.0.0.1"] {
            assert!(list(&[]).resolve(odd, 80, &turn).await.is_err(), "{odd}");
        }
        assert!(list(&["10.0.0.0/8"]).resolve("192.168.1.1", 80, &turn).await.is_err());
    }
}
