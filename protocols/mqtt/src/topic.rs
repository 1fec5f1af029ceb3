//! Topics and queues as MQTT clients name them, in and out.
//!
//! A topic is a list of levels, parted by `/`. What is no topic has a first level of its own: `$queue/orders/eu` is the
//! queue of these levels, and `$reply/queue/…` the temporary queue of somebody who waits for a reply there. A level of
//! another protocol's topic may hold what MQTT reads as syntax; such a character is written `%2F`, `%2B` or `%23`. A
//! level that holds one of these literally has it as `%252F`, and `%252F` as `%25252F`: there and back is the same for every
//! name. Nothing else is touched, trimmed or normalised.

use std::borrow::Cow;

use sabir_model::destination::{Destination, DestinationRef, Kind, LEVEL_SEPARATOR, NAME_BYTES_MAX};
use sabir_model::error::{Code, Refusal};
use sabir_model::pattern::{Pattern, PatternLevel};
use smallvec::SmallVec;

/// First level of a queue's name.
const QUEUE: &str = "$queue/";
/// First levels of temporary destinations.
const REPLY_QUEUE: &str = "$reply/queue/";
const REPLY_TOPIC: &str = "$reply/topic/";

/// The characters that a level holds in an escaped form only, and what follows the percent sign then.
const ESCAPES: [(char, &str); 3] = [('/', "2F"), ('+', "2B"), ('#', "23")];
/// What follows the percent sign of an escaped percent sign.
const PERCENT: &str = "25";

/// What may be sent to: any destination that `topic` names.
///
/// # Errors
/// [`Code::InvalidDestination`] for a name that is none, [`Code::AccessDenied`] for the topics that are the broker's.
pub(crate) fn target(topic: &str, levels_max: usize) -> Result<Destination, Refusal> {
    if topic.starts_with('$') && special(topic).is_none() {
        return Err(Refusal::new(
            Code::AccessDenied,
            "topics that begin with $ are the broker's; a queue is $queue/NAME",
        ));
    }
    destination(topic, levels_max)
}

/// The destination that `topic` names, whoever may use it.
///
/// # Errors
/// [`Code::InvalidDestination`] for a name that is none.
pub(crate) fn destination(topic: &str, levels_max: usize) -> Result<Destination, Refusal> {
    let (kind, temporary, name) = special(topic).unwrap_or((Kind::Topic, false, topic));
    check_levels(name, levels_max)?;
    // A level that is empty is one; a name that is empty is none.
    Destination::from_canonical(kind, temporary, &canonical(name))
}

/// What a filter covers, from its levels as the filter's grammar parted them; `queue` says that they name a queue.
///
/// # Errors
/// [`Code::InvalidDestination`] for levels that make no name, or a queue with a wildcard.
pub(crate) fn pattern(filter: &str, levels_max: usize) -> Result<Pattern, Refusal> {
    let (kind, temporary, name) = special(filter).unwrap_or((Kind::Topic, false, filter));
    if temporary {
        return Err(Refusal::new(
            Code::InvalidDestination,
            "$reply names what others wait at; it can only be sent to",
        ));
    }
    check_levels(name, levels_max)?;
    if kind == Kind::Queue && name.split('/').any(|level| matches!(level, "+" | "#")) {
        return Err(Refusal::new(Code::InvalidDestination, "a queue is subscribed to by its name"));
    }
    let texts: SmallVec<[Cow<'_, str>; 8]> = name.split('/').map(unescaped).collect();
    let levels = name.split('/').zip(&texts).map(|(level, text)| match level {
        "+" => PatternLevel::One,
        "#" => PatternLevel::Rest,
        _ => PatternLevel::Literal(text),
    });
    Pattern::from_levels(kind, levels)
}

/// Appends the name under which MQTT clients know `destination`; false, and nothing appended, if they cannot.
pub(crate) fn put_name(out: &mut String, destination: DestinationRef<'_>) -> bool {
    let start = out.len();
    out.push_str(match (destination.kind, destination.temporary) {
        (Kind::Topic, false) => "",
        (Kind::Queue, false) => QUEUE,
        (Kind::Queue, true) => REPLY_QUEUE,
        (Kind::Topic, true) => REPLY_TOPIC,
    });
    let name = destination.canonical;
    if name.contains(['/', '+', '#', '%']) {
        for (at, character) in name.char_indices() {
            match ESCAPES.iter().find(|(plain, _)| *plain == character) {
                Some((_, code)) => {
                    out.push('%');
                    out.push_str(code);
                }
                None => out.push(if character == LEVEL_SEPARATOR { '/' } else { character }),
            }
            if character == '%' && is_code(name.get(at + 1..).unwrap_or_default()) {
                out.push_str(PERCENT);
            }
        }
    } else {
        out.extend(
            name.split(LEVEL_SEPARATOR)
                .enumerate()
                .flat_map(|(at, level)| [if at > 0 { "/" } else { "" }, level]),
        );
    }
    let fits = out.len() - start <= NAME_BYTES_MAX;
    if !fits {
        out.truncate(start);
    }
    fits
}

/// Kind, whether temporary, and name of what is no topic.
fn special(name: &str) -> Option<(Kind, bool, &str)> {
    if !name.starts_with('$') {
        return None;
    }
    [(QUEUE, Kind::Queue, false), (REPLY_QUEUE, Kind::Queue, true), (REPLY_TOPIC, Kind::Topic, true)]
        .into_iter()
        .find_map(|(prefix, kind, temporary)| Some((kind, temporary, name.strip_prefix(prefix)?)))
}

fn check_levels(name: &str, levels_max: usize) -> Result<(), Refusal> {
    let slashes = memchr::memchr_iter(b'/', name.as_bytes()).count();
    if slashes >= levels_max {
        return Err(Refusal::new(
            Code::InvalidDestination,
            format!("a topic has at most {levels_max} levels"),
        ));
    }
    Ok(())
}

fn canonical(name: &str) -> String {
    // Parted first: an escaped slash parts nothing.
    unescaped(&name.replace('/', "\0")).into_owned()
}

/// Whether `rest` makes an escape of the percent sign before it.
fn is_code(rest: &str) -> bool {
    let code = rest.trim_start_matches(PERCENT);
    ESCAPES.iter().any(|(_, known)| code.starts_with(known))
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains("%2") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let plain = ESCAPES.iter().find_map(|(plain, code)| Some((*plain, after.strip_prefix(code)?)));
        let percent = || Some(('%', after.strip_prefix(PERCENT).filter(|_| is_code(after))?));
        let (character, behind) = plain.or_else(percent).unwrap_or(('%', after));
        out.push(character);
        rest = behind;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const LEVELS_MAX: usize = 8;

    fn name_of(destination: &Destination) -> String {
        let mut name = String::new();
        assert!(put_name(&mut name, destination.as_ref()));
        name
    }

    #[test]
    fn names_round_trip_and_nothing_is_normalised_mqtt_4_7_3_4() {
        for (topic, qualified) in [
            ("a", "topic://a"),
            ("a/b/c", "topic://a.b.c"),
            ("/", "topic://."),
            ("/a", "topic://.a"),
            ("a/", "topic://a."),
            ("a//b", "topic://a..b"),
            ("sensor/1.2/x", "topic://sensor.1%2E2.x"),
            (" a / b ", "topic:// a . b "),
            ("a,b?c=d", "topic://a,b?c=d"),
            ("a%2Fb", "topic://a/b"),
            ("50%/%2f/%2e", "topic://50%.%2f.%2e"),
            ("%25/%2525/%2/%", "topic://%25.%2525.%2.%"),
            ("%252F%2523", "topic://%2F%23"),
            ("%25252B/%25%2F", "topic://%252B.%25/"),
            ("*/>", "topic://*.>"),
            ("$queue/orders/eu", "queue://orders.eu"),
            ("$queue//", "queue://."),
            ("$reply/queue/ID:c1:1", "temp-queue://ID:c1:1"),
            ("$reply/topic/ID:c1:1", "temp-topic://ID:c1:1"),
        ] {
            let destination = target(topic, LEVELS_MAX).unwrap();
            assert_eq!(destination.to_string(), qualified, "{topic}");
            assert_eq!(name_of(&destination), topic);
        }
    }

    #[test]
    fn what_others_hold_in_a_level_is_escaped() {
        for (canonical, topic) in
            [("a/b\0c", "a%2Fb/c"), ("+\0#", "%2B/%23"), ("a+b", "a%2Bb"), ("a%2Fb\0%/", "a%252Fb/%%2F")]
        {
            let there = Destination::from_canonical(Kind::Topic, false, canonical).unwrap();
            assert_eq!(name_of(&there), topic);
            assert_eq!(target(topic, LEVELS_MAX).unwrap(), there);
            assert!(pattern(topic, LEVELS_MAX).unwrap().matches(there.as_ref()));
        }
    }

    #[test]
    fn the_brokers_topics_cannot_be_sent_to_but_subscribed_to() {
        for topic in ["$SYS/broker", "$", "$queue", "$share/g/t", "$reply/x", "$foo/bar"] {
            assert_eq!(target(topic, LEVELS_MAX).unwrap_err().code, Code::AccessDenied, "{topic}");
        }
        let all = pattern("$SYS/#", LEVELS_MAX).unwrap();
        assert_eq!(all.to_string(), "topic://$SYS.>");
        assert_eq!(pattern("$reply/queue/x", LEVELS_MAX).unwrap_err().code, Code::InvalidDestination);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for topic in ["$queue/", "$reply/queue/", "a\nb", "a\rb", "1/2/3/4/5/6/7/8/9"] {
            assert_eq!(target(topic, LEVELS_MAX).unwrap_err().code, Code::InvalidDestination, "{topic}");
        }
        for filter in ["$queue/a/+", "$queue/#", "a\nb", "1/2/3/4/5/6/7/8/#"] {
            assert_eq!(pattern(filter, LEVELS_MAX).unwrap_err().code, Code::InvalidDestination, "{filter}");
        }
        let long = Destination::from_canonical(Kind::Queue, false, &"q".repeat(NAME_BYTES_MAX)).unwrap();
        let mut name = String::from("x");
        assert!(!put_name(&mut name, long.as_ref()));
        assert_eq!(name, "x");
    }

    #[test]
    fn filters_become_patterns_mqtt_4_7_1() {
        for (filter, shown) in [
            ("a/+/c", "topic://a.*.c"),
            ("a/#", "topic://a.>"),
            ("#", "topic://>"),
            ("+", "topic://*"),
            ("/+", "topic://.*"),
            ("$queue/a/b", "queue://a.b"),
        ] {
            assert_eq!(pattern(filter, LEVELS_MAX).unwrap().to_string(), shown);
        }
    }

    proptest::proptest! {
        #[test]
        fn every_topic_name_comes_back_as_it_was_mqtt_4_7_3_4(topic in "[a/%2FB3 .,:ü*>]{1,12}") {
            let destination = target(&topic, 100).unwrap();
            proptest::prop_assert_eq!(name_of(&destination), topic.as_str());
            proptest::prop_assert!(pattern(&topic, 100).unwrap().matches(destination.as_ref()));
        }

        #[test]
        fn every_destination_is_found_by_its_name(canonical in "[a/%+#.\\x00]{1,12}") {
            let there = Destination::from_canonical(Kind::Topic, false, &canonical).unwrap();
            let name = name_of(&there);
            // What holds an escape literally is taken for what the escape stands for.
            if !ESCAPES.iter().any(|(_, escaped)| canonical.contains(escaped)) {
                proptest::prop_assert_eq!(target(&name, 100).unwrap(), there);
            }
        }
    }
}
