//! Heart-beats: what is agreed at CONNECT, and when to send one or to give the peer up.

use std::time::Duration;

use sabir_model::clock::Instant;
use sabir_model::error::{Code, Refusal};
use sabir_model::limits::Limits;
use sabir_model::session::Activity;

/// The agreed beats.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeartBeat {
    /// What CONNECTED answers: milliseconds between our beats, and between the client's.
    pub(crate) answer: (u64, u64),
    /// Idle time after which we send a beat.
    write_after: Option<Duration>,
    /// Silence after which the client is given up.
    silence_max: Option<Duration>,
    /// The last beat put out, whether or not the socket has taken it.
    last: Instant,
}

impl HeartBeat {
    /// Agrees on what the client's `heart-beat` header asks for: both figures mirrored, within the limits.
    pub(crate) fn agree(header: Option<&str>, limits: &Limits) -> Result<Self, Refusal> {
        let Some(header) = header else { return Ok(Self::default()) };
        let malformed = || {
            Refusal::new(
                Code::InvalidHeader,
                format!("heart-beat must be two numbers of milliseconds, not \"{header}\""),
            )
        };
        let (sends, wants) = header.split_once(',').ok_or_else(malformed)?;
        let number = |text: &str| {
            let text = text.trim();
            let digits = !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
            if digits { text.parse::<u64>().map_err(|_| malformed()) } else { Err(malformed()) }
        };
        let (sends, wants) = (number(sends)?, number(wants)?);
        let (min, max) = (limits.heartbeat_ms_min, limits.heartbeat_ms_max.max(limits.heartbeat_ms_min));
        // Never a figure for zero: who cannot or will not beat is not asked to.
        let granted = |asked: u64| if asked == 0 { 0 } else { asked.clamp(min, max) };
        let answer = (granted(wants), granted(sends));
        // The longer of the two sides' figures is what both keep to.
        let agreed = |ours: u64, theirs: u64| (ours != 0).then(|| Duration::from_millis(ours.max(theirs)));
        Ok(Self {
            answer,
            write_after: agreed(answer.0, wants).map(|interval| interval * 3 / 5),
            silence_max: agreed(answer.1, sends).map(|interval| interval.saturating_mul(2)),
            last: Instant::default(),
        })
    }

    /// When to look again. The client's silence counts only while it is `heard`.
    pub(crate) fn next(&self, activity: Activity, heard: bool) -> Option<Instant> {
        let write = self.write_after.map(|after| activity.written.max(self.last).after(after));
        let read = self.silence_max.filter(|_| heard).map(|max| activity.read.after(max));
        match (write, read) {
            (Some(write), Some(read)) => Some(write.min(read)),
            (write, read) => write.or(read),
        }
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_clients_pair_is_mirrored_and_clamped() {
        let limits = Limits { heartbeat_ms_min: 1000, heartbeat_ms_max: 60_000, ..Limits::default() };
        for (header, answer) in [
            (None, (0, 0)),
            (Some("0,0"), (0, 0)),
            (Some("10000,5000"), (5000, 10_000)),
            (Some(" 10 , 5 "), (1000, 1000)),
            (Some("0,90000"), (60_000, 0)),
            (Some("90000,0"), (0, 60_000)),
        ] {
            assert_eq!(HeartBeat::agree(header, &limits).unwrap().answer, answer, "{header:?}");
        }
        for header in ["", "1", "1,", ",", "a,b", "-1,0", "1,2,3", "1.5,2", "1,99999999999999999999"] {
            assert_eq!(
                HeartBeat::agree(Some(header), &limits).unwrap_err().code,
                Code::InvalidHeader,
                "{header}"
            );
        }
    }

    #[test]
    fn twice_the_interval_is_forgiven_and_beats_leave_before_theirs() {
        let limits = Limits { heartbeat_ms_min: 1000, ..Limits::default() };
        let mut beat = HeartBeat::agree(Some("2000,1000"), &limits).unwrap();
        let at = |ms: u64| Instant(ms * 1000);
        let activity = Activity { read: at(0), written: at(0) };
        assert_eq!(beat.next(activity, true), Some(at(600)));
        assert!(
            !beat.beat(at(599), activity) && beat.beat(at(600), activity) && !beat.beat(at(601), activity)
        );
        assert_eq!(beat.next(activity, true), Some(at(1200)));
        assert!(!beat.is_overdue(at(3999), activity) && beat.is_overdue(at(4000), activity));
        let none = HeartBeat::agree(Some("0,0"), &limits).unwrap();
        assert_eq!(none.next(activity, true), None);
        assert!(!none.is_overdue(at(1_000_000), activity));
    }
}
