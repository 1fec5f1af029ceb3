//! Hosts and networks that the broker may call although they are inside: `intranet.example`, `10.1.0.0/16`, `127.0.0.1`.

use std::fmt;
use std::net::IpAddr;

use super::value::{Item, Raw, quoted};

/// Longest name of a host (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// A host by its name, or a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A host, whatever its addresses: a name in small letters, without a dot at the end.
    Host(Box<str>),
    /// The addresses whose first `bits` are those of `base`.
    Network {
        /// The network's address; the bits behind the prefix are zero.
        base: IpAddr,
        /// Length of the prefix.
        bits: u8,
    },
}

impl Target {
    /// Whether this names the host, which is written as in a URL.
    #[must_use]
    pub fn is_host(&self, host: &str) -> bool {
        matches!(self, Self::Host(name) if name.eq_ignore_ascii_case(host.strip_suffix('.').unwrap_or(host)))
    }

    /// Whether the address is in this network. An IPv4 address that is written as one of IPv6 is not in a network of IPv4.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        match self {
            Self::Host(_) => false,
            Self::Network { base, bits } => masked(address, *bits) == Some(*base),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if !bits.is_empty() && bits.bytes().all(|digit| digit.is_ascii_digit()) => {
                (address, Some(bits.parse::<u8>().ok()?))
            }
            Some(_) => return None,
            None => (text, None),
        };
        match (address.parse::<IpAddr>(), bits) {
            (Ok(address), bits) => {
                let whole = if address.is_ipv4() { 32 } else { 128 };
                let bits = bits.unwrap_or(whole);
                // 10.0.0.1/8 is more likely a slip than a wish.
                masked(address, bits).filter(|base| *base == address)?;
                Some(Self::Network { base: address, bits })
            }
            (Err(_), Some(_)) => None,
            (Err(_), None) => is_host_name(text).then(|| Self::Host(text.to_ascii_lowercase().into())),
        }
    }
}

/// The address with all but its first bits zero; `None` if it has not so many.
fn masked(address: IpAddr, bits: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(bits.into())?).unwrap_or(0);
            Some(IpAddr::V4((address.to_bits() & mask).into()))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(bits.into())?).unwrap_or(0);
            Some(IpAddr::V6((address.to_bits() & mask).into()))
        }
    }
}

fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    // What is all digits and dots would be an address, and is none.
    text.len() <= HOST_BYTES_MAX
        && text.split('.').all(label)
        && !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(name),
            Self::Network { base, bits } => write!(f, "{base}/{bits}"),
        }
    }
}

impl Item for Target {
    const EXPECTS: &'static str = "a list of host names (intranet.example), addresses (10.1.2.3) and networks (10.1.0.0/16, with zeroes behind the prefix)";
    const MAY_BE_EMPTY: bool = true;
    fn read_item(raw: &Raw) -> Result<Self, String> {
        raw.text().and_then(Self::parse).map_or_else(|| raw.mismatch(), Ok)
    }
    fn show_item(&self) -> String {
        quoted(&self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        Target::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("0.0.0.0/0", "192.168.1.1", "::1"),
            ("fd00::/8", "fdff::1", "fc00::1"),
            ("::1", "::1", "::ffff:127.0.0.1"),
            ("::/0", "fe80::1", "127.0.0.1"),
        ] {
            let address = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text}"));
            assert!(target(network).holds(address(inside)), "{network} {inside}");
            assert!(!target(network).holds(address(outside)), "{network} {outside}");
        }
    }

    #[test]
    fn hosts_are_compared_as_names() {
        assert!(target("Intranet.Example").is_host("intranet.example."));
        assert!(!target("intranet.example").is_host("a.intranet.example"));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0",
            "a b",
            "a..b",
            "x/8",
            "*.example",
            "1.2.3.4/",
        ] {
            assert_eq!(Target::parse(text), None, "{text}");
        }
    }
}
