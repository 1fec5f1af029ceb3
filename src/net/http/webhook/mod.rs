//! Webhooks: push subscriptions, whose messages the broker POSTs to a URL.
//!
//! Each is a row in the log (`definition`) and, unless it is paused, a task (`worker`) that consumes like any consumer,
//! sends in order (`lanes`) by a client of its own (`endpoint`: `url`, `targets`, `tls`, `signer`, `render`), and settles by
//! what the receiver answers (`retry`). Here is who knows them all; what requests ask for is in `api`.

mod api;
mod definition;
mod endpoint;
mod lanes;
mod render;
mod retry;
mod signer;
mod targets;
mod tls;
mod url;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sabir_admin::Problem;
use sabir_broker::NoteTable;
use sabir_model::command::{Command, Outcome, Promise};
use sabir_model::error::{Code, Refusal};
use sabir_model::pattern::Pattern;
use sabir_model::session::Host as _;
use sabir_model::varint::{read_text, write_block};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::definition::{Definition, Source as Wanted, Subscription};
use self::endpoint::{Common, Endpoint};
use self::targets::Targets;
use self::tls::Tls;
use self::worker::{End, Order, Status, Work};
use super::party::{Inbox, Party, Role, leased};
use super::until;
use crate::config;
use crate::net::socket::Peer;
use crate::net::{Shared, SystemClock};

pub(super) use self::api::add;

/// The client id of the durable subscriptions that webhooks on topics have; each is named as its webhook.
const CLIENT: &str = "$webhook";
/// How long workers that are cut off may take to give back what they hold.
const CUT_PATIENCE: Duration = Duration::from_secs(1);

/// A webhook's virtual host and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    virtual_host: Box<str>,
    name: Box<str>,
}

impl Key {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.virtual_host.len() + self.name.len() + 4);
        write_block(&mut out, self.virtual_host.as_bytes());
        write_block(&mut out, self.name.as_bytes());
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let (virtual_host, name) = (read_text(&mut bytes)?, read_text(&mut bytes)?);
        bytes.is_empty().then(|| Self { virtual_host: virtual_host.into(), name: name.into() })
    }
}

struct Worker {
    orders: watch::Sender<Order>,
    task: JoinHandle<()>,
}

struct Hook {
    definition: Definition,
    status: Arc<Mutex<Status>>,
    /// Tells it from others that had its name before.
    version: u64,
    worker: Option<Worker>,
}

#[derive(Default)]
struct Book {
    hooks: BTreeMap<Key, Hook>,
    versions: u64,
    closed: bool,
}

/// All webhooks of a server.
pub(super) struct Webhooks {
    common: Arc<Common>,
    count_max: usize,
    concurrency_max: usize,
    book: Mutex<Book>,
    /// Whoever changes webhooks does so alone: it takes several steps.
    changing: tokio::sync::Mutex<()>,
    /// Workers that have not ended.
    live: watch::Sender<usize>,
}

/// Counts a worker for as long as it lives, whatever ends it.
struct Life(Arc<Shared>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.http.webhooks.live.send_modify(|live| *live -= 1);
    }
}

impl Webhooks {
    pub(super) fn new(options: &config::Webhooks, body_bytes_max: usize, clock: &Arc<SystemClock>) -> Self {
        let common = Common {
            targets: Targets::new(options.allowed_targets.clone()),
            tls: Tls::new(options.ca_file.clone()),
            clock: Arc::clone(clock),
            bytes_max: options.bytes_max,
            body_bytes_max,
        };
        Self {
            common: Arc::new(common),
            count_max: options.count_max,
            concurrency_max: options.concurrency_max,
            book: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            live: watch::Sender::new(0),
        }
    }

    /// Takes up the webhooks that the log holds.
    pub(super) fn restore(&self, shared: &Arc<Shared>) {
        for note in shared.broker.take_notes(NoteTable::Webhooks) {
            match (Key::decode(&note.key), Definition::decode(&note.value)) {
                // More than there may be now were allowed once: they stay.
                (Some(key), Some(definition)) => self.insert(shared, key, definition, Arc::default(), None),
                _ => tracing::warn!(
                    "a webhook in the log cannot be read by this version; it stays there, unused"
                ),
            }
        }
        let count = self.book.lock().hooks.len();
        if count > 0 {
            tracing::info!("{count} webhooks");
        }
    }

    /// Puts a webhook into the book and lets it work, once `previous` has ended.
    fn insert(
        &self,
        shared: &Arc<Shared>,
        key: Key,
        definition: Definition,
        status: Arc<Mutex<Status>>,
        previous: Option<Worker>,
    ) {
        let mut book = self.book.lock();
        book.versions += 1;
        let version = book.versions;
        let worker = if definition.paused || book.closed {
            None
        } else {
            self.start(shared, &key, &definition, &status, version, previous)
        };
        book.hooks.insert(key, Hook { definition, status, version, worker });
    }

    fn start(
        &self,
        shared: &Arc<Shared>,
        key: &Key,
        definition: &Definition,
        status: &Arc<Mutex<Status>>,
        version: u64,
        previous: Option<Worker>,
    ) -> Option<Worker> {
        let plan = match definition.plan() {
            Ok(plan) => plan,
            Err(problem) => {
                // Made by a version that allowed it.
                status.lock().last_error = Some(problem.detail);
                return None;
            }
        };
        let take = Take::of(key, definition, plan.pattern.clone());
        let work = Work {
            shared: Arc::clone(shared),
            endpoint: Arc::new(Endpoint::new(
                Arc::clone(&self.common),
                (&key.virtual_host, &key.name),
                definition,
                plan,
            )),
            take,
            concurrency: definition.concurrency as usize,
            retries: definition.retries,
            status: Arc::clone(status),
            peer: peer(key),
        };
        let (orders, mut told) = watch::channel(Order::Run);
        self.live.send_modify(|live| *live += 1);
        let life = Life(Arc::clone(shared));
        let key = key.clone();
        let task = tokio::spawn(async move {
            if let Some(mut previous) = previous {
                // Its consumer must be gone before there is another.
                tokio::select! {
                    ended = &mut previous.task => drop(ended),
                    () = until(&mut told, |order| *order == Order::Cut) => {
                        previous.orders.send_replace(Order::Cut);
                        drop(previous.task.await);
                    }
                }
            }
            if work.run(told).await == End::Gone {
                let shared = Arc::clone(&life.0);
                // By itself, as whoever changes this webhook may be waiting for this task.
                tokio::spawn(async move { shared.http.webhooks.gone(&shared, &key, version).await });
            }
        });
        Some(Worker { orders, task })
    }

    /// Removes a webhook whose receiver wants nothing any more, unless it has been defined anew.
    async fn gone(&self, shared: &Arc<Shared>, key: &Key, version: u64) {
        let _alone = self.changing.lock().await;
        let hook = {
            let mut book = self.book.lock();
            match book.hooks.get(key) {
                Some(hook) if hook.version == version && !book.closed => book.hooks.remove(key),
                _ => None,
            }
        };
        let Some(hook) = hook else { return };
        tracing::warn!(
            webhook = &*key.name,
            "removed: its receiver answered 410, and so wants nothing any more"
        );
        shared.broker.drop_note(NoteTable::Webhooks, &key.encode());
        forget_topic(shared, key, &hook.definition);
    }

    /// Has every worker finish what it has begun.
    pub(super) fn close(&self) {
        let mut book = self.book.lock();
        book.closed = true;
        for worker in book.hooks.values().filter_map(|hook| hook.worker.as_ref()) {
            worker.orders.send_replace(Order::Finish);
        }
    }

    /// Waits until all workers have ended; after `patience` they are cut off.
    pub(super) async fn ended(&self, patience: Duration) {
        let mut live = self.live.subscribe();
        if tokio::time::timeout(patience, live.wait_for(|live| *live == 0)).await.is_ok() {
            return;
        }
        for worker in self.book.lock().hooks.values().filter_map(|hook| hook.worker.as_ref()) {
            worker.orders.send_replace(Order::Cut);
        }
        drop(tokio::time::timeout(CUT_PATIENCE, live.wait_for(|live| *live == 0)).await);
    }
}

/// How a webhook is named where a socket's peer would be.
fn peer(key: &Key) -> Peer {
    Peer { remote: None, name: format!("webhook {}", key.name), listener: "webhooks", principal: None }
}

/// Where a webhook takes messages from.
#[derive(Clone, Debug)]
enum Take {
    /// A queue, or a durable subscription of its own: all that can be said beforehand.
    Own(super::leases::Source),
    /// Somebody's durable subscription, which may change.
    Others(Role, Subscription),
}

impl Take {
    /// As a definition says, where `pattern` is the queue or the topics.
    fn of(key: &Key, definition: &Definition, pattern: Option<Pattern>) -> Self {
        let role = |client_id: Option<&str>| Role {
            principal: definition.owner.principal(),
            virtual_host: key.virtual_host.clone(),
            client_id: client_id.map(Into::into),
        };
        match (&definition.source, pattern) {
            (Wanted::Subscription(subscription), _) => {
                Self::Others(role(Some(&subscription.client)), subscription.clone())
            }
            (Wanted::Destination(_), pattern) => {
                let topic =
                    pattern.as_ref().is_some_and(|one| one.kind() == sabir_model::destination::Kind::Topic);
                Self::Own(super::leases::Source {
                    role: role(topic.then_some(CLIENT)),
                    pattern: pattern.expect("only a subscription has none: the plan has read it"),
                    durable: topic.then(|| key.name.clone()),
                    selector: definition.selector.as_deref().map(Into::into),
                })
            }
        }
    }

    /// The source as it is now.
    ///
    /// # Errors
    /// [`Code::UnknownSubscription`].
    fn source(&self, shared: &Shared) -> Result<super::leases::Source, Refusal> {
        match self {
            Self::Own(source) => Ok(source.clone()),
            Self::Others(role, Subscription { client, name }) => {
                let known = shared.broker.durable(&role.virtual_host, client, name);
                let (pattern, selector) = known.ok_or_else(|| {
                    let sentence = format!("\"{client}\" has no durable subscription \"{name}\"");
                    Refusal::new(Code::UnknownSubscription, sentence)
                })?;
                Ok(super::leases::Source {
                    role: role.clone(),
                    pattern,
                    durable: Some(name.as_str().into()),
                    selector: selector.map(Into::into),
                })
            }
        }
    }

    /// Whether the webhook has a durable subscription of its own.
    fn is_topic(&self) -> bool {
        matches!(self, Self::Own(source) if source.durable.is_some())
    }
}

/// Subscribes for a moment: what may not be consumed is told to whoever asks for it, and a durable subscription of the
/// webhook's own is there from then on.
fn subscribe_once(shared: &Arc<Shared>, key: &Key, take: &Take) -> Result<Option<Promise>, Refusal> {
    let source = take.source(shared)?;
    let mut party = Party::open(shared, &peer(key), &source.role, Arc::new(Inbox::default()))?;
    let mut request = leased(std::slice::from_ref(&source.pattern), source.selector.as_deref());
    request.durable = source.durable.as_deref();
    party.subscribe(request)
}

/// Forgets the durable subscription that a webhook on topics has, and what waits in it. If it cannot be, the log says so;
/// the webhook goes all the same, and whoever may consume from the topics can delete it.
fn forget_topic(shared: &Arc<Shared>, key: &Key, definition: &Definition) {
    if shared.broker.durable(&key.virtual_host, CLIENT, &key.name).is_some()
        && let Err(refusal) = try_to_forget(shared, key, definition)
    {
        tracing::warn!(
            webhook = &*key.name,
            "the durable subscription {CLIENT}/{} stays: {refusal}",
            key.name
        );
    }
}

fn try_to_forget(shared: &Arc<Shared>, key: &Key, definition: &Definition) -> Result<(), Refusal> {
    let role = Role {
        principal: definition.owner.principal(),
        virtual_host: key.virtual_host.clone(),
        client_id: Some(CLIENT.into()),
    };
    let mut party = Party::open(shared, &peer(key), &role, Arc::new(Inbox::default()))?;
    let outcome = party.connection.ask(Command::ForgetDurable { name: &key.name, client_id: Some(CLIENT) });
    party.end_batch();
    match outcome {
        Outcome::Accepted(_) => Ok(()),
        Outcome::Refused(refusal) => Err(refusal),
        Outcome::Later => unreachable!("forgetting is answered at once"),
    }
}

/// The refusal where there is no webhook of a name.
fn unknown(name: &str) -> Problem {
    Problem::new(Code::UnknownSubscription, format!("there is no webhook \"{name}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_and_nothing_else_is() {
        let key = Key { virtual_host: "/".into(), name: "höok".into() };
        assert_eq!(Key::decode(&key.encode()), Some(key.clone()));
        let mut longer = key.encode();
        longer.push(0);
        assert_eq!(Key::decode(&longer), None);
        assert_eq!(Key::decode(b"\xff"), None);
    }
}
