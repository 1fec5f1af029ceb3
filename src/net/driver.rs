//! The driver: one task per connection that runs any protocol over any transport.
//!
//! Per wake-up it takes the broker's events, reads as much as is there into a scratch buffer that its thread lends it,
//! lets the session parse all of it, ends the batch in the broker and flushes once. What is left of a partial frame
//! moves to a buffer of the connection's own; an idle connection holds none. Deliveries do not pass through here: the
//! broker encodes them into the outbox, and this task only writes what a socket did not take at once.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use sabir_broker::Connection;
use sabir_model::chunks::Chunks;
use sabir_model::clock::Instant;
use sabir_model::error::Violation;
use sabir_model::event::Event;
use sabir_model::session::{Activity, Flow, Input, Now, Session};

use super::Shared;
use super::census::Permit;
use super::deframe;
use super::socket::ReadHalf;
use super::timer::Timer;
use super::websocket::WebSocket;

/// Size of each thread's scratch buffer.
const SCRATCH_BYTES: usize = 256 * 1024;
/// A partial frame up to this size is carried back into the scratch buffer; a larger one is read where it lies.
const CARRY_BYTES_MAX: usize = SCRATCH_BYTES / 2;
/// A large frame's buffer starts with at most this and grows as bytes arrive, so that a length alone costs nothing.
const OWNED_BYTES_FIRST: usize = 1024 * 1024;
/// Reads of one poll; then the others have their turn.
const READS_MAX: u32 = 2;
/// Time for the farewell to reach a peer that may not be reading.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often a peer is looked at that does not take what waits for it.
const STALL_CHECK: Duration = Duration::from_secs(1);
/// Time and bytes for which we go on reading after our end of the stream, so that the peer gets the farewell instead of
/// a reset.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: u32 = 4 * 1024 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the thread's scratch buffer.
fn with_scratch<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
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

    fn poll_discard(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(half) => half.poll_read(cx, buf),
            Self::WebSocket(socket) => socket.poll_discard(cx, buf),
        }
    }

    /// Writes what the transport itself has to say.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::WebSocket(socket) => socket.poll_drain(cx),
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Plain(_) => None,
            Self::WebSocket(socket) => Some(socket.next_timeout()),
        }
    }

    fn timeout(&mut self, now: Instant) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::WebSocket(socket) => socket.timeout(now),
        }
    }

    /// Closes our direction of the stream; what the peer sends can still be read.
    fn end_write(&mut self) {
        match self {
            // The other half was in the outbox and went with it.
            Self::Plain(_) => {}
            Self::WebSocket(socket) => socket.end_write(),
        }
    }

    fn say_close(&mut self, end: End) {
        if let Self::WebSocket(socket) = self {
            match end {
                End::Violated => socket.say_close(deframe::CLOSE_POLICY, "the protocol was broken"),
                End::Ousted => socket.say_close(deframe::CLOSE_GOING_AWAY, "the broker ends the connection"),
                End::Left | End::Gone | End::Lost => socket.say_close(deframe::CLOSE_NORMAL, ""),
            }
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
        let wanted = if self.target > 0 {
            // Grows by factors and ends at the target exactly: the whole is handed on without another copy.
            self.target.min(self.filled.saturating_mul(4).max(OWNED_BYTES_FIRST))
        } else {
            self.filled + (self.filled / 2).max(CARRY_BYTES_MAX)
        };
        if self.bytes.len() < wanted {
            self.bytes.reserve_exact(wanted - self.bytes.len());
            self.bytes.resize(wanted, 0);
        }
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }
}

/// What stops a connection from reading on.
enum Broken {
    /// The peer has closed its direction.
    Eof,
    /// The socket failed.
    Socket,
    /// The session found a violation; its farewell is written.
    Protocol(Violation),
}

impl From<Violation> for Broken {
    fn from(violation: Violation) -> Self {
        Self::Protocol(violation)
    }
}

/// The reading side of a connection.
struct Reader {
    transport: Transport,
    carry: Carry,
    /// The session has not seen what is carried since something changed.
    fresh: bool,
    last_read: Instant,
}

/// What a session is fed with.
struct Feed<'a> {
    now: Now,
    session: &'a mut dyn Session,
    host: &'a mut Connection,
    out: &'a mut Chunks,
}

impl Feed<'_> {
    fn receive(&mut self, input: &mut Input<'_>) -> Result<Flow, Violation> {
        self.session.receive(self.now, input, self.host, self.out)
    }
}

impl Reader {
    /// Reads once and lets the session parse all that is there. Returns how many bytes came, too.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Shared,
        feed: &mut Feed<'_>,
    ) -> Poll<Result<(Flow, usize), Broken>> {
        if self.fresh {
            self.fresh = false;
            return Poll::Ready(self.receive_carried(feed).map(|flow| (flow, 0)));
        }
        let read =
            if self.carry.is_large() { self.poll_large(cx, feed) } else { self.poll_scratch(cx, feed) };
        if let Poll::Ready(Ok((_, count))) = &read {
            shared.census.read(*count);
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
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Socket)),
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
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Socket)),
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

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The session said so: the client has taken its leave, or was not let in.
    Left,
    /// The peer broke the protocol.
    Violated,
    /// The broker ended it.
    Ousted,
    /// The peer closed its direction without taking leave; it may still be reading.
    Gone,
    /// The socket failed, or the peer does not read.
    Lost,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Open,
    /// The farewell is on its way.
    Farewell {
        end: End,
        until: Instant,
    },
    /// Our direction is closed; the peer may still be sending.
    Linger {
        until: Instant,
        bytes_left: u32,
    },
}

/// One connection's task.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    session: Box<dyn Session>,
    /// Taken when the connection ends.
    connection: Option<Connection>,
    reader: Reader,
    /// The session wants an event before it goes on.
    parked: bool,
    phase: Phase,
    timer: Timer,
    _permit: Permit,
}

impl Driver {
    /// A task for a connection that the broker knows. `early` are bytes of the protocol that were read already.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        session: Box<dyn Session>,
        connection: Connection,
        transport: Transport,
        early: &[u8],
        permit: Permit,
    ) -> Self {
        let mut carry = Carry::default();
        carry.keep(early, 0);
        shared.census.read(early.len());
        let last_read = shared.clock.refresh().instant;
        Self {
            shared: Arc::clone(shared),
            session,
            connection: Some(connection),
            reader: Reader { transport, carry, fresh: !early.is_empty(), last_read },
            parked: false,
            phase: Phase::Open,
            timer: Timer::new(&shared.wheel),
            _permit: permit,
        }
    }

    /// Works until the socket has nothing more or the others' turn has come; tells how the connection ends, if it does.
    fn poll_open(&mut self, cx: &mut Context<'_>, now: Now) -> Poll<End> {
        let Self { shared, session, connection, reader, parked, timer, .. } = self;
        let Some(connection) = connection.as_mut() else { return Poll::Ready(End::Lost) };
        let mut out = Chunks::new();
        let mut reads = 0;
        let mut blocked;
        loop {
            let mut end = None;
            let mut touched = false;

            while end.is_none()
                && let Poll::Ready(event) = connection.poll_event(cx)
            {
                touched = true;
                let end_if_closed = if matches!(event, Event::Closing(_)) { End::Ousted } else { End::Left };
                let was_parked = std::mem::replace(parked, false);
                let result = session.notify(now, event, connection, &mut out);
                end = judge(shared, result, parked, end_if_closed);
                reader.fresh |= was_parked && reader.carry.filled > 0;
            }

            let activity = Activity { read: reader.last_read, written: connection.last_written() };
            if end.is_none() && session.next_timeout(activity).is_some_and(|at| at <= now.instant) {
                touched = true;
                end = judge(shared, session.timeout(now, activity, &mut out), parked, End::Left);
            }

            let mut progressed = false;
            if end.is_none() && !*parked && connection.poll_readable_permit(cx).is_ready() {
                let mut feed = Feed { now, session: &mut **session, host: connection, out: &mut out };
                match reader.poll(cx, shared, &mut feed) {
                    Poll::Pending => {}
                    Poll::Ready(Ok((flow, count))) => {
                        reads += u32::from(count > 0);
                        (touched, progressed) = (true, true);
                        end = judge(shared, Ok(flow), parked, End::Left);
                    }
                    Poll::Ready(Err(Broken::Eof)) => end = Some(End::Gone),
                    Poll::Ready(Err(Broken::Socket)) => end = Some(End::Lost),
                    Poll::Ready(Err(Broken::Protocol(violation))) => {
                        touched = true;
                        end = judge(shared, Err(violation), parked, End::Left);
                    }
                }
            }

            if touched {
                connection.end_batch(now, &mut out);
            }
            match connection.poll_flush(cx) {
                Poll::Ready(Ok(())) => blocked = false,
                Poll::Ready(Err(_)) => return Poll::Ready(End::Lost),
                Poll::Pending => blocked = true,
            }
            if let Some(refusal) = connection.overrun() {
                tracing::info!(connection = connection.id().0, %refusal, "connection cut off");
                return Poll::Ready(End::Lost);
            }
            if reader.transport.timeout(now.instant).is_err() {
                tracing::debug!(connection = connection.id().0, "no answer to pings");
                return Poll::Ready(End::Lost);
            }
            if let Poll::Ready(Err(_)) = reader.transport.poll_drain(cx) {
                return Poll::Ready(End::Lost);
            }
            if let Some(end) = end {
                return Poll::Ready(end);
            }
            if !progressed {
                break;
            }
            if reads >= READS_MAX {
                cx.waker().wake_by_ref();
                break;
            }
        }
        let activity = Activity { read: reader.last_read, written: connection.last_written() };
        // A peer that does not read is looked at again, for the socket alone would never wake us.
        let look_again = blocked.then(|| now.instant.after(STALL_CHECK));
        let deadlines = [session.next_timeout(activity), reader.transport.next_timeout(), look_again];
        timer.arm(cx.waker(), deadlines.into_iter().flatten().min());
        Poll::Pending
    }

    /// Writes what is left, within bounds.
    fn poll_farewell(&mut self, cx: &mut Context<'_>, end: End, until: Instant, now: Now) -> Poll<()> {
        let Some(connection) = self.connection.as_mut() else { return Poll::Ready(()) };
        if end != End::Lost && now.instant < until {
            let flushed = match connection.poll_flush(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(_)) => Poll::Ready(()),
                Poll::Ready(Ok(())) => {
                    self.reader.transport.say_close(end);
                    self.reader.transport.poll_drain(cx).map(|_| ())
                }
            };
            if flushed.is_pending() {
                self.timer.arm(cx.waker(), Some(until));
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Reads and forgets, so that the kernel does not answer unread bytes with a reset that overtakes the farewell.
    fn poll_linger(
        &mut self,
        cx: &mut Context<'_>,
        until: Instant,
        mut bytes_left: u32,
        now: Now,
    ) -> Poll<()> {
        while bytes_left > 0 && now.instant < until {
            match with_scratch(|scratch| self.reader.transport.poll_discard(cx, scratch)) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(count)) => {
                    bytes_left = bytes_left.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
                }
                Poll::Pending => {
                    self.phase = Phase::Linger { until, bytes_left };
                    self.timer.arm(cx.waker(), Some(until));
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }
}

/// Reads a session's answer: how the connection ends, if it does.
fn judge(
    shared: &Shared,
    result: Result<Flow, Violation>,
    parked: &mut bool,
    end_if_closed: End,
) -> Option<End> {
    match result {
        Ok(Flow::More) => None,
        Ok(Flow::Parked) => {
            *parked = true;
            None
        }
        Ok(Flow::Close) => Some(end_if_closed),
        Err(violation) => {
            shared.census.violated(violation.0.code);
            tracing::debug!(%violation, "connection ends by its peer's fault");
            Some(End::Violated)
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let now = this.shared.clock.refresh();
        if this.shared.is_cut() {
            return Poll::Ready(());
        }
        loop {
            match this.phase {
                Phase::Open => match this.poll_open(cx, now) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(end) => {
                        this.phase = Phase::Farewell { end, until: now.instant.after(FAREWELL) };
                    }
                },
                Phase::Farewell { end, until } => {
                    if this.poll_farewell(cx, end, until, now).is_pending() {
                        return Poll::Pending;
                    }
                    if let Some(connection) = this.connection.take() {
                        connection.close(end == End::Left);
                    }
                    if matches!(end, End::Gone | End::Lost) {
                        return Poll::Ready(());
                    }
                    this.reader.transport.end_write();
                    this.reader.carry = Carry::default();
                    let until = now.instant.after(LINGER);
                    this.phase = Phase::Linger { until, bytes_left: LINGER_BYTES_MAX };
                }
                Phase::Linger { until, bytes_left } => return this.poll_linger(cx, until, bytes_left, now),
            }
        }
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
    fn the_drivers_own_part_of_an_idle_connection_stays_small() {
        let own = size_of::<Driver>() - size_of::<Connection>();
        assert!(own <= 192, "{own} bytes");
    }

    #[test]
    fn an_expected_length_that_fits_the_scratch_buffer_is_read_there() {
        let mut carry = Carry::default();
        carry.keep(b"x", CARRY_BYTES_MAX);
        assert!(!carry.is_large());
    }
}
