//! The reading side of a connection: scratch buffer, partial frames, large frames, and the transport they come by.
//!
//! The session is fed from a buffer that its thread lends for the moment. What is left of a partial frame is carried over
//! to the next read; a frame larger than the scratch buffer is read into a buffer of its own length and handed on whole.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use sabir_broker::Connection;
use sabir_model::chunks::Chunks;
use sabir_model::clock::Instant;
use sabir_model::error::{Refusal, Violation};
use sabir_model::session::{Flow, Input, Now, Session};

use super::Shared;
use super::socket::ReadHalf;
use super::websocket::WebSocket;

/// Size of each thread's scratch buffer.
const SCRATCH_BYTES: usize = 256 * 1024;
/// A partial frame up to this size is carried back into the scratch buffer; a larger one is read where it lies.
const CARRY_BYTES_MAX: usize = SCRATCH_BYTES / 2;
/// A large frame's buffer starts with at most this and grows as bytes arrive, so that a length alone costs nothing.
const OWNED_BYTES_FIRST: usize = 1024 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the thread's scratch buffer.
pub(super) fn with_scratch<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with(|scratch| {
        // Taken out while lent, so that even a nested use would find a (new) buffer instead of a panic.
        let mut buffer = scratch.take();
        if buffer.is_empty() {
            buffer = vec![0; SCRATCH_BYTES];
        }
        let result = work(&mut buffer);
        scratch.replace(buffer);
        result
    })
}

/// What carries the bytes. A new transport is a new variant here and a writer for the outbox.
#[derive(Debug)]
pub(crate) enum Transport {
    /// The socket's bytes are the protocol's.
    Plain(ReadHalf),
    /// The protocol's bytes are the payload of WebSocket messages.
    WebSocket(Box<WebSocket>),
}

impl Transport {
    fn poll_read(&mut self, cx: &mut Context<'_>, now: Instant, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(half) => half.poll_read(cx, buf),
            Self::WebSocket(socket) => socket.poll_read(cx, now, buf),
        }
    }

    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(half) => half.poll_read(cx, buf),
            Self::WebSocket(socket) => socket.poll_discard(cx, buf),
        }
    }

    /// Writes what the transport itself has to say.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::WebSocket(socket) => socket.poll_drain(cx),
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Plain(_) => None,
            Self::WebSocket(socket) => Some(socket.next_timeout()),
        }
    }

    pub(super) fn timeout(&mut self, now: Instant) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::WebSocket(socket) => socket.timeout(now),
        }
    }

    /// Closes our direction of the stream; what the peer sends can still be read.
    pub(super) fn end_write(&mut self) {
        match self {
            // The other half was in the outbox and went with it.
            Self::Plain(_) => {}
            Self::WebSocket(socket) => socket.end_write(),
        }
    }

    /// Says farewell in the transport's own way.
    pub(super) fn say_close(&mut self, code: u16, reason: &str) {
        if let Self::WebSocket(socket) = self {
            socket.say_close(code, reason);
        }
    }
}

/// Bytes that have arrived and are not done with.
#[derive(Debug, Default)]
struct Carry {
    /// A partial frame; with a target, a buffer that is partly filled.
    bytes: Vec<u8>,
    /// How much of `bytes` has arrived.
    filled: usize,
    /// Length of the frame that is being read straight into `bytes`; zero if there is none such.
    target: usize,
}

impl Carry {
    /// Keeps `rest`, a frame that will be `expected` bytes long in the end, if that is known.
    fn keep(&mut self, rest: &[u8], expected: usize) {
        self.bytes.clear();
        self.bytes.extend_from_slice(rest);
        self.settle(expected);
    }

    /// Keeps what follows the first `consumed` of `bytes`.
    fn keep_rest_of(&mut self, mut bytes: Vec<u8>, consumed: usize, expected: usize) {
        bytes.drain(..consumed.min(bytes.len()));
        self.bytes = bytes;
        self.settle(expected);
    }

    fn settle(&mut self, expected: usize) {
        self.filled = self.bytes.len();
        self.target = if expected > CARRY_BYTES_MAX && expected > self.filled { expected } else { 0 };
        if self.bytes.is_empty() {
            // An idle connection holds no buffer.
            self.bytes = Vec::new();
        }
    }

    /// What has arrived, taken out.
    fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.truncate(self.filled);
        self.filled = 0;
        self.target = 0;
        bytes
    }

    /// Whether the frame outgrows the scratch buffer and is read where it lies.
    fn is_large(&self) -> bool {
        self.target > 0 || self.filled > CARRY_BYTES_MAX
    }

    /// Room behind what has arrived, for a large frame.
    fn room(&mut self) -> &mut [u8] {
        // Not before it is full: a buffer that grew with every read would leave many behind.
        if self.bytes.len() <= self.filled {
            let wanted = if self.target > 0 {
                // Grows by factors and ends at the target exactly: the whole is handed on without another copy.
                self.target.min(self.filled.saturating_mul(4).max(OWNED_BYTES_FIRST))
            } else {
                self.filled + self.filled.max(CARRY_BYTES_MAX)
            };
            self.bytes.reserve_exact(wanted - self.bytes.len());
            self.bytes.resize(wanted, 0);
        }
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }
}

/// What stops a connection from reading on.
pub(super) enum Broken {
    /// The peer has closed its direction.
    Eof,
    /// The socket failed.
    Socket,
    /// The peer broke the rules of the transport.
    Transport,
    /// The session found a violation; its farewell is written.
    Protocol(Violation),
    /// There is no memory for the rest of a frame.
    Refused(Refusal),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Transport,
            _ => Self::Socket,
        }
    }
}

impl From<Violation> for Broken {
    fn from(violation: Violation) -> Self {
        Self::Protocol(violation)
    }
}

/// The reading side of a connection.
pub(super) struct Reader {
    pub(super) transport: Transport,
    carry: Carry,
    /// The session has not seen what is carried since something changed.
    fresh: bool,
    pub(super) last_read: Instant,
}

/// What a session is fed with.
pub(super) struct Feed<'a> {
    pub(super) now: Now,
    pub(super) session: &'a mut dyn Session,
    pub(super) host: &'a mut Connection,
    pub(super) out: &'a mut Chunks,
}

impl Feed<'_> {
    fn receive(&mut self, input: &mut Input<'_>) -> Result<Flow, Violation> {
        self.session.receive(self.now, input, self.host, self.out)
    }
}

impl Reader {
    /// Over `transport`; `early` are bytes of the protocol that were read already.
    pub(super) fn new(transport: Transport, early: &[u8], now: Instant) -> Self {
        let mut carry = Carry::default();
        carry.keep(early, 0);
        Self { transport, carry, fresh: !early.is_empty(), last_read: now }
    }

    /// Shows the session again what it left, for something has changed.
    pub(super) fn look_again(&mut self) {
        self.fresh |= self.carry.filled > 0;
    }

    /// Drops what is carried.
    pub(super) fn forget(&mut self) {
        self.carry = Carry::default();
    }

    /// Reads once and lets the session parse all that is there. Returns how many bytes came, too.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Shared,
        feed: &mut Feed<'_>,
    ) -> Poll<Result<(Flow, usize), Broken>> {
        let read = if std::mem::take(&mut self.fresh) {
            Poll::Ready(self.receive_carried(feed).map(|flow| (flow, 0)))
        } else if self.carry.is_large() {
            self.poll_large(cx, feed)
        } else {
            self.poll_scratch(cx, feed)
        };
        if let Poll::Ready(Ok((_, count))) = &read {
            shared.census.read(*count);
            if let Err(refusal) = feed.host.hold_frame(self.carry.bytes.capacity()) {
                return Poll::Ready(Err(Broken::Refused(refusal)));
            }
        }
        read
    }

    fn receive_carried(&mut self, feed: &mut Feed<'_>) -> Result<Flow, Broken> {
        let bytes = self.carry.take();
        let mut input = Input::new(&bytes);
        let flow = feed.receive(&mut input)?;
        let (consumed, expected) = (input.consumed(), input.expected());
        self.carry.keep_rest_of(bytes, consumed, expected);
        Ok(flow)
    }

    fn poll_scratch(
        &mut self,
        cx: &mut Context<'_>,
        feed: &mut Feed<'_>,
    ) -> Poll<Result<(Flow, usize), Broken>> {
        with_scratch(|scratch| {
            let carried = self.carry.filled;
            let room = scratch.get_mut(carried..).unwrap_or_default();
            let count = match self.transport.poll_read(cx, feed.now.instant, room) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Broken::Eof)),
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
            };
            self.last_read = feed.now.instant;
            if let Some(front) = scratch.get_mut(..carried) {
                front.copy_from_slice(self.carry.bytes.get(..carried).unwrap_or_default());
            }
            let mut input = Input::new(scratch.get(..carried + count).unwrap_or_default());
            let flow = feed.receive(&mut input)?;
            self.carry.keep(input.rest(), input.expected());
            Poll::Ready(Ok((flow, count)))
        })
    }

    fn poll_large(
        &mut self,
        cx: &mut Context<'_>,
        feed: &mut Feed<'_>,
    ) -> Poll<Result<(Flow, usize), Broken>> {
        let count = match self.transport.poll_read(cx, feed.now.instant, self.carry.room()) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(Broken::Eof)),
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
        };
        self.last_read = feed.now.instant;
        self.carry.filled += count;
        if self.carry.target == 0 {
            return Poll::Ready(self.receive_carried(feed).map(|flow| (flow, count)));
        }
        if self.carry.filled < self.carry.target {
            return Poll::Ready(Ok((Flow::More, count)));
        }
        let whole = Bytes::from(self.carry.take());
        let mut input = Input::from_shared(&whole);
        let flow = feed.receive(&mut input)?;
        self.carry.keep(input.rest(), input.expected());
        Poll::Ready(Ok((flow, count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_carry_holds_no_buffer() {
        let mut carry = Carry::default();
        carry.keep(b"part of a frame", 0);
        assert_eq!(carry.take(), b"part of a frame");
        carry.keep(b"", 0);
        assert_eq!(carry.bytes.capacity(), 0);
        carry.keep_rest_of(b"abcdef".to_vec(), 6, 0);
        assert_eq!(carry.bytes.capacity(), 0);
    }

    #[test]
    fn a_large_frame_grows_to_its_length_exactly_and_a_claim_alone_costs_little() {
        let mut carry = Carry::default();
        let target = 50 * 1024 * 1024;
        carry.keep(&[1; 1000], target);
        assert!(carry.is_large());
        assert!(carry.room().len() <= OWNED_BYTES_FIRST);
        while carry.filled < target {
            let count = carry.room().len().min(700_000);
            assert!(count > 0);
            carry.filled += count;
        }
        let whole = carry.take();
        assert_eq!((whole.len(), whole.capacity()), (target, target));
    }

    #[test]
    fn an_expected_length_that_fits_the_scratch_buffer_is_read_there() {
        let mut carry = Carry::default();
        carry.keep(b"x", CARRY_BYTES_MAX);
        assert!(!carry.is_large());
    }
}
