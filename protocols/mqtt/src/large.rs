//! A PUBLISH whose payload is too large to be waited for: its head is kept, and the payload handed on as it arrives.

use sabir_model::chunks::Chunks;
use sabir_model::coming::ComingBody;
use sabir_model::error::Refusal;
use sabir_model::session::{Flow, Host, Input, Now};
use sabir_model::stored::Stored;

use crate::error::DecodeError;
use crate::execute::Core;
use crate::packet::{Frame, Kind, Publish, publish_head_bytes};
use crate::refusal::Breach;
use crate::version::Version;

/// A PUBLISH in parts.
#[derive(Debug)]
pub(crate) struct Large {
    flags: u8,
    /// What is between the fixed header and the payload.
    head: Vec<u8>,
    total: usize,
    payload: ComingBody,
    /// Why nobody wants it; said when it has passed.
    refusal: Option<Refusal>,
}

impl Large {
    /// Whether the session waits for the host.
    pub(crate) fn waits(&self) -> bool {
        self.payload.waits()
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.payload.refuse();
        self.refusal = Some(refusal);
    }

    fn publish(&self, version: Version) -> Result<Publish<'_>, DecodeError> {
        let frame = Frame { kind: Kind::Publish, flags: self.flags, body: &self.head, total: self.total };
        Publish::decode(&frame, version)
    }
}

/// What [`begin`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A PUBLISH with a large payload; it is taken in from here on.
    Large,
    /// Perhaps one: its head has not come whole.
    Perhaps,
    /// None.
    Other,
}

/// Looks whether a packet of `total` bytes is a PUBLISH with a large payload.
pub(crate) fn begin(
    core: &mut Core,
    total: usize,
    now: Now,
    input: &mut Input<'_>,
    host: &mut dyn Host,
) -> Result<Found, Breach> {
    let least = core.limits.blob_bytes_min;
    let bytes = input.rest();
    let Some((first, rest)) = bytes.split_first() else { return Ok(Found::Other) };
    if total < least || first >> 4 != Kind::Publish as u8 {
        return Ok(Found::Other);
    }
    let flags = first & 0x0f;
    let length_bytes = rest.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let start = 1 + length_bytes;
    let body = bytes.get(start..).unwrap_or_default();
    let Some(head_bytes) = publish_head_bytes(flags, body, core.version)? else { return Ok(Found::Perhaps) };
    let length = (total - start).checked_sub(head_bytes);
    let length = length.ok_or(DecodeError::malformed("the packet ends within a field"))?;
    if length < least {
        return Ok(Found::Other);
    }
    let Some(head) = body.get(..head_bytes) else { return Ok(Found::Perhaps) };
    let mut large = Large {
        flags,
        head: head.to_vec(),
        total,
        payload: ComingBody::new(Some(length), true),
        refusal: None,
    };
    let publish = large.publish(core.version)?;
    publish.check_from_client()?;
    if let Err(refusal) = core.announce(&publish, length, now, host)? {
        if !core.version.has_properties() && publish.id.is_some() {
            // There is no answer that could wait for the rest.
            return Err(Breach { reason: crate::reason::Reason::UnspecifiedError, refusal });
        }
        large.refuse(refusal);
    }
    core.set_coming(Some(large));
    input.consume(start + head_bytes);
    Ok(Found::Large)
}

/// Takes what has come of the payload. `None` if no PUBLISH is coming in parts any more.
pub(crate) fn receive(
    core: &mut Core,
    now: Now,
    input: &mut Input<'_>,
    host: &mut dyn Host,
    out: &mut Chunks,
) -> Result<Option<Flow>, Breach> {
    let Some(large) = core.coming() else { return Ok(None) };
    if !large.payload.receive(input, host) {
        return Ok(Some(large.payload.flow()));
    }
    if let Some(refusal) = large.refusal.take() {
        complete(core, Err(refusal), now, host, out)?;
        return Ok(None);
    }
    Ok(Some(large.payload.end(host)))
}

/// There is room for more of the payload.
pub(crate) fn go_on(core: &mut Core) {
    if let Some(large) = core.coming() {
        large.payload.go_on();
    }
}

/// The payload is in its place, or cannot be kept.
pub(crate) fn stored(
    core: &mut Core,
    result: Result<Stored, Refusal>,
    now: Now,
    host: &mut dyn Host,
    out: &mut Chunks,
) -> Result<(), Breach> {
    let Some(large) = core.coming() else { return Ok(()) };
    match result {
        result if large.payload.is_storing() => return complete(core, result, now, host, out),
        Err(refusal) if !large.payload.is_refused() => large.refuse(refusal),
        Ok(_) | Err(_) => {}
    }
    Ok(())
}

fn complete(
    core: &mut Core,
    result: Result<Stored, Refusal>,
    now: Now,
    host: &mut dyn Host,
    out: &mut Chunks,
) -> Result<(), Breach> {
    let Some(large) = core.take_coming() else { return Ok(()) };
    let publish = large.publish(core.version)?;
    let is_text = large.payload.is_text();
    core.complete(&publish, result.map(|body| (body, is_text)), now, host, out)
}
