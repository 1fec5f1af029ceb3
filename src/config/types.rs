//! The types that only configuration has: words with a meaning, and names with a prefix.

use std::fmt;
use std::time::Duration;

use sabir_model::access::Action;
use sabir_model::destination::{Destination, Kind};
use sabir_model::pattern::{Pattern, PatternLevel};
use sabir_model::selector::Selector;
use sabir_security::{Effect, Who};

use super::table::Range;
use super::value::{Item, Raw, Value, alternatives, choice, quoted, words};

/// What a receipt promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: the message is not logged.
    Memory,
    /// Survives the death of the process.
    Os,
    /// As `Os`, and synced no later than this much afterwards.
    Interval(Duration),
    /// Survives power loss.
    Fsync,
}

/// `memory`, `os`, `interval(250)`, `fsync`.
impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Os => f.write_str("os"),
            Self::Interval(span) => write!(f, "interval({})", span.as_millis()),
            Self::Fsync => f.write_str("fsync"),
        }
    }
}

impl Value for Durability {
    fn expects(_: Range) -> String {
        "memory, os, interval(MILLISECONDS) or fsync".to_owned()
    }
    fn read(raw: &Raw, _: Range) -> Result<Self, String> {
        let interval = |text: &str| -> Option<Self> {
            let ms = text.strip_prefix("interval(")?.strip_suffix(')')?.trim().parse::<u32>().ok()?;
            (ms > 0).then(|| Self::Interval(Duration::from_millis(ms.into())))
        };
        match raw.text() {
            Some("memory") => Ok(Self::Memory),
            Some("os") => Ok(Self::Os),
            Some("fsync") => Ok(Self::Fsync),
            Some(other) => interval(other).map_or_else(|| raw.mismatch(), Ok),
            None => raw.mismatch(),
        }
    }
    fn show(&self, _: Range) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

choice! {
    /// How log lines look.
    LogFormat {
        /// Human on a terminal, JSON elsewhere.
        Auto = "auto",
        /// For people.
        Human = "human",
        /// One JSON object per line.
        Json = "json",
    }
}

choice! {
    /// What a send meets when a destination is full.
    WhenFull {
        /// A refusal.
        Refuse = "refuse",
    }
}

choice! {
    /// What a negative acknowledgement does.
    Nack {
        /// Delivers again, up to the limit.
        Redeliver = "redeliver",
        /// Makes a dead letter at once.
        DeadLetter = "dead-letter",
    }
}

choice! {
    /// Where dead letters go.
    DeadLetter {
        /// To one queue.
        Shared = "shared",
        /// To one queue per source.
        Individual = "individual",
        /// Nowhere.
        Discard = "discard",
    }
}

choice! {
    /// What becomes of expired messages.
    Expired {
        /// Nothing.
        Drop = "drop",
        /// They become dead letters.
        DeadLetter = "dead-letter",
    }
}

choice! {
    /// What happens to a live subscriber that reads too slowly.
    SlowConsumer {
        /// It misses the oldest messages.
        DropOldest = "drop-oldest",
        /// It misses the newest messages.
        DropNewest = "drop-newest",
        /// It is disconnected.
        Disconnect = "disconnect",
    }
}

words!(Effect { Effect::Allow = "allow", Effect::Deny = "deny", });

/// Whether processes of this machine need no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnonymousLocal {
    /// Not until there are users.
    Auto,
    /// They never do.
    Yes,
    /// They always do.
    No,
}

impl Value for AnonymousLocal {
    fn expects(_: Range) -> String {
        "true, false or auto".to_owned()
    }
    fn read(raw: &Raw, range: Range) -> Result<Self, String> {
        match raw.text() {
            Some("auto") => Ok(Self::Auto),
            _ => bool::read(raw, range).map(|flag| if flag { Self::Yes } else { Self::No }),
        }
    }
    fn show(&self, _: Range) -> Option<String> {
        Some(match self {
            Self::Auto => quoted("auto"),
            Self::Yes => "true".to_owned(),
            Self::No => "false".to_owned(),
        })
    }
}

/// Which log lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter as `tracing-subscriber` reads it.
    #[must_use]
    pub fn targets(&self) -> tracing_subscriber::filter::Targets {
        self.0.parse().unwrap_or_default()
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Value for LogFilter {
    fn expects(_: Range) -> String {
        format!("{}, for everything or as MODULE=LEVEL, separated by commas", alternatives(&LEVELS))
    }
    fn read(raw: &Raw, _: Range) -> Result<Self, String> {
        let part = |part: &str| {
            let (module, level) = part.split_once('=').unwrap_or(("all", part));
            LEVELS.contains(&level.trim()) && !module.trim().is_empty()
        };
        match raw.text() {
            Some(text)
                if text.split(',').all(part)
                    && text.parse::<tracing_subscriber::filter::Targets>().is_ok() =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => raw.mismatch(),
        }
    }
    fn show(&self, _: Range) -> Option<String> {
        Some(quoted(&self.0))
    }
}

/// Where a web page comes from, `https://shop.example`, or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Box<str>);

impl Origin {
    /// Whether this allows a page whose `Origin` header says `origin`.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        &*self.0 == "*" || self.0.eq_ignore_ascii_case(origin)
    }
}

impl Item for Origin {
    const EXPECTS: &'static str = "a list of origins such as \"https://shop.example\", or \"*\"";
    const MAY_BE_EMPTY: bool = true;
    fn read_item(raw: &Raw) -> Result<Self, String> {
        let Some(text) = raw.text() else { return raw.mismatch() };
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let host = |rest: &str| !rest.is_empty() && !rest.contains(['/', ' ', '*', '?', '#', '@']);
        if text == "*" || rest.is_some_and(host) { Ok(Self(text.into())) } else { raw.mismatch() }
    }
    fn show_item(&self) -> String {
        quoted(&self.0)
    }
}

/// A virtual host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub Box<str>);

/// Longest name of a virtual host.
const HOST_NAME_BYTES_MAX: usize = 255;

impl Item for HostName {
    const EXPECTS: &'static str = "a list of names, each of 1 to 255 bytes without control characters";
    const MAY_BE_EMPTY: bool = true;
    fn read_item(raw: &Raw) -> Result<Self, String> {
        let Some(text) = raw.text() else { return raw.mismatch() };
        let fits = (1..=HOST_NAME_BYTES_MAX).contains(&text.len());
        if fits && !text.contains(char::is_control) { Ok(Self(text.into())) } else { raw.mismatch() }
    }
    fn show_item(&self) -> String {
        quoted(&self.0)
    }
}

/// A queue by name, with or without `queue://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueName(pub Destination);

impl Value for QueueName {
    fn expects(_: Range) -> String {
        "the name of a queue".to_owned()
    }
    fn read(raw: &Raw, _: Range) -> Result<Self, String> {
        let Some(text) = raw.text() else { return raw.mismatch() };
        match Pattern::parse_qualified(text, Kind::Queue) {
            Ok(pattern) => match pattern.as_literal() {
                Some(name) if name.kind() == Kind::Queue && !name.is_temporary() => Ok(Self(name.clone())),
                _ => raw.mismatch(),
            },
            Err(refusal) => raw.mismatch_because(refusal.sentence),
        }
    }
    fn show(&self, _: Range) -> Option<String> {
        Some(quoted(&self.0.dotted()))
    }
}

/// Topics by name, with or without `topic://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern(pub Pattern);

impl Value for TopicPattern {
    fn expects(_: Range) -> String {
        "the name of a topic; * is one level, a last > the rest".to_owned()
    }
    fn read(raw: &Raw, _: Range) -> Result<Self, String> {
        let Some(text) = raw.text() else { return raw.mismatch() };
        match Pattern::parse_qualified(text, Kind::Topic) {
            Ok(pattern) if pattern.kind() == Kind::Topic && !pattern.is_temporary() => Ok(Self(pattern)),
            Ok(_) => raw.mismatch(),
            Err(refusal) => raw.mismatch_because(refusal.sentence),
        }
    }
    fn show(&self, _: Range) -> Option<String> {
        Some(quoted(&self.0.to_string()))
    }
}

/// Reads `queue://…` and the like; the prefix is not optional, for what a bare name means would be a guess.
fn read_pattern(raw: &Raw, temporary: bool) -> Result<Pattern, String> {
    let Some(text) = raw.text() else { return raw.mismatch() };
    if !text.contains("://") {
        return raw.mismatch();
    }
    match Pattern::parse_qualified(text, Kind::Queue) {
        Ok(pattern) if temporary || !pattern.is_temporary() => Ok(pattern),
        Ok(_) => raw.mismatch(),
        Err(refusal) => raw.mismatch_because(refusal.sentence),
    }
}

impl Value for Pattern {
    fn expects(_: Range) -> String {
        "queue://NAME or topic://NAME".to_owned()
    }
    fn read(raw: &Raw, _: Range) -> Result<Self, String> {
        read_pattern(raw, false)
    }
    fn show(&self, _: Range) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Item for Pattern {
    const EXPECTS: &'static str =
        "a list of queue://NAME, topic://NAME, temp-queue://NAME or temp-topic://NAME";
    fn read_item(raw: &Raw) -> Result<Self, String> {
        read_pattern(raw, true)
    }
    fn show_item(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Item for Who {
    const EXPECTS: &'static str = "a list of user names, \"anonymous\" or \"*\"";
    fn read_item(raw: &Raw) -> Result<Self, String> {
        match raw.text() {
            Some(text) if !text.is_empty() => Ok(Self::parse(text)),
            _ => raw.mismatch(),
        }
    }
    fn show_item(&self) -> String {
        match self {
            Self::Everyone => quoted("*"),
            Self::Anonymous => quoted("anonymous"),
            Self::User(name) => quoted(name),
        }
    }
}

/// A list of actions; `*` stands for all.
impl Value for Vec<Action> {
    fn expects(_: Range) -> String {
        let words = Action::ALL.map(Action::word);
        format!("a list of {}, or \"*\"", alternatives(&words))
    }
    fn read(raw: &Raw, _: Range) -> Result<Self, String> {
        let Some(items) = raw.items() else { return raw.mismatch() };
        let mut actions = Self::new();
        for item in &items {
            match item.text() {
                Some("*") => actions.extend(Action::ALL),
                Some(text) => match Action::ALL.into_iter().find(|action| action.word() == text) {
                    Some(action) => actions.push(action),
                    None => return item.mismatch(),
                },
                None => return item.mismatch(),
            }
        }
        if actions.is_empty() {
            return Err("an empty list".to_owned());
        }
        Ok(actions)
    }
    fn show(&self, _: Range) -> Option<String> {
        let words: Vec<_> = self.iter().map(|action| quoted(action.word())).collect();
        Some(format!("[{}]", words.join(", ")))
    }
}

/// One target of a composite destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where the copy goes.
    pub destination: Destination,
    /// Only what this selector matches; the text is known to parse.
    pub selector: Option<String>,
}

impl Item for Forward {
    const EXPECTS: &'static str =
        "a list of \"queue://NAME\", \"topic://NAME\" or tables { destination = \"…\", selector = \"…\" }";
    fn read_item(raw: &Raw) -> Result<Self, String> {
        let Raw::Table(entries) = raw else {
            return Ok(Self { destination: read_target(raw)?, selector: None });
        };
        let (mut destination, mut selector) = (None, None);
        for (key, value) in entries {
            match key.as_str() {
                "destination" => destination = Some(read_target(value)?),
                "selector" => match value.text().map(|text| (text, Selector::parse(text))) {
                    Some((text, Ok(_))) => selector = Some(text.to_owned()),
                    Some((_, Err(refusal))) => return value.mismatch_because(refusal.sentence),
                    None => return value.mismatch(),
                },
                other => return Err(format!("a table with {other} (its keys are destination and selector)")),
            }
        }
        match destination {
            Some(destination) => Ok(Self { destination, selector }),
            None => Err("a table without destination".to_owned()),
        }
    }
    fn show_item(&self) -> String {
        let destination = quoted(&self.destination.to_string());
        match &self.selector {
            None => destination,
            Some(selector) => format!("{{ destination = {destination}, selector = {} }}", quoted(selector)),
        }
    }
}

fn read_target(raw: &Raw) -> Result<Destination, String> {
    match read_pattern(raw, false)?.as_literal() {
        Some(destination) => Ok(destination.clone()),
        None => raw.mismatch_because("a message cannot be sent to a wildcard"),
    }
}

/// The levels before a topic's name in a group's queue: `Consumer.*.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPrefix(pub String);

impl Value for GroupPrefix {
    fn expects(_: Range) -> String {
        "whole levels that end with a dot, at least one of them *, such as Consumer.*.".to_owned()
    }
    fn read(raw: &Raw, _: Range) -> Result<Self, String> {
        let levels = raw.text().and_then(|text| text.strip_suffix('.'));
        let pattern = levels.map(|levels| Pattern::from_dotted(Kind::Queue, false, levels));
        match (raw.text(), pattern) {
            (Some(text), Some(Ok(pattern)))
                if pattern.levels().any(|level| level == PatternLevel::One)
                    && pattern.levels().all(|level| level != PatternLevel::Rest)
                    && !text.starts_with('.')
                    && !text.contains("..") =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => raw.mismatch(),
        }
    }
    fn show(&self, _: Range) -> Option<String> {
        Some(quoted(&self.0))
    }
}

/// The levels after a topic's name in a group's queue: empty, or `.q`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postfix(pub String);

impl Value for Postfix {
    fn expects(_: Range) -> String {
        "empty, or whole levels that begin with a dot, without wildcards".to_owned()
    }
    fn read(raw: &Raw, _: Range) -> Result<Self, String> {
        match raw.text() {
            Some("") => Ok(Self(String::new())),
            Some(text) => {
                let literal = text
                    .strip_prefix('.')
                    .and_then(|levels| Pattern::from_dotted(Kind::Queue, false, levels).ok())
                    .is_some_and(|pattern| pattern.as_literal().is_some());
                if literal && !text.contains("..") && !text.ends_with('.') {
                    Ok(Self(text.to_owned()))
                } else {
                    raw.mismatch()
                }
            }
            None => raw.mismatch(),
        }
    }
    fn show(&self, _: Range) -> Option<String> {
        Some(quoted(&self.0))
    }
}
