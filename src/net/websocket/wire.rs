//! The way out of a WebSocket: whoever delivers appends plain bytes to the outbox, and what has gathered there is wrapped
//! in frames once per flush.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use sabir_broker::Writer;

use super::Shape;
use super::deflate::{self, Agreement, WORTHWHILE_BYTES_MIN};
use super::enframe::{self, Frame, Payload, SEAL_BYTES};
use crate::net::census::Census;
use crate::net::socket::WriteHalf;

/// Payload of one outgoing message. Clients with small message buffers can read it, and it keeps a flush in cache.
pub(super) const MESSAGE_BYTES_MAX: usize = 32 * 1024;
const _: () = assert!(MESSAGE_BYTES_MAX <= enframe::SEALED_BYTES_MAX);
/// Control frames that wait. A peer that pings without reading makes this grow no further.
const CONTROL_BYTES_MAX: usize = 2048;

/// One WebSocket's outgoing frames. Shared by the outbox and the connection's task.
#[derive(Debug)]
pub(super) struct Wire {
    /// Taken when our direction is closed.
    half: Option<WriteHalf>,
    /// Whole frames on their way, from `at` on.
    frames: Vec<u8>,
    at: usize,
    /// Bytes of the outbox that the frames in `frames` carry.
    claimed: usize,
    shape: Shape,
    deflate: Option<Agreement>,
    /// The last frame did not end its message.
    mid_message: bool,
    /// Pongs, a ping or a close, waiting for the frame in progress to end.
    control: Vec<u8>,
    /// The closing frame is written or waits: no data follows (§5.5.1).
    closing: bool,
    census: Arc<Census>,
}

impl Wire {
    pub(super) fn new(
        half: WriteHalf,
        shape: Shape,
        deflate: Option<Agreement>,
        census: &Arc<Census>,
    ) -> Self {
        Self {
            half: Some(half),
            frames: Vec::new(),
            at: 0,
            claimed: 0,
            shape,
            deflate,
            mid_message: false,
            control: Vec::new(),
            closing: false,
            census: Arc::clone(census),
        }
    }

    /// Writes what is in `frames`, then the control frames.
    fn drain(
        &mut self,
        mut write: impl FnMut(&mut WriteHalf, &[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        loop {
            let rest = self.frames.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                self.at = 0;
                self.frames = std::mem::take(&mut self.control);
                if self.frames.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let Some(half) = self.half.as_mut() else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            let count = ready!(write(half, &[IoSlice::new(rest)]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.census.wrote(count);
            self.at += count;
        }
    }

    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.drain(|half, slices| half.poll_write(cx, slices))
    }

    /// Writes the front of `slices`. Bytes count as written only when the frame that carries them has left: the outbox
    /// settles by that. After a partial write the same bytes must come first again.
    fn write(
        &mut self,
        slices: &[IoSlice<'_>],
        mut write: impl FnMut(&mut WriteHalf, &[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.drain(&mut write))?;
            let claimed = std::mem::take(&mut self.claimed);
            if claimed > 0 {
                return Poll::Ready(Ok(claimed));
            }
            if self.closing {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            match self.shape {
                Shape::Stream | Shape::Binary => self.wrap_stream(slices),
                Shape::Lines => self.wrap_lines(slices),
            }
            if self.claimed == 0 {
                return Poll::Ready(Ok(0));
            }
        }
    }

    /// Wraps the front of `slices` in one frame: text if it is UTF-8, cut where a character ends; else, or where the
    /// protocol wants only that, binary.
    fn wrap_stream(&mut self, slices: &[IoSlice<'_>]) {
        let mut frame = vec![0; SEAL_BYTES];
        gather(slices, &mut frame);
        let text = self.shape == Shape::Stream
            && match std::str::from_utf8(frame.get(SEAL_BYTES..).unwrap_or_default()) {
                Ok(_) => true,
                // Cut inside a character: the rest of it goes with the next message.
                Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
                    frame.truncate(SEAL_BYTES + error.valid_up_to());
                    true
                }
                Err(_) => false,
            };
        let payload = Payload::text_if(text);
        self.claimed = frame.len() - SEAL_BYTES;
        self.frames.clear();
        if let Some(small) = self.compress(frame.get(SEAL_BYTES..).unwrap_or_default()) {
            enframe::put(Frame { compressed: true, ..Frame::whole(payload) }, &small, &mut self.frames);
        } else {
            self.at = enframe::seal(&mut frame, Frame::whole(payload));
            self.frames = frame;
        }
    }

    /// Wraps each whole line at the front of `slices` in a message of its own. A line that is longer than what is written at
    /// once goes out in fragments.
    fn wrap_lines(&mut self, slices: &[IoSlice<'_>]) {
        let mut bytes = Vec::new();
        gather(slices, &mut bytes);
        self.frames.clear();
        let mut rest = bytes.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.mid_message {
                self.mid_message = false;
                enframe::put(Frame { begins: None, ends: true, compressed: false }, line, &mut self.frames);
            } else if !line.is_empty() {
                self.message(Payload::Text, line);
            }
        }
        self.claimed = bytes.len() - rest.len();
        if self.claimed == 0 && !rest.is_empty() {
            let begins = (!self.mid_message).then_some(Payload::Text);
            enframe::put(Frame { begins, ends: false, compressed: false }, rest, &mut self.frames);
            self.mid_message = true;
            self.claimed = rest.len();
        }
    }

    /// Appends a whole message.
    pub(super) fn message(&mut self, payload: Payload, message: &[u8]) {
        match self.compress(message) {
            Some(small) => {
                enframe::put(Frame { compressed: true, ..Frame::whole(payload) }, &small, &mut self.frames);
            }
            None => enframe::put(Frame::whole(payload), message, &mut self.frames),
        }
    }

    fn compress(&self, message: &[u8]) -> Option<Vec<u8>> {
        let agreement = self.deflate?;
        if message.len() < WORTHWHILE_BYTES_MIN { None } else { deflate::deflate(message, agreement) }
    }

    /// Queues a control frame behind what is on its way.
    pub(super) fn control(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.closing {
            return;
        }
        // The pong for the latest ping is enough (§5.5.3).
        if self.control.len() > CONTROL_BYTES_MAX {
            self.control.clear();
        }
        write(&mut self.control);
    }

    /// Queues the closing frame: whatever else waits to be written stays unwritten.
    pub(super) fn close(&mut self, code: u16, reason: &str) {
        self.control(|out| enframe::close(code, reason, out));
        self.closing = true;
    }

    /// Closes our direction of the socket.
    pub(super) fn end(&mut self) {
        self.half = None;
    }
}

/// Appends the front of `slices`, as much as one message holds.
fn gather(slices: &[IoSlice<'_>], out: &mut Vec<u8>) {
    let available: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut room = available.min(MESSAGE_BYTES_MAX);
    out.reserve_exact(room);
    for slice in slices {
        let part = slice.get(..slice.len().min(room)).unwrap_or_default();
        out.extend_from_slice(part);
        room -= part.len();
    }
}

/// The half in the outbox.
pub(super) struct WebSocketWriter(pub(super) Arc<Mutex<Wire>>);

impl Writer for WebSocketWriter {
    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.0.lock().write(slices, |half, slices| match half.try_write(slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            other => Poll::Ready(other),
        });
        match written {
            Poll::Ready(result) => result,
            // What has not left is finished by the owner.
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.lock().write(slices, |half, slices| half.poll_write(cx, slices))
    }
}
