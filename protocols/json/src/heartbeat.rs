//! Heart-beats: one interval for both directions, agreed on when the connection is introduced.

use std::time::Duration;

use sabir_model::clock::Instant;
use sabir_model::limits::Limits;
use sabir_model::session::Activity;

/// The agreed beat; none by default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeartBeat {
    /// Milliseconds, as answered; 0 for none.
    pub(crate) granted_ms: u64,
    /// Idle time after which we send a beat.
    write_after: Option<Duration>,
    /// Silence after which the client is given up.
    silence_max: Option<Duration>,
    /// The last beat put out, whether or not the socket has taken it.
    last: Instant,
}

impl HeartBeat {
    /// Grants what was asked for, within the limits. Twice the longer of both figures is forgiven.
    pub(crate) fn agree(asked_ms: u64, limits: &Limits) -> Self {
        if asked_ms == 0 {
            return Self::default();
        }
        let least = limits.heartbeat_ms_min;
        let granted_ms = asked_ms.clamp(least, limits.heartbeat_ms_max.max(least));
        Self {
            granted_ms,
            write_after: Some(Duration::from_millis(granted_ms) * 3 / 5),
            silence_max: Some(Duration::from_millis(granted_ms.max(asked_ms)).saturating_mul(2)),
            last: Instant::default(),
        }
    }

    /// When to look again. The client's silence counts only while it is `heard`.
    pub(crate) fn next(&self, activity: Activity, heard: bool) -> Option<Instant> {
        let write = self.write_after.map(|after| activity.written.max(self.last).after(after));
        let read = self.silence_max.filter(|_| heard).map(|max| activity.read.after(max));
        write.into_iter().chain(read).min()
    }

    /// Whether the client has been silent for too long.
    pub(crate) fn is_overdue(&self, now: Instant, activity: Activity) -> bool {
        self.silence_max.is_some_and(|max| now >= activity.read.after(max))
    }

    /// Whether to send a beat now; if so, it counts as sent.
    pub(crate) fn beat(&mut self, now: Instant, activity: Activity) -> bool {
        let due = self.write_after.is_some_and(|after| now >= activity.written.max(self.last).after(after));
        if due {
            // A socket that takes nothing must not collect beats without end.
            self.last = now;
        }
        due
    }
}
