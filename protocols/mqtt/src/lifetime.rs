//! How long a session outlives its connection: what clients ask for, and what they get.

use sabir_model::command::LASTS_FOREVER;
use sabir_model::limits::Limits;

use crate::packet::Connect;
use crate::version::Version;

/// Session Expiry Interval that stands for never.
const NEVER_S: u32 = u32::MAX;

/// The terms of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// What the client asked for; only version 5 has a way to.
    pub(crate) asked_s: Option<u32>,
    /// What it gets.
    pub(crate) lasts_ms: u64,
    /// What to tell it, if that is not what it asked for.
    pub(crate) told_s: Option<u32>,
}

impl Lifetime {
    /// What CONNECT asks for.
    pub(crate) fn at_connect(connect: &Connect<'_>, limits: &Limits) -> Self {
        match connect.version {
            // Clean Session speaks of both ends [3: 3.1.2-6].
            Version::V31 | Version::V311 if connect.clean_start => {
                Self { asked_s: None, lasts_ms: 0, told_s: None }
            }
            Version::V31 | Version::V311 => {
                let lasts_ms = limits.session_lasts_ms_default.min(limits.session_lasts_ms_max);
                Self { asked_s: None, lasts_ms, told_s: None }
            }
            Version::V5 => {
                let asked_s = connect.properties.session_expiry_s.unwrap_or(0);
                let lasts_ms = lasts_ms(asked_s, limits);
                let told_s = (lasts_ms != wanted_ms(asked_s))
                    .then(|| u32::try_from(lasts_ms / 1000).unwrap_or(NEVER_S - 1).min(NEVER_S - 1));
                Self { asked_s: Some(asked_s), lasts_ms, told_s }
            }
        }
    }
}

/// What a Session Expiry Interval gets.
pub(crate) fn lasts_ms(expiry_s: u32, limits: &Limits) -> u64 {
    wanted_ms(expiry_s).min(limits.session_lasts_ms_max)
}

fn wanted_ms(expiry_s: u32) -> u64 {
    if expiry_s == NEVER_S { LASTS_FOREVER } else { u64::from(expiry_s) * 1000 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::ConnectProperties;

    #[test]
    fn sessions_last_as_asked_within_the_limits_mqtt_3_1_2_23() {
        let bounded =
            Limits { session_lasts_ms_max: 10_000, session_lasts_ms_default: 60_000, ..Limits::default() };
        let free = Limits { session_lasts_ms_default: 60_000, ..Limits::default() };
        for (version, clean_start, session_expiry_s, limits, lasts_ms, told_s) in [
            (Version::V31, true, None, &free, 0, None),
            (Version::V311, true, None, &free, 0, None),
            (Version::V311, false, None, &free, 60_000, None),
            (Version::V311, false, None, &bounded, 10_000, None),
            (Version::V5, false, None, &free, 0, None),
            (Version::V5, true, Some(7), &free, 7000, None),
            (Version::V5, false, Some(u32::MAX), &free, LASTS_FOREVER, None),
            (Version::V5, false, Some(u32::MAX), &bounded, 10_000, Some(10)),
            (Version::V5, false, Some(11), &bounded, 10_000, Some(10)),
            (Version::V5, false, Some(10), &bounded, 10_000, None),
        ] {
            let properties = ConnectProperties { session_expiry_s, ..ConnectProperties::default() };
            let connect = Connect { version, clean_start, properties, ..Connect::default() };
            let got = Lifetime::at_connect(&connect, limits);
            assert_eq!((got.lasts_ms, got.told_s), (lasts_ms, told_s), "{connect:?}");
        }
    }
}
