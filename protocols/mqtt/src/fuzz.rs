//! One function per target for fuzzers and for the tests that run a corpus: they panic only on a bug.

use crate::filter::{self, Bounds, Filter, Level};
use crate::packet::{Connect, Packet, Progress, decode, frame};
use crate::version::Version;

pub use crate::fuzz_session::fuzz_session;

/// Reads packets: the first byte picks the version, and how the rest is cut. What can be read can be written, and reads
/// the same again; a cut changes nothing.
///
/// # Panics
/// On a bug.
pub fn fuzz_decode(data: &[u8]) {
    let Some((&pick, mut rest)) = data.split_first() else { return };
    let version = match pick % 4 {
        0 => Some(Version::V31),
        1 => Some(Version::V311),
        2 => Some(Version::V5),
        _ => None,
    };
    let bytes_max = if pick & 0x80 == 0 { usize::MAX } else { 64 };
    loop {
        let found = frame(rest, version, bytes_max);
        check_cuts(rest, version, bytes_max);
        let Ok(Progress::Whole(frame)) = found else { return };
        assert!(frame.total <= rest.len() && frame.total <= bytes_max, "no more is consumed than allowed");
        if let Ok(packet) = decode(&frame, version.unwrap_or_default()) {
            check_again(&packet, version.unwrap_or_default());
        } else if version.is_none() {
            // Only that it does not panic.
            let _ = Connect::answer_version(&frame);
        }
        rest = rest.get(frame.total..).unwrap_or_default();
    }
}

/// That a shorter input says less, but nothing else.
fn check_cuts(bytes: &[u8], version: Option<Version>, bytes_max: usize) {
    let whole = frame(bytes, version, bytes_max);
    for count in 0..bytes.len().min(16) {
        let cut = bytes.get(..count).unwrap_or_default();
        match frame(cut, version, bytes_max) {
            Ok(Progress::Whole(_)) | Err(_) => assert_eq!(frame(cut, version, bytes_max), whole),
            Ok(Progress::NeedMore { total: None }) => {}
            Ok(Progress::NeedMore { total: Some(total) }) => match &whole {
                Ok(Progress::Whole(frame)) => assert_eq!(frame.total, total),
                Ok(Progress::NeedMore { total: later }) => assert_eq!(*later, Some(total)),
                Err(error) => panic!("a header that was good is bad: {error}"),
            },
        }
    }
}

/// That a packet can be written and reads the same again.
fn check_again(packet: &Packet<'_>, version: Version) {
    // A CONNECT is of the version that it says.
    let version = if let Packet::Connect(connect) = packet { connect.version } else { version };
    let mut out = Vec::new();
    if let Err(error) = packet.encode(version, &mut out) {
        panic!("what was read cannot be written: {error}: {packet:?}");
    }
    let found = frame(&out, Some(version), usize::MAX);
    let Ok(Progress::Whole(frame)) = found else {
        panic!("what was written is no packet: {found:?}: {packet:?}")
    };
    assert_eq!(frame.total, out.len(), "one packet is written");
    match decode(&frame, version) {
        Ok(again) => assert_eq!(again, *packet, "what is written is what was read"),
        Err(error) => panic!("what was written cannot be read: {error}: {packet:?}"),
    }
    let mut more = Vec::new();
    packet.encode(version, &mut more).ok();
    assert_eq!(more, out, "writing does the same each time");
}

/// Reads filters: the text up to the first line end is a filter, the rest a topic name. [`Filter::matches`] must agree
/// with a matcher written in another way.
///
/// # Panics
/// On a bug.
pub fn fuzz_filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, topic) = text.split_once('\n').unwrap_or((text, "a/b"));
    let bounds = Bounds { bytes_max: 200, levels_max: 20 };
    let named = filter::check_name(topic, bounds).is_ok();
    let Ok(filter) = Filter::parse(text, bounds) else {
        assert!(!filter::matches(text, topic) || text.len() > 200 || text.matches('/').count() >= 20);
        return;
    };
    assert_eq!(filter.text(), text);
    let levels: Vec<Level<'_>> = filter.levels().collect();
    assert!(levels.len() <= 20, "the bound holds");
    let whole: Vec<&str> = levels
        .iter()
        .map(|level| match level {
            Level::Literal(literal) => literal,
            Level::Any => "+",
            Level::Rest => "#",
        })
        .collect();
    assert_eq!(whole.join("/"), filter.pattern(), "the levels are the filter");
    if let Some(share) = filter.share() {
        assert_eq!(format!("$share/{share}/{}", filter.pattern()), text, "nothing is lost of a share");
    }
    if named {
        let names: Vec<&str> = filter::name_levels(topic).collect();
        let hidden = topic.starts_with('$') && !matches!(levels.first(), Some(Level::Literal(_)));
        assert_eq!(filter.matches(topic), !hidden && covers(&levels, &names), "{text} {topic}");
        if !filter.has_wildcard() {
            assert_eq!(filter.matches(topic), filter.pattern() == topic, "{text} {topic}");
        }
    }
}

/// Matching by taking both apart from the front.
fn covers(levels: &[Level<'_>], names: &[&str]) -> bool {
    match (levels.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((Level::Rest, _)), _) => true,
        (Some((level, levels)), Some((name, names))) => {
            (*level == Level::Any || *level == Level::Literal(name)) && covers(levels, names)
        }
        (Some(_), None) | (None, Some(_)) => false,
    }
}
