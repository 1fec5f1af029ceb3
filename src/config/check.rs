//! What no single value shows: keys that contradict each other.

use std::net::SocketAddr;

use sabir_model::pattern::Pattern;

use super::load::{Loaded, Place, Problem};
use super::value::{Unit, amount};

/// Every contradiction.
pub(super) fn problems(loaded: &Loaded) -> Vec<Problem> {
    let mut problems = Vec::new();
    listeners(loaded, &mut problems);
    order(loaded, &mut problems);
    duplicates(loaded, &mut problems);
    circles(loaded, &mut problems);
    problems
}

/// No two listeners at one place.
fn listeners(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let listeners = &loaded.config.listeners;
    let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
    let all = [
        ("stomp", &listeners.stomp),
        ("mqtt", &listeners.mqtt),
        ("any", &listeners.any),
        ("http", &listeners.http),
    ];
    for (key, addresses) in all {
        for address in addresses {
            if let Some((other, known)) = taken.iter().find(|(_, known)| clash(*known, *address)) {
                let what = if *other == key {
                    format!("listeners.{key} names {address} twice")
                } else if known == address {
                    format!("listeners.{other} and listeners.{key} are both {address}")
                } else {
                    format!(
                        "listeners.{key} is {address}, which listeners.{other} takes already with {known}"
                    )
                };
                problems.push(written(loaded, "listeners", &[key, other], what));
            }
            taken.push((key, *address));
        }
    }
    for (index, path) in listeners.unix.iter().enumerate() {
        if listeners.unix.iter().take(index).any(|other| other == path) {
            let what = format!("listeners.unix names {} twice", path.display());
            problems.push(written(loaded, "listeners", &["unix"], what));
        }
    }
    if all.iter().all(|(_, list)| list.is_empty()) && listeners.unix.is_empty() {
        problems.push(Problem::somewhere("every listener is off, so nobody could connect"));
    }
}

/// Port 0 is a different port each time. An unspecified address takes the port on all others of its family.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip()
            || (one.is_ipv4() == other.is_ipv4()
                && (one.ip().is_unspecified() || other.ip().is_unspecified())))
}

/// Bounds that must not cross.
fn order(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let config = &loaded.config;
    let (limits, stomp, store) = (&config.limits, &config.stomp, &config.store);
    let mut in_order = |section: &str, (low_key, low): (&str, u64), (high_key, high): (&str, u64), unit| {
        if low > high {
            let (low, high) = (amount(low, unit), amount(high, unit));
            let what =
                format!("{section}.{low_key} ({low}) must not be more than {section}.{high_key} ({high})");
            problems.push(written(loaded, section, &[low_key, high_key], what));
        }
    };
    let body = ("body_bytes_max", limits.body_bytes_max as u64);
    let early = ("body_bytes_before_login", limits.body_bytes_before_login as u64);
    let soft = ("outbox_bytes_soft", limits.outbox_bytes_soft as u64);
    let hard = ("outbox_bytes_hard", limits.outbox_bytes_hard as u64);
    in_order("limits", soft, hard, Unit::Bytes);
    in_order("limits", early, body, Unit::Bytes);
    let beats = [("heartbeat_min_ms", stomp.heartbeat_min_ms), ("heartbeat_max_ms", stomp.heartbeat_max_ms)];
    in_order("stomp", beats[0], beats[1], Unit::Milliseconds);
    let (segment, journal) =
        (("segment_bytes", store.segment_bytes), ("journal_bytes_max", store.journal_bytes_max));
    in_order("store", segment, journal, Unit::Bytes);
    if store.disk_bytes_max != 0 && store.disk_bytes_max < store.journal_bytes_max {
        let what = format!(
            "store.disk_bytes_max ({}) must be 0 or not less than store.journal_bytes_max ({})",
            amount(store.disk_bytes_max, Unit::Bytes),
            amount(store.journal_bytes_max, Unit::Bytes)
        );
        problems.push(written(loaded, "store", &["disk_bytes_max", "journal_bytes_max"], what));
    }
    if store.disk_free_bytes_resume != 0 && store.disk_free_bytes_resume < store.disk_free_bytes_min {
        let what = format!(
            "store.disk_free_bytes_resume ({}) must be 0 or not less than store.disk_free_bytes_min ({})",
            amount(store.disk_free_bytes_resume, Unit::Bytes),
            amount(store.disk_free_bytes_min, Unit::Bytes)
        );
        problems.push(written(loaded, "store", &["disk_free_bytes_resume", "disk_free_bytes_min"], what));
    }
}

/// A problem at whichever of the keys was written, the first one first.
fn written(loaded: &Loaded, section: &str, keys: &[&str], sentence: String) -> Problem {
    let place = keys.iter().map(|key| loaded.place(section, key)).find(|place| **place != Place::Default);
    Problem { place: place.cloned(), sentence }
}

fn entry(loaded: &Loaded, list: &str, index: usize, sentence: String) -> Problem {
    Problem { place: loaded.entry_places.get(list).and_then(|places| places.get(index)).cloned(), sentence }
}

/// One entry per pattern, since only one could hold.
fn duplicates(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let config = &loaded.config;
    let lists: [(&str, &str, Vec<&Pattern>); 3] = [
        ("policy", "destination", config.policy.iter().map(|policy| &policy.destination).collect()),
        ("composite", "name", config.composite.iter().map(|composite| &composite.name).collect()),
        ("virtual_topic", "name", config.virtual_topic.iter().map(|rule| &rule.name.0).collect()),
    ];
    for (list, key, patterns) in lists {
        for (index, pattern) in patterns.iter().enumerate() {
            // Virtual topics of one name may have groups of different prefixes.
            let same = |other: usize| {
                patterns.get(other) == Some(pattern)
                    && (list != "virtual_topic"
                        || config.virtual_topic.get(other).map(|rule| (&rule.prefix, &rule.postfix))
                            == config.virtual_topic.get(index).map(|rule| (&rule.prefix, &rule.postfix)))
            };
            if (0..index).any(same) {
                problems.push(entry(
                    loaded,
                    list,
                    index,
                    format!("a second [[{list}]] whose {key} is {pattern}"),
                ));
            }
        }
    }
}

/// No composite destination that a message would never leave.
fn circles(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let composites = &loaded.config.composite;
    let next = |index: usize| {
        composites.iter().enumerate().filter_map(move |(other, composite)| {
            let reached = composites.get(index).is_some_and(|one| {
                one.forward_to.iter().any(|to| composite.name.matches(to.destination.as_ref()))
            });
            reached.then_some(other)
        })
    };
    for start in 0..composites.len() {
        let mut seen = vec![false; composites.len()];
        let mut waiting: Vec<usize> = next(start).collect();
        while let Some(index) = waiting.pop() {
            if let Some(seen) = seen.get_mut(index)
                && !std::mem::replace(seen, true)
            {
                waiting.extend(next(index));
            }
        }
        if seen.get(start) == Some(&true)
            && let Some(composite) = composites.get(start)
        {
            let what = format!("{} forwards to itself, by itself or by way of others", composite.name);
            problems.push(entry(loaded, "composite", start, what));
        }
    }
}
