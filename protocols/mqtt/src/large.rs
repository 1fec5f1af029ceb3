//! A PUBLISH whose payload is too large to be waited for: its head is kept, and the payload handed on as it arrives.

use sabir_model::chunks::Chunks;
use sabir_model::error::Refusal;
use sabir_model::session::{Flow, Host, Input, Now, Room};
use sabir_model::stored::{Stored, Utf8Check};

use crate::error::DecodeError;
use crate::execute::Core;
use crate::packet::{Frame, Kind, Publish, publish_head_bytes};
use crate::refusal::Breach;
use crate::version::Version;

/// Where a payload is.
#[derive(Debug)]
enum Stage {
    /// It is on its way to the host.
    Coming,
    /// It has come, and is not in its place yet.
    Storing,
    /// Nobody wants it; the answer is given when it has passed.
    Refused(Refusal),
}

/// A PUBLISH in parts.
#[derive(Debug)]
pub(crate) struct Large {
    flags: u8,
    /// What is between the fixed header and the payload.
    head: Vec<u8>,
    total: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
    text: Utf8Check,
    stage: Stage,
    /// No more of the payload may come for the moment.
    full: bool,
}

impl Large {
    /// Whether the session waits for the host.
    pub(crate) fn waits(&self) -> bool {
        self.full || matches!(self.stage, Stage::Storing)
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
        left: length,
        text: Utf8Check::default(),
        stage: Stage::Coming,
        full: false,
    };
    let publish = large.publish(core.version)?;
    publish.check_from_client()?;
    if let Err(refusal) = core.announce(&publish, length, now, host)? {
        if !core.version.has_properties() && publish.id.is_some() {
            // There is no answer that could wait for the rest.
            return Err(Breach { reason: crate::reason::Reason::UnspecifiedError, refusal });
        }
        large.stage = Stage::Refused(refusal);
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
    let rest = input.rest();
    let piece = rest.get(..large.left).unwrap_or(rest);
    if !piece.is_empty() {
        large.left -= piece.len();
        if matches!(large.stage, Stage::Coming) {
            large.text.take(piece);
            large.full = host.put_body(piece) == Room::None;
        }
        input.consume(piece.len());
    }
    if large.left > 0 {
        return Ok(Some(if large.full { Flow::Parked } else { Flow::More }));
    }
    if let Stage::Refused(refusal) = &large.stage {
        let refusal = refusal.clone();
        complete(core, Err(refusal), now, host, out)?;
        return Ok(None);
    }
    large.stage = Stage::Storing;
    large.full = false;
    host.end_body();
    Ok(Some(Flow::Parked))
}

/// There is room for more of the payload.
pub(crate) fn go_on(core: &mut Core) {
    if let Some(large) = core.coming() {
        large.full = false;
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
    match (&large.stage, result) {
        (Stage::Coming, Err(refusal)) => {
            large.stage = Stage::Refused(refusal);
            large.full = false;
            Ok(())
        }
        (Stage::Storing, result) => complete(core, result, now, host, out),
        (Stage::Coming | Stage::Refused(_), _) => Ok(()),
    }
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
    let is_text = large.text.is_text();
    core.complete(&publish, result.map(|body| (body, is_text)), now, host, out)
}
