//! Waits for many sockets at once, and for an instant exactly.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Events taken at once.
const EVENTS: usize = 256;
/// The machine's own timers are allowed to be this late: as little as there is.
const SLACK_NANOS: u64 = 1;

/// Longer waits end with a whole millisecond.
const EXACT_BELOW: Duration = Duration::from_millis(20);

/// What has happened to one socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// What the socket was added as.
    pub(crate) index: usize,
    pub(crate) readable: bool,
}

/// A set of sockets.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    pub(crate) fn new() -> Result<Self, String> {
        if let Some(slack) = std::num::NonZeroU64::new(SLACK_NANOS) {
            // Without it instants are kept to 50 µs; no more is lost than that.
            let _ = rustix::thread::set_current_timer_slack(Some(slack));
        }
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| format!("no epoll: {error}"))?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    /// Watches a socket for input.
    pub(crate) fn add(&self, socket: &impl AsFd, index: usize) -> Result<(), String> {
        epoll::add(&self.epoll, socket, EventData::new_u64(index as u64), EventFlags::IN)
            .map_err(|error| format!("cannot watch a socket: {error}"))
    }

    /// Watches it for room to write, too, or no longer.
    pub(crate) fn watch_writing(
        &self,
        socket: &impl AsFd,
        index: usize,
        writing: bool,
    ) -> Result<(), String> {
        let flags = if writing { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        epoll::modify(&self.epoll, socket, EventData::new_u64(index as u64), flags)
            .map_err(|error| format!("cannot watch a socket: {error}"))
    }

    /// Waits until something happens or the time is over, which a short one is to the microsecond.
    pub(crate) fn wait(&mut self, time: Duration) -> Result<(), String> {
        self.events.clear();
        let spec = |time: Duration| Timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        // epoll_wait itself counts in milliseconds, and another call is dear where there are many.
        let time = if time < EXACT_BELOW { time } else { Duration::from_millis(time.as_millis() as u64) };
        let mut rest = spec(time);
        if !time.is_zero() && !time.subsec_nanos().is_multiple_of(1_000_000) {
            let mut fds = [PollFd::new(&self.epoll, PollFlags::IN)];
            match poll(&mut fds, Some(&rest)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
                Ok(_) => rest = spec(Duration::ZERO),
                Err(error) => return Err(format!("cannot wait: {error}")),
            }
        }
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&rest)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(format!("cannot wait: {error}")),
        }
    }

    /// How many sockets the last wait found something for.
    pub(crate) fn count(&self) -> usize {
        self.events.len()
    }

    /// One of them.
    pub(crate) fn ready(&self, place: usize) -> Option<Ready> {
        let event = self.events.get(place)?;
        let (flags, data) = (event.flags, event.data);
        Some(Ready {
            index: usize::try_from(data.u64()).ok()?,
            // The end of a connection is found by reading.
            readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
        })
    }
}
