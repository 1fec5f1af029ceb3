//! Configuration: one typed value that the server reads, from defaults, a TOML file, the environment and the command
//! line, in rising order.
//!
//! `keys` and `lists` are the tables; everything else is made from them: `load` reads, `check`
//! finds what single values cannot show, `render` prints. Nothing here opens anything but the file it is given, and no
//! key holds a secret: passwords live, hashed, in the users file.

mod access;
mod check;
mod keys;
mod lists;
mod load;
mod nearest;
mod render;
mod table;
mod targets;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::path::PathBuf;

pub use keys::{
    Destinations, Http, Limits, Listeners, Log, MirroredQueues, Mqtt, Security, Server, Sessions, Stomp,
    Store, Webhooks,
};
pub use lists::{Composite, Permission, Policy, VirtualTopic};
pub use load::{Loaded, Place, Problem, Sources, environment};
pub use render::{help, markdown, sample};
pub use targets::Target;
pub use types::{
    AnonymousLocal, DeadLetter, Durability, Expired, Forward, GroupPrefix, HostName, LogFilter, LogFormat,
    Nack, Origin, Postfix, QueueName, SlowConsumer, TopicPattern, WhenFull,
};

use table::{Field, Table};
use value::Raw;

/// Everything the server is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect.
    pub listeners: Listeners,
    /// Where messages are kept.
    pub store: Store,
    /// What clients may use.
    pub limits: Limits,
    /// What STOMP leaves open.
    pub stomp: Stomp,
    /// What MQTT leaves open.
    pub mqtt: Mqtt,
    /// What belongs to client ids.
    pub sessions: Sessions,
    /// HTTP and WebSocket.
    pub http: Http,
    /// Messages sent to URLs.
    pub webhooks: Webhooks,
    /// Who is let in.
    pub security: Security,
    /// The process.
    pub server: Server,
    /// Log lines.
    pub log: Log,
    /// Credit of consumers that name none.
    pub destinations: Destinations,
    /// Copies of what is sent to queues.
    pub mirrored_queues: MirroredQueues,
    /// What holds for destinations, in the order written.
    pub policy: Vec<Policy>,
    /// Destinations that forward, in the order written.
    pub composite: Vec<Composite>,
    /// Topics with a queue per group.
    pub virtual_topic: Vec<VirtualTopic>,
    /// Who may do what, in the order written.
    pub permission: Vec<Permission>,
}

/// The outside of a table: its name, documentation and fields.
struct Outline {
    name: &'static str,
    doc: &'static str,
    fields: &'static [Field],
}

const fn outline<T: Table>() -> Outline {
    Outline { name: T::NAME, doc: T::DOC, fields: T::FIELDS }
}

/// The sections, in the order of the documentation.
static SECTIONS: [Outline; 13] = [
    outline::<Listeners>(),
    outline::<Store>(),
    outline::<Limits>(),
    outline::<Stomp>(),
    outline::<Mqtt>(),
    outline::<Sessions>(),
    outline::<Http>(),
    outline::<Webhooks>(),
    outline::<Security>(),
    outline::<Server>(),
    outline::<Log>(),
    outline::<Destinations>(),
    outline::<MirroredQueues>(),
];

/// The lists, in the order of the documentation.
static LISTS: [Outline; 4] =
    [outline::<Policy>(), outline::<Composite>(), outline::<VirtualTopic>(), outline::<Permission>()];

/// The entries of one list, each with one value per field.
type Entries = Vec<Vec<Raw>>;

fn build_section<T: Table>(source: &dyn Fn(&str, usize) -> Raw) -> Result<T, String> {
    T::build(&mut |index| source(T::NAME, index))
}

fn build_list<T: Table>(entries: &dyn Fn(&str) -> Option<Entries>) -> Result<Option<Vec<T>>, String> {
    let Some(entries) = entries(T::NAME) else { return Ok(None) };
    entries
        .iter()
        .map(|entry| T::build(&mut |index| entry.get(index).cloned().unwrap_or(Raw::Unset)))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn default_entry<T: Table>() -> Result<T, String> {
    T::build(&mut |index| T::FIELDS.get(index).map_or(Raw::Unset, |field| field.preset.raw()))
}

impl Config {
    /// Builds it from one value per key and the entries of each list, `None` where a list was not written.
    fn build(
        keys: &dyn Fn(&str, usize) -> Raw,
        lists: &dyn Fn(&str) -> Option<Entries>,
    ) -> Result<Self, String> {
        Ok(Self {
            listeners: build_section(keys)?,
            store: build_section(keys)?,
            limits: build_section(keys)?,
            stomp: build_section(keys)?,
            mqtt: build_section(keys)?,
            sessions: build_section(keys)?,
            http: build_section(keys)?,
            webhooks: build_section(keys)?,
            security: build_section(keys)?,
            server: build_section(keys)?,
            log: build_section(keys)?,
            destinations: build_section(keys)?,
            mirrored_queues: build_section(keys)?,
            policy: build_list(lists)?.unwrap_or_default(),
            composite: build_list(lists)?.unwrap_or_default(),
            virtual_topic: match build_list(lists)? {
                Some(rules) => rules,
                None => vec![default_entry()?],
            },
            permission: build_list(lists)?.unwrap_or_default(),
        })
    }

    /// Where the users are kept.
    #[must_use]
    pub fn users_file(&self) -> PathBuf {
        self.security.users_file.clone().unwrap_or_else(|| self.store.dir.join("users.toml"))
    }

    /// The values of every section, in the order of [`SECTIONS`].
    fn show_sections(&self) -> [Vec<Option<String>>; 13] {
        [
            self.listeners.show(),
            self.store.show(),
            self.limits.show(),
            self.stomp.show(),
            self.mqtt.show(),
            self.sessions.show(),
            self.http.show(),
            self.webhooks.show(),
            self.security.show(),
            self.server.show(),
            self.log.show(),
            self.destinations.show(),
            self.mirrored_queues.show(),
        ]
    }

    /// The values of every entry of every list, in the order of [`LISTS`].
    fn show_lists(&self) -> [Vec<Vec<Option<String>>>; 4] {
        [
            self.policy.iter().map(Table::show).collect(),
            self.composite.iter().map(Table::show).collect(),
            self.virtual_topic.iter().map(Table::show).collect(),
            self.permission.iter().map(Table::show).collect(),
        ]
    }
}

impl Default for Config {
    fn default() -> Self {
        let preset = |section: &str, index: usize| {
            let outline = SECTIONS.iter().find(|outline| outline.name == section);
            outline
                .and_then(|outline| outline.fields.get(index))
                .map_or(Raw::Unset, |field| field.preset.raw())
        };
        Self::build(&preset, &|_| None).expect("the tables' own defaults read: a test loads them")
    }
}
