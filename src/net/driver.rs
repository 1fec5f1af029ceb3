//! The driver: one task per connection that runs any protocol over any transport.
//!
//! Per wake-up it takes the broker's events, reads as much as is there into a scratch buffer that its thread lends it,
//! lets the session parse all of it, ends the batch in the broker and flushes once. What is left of a partial frame
//! moves to a buffer of the connection's own; an idle connection holds none. Deliveries do not pass through here: the
//! broker encodes them into the outbox, and this task only writes what a socket did not take at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sabir_broker::Connection;
use sabir_model::chunks::Chunks;
use sabir_model::clock::Instant;
use sabir_model::error::Violation;
use sabir_model::event::Event;
use sabir_model::session::{Activity, Flow, Now, Session};

use super::Shared;
use super::census::Permit;
use super::reader::{Broken, Feed, Reader, Transport, with_scratch};
use super::timer::Timer;
use super::websocket::deframe;

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

impl End {
    /// How a WebSocket's peer is told.
    fn close_code(self) -> (u16, &'static str) {
        match self {
            Self::Violated => (deframe::CLOSE_POLICY, "the protocol was broken"),
            Self::Ousted => (deframe::CLOSE_GOING_AWAY, "the broker ends the connection"),
            Self::Left | Self::Gone | Self::Lost => (deframe::CLOSE_NORMAL, ""),
        }
    }
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
    /// The broker asked us not to read for the moment.
    held_back: bool,
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
        shared.census.read(early.len());
        let reader = Reader::new(transport, early, shared.clock.refresh().instant);
        Self {
            shared: Arc::clone(shared),
            session,
            connection: Some(connection),
            reader,
            parked: false,
            held_back: false,
            phase: Phase::Open,
            timer: Timer::new(&shared.wheel),
            _permit: permit,
        }
    }

    /// Works until the socket has nothing more or the others' turn has come; tells how the connection ends, if it does.
    fn poll_open(&mut self, cx: &mut Context<'_>, now: Now) -> Poll<End> {
        let Self { shared, session, connection, reader, parked, held_back, timer, .. } = self;
        let Some(connection) = connection.as_mut() else { return Poll::Ready(End::Lost) };
        if *held_back || *parked {
            // It was not read from, so its silence is ours: heart-beats count from now.
            reader.last_read = now.instant;
        }
        let mut out = Chunks::new();
        let mut reads = 0;
        let mut blocked;
        loop {
            let mut end = None;
            let mut touched = false;

            while end.is_none()
                && let Poll::Ready(event) = connection.poll_event(cx, now)
            {
                touched = true;
                let end_if_closed = if matches!(event, Event::Closing(_)) { End::Ousted } else { End::Left };
                let was_parked = std::mem::replace(parked, false);
                let result = session.notify(now, event, connection, &mut out);
                end = judge(shared, result, parked, end_if_closed);
                if was_parked {
                    reader.look_again();
                }
            }

            let activity = Activity { read: reader.last_read, written: connection.last_written() };
            if end.is_none() && session.next_timeout(activity).is_some_and(|at| at <= now.instant) {
                touched = true;
                end = judge(shared, session.timeout(now, activity, &mut out), parked, End::Left);
            }

            let mut progressed = false;
            *held_back = connection.poll_readable_permit(cx).is_pending();
            if end.is_none() && !*parked && !*held_back {
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
                    // The transport has said why; the peer is to read it.
                    Poll::Ready(Err(Broken::Transport)) => end = Some(End::Violated),
                    Poll::Ready(Err(Broken::Refused(refusal))) => {
                        touched = true;
                        shared.census.violated(refusal.code);
                        let result = session.notify(now, Event::Closing(refusal), connection, &mut out);
                        end = judge(shared, result, parked, End::Ousted).or(Some(End::Ousted));
                    }
                    Poll::Ready(Err(Broken::Protocol(violation))) => {
                        touched = true;
                        end = judge(shared, Err(violation), parked, End::Left);
                    }
                }
            }

            if touched {
                connection.end_batch(now, &mut out);
            }
            // What the batch has left to be written waits for the end of this turn: mostly that finds nothing to do, and
            // one message at a time that was a seventh of its instructions.
            if progressed && reads < READS_MAX && end.is_none() {
                continue;
            }
            match connection.poll_flush(cx, now) {
                Poll::Ready(Ok(())) => blocked = false,
                Poll::Ready(Err(_)) => return Poll::Ready(end.unwrap_or(End::Lost)),
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
            let flushed = match connection.poll_flush(cx, now) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(_)) => Poll::Ready(()),
                Poll::Ready(Ok(())) => {
                    let (code, reason) = end.close_code();
                    self.reader.transport.say_close(code, reason);
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
                    this.reader.forget();
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
    fn the_drivers_own_part_of_an_idle_connection_stays_small() {
        let own = size_of::<Driver>() - size_of::<Connection>();
        assert!(own <= 192, "{own} bytes");
        // With what the runtime adds, in multiples of 128, a task of 512.
        assert!(size_of::<Driver>() <= 384, "{} bytes", size_of::<Driver>());
    }
}
