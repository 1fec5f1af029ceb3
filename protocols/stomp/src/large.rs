//! A SEND whose body is too large to be waited for: its head is kept, and the body handed on as it arrives.

use sabir_model::chunks::Chunks;
use sabir_model::coming::ComingBody;
use sabir_model::error::{Code, Refusal, Violation};
use sabir_model::message::Body;
use sabir_model::session::{Flow, Host, Input, Now};
use sabir_model::stored::Stored;

use crate::decode::{Decoder, too_large_body};
use crate::execute::Core;
use crate::frame::Frame;
use crate::session::State;

/// A SEND in parts.
#[derive(Debug)]
pub(crate) struct Large {
    /// The bytes before the body.
    head: Vec<u8>,
    /// What follows: the body, and NUL.
    body: ComingBody,
    /// Bytes that may still come of a body whose length its head does not say; `None` if it does.
    room: Option<usize>,
}

impl Large {
    /// Whether the session waits for the host.
    pub(crate) fn waits(&self) -> bool {
        self.body.waits()
    }
}

/// The large SEND that is coming, if one is.
pub(crate) type Coming = Option<Box<Large>>;

/// A head has come at the front of the input, that of a SEND with a large body, of `length` bytes if that is known.
pub(crate) fn begin(
    coming: &mut Coming,
    (decoder, core): (&Decoder, &mut Core),
    (head, length): (usize, Option<usize>),
    now: Now,
    input: &mut Input<'_>,
    host: &mut dyn Host,
    out: &mut Chunks,
) -> Result<(), Violation> {
    let bytes = input.rest().get(..head).unwrap_or_default();
    let frame = decoder.frame(bytes, core.version.into()).map_err(|refusal| core.broken(refusal, out))?;
    let announced = core.announce(&frame, length, now, host);
    let body = ComingBody::new(length, announced.is_ok());
    if let Err(refusal) = announced {
        core.refuse(&frame, refusal, out)?;
    }
    let room = length.is_none().then_some(core.limits.body_bytes_max);
    *coming = Some(Box::new(Large { head: bytes.to_vec(), body, room }));
    input.consume(head);
    Ok(())
}

/// Takes what has come of the body. `None` if the frame is over.
pub(crate) fn receive(
    coming: &mut Coming,
    core: &mut Core,
    input: &mut Input<'_>,
    host: &mut dyn Host,
    out: &mut Chunks,
) -> Result<Option<Flow>, Violation> {
    let Some(large) = coming else { return Ok(None) };
    if let Some(room) = large.room {
        let end = memchr::memchr(0, input.rest());
        let come = end.unwrap_or_else(|| input.rest().len());
        let Some(left) = room.checked_sub(come) else {
            host.drop_body();
            return Err(core.broken(too_large_body(core.limits.body_bytes_max), out));
        };
        large.room = end.is_none().then_some(left);
        if let Some(end) = end {
            large.body.ends_after(end);
        }
    }
    if !large.body.receive(input, host) {
        return Ok(Some(large.body.flow()));
    }
    match input.rest().first() {
        None => return Ok(Some(large.body.flow())),
        Some(0) => input.consume(1),
        Some(_) => {
            host.drop_body();
            let sentence = "the body is not followed by NUL where content-length ends it";
            return Err(core.broken(Refusal::new(Code::MalformedFrame, sentence), out));
        }
    }
    if large.body.is_refused() {
        *coming = None;
        return Ok(None);
    }
    Ok(Some(large.body.end(host)))
}

/// There is room for more of the body.
pub(crate) fn go_on(coming: &mut Coming) {
    if let Some(large) = coming {
        large.body.go_on();
    }
}

/// The body is in its place, or cannot be kept.
pub(crate) fn stored(
    coming: &mut Coming,
    (decoder, core): (&Decoder, &mut Core),
    result: Result<Stored, Refusal>,
    now: Now,
    host: &mut dyn Host,
    out: &mut Chunks,
) -> Result<(), Violation> {
    let Some(large) = coming else { return Ok(()) };
    if large.body.is_refused() || core.state != State::Open {
        return Ok(());
    }
    let over = large.body.is_storing();
    let head = std::mem::take(&mut large.head);
    let is_text = large.body.is_text();
    let frame = decoder.frame(&head, core.version.into()).map_err(|refusal| core.broken(refusal, out))?;
    let frame = Frame { is_text: Some(is_text), ..frame };
    let result = match result {
        Ok(body) => core.execute(&frame, now, Body::Stored(body), host, out),
        Err(refusal) => Err(core.body_lost(&frame, refusal)),
    };
    match over {
        true => *coming = None,
        // The rest is read and thrown away, if the connection lives on.
        false => large.body.refuse(),
    }
    if let Err(refusal) = result {
        core.refuse(&frame, refusal, out)?;
    }
    Ok(())
}

impl Core {
    /// Asks whether a SEND may come whose body, of `length` bytes if that is known, is still to be read.
    ///
    /// # Errors
    /// It is refused; the caller writes ERROR.
    fn announce(
        &mut self,
        frame: &Frame<'_>,
        length: Option<usize>,
        now: Now,
        host: &mut dyn Host,
    ) -> Result<(), Refusal> {
        let length = length.map(|length| length as u64);
        let begun = self.with_send(frame, now, Body::Borrowed(b""), host, |host, publish, _| {
            host.begin_body(&publish, length)
        });
        self.spoil_if_refused(frame, begun)
    }

    /// What is sent in a transaction and refused ruins it.
    pub(crate) fn spoil_if_refused<T>(
        &mut self,
        frame: &Frame<'_>,
        result: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        result.inspect_err(|refusal| {
            if let Some(name) = frame.raw("transaction") {
                self.transactions.make().spoil(name, refusal);
            }
        })
    }

    /// The body of an announced SEND cannot be kept.
    fn body_lost(&mut self, frame: &Frame<'_>, refusal: Refusal) -> Refusal {
        match self.spoil_if_refused(frame, Err::<(), _>(refusal)) {
            Ok(()) => Refusal::new(Code::Internal, "the body cannot be kept"),
            Err(refusal) => refusal,
        }
    }
}
