//! Destinations as STOMP clients write them, in and out: `/queue/A.B`, `/topic/T`, `/temp-queue/mine`,
//! `/remote-temp-queue/ID:…`, composites, and the forms RabbitMQ's clients use.
//!
//! Names are the dotted ones of the model. A comma parts the members of a composite, so one inside a name is written
//! `%2C`, as the model writes a dot inside a level `%2E`.

use std::borrow::Cow;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::destination::{Destination, DestinationRef, Kind, LEVEL_SEPARATOR, Targets};
use sabir_model::error::{Code, Refusal};
use sabir_model::pattern::Pattern;
use sabir_model::rare::Rare;
use sabir_model::session::{EgressNote, Host};

use crate::encode::{put_escaped, put_escaped_byte};
use crate::frame::Version;

/// Most members of one composite.
const MEMBERS_MAX: usize = 256;

/// What a prefix says of the name behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A name every connection shares.
    Shared { kind: Kind, must_exist: bool, rabbit: bool },
    /// This connection's own temporary destination, by the client's name for it.
    Own(Kind),
    /// A temporary destination by the broker's name for it.
    Foreign(Kind),
}

impl Form {
    fn kind(self) -> Kind {
        match self {
            Self::Shared { kind, .. } | Self::Own(kind) | Self::Foreign(kind) => kind,
        }
    }
}

const fn shared(kind: Kind) -> Form {
    Form::Shared { kind, must_exist: false, rabbit: false }
}

const PREFIXES: &[(&str, Form)] = &[
    ("/queue/", shared(Kind::Queue)),
    ("/topic/", shared(Kind::Topic)),
    ("/temp-queue/", Form::Own(Kind::Queue)),
    ("/temp-topic/", Form::Own(Kind::Topic)),
    ("/remote-temp-queue/", Form::Foreign(Kind::Queue)),
    ("/remote-temp-topic/", Form::Foreign(Kind::Topic)),
    ("/reply-queue/", Form::Foreign(Kind::Queue)),
    ("/amq/queue/", Form::Shared { kind: Kind::Queue, must_exist: true, rabbit: false }),
    ("/exchange/amq.topic/", Form::Shared { kind: Kind::Topic, must_exist: false, rabbit: true }),
    ("queue://", shared(Kind::Queue)),
    ("topic://", shared(Kind::Topic)),
];

/// The form of `text` and the name in it; `None` if it has no prefix we know.
fn split(text: &str) -> Result<Option<(Form, &str)>, Refusal> {
    for (prefix, form) in PREFIXES {
        if let Some(name) = text.strip_prefix(prefix) {
            return Ok(Some((*form, name)));
        }
    }
    if text.starts_with("/exchange/") {
        return Err(Refusal::new(
            Code::Unsupported,
            format!("{text}: of exchanges only /exchange/amq.topic/<topic> is built"),
        ));
    }
    Ok(None)
}

/// Parts a composite. A member without a prefix takes the kind of the first, and a first one without is a queue.
fn members(text: &str) -> Result<Vec<(Form, &str)>, Refusal> {
    let mut found: Vec<(Form, &str)> = Vec::new();
    for member in text.split(',').map(str::trim).filter(|member| !member.is_empty()) {
        let inherited = found.first().map_or(Kind::Queue, |(form, _)| form.kind());
        let member = split(member)?.unwrap_or_else(|| (shared(inherited), member));
        if found.contains(&member) {
            continue;
        }
        if found.len() == MEMBERS_MAX {
            return Err(Refusal::new(
                Code::LimitReached,
                format!("a composite destination has at most {MEMBERS_MAX} members"),
            ));
        }
        found.push(member);
    }
    if found.is_empty() {
        return Err(Refusal::new(Code::InvalidDestination, "a destination name cannot be empty"));
    }
    Ok(found)
}

fn with_commas(name: &str) -> Cow<'_, str> {
    if name.contains("%2C") || name.contains("%2c") {
        Cow::Owned(name.replace("%2C", ",").replace("%2c", ","))
    } else {
        Cow::Borrowed(name)
    }
}

/// Parts `destination?consumer.option=…` into the destination and the options (ActiveMQ's destination options). Any
/// other question mark belongs to the name.
pub(crate) fn split_options(text: &str) -> (&str, Option<&str>) {
    match text.find("?consumer.") {
        Some(at) => {
            let (destination, options) = text.split_at(at);
            (destination, options.strip_prefix('?'))
        }
        None => (text, None),
    }
}

/// The temporary destinations this connection has made, by the client's names.
#[derive(Debug, Default)]
pub(crate) struct Temporaries {
    made: Rare<Made>,
    /// Most of both kinds together.
    max: usize,
}

#[derive(Debug, Default)]
struct Made {
    queues: HashMap<Box<str>, Destination, RandomState>,
    topics: HashMap<Box<str>, Destination, RandomState>,
}

impl Temporaries {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// The destination the client calls `label`, made if it is new.
    fn get(&mut self, kind: Kind, label: &str, host: &mut dyn Host) -> Result<Destination, Refusal> {
        let Made { queues, topics } = self.made.make();
        let made = queues.len() + topics.len();
        let known = match kind {
            Kind::Queue => queues,
            Kind::Topic => topics,
        };
        if let Some(destination) = known.get(label) {
            return Ok(destination.clone());
        }
        if label.is_empty() {
            return Err(Refusal::new(Code::InvalidDestination, "a destination name cannot be empty"));
        }
        if made >= self.max {
            return Err(Refusal::new(
                Code::LimitReached,
                format!("a connection has at most {} temporary destinations", self.max),
            ));
        }
        let destination = host.temporary(kind, label)?;
        host.note(EgressNote::Temporary { destination: &destination, label });
        known.insert(label.into(), destination.clone());
        Ok(destination)
    }

    fn literal(&mut self, form: Form, name: &str, host: &mut dyn Host) -> Result<Destination, Refusal> {
        let (kind, temporary) = match form {
            Form::Own(kind) => return self.get(kind, name, host),
            Form::Foreign(kind) => (kind, true),
            Form::Shared { kind, .. } => (kind, false),
        };
        let pattern = Pattern::from_dotted(kind, temporary, &with_commas(name))?;
        pattern.as_literal().cloned().ok_or_else(|| {
            Refusal::new(
                Code::InvalidDestination,
                format!("\"{name}\" is a wildcard; a message can only be sent to a destination"),
            )
        })
    }

    /// Where a SEND with this `destination` goes.
    pub(crate) fn targets(&mut self, text: &str, host: &mut dyn Host) -> Result<Targets, Refusal> {
        let (text, _) = split_options(text);
        let mut targets = Targets::new();
        for (form, name) in members(text)? {
            let target = self.literal(form, name, host)?;
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        Ok(targets)
    }

    /// What a SUBSCRIBE to this `destination` (without options) covers, and whether it must exist already.
    pub(crate) fn patterns(
        &mut self,
        text: &str,
        host: &mut dyn Host,
    ) -> Result<(Vec<Pattern>, bool), Refusal> {
        let mut must_exist = false;
        let mut patterns = Vec::new();
        for (form, name) in members(text)? {
            let pattern = match form {
                Form::Own(kind) => self.get(kind, name, host)?.into(),
                Form::Foreign(_) => self.literal(form, name, host)?.into(),
                Form::Shared { kind, must_exist: this, rabbit } => {
                    must_exist |= this;
                    let name = if kind == Kind::Topic { with_rest(name, rabbit)? } else { name.into() };
                    Pattern::from_dotted(kind, false, &with_commas(&name))?
                }
            };
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
        Ok((patterns, must_exist))
    }

    /// Where a `reply-to` points, if it names one destination of ours; and the label, if it is one of this
    /// connection's temporary queues.
    pub(crate) fn reply_to<'a>(
        &mut self,
        text: &'a str,
        host: &mut dyn Host,
    ) -> Result<Option<(Destination, Option<&'a str>)>, Refusal> {
        let text = text.trim();
        // Text that names nothing of ours is not wrong: it is carried to the receiver as it is.
        let Ok(Some((form, name))) = split(text) else { return Ok(None) };
        if text.contains(',') {
            return Ok(None);
        }
        match form {
            Form::Own(kind) => {
                let destination = self.get(kind, name, host)?;
                Ok(Some((destination, (kind == Kind::Queue).then_some(text))))
            }
            _ => Ok(self.literal(form, name, host).ok().map(|destination| (destination, None))),
        }
    }

    /// The pattern of this connection's temporary queue of this name, if it has been made.
    pub(crate) fn known_queue(&self, label: &str) -> Option<&Destination> {
        self.made.get()?.queues.get(label)
    }
}

/// RabbitMQ's topics know `#` for our `>`: a last level `#` is read as that. `rabbit` says that the name came in a form
/// only RabbitMQ has.
fn with_rest(name: &str, rabbit: bool) -> Result<Cow<'_, str>, Refusal> {
    let hash = |level: &str| level == "#";
    let name = name.trim();
    if !name.split('.').any(hash) {
        return Ok(Cow::Borrowed(name));
    }
    if let Some(before) = name.strip_suffix('#')
        && !before.split('.').any(hash)
        && (before.is_empty() || before.ends_with('.'))
    {
        return Ok(Cow::Owned(format!("{before}>")));
    }
    let what = if rabbit { "routing key" } else { "topic" };
    Err(Refusal::new(
        Code::InvalidDestination,
        format!("the {what} \"{name}\" has '#' before its last level; '#' must come last"),
    ))
}

/// Appends a destination as a STOMP client of any connection may use it, escaped.
pub(crate) fn put_destination(out: &mut Vec<u8>, destination: DestinationRef<'_>, version: Version) {
    let prefix: &[u8] = match (destination.kind, destination.temporary) {
        (Kind::Queue, false) => b"/queue/",
        (Kind::Topic, false) => b"/topic/",
        (Kind::Queue, true) => b"/remote-temp-queue/",
        (Kind::Topic, true) => b"/remote-temp-topic/",
    };
    out.extend_from_slice(prefix);
    for &byte in destination.canonical.as_bytes() {
        match byte {
            b'.' => out.extend_from_slice(b"%2E"),
            b',' => out.extend_from_slice(b"%2C"),
            byte if byte == LEVEL_SEPARATOR as u8 => out.push(b'.'),
            byte => put_escaped_byte(out, byte, version),
        }
    }
}

/// Appends qualified text (`queue://A,topic://B`) as a STOMP client writes it, escaped.
pub(crate) fn put_qualified(out: &mut Vec<u8>, text: &str, version: Version) {
    for (index, member) in text.split(',').enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let forms = [
            ("queue://", "/queue/"),
            ("topic://", "/topic/"),
            ("temp-queue://", "/remote-temp-queue/"),
            ("temp-topic://", "/remote-temp-topic/"),
        ];
        let found = forms.iter().find_map(|(from, to)| member.strip_prefix(from).map(|name| (*to, name)));
        let (prefix, name) = found.unwrap_or(("", member));
        out.extend_from_slice(prefix.as_bytes());
        put_escaped(out, name, version);
    }
}

/// The prefix and name under which a client knows its own temporary destination.
pub(crate) fn own_prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Queue => "/temp-queue/",
        Kind::Topic => "/temp-topic/",
    }
}
