//! The `ack` value of a 1.2 MESSAGE, which names its delivery: read here, written by `egress`.

use sabir_model::ids::{DeliveryToken, QueueId, SubscriptionKey};

/// What the `ack` value of a 1.2 MESSAGE stands for.
pub(crate) enum AckId {
    Token(DeliveryToken, Option<SubscriptionKey>),
    /// A delivery that needs no settling.
    Free(SubscriptionKey),
}

impl AckId {
    /// Reads it; `None` for what no MESSAGE has said.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex = |part: Option<&str>| hex(part?);
        let short = |part: Option<&str>| u32::try_from(hex(part)?).ok();
        if let Some(free) = text.strip_prefix('u') {
            return Some(Self::Free(SubscriptionKey(short(free.split('-').next())?)));
        }
        let mut parts = text.split('-');
        let token = DeliveryToken {
            boot: short(parts.next())?,
            queue: QueueId(hex(parts.next())?),
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

/// Reads what [`crate::encode::put_hex`] writes.
fn hex(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    text.bytes().try_fold(0u64, |sum, byte| {
        let nibble = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u64::from(nibble))
    })
}
