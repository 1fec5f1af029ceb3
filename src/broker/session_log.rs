//! Client sessions in the log: what they are, what they subscribe to, which numbers they may repeat, and how far two-step
//! handovers have come. Tables 4 to 7; see `recovery.rs` for the others.

use sabir_model::clock::Timestamp;
use sabir_model::delivery::Guarantee;
use sabir_model::ids::{QueueId, Sequence};
use sabir_model::pattern::Pattern;
use sabir_model::varint::{read_text, write_block};
use sabir_store::Appender;

use crate::bindings::Terms;
use crate::client_session::{ClientSession, State};
use crate::registry::VirtualHost;
use crate::will::OwnedWill;

/// Client sessions by host and client id.
pub(crate) const TABLE_SESSIONS: u8 = 4;
/// Their subscriptions by host, client id, group and pattern.
pub(crate) const TABLE_BINDINGS: u8 = 5;
/// Numbers of messages that may be repeated, by host, client id and number.
pub(crate) const TABLE_RECEIVED: u8 = 6;
/// Notes of two-step handovers by queue and sequence.
pub(crate) const TABLE_PROGRESS: u8 = 7;

fn session_key(host: &VirtualHost, client_id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(host.name.len() + client_id.len() + 8);
    write_block(&mut key, host.name.as_bytes());
    write_block(&mut key, client_id.as_bytes());
    key
}

fn binding_key(host: &VirtualHost, client_id: &str, group: Option<&str>, pattern: &Pattern) -> Vec<u8> {
    let mut key = session_key(host, client_id);
    key.push(u8::from(group.is_some()));
    write_block(&mut key, group.unwrap_or_default().as_bytes());
    pattern.encode(&mut key);
    key
}

/// The key of a number that a session may repeat.
pub(crate) fn received_key(host: &VirtualHost, client_id: &str, number: u16) -> Vec<u8> {
    let mut key = session_key(host, client_id);
    key.extend_from_slice(&number.to_le_bytes());
    key
}

/// The key of a handover's note.
pub(crate) fn progress_key(queue: QueueId, sequence: Sequence) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&queue.0.to_le_bytes());
    key[8..].copy_from_slice(&sequence.0.to_le_bytes());
    key
}

/// Reads [`progress_key`].
pub(crate) fn decode_progress_key(key: &[u8]) -> Option<(QueueId, Sequence)> {
    let (queue, sequence) = key.split_first_chunk::<8>()?;
    let sequence = u64::from_le_bytes(sequence.try_into().ok()?);
    Some((QueueId(u64::from_le_bytes(*queue)), Sequence(sequence)))
}

/// Writes what a session is now.
pub(crate) fn set_session(
    group: &mut Appender<'_>,
    host: &VirtualHost,
    session: &ClientSession,
    state: &State,
) {
    let mut value = vec![1];
    value.extend_from_slice(&state.lasts_ms.to_le_bytes());
    value.extend_from_slice(&state.ends_at.0.to_le_bytes());
    value.extend_from_slice(&state.will_at.0.to_le_bytes());
    value.push(u8::from(session.owner.is_some()) | u8::from(state.connection.is_some()) << 1);
    write_block(&mut value, session.owner.as_deref().unwrap_or_default().as_bytes());
    if let Some(will) = &state.will {
        will.encode(&mut value);
    }
    group.set(TABLE_SESSIONS, &session_key(host, &session.client_id), &value);
}

/// Removes a session with all that the tables hold of it; `patterns` are those of its subscriptions to topics.
pub(crate) fn remove_session(
    group: &mut Appender<'_>,
    host: &VirtualHost,
    session: &ClientSession,
    state: &State,
    patterns: &[Pattern],
) {
    for pattern in patterns {
        remove_binding(group, host, session, pattern, None);
    }
    for binding in state.bindings.others() {
        remove_binding(group, host, session, &binding.pattern, binding.group.as_deref());
    }
    for number in state.received.iter() {
        group.remove(TABLE_RECEIVED, &received_key(host, &session.client_id, number));
    }
    group.remove(TABLE_SESSIONS, &session_key(host, &session.client_id));
}

/// Writes a subscription.
pub(crate) fn set_binding(
    group: &mut Appender<'_>,
    host: &VirtualHost,
    session: &ClientSession,
    (pattern, share): (&Pattern, Option<&str>),
    terms: Terms,
) {
    let Terms { identifier, guarantee, no_local, keep_retain, order } = terms;
    let mut value = vec![1, guarantee as u8, u8::from(no_local) | u8::from(keep_retain) << 1];
    value.extend_from_slice(&identifier.to_le_bytes());
    value.extend_from_slice(&order.to_le_bytes());
    let key = binding_key(host, &session.client_id, share, pattern);
    group.set(TABLE_BINDINGS, &key, &value);
}

/// Removes a subscription.
pub(crate) fn remove_binding(
    group: &mut Appender<'_>,
    host: &VirtualHost,
    session: &ClientSession,
    pattern: &Pattern,
    share: Option<&str>,
) {
    group.remove(TABLE_BINDINGS, &binding_key(host, &session.client_id, share, pattern));
}

/// A session as the log remembers it.
#[derive(Debug)]
pub(crate) struct StoredSession {
    pub(crate) host: String,
    pub(crate) client_id: String,
    pub(crate) lasts_ms: u64,
    pub(crate) was_connected: bool,
    pub(crate) ends_at: Timestamp,
    pub(crate) will_at: Timestamp,
    pub(crate) owner: Option<String>,
    pub(crate) will: Option<OwnedWill>,
}

/// A subscription as the log remembers it.
#[derive(Debug)]
pub(crate) struct StoredBinding {
    pub(crate) host: String,
    pub(crate) client_id: String,
    pub(crate) group: Option<String>,
    pub(crate) pattern: Pattern,
    pub(crate) terms: Terms,
}

/// Reads a row of [`TABLE_SESSIONS`].
pub(crate) fn decode_session(mut key: &[u8], value: &[u8]) -> Option<StoredSession> {
    let (host, client_id) = (read_text(&mut key)?, read_text(&mut key)?);
    let (&version, rest) = value.split_first()?;
    let (lasts, rest) = rest.split_first_chunk::<8>()?;
    let (ends, rest) = rest.split_first_chunk::<8>()?;
    let (will_at, rest) = rest.split_first_chunk::<8>()?;
    let (&flags, mut rest) = rest.split_first()?;
    let owner = read_text(&mut rest)?;
    let will = if rest.is_empty() { None } else { Some(OwnedWill::decode(rest)?) };
    (version == 1).then_some(StoredSession {
        host,
        client_id,
        lasts_ms: u64::from_le_bytes(*lasts),
        was_connected: flags & 2 != 0,
        ends_at: Timestamp(u64::from_le_bytes(*ends)),
        will_at: Timestamp(u64::from_le_bytes(*will_at)),
        owner: (flags & 1 != 0).then_some(owner),
        will,
    })
}

/// Reads a row of [`TABLE_BINDINGS`].
pub(crate) fn decode_binding(mut key: &[u8], value: &[u8]) -> Option<StoredBinding> {
    let (host, client_id) = (read_text(&mut key)?, read_text(&mut key)?);
    let (&grouped, mut rest) = key.split_first()?;
    let group = read_text(&mut rest)?;
    let pattern = Pattern::decode(rest)?;
    let [1, guarantee, flags, rest @ ..] = value else { return None };
    let (identifier, order) = rest.split_first_chunk::<4>()?;
    let guarantee = match guarantee {
        0 => Guarantee::AtMostOnce,
        1 => Guarantee::AtLeastOnce,
        _ => Guarantee::ExactlyOnce,
    };
    let terms = Terms {
        identifier: u32::from_le_bytes(*identifier),
        guarantee,
        no_local: flags & 1 != 0,
        keep_retain: flags & 2 != 0,
        order: u64::from_le_bytes(order.try_into().ok()?),
    };
    Some(StoredBinding { host, client_id, group: (grouped != 0).then_some(group), pattern, terms })
}

/// Reads a key of [`TABLE_RECEIVED`].
pub(crate) fn decode_received(mut key: &[u8]) -> Option<(String, String, u16)> {
    let (host, client_id) = (read_text(&mut key)?, read_text(&mut key)?);
    Some((host, client_id, u16::from_le_bytes(key.try_into().ok()?)))
}
