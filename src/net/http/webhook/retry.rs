//! What an answer means, and when the next attempt is: pure, with the randomness given.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When attempts are repeated; times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retries {
    /// Attempts in all, after which the message is a dead letter.
    pub(super) max: u32,
    /// The pause after the first attempt.
    pub(super) first: u64,
    /// By what the pause grows with each attempt.
    pub(super) multiplier: f64,
    /// The longest pause, one that a receiver asks for included.
    pub(super) ceiling: u64,
}

impl Default for Retries {
    fn default() -> Self {
        Self { max: 8, first: 1000, multiplier: 2.0, ceiling: 300_000 }
    }
}

impl Retries {
    /// What is wrong with them: the field, and a sentence.
    pub(super) fn complaint(&self) -> Option<(&'static str, &'static str)> {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        if !(1..=1000).contains(&self.max) {
            return Some(("retries.max", "retries.max must be from 1 to 1000: attempts in all"));
        }
        if !(1..=DAY_MS).contains(&self.first) {
            return Some(("retries.first", "retries.first must be from 1 ms to a day"));
        }
        if !(1.0..=100.0).contains(&self.multiplier) {
            return Some(("retries.multiplier", "retries.multiplier must be from 1 to 100"));
        }
        if !(self.first..=DAY_MS).contains(&self.ceiling) {
            return Some(("retries.ceiling", "retries.ceiling must be from retries.first to a day, in ms"));
        }
        None
    }

    /// The pause after so many attempts, from half of it to all of it as `random` says, so that receivers which come back
    /// are not met by everybody at once.
    fn pause(&self, attempts: u32, random: u32) -> Duration {
        let power = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        // Infinity is more than the ceiling.
        let whole = (self.first as f64 * self.multiplier.powi(power)).min(self.ceiling as f64);
        let part = 0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX);
        Duration::from_millis((whole * part).round() as u64)
    }
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A status, and the pause that the receiver asks for.
    Status { status: u16, retry_after: Option<Duration> },
    /// None, and why.
    Failed(String),
}

impl Answer {
    /// What is wrong with it; `None` if nothing is.
    pub(super) fn complaint(&self) -> Option<String> {
        match self {
            Self::Status { status: 200..=299, .. } => None,
            Self::Status { status: status @ 300..=399, .. } => {
                Some(format!("the receiver answered {status}; redirects are not followed"))
            }
            Self::Status { status, .. } => Some(format!("the receiver answered {status}")),
            Self::Failed(why) => Some(why.clone()),
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The receiver has the message.
    Accept,
    /// The receiver wants nothing any more: the webhook goes, the message stays.
    Remove,
    /// Again after this pause; `all` if the receiver has asked for a pause of everything.
    Again { pause: Duration, all: bool },
    /// Not again: a dead letter.
    Reject,
}

/// Judges the answer to an attempt, the how-manieth it was.
pub(super) fn judge(answer: &Answer, attempts: u32, retries: &Retries, random: u32) -> Verdict {
    let asked = match answer {
        Answer::Status { status: 200..=299, .. } => return Verdict::Accept,
        Answer::Status { status: 410, .. } => return Verdict::Remove,
        // Who is overloaded means all requests, not this one.
        Answer::Status { status: 429 | 503, retry_after } => *retry_after,
        Answer::Status { .. } | Answer::Failed(_) => None,
    };
    if attempts >= retries.max {
        return Verdict::Reject;
    }
    let pause = retries.pause(attempts, random);
    let asked = asked.map(|asked| asked.min(Duration::from_millis(retries.ceiling)));
    Verdict::Again { pause: asked.map_or(pause, |asked| asked.max(pause)), all: asked.is_some() }
}

/// Reads a `Retry-After`: seconds, or an instant (RFC 9110 §10.2.3). `now` is milliseconds since 1970.
pub(super) fn retry_after(text: &str, now: u64) -> Option<Duration> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        // More digits than a number has are a very long time.
        let seconds = text.parse::<u32>().unwrap_or(u32::MAX);
        return Some(Duration::from_secs(seconds.into()));
    }
    let until = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(until.saturating_sub(Duration::from_millis(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRIES: Retries = Retries { max: 5, first: 100, multiplier: 3.0, ceiling: 1000 };

    fn status(status: u16, retry_after: Option<u64>) -> Answer {
        Answer::Status { status, retry_after: retry_after.map(Duration::from_millis) }
    }

    #[test]
    fn pauses_grow_to_the_ceiling_and_vary_by_half() {
        for (attempts, least, most) in
            [(1, 50, 100), (2, 150, 300), (3, 450, 900), (4, 500, 1000), (999, 500, 1000)]
        {
            assert_eq!(RETRIES.pause(attempts, 0), Duration::from_millis(least));
            assert_eq!(RETRIES.pause(attempts, u32::MAX), Duration::from_millis(most));
            let between = RETRIES.pause(attempts, u32::MAX / 3);
            assert!(Duration::from_millis(least) < between && between < Duration::from_millis(most));
        }
    }

    #[test]
    fn an_answer_decides_what_becomes_of_the_message() {
        let judged = |answer: &Answer, attempts| judge(answer, attempts, &RETRIES, u32::MAX);
        let again = |ms, all| Verdict::Again { pause: Duration::from_millis(ms), all };
        assert_eq!(judged(&status(200, None), 1), Verdict::Accept);
        assert_eq!(judged(&status(299, None), 5), Verdict::Accept);
        assert_eq!(judged(&status(410, None), 1), Verdict::Remove);
        assert_eq!(judged(&status(410, None), 5), Verdict::Remove);
        for failed in [status(301, None), status(404, None), status(500, None), Answer::Failed("x".into())] {
            assert_eq!(judged(&failed, 1), again(100, false), "{failed:?}");
            assert_eq!(judged(&failed, 4), again(1000, false), "{failed:?}");
            assert_eq!(judged(&failed, 5), Verdict::Reject, "{failed:?}");
        }
    }

    #[test]
    fn a_pause_that_is_asked_for_is_kept_up_to_the_ceiling() {
        let judged = |answer: &Answer| judge(answer, 1, &RETRIES, u32::MAX);
        let again = |ms, all| Verdict::Again { pause: Duration::from_millis(ms), all };
        assert_eq!(judged(&status(429, Some(400))), again(400, true));
        assert_eq!(judged(&status(503, Some(60_000))), again(1000, true));
        assert_eq!(judged(&status(503, Some(0))), again(100, true));
        assert_eq!(judged(&status(503, None)), again(100, false));
        // Others have no say in it.
        assert_eq!(judged(&status(500, Some(400))), again(100, false));
    }

    #[test]
    fn retry_after_is_seconds_or_an_instant() {
        let now = 784_111_777_000 - 30_000;
        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now + 60_000), Some(Duration::ZERO));
        assert!(retry_after("99999999999999999999999", now) > Some(Duration::from_secs(1_000_000)));
        for text in ["", "-1", "soon", "1.5"] {
            assert_eq!(retry_after(text, now), None, "{text}");
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        assert_eq!(Retries::default().complaint(), None);
        for (wrong, field) in [
            (Retries { max: 0, ..RETRIES }, "retries.max"),
            (Retries { first: 0, ..RETRIES }, "retries.first"),
            (Retries { multiplier: 0.9, ..RETRIES }, "retries.multiplier"),
            (Retries { multiplier: f64::NAN, ..RETRIES }, "retries.multiplier"),
            (Retries { ceiling: 99, ..RETRIES }, "retries.ceiling"),
        ] {
            assert_eq!(wrong.complaint().map(|(field, _)| field), Some(field));
        }
    }
}
