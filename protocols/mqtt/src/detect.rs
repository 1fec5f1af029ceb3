//! Telling MQTT from other protocols by the first bytes of a connection.

/// Whether the first bytes of a connection are this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// They are.
    Yes,
    /// They are not.
    No,
    /// They may become so.
    NeedMore,
}

/// Looks for a CONNECT: its first byte, a length, and a protocol name of ours. Which version it is does not matter here:
/// one that is not spoken is told so by the session.
#[must_use]
pub fn detects(prefix: &[u8]) -> Detection {
    let Some((&first, rest)) = prefix.split_first() else { return Detection::NeedMore };
    if first != 0x10 {
        return Detection::No;
    }
    let length = rest.iter().take_while(|byte| **byte & 0x80 != 0).count();
    if length > 3 {
        return Detection::No;
    }
    let Some(rest) = rest.get(length + 1..) else { return Detection::NeedMore };
    let mut answer = Detection::No;
    for name in [&b"\0\x04MQTT"[..], b"\0\x06MQIsdp"] {
        if rest.starts_with(name) {
            return Detection::Yes;
        }
        if name.starts_with(rest) {
            answer = Detection::NeedMore;
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt_is_told_from_other_protocols_by_its_first_packet() {
        for (bytes, expected) in [
            (&b""[..], Detection::NeedMore),
            (b"\x10", Detection::NeedMore),
            (b"\x10\x80", Detection::NeedMore),
            (b"\x10\x0e", Detection::NeedMore),
            (b"\x10\x0e\0\x04MQ", Detection::NeedMore),
            (b"\x10\x0e\0\x04MQTT", Detection::Yes),
            (b"\x10\xff\x7f\0\x06MQIsdp\x03", Detection::Yes),
            (b"\x10\x0e\0\x04MQTT\x09", Detection::Yes),
            (b"\x10\x0e\0\x05MQTT", Detection::No),
            (b"\x10\xff\xff\xff\xff", Detection::No),
            (b"\x20\x02\0\0", Detection::No),
            (b"\x16\x03\x01\x02\x00", Detection::No),
            (b"CONNECT\n", Detection::No),
            (b"GET / HTTP/1.1", Detection::No),
        ] {
            assert_eq!(detects(bytes), expected, "{}", bytes.escape_ascii());
        }
    }
}
