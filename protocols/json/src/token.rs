//! How a delivery is called between us and the client: its token in hexadecimal, and for cumulative acknowledgements the
//! subscription behind it.

use std::io::Write as _;

use sabir_model::ids::{DeliveryToken, QueueId, SubscriptionKey};
use sabir_model::settlement::SettleMode;

/// What a `deliveryId` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryName {
    /// A delivery, and the subscription where all up to it are meant.
    Token(DeliveryToken, Option<SubscriptionKey>),
    /// A delivery of this subscription that nobody waits for.
    Free(SubscriptionKey),
}

impl DeliveryName {
    /// What a delivery is called, if it is called anything.
    pub(crate) fn of(key: SubscriptionKey, settle: SettleMode, token: Option<DeliveryToken>) -> Option<Self> {
        match (settle, token) {
            (SettleMode::Auto, _) => None,
            (_, None) => Some(Self::Free(key)),
            (SettleMode::Cumulative, Some(token)) => Some(Self::Token(token, Some(key))),
            (SettleMode::Individual, Some(token)) => Some(Self::Token(token, None)),
        }
    }

    /// Appends it as text that needs no escapes.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let written = match self {
            Self::Token(token, key) => {
                let DeliveryToken { boot, queue, slot, generation } = token;
                let written = write!(out, "{boot:x}-{:x}-{slot:x}-{generation:x}", queue.0);
                match key {
                    Some(key) => written.and_then(|()| write!(out, "-{:x}", key.0)),
                    None => written,
                }
            }
            Self::Free(key) => write!(out, "u{:x}", key.0),
        };
        written.expect("a Vec takes everything");
    }

    /// Reads it back; `None` for what was never one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let short = |part: Option<&str>| u32::try_from(hex(part?)?).ok();
        if let Some(free) = text.strip_prefix('u') {
            return Some(Self::Free(SubscriptionKey(short(Some(free))?)));
        }
        let mut parts = text.split('-');
        let token = DeliveryToken {
            boot: short(parts.next())?,
            queue: QueueId(hex(parts.next()?)?),
            slot: short(parts.next())?,
            generation: short(parts.next())?,
        };
        let key = match parts.next() {
            Some(part) => Some(SubscriptionKey(short(Some(part))?)),
            None => None,
        };
        parts.next().is_none().then_some(Self::Token(token, key))
    }
}

/// Digits as `{:x}` writes them.
fn hex(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (plain && !text.is_empty()).then(|| u64::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_not() {
        let token = DeliveryToken { boot: u32::MAX, queue: QueueId(u64::MAX), slot: 0, generation: 0xabc };
        let key = SubscriptionKey(9);
        for settle in [SettleMode::Auto, SettleMode::Cumulative, SettleMode::Individual] {
            for token in [None, Some(token)] {
                let Some(name) = DeliveryName::of(key, settle, token) else {
                    assert_eq!(settle, SettleMode::Auto);
                    continue;
                };
                let mut text = Vec::new();
                name.write(&mut text);
                let text = String::from_utf8(text).expect("ASCII");
                assert_eq!(DeliveryName::parse(&text), Some(name), "{text}");
            }
        }
        for wrong in
            ["", "u", "u-1", "1", "1-2-3", "1-2-3-4-5-6", "1-2-3-", "+1-2-3-4", "A-2-3-4", "100000000-0-0-0"]
        {
            assert_eq!(DeliveryName::parse(wrong), None, "{wrong}");
        }
    }
}
