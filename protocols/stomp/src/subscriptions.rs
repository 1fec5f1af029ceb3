//! SUBSCRIBE and UNSUBSCRIBE: what their headers ask for, in the words of ActiveMQ's and of RabbitMQ's clients, and the
//! table of a connection's subscriptions.

use std::borrow::Cow;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::SubscriptionKey;
use sabir_model::rare::Rare;
use sabir_model::settlement::SettleMode;

use crate::address::split_options;
use crate::frame::{Frame, Version};

/// Largest window of unsettled deliveries a client is granted; a RabbitMQ client that asks for none gets this.
pub(crate) const CREDIT_MAX: u32 = 65_535;

/// Headers of ActiveMQ's consumers, and their spelling as destination options, whose effect is not built. Their
/// defaults are accepted.
const ACTIVEMQ_UNBUILT: &[(&str, &str)] =
    &[("exclusive", "false"), ("retroactive", "false"), ("maximumPendingMessageLimit", "0")];

/// Headers of RabbitMQ's subscriptions that would change what the client gets; refused rather than ignored.
const RABBIT_UNBUILT: &[&str] = &[
    "x-queue-name",
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-delivery-limit",
    "x-max-priority",
    "x-single-active-consumer",
    "x-stream-offset",
    "x-stream-filter",
    "x-stream-match-unfiltered",
];

/// What a SUBSCRIBE asks for.
#[derive(Debug, Default)]
pub(crate) struct Request<'a> {
    /// Without its options.
    pub(crate) destination: Cow<'a, str>,
    pub(crate) settle: SettleMode,
    pub(crate) selector: Option<Cow<'a, str>>,
    pub(crate) browse: bool,
    pub(crate) durable: Option<Cow<'a, str>>,
    pub(crate) no_local: bool,
    pub(crate) priority: i8,
    pub(crate) credit: Option<u32>,
}

fn invalid(name: &str, value: &str, what: &str) -> Refusal {
    Refusal::new(Code::InvalidHeader, format!("{name} must be {what}, not \"{value}\""))
}

fn unsupported(name: &str, value: &str) -> Refusal {
    Refusal::new(Code::Unsupported, format!("{name}:{value} on SUBSCRIBE is not built"))
}

fn flag(name: &str, value: &str) -> Result<bool, Refusal> {
    match value.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(invalid(name, other, "true or false")),
    }
}

impl<'a> Request<'a> {
    /// Reads the headers of a SUBSCRIBE.
    ///
    /// # Errors
    /// A header is missing, says what it cannot, or asks for what is not built.
    pub(crate) fn read(frame: &Frame<'a>, version: Version) -> Result<Self, Refusal> {
        let whole = frame.get("destination").ok_or_else(|| missing("SUBSCRIBE", "destination"))?;
        let mut request = Self::default();
        let options = match &whole {
            Cow::Borrowed(text) => {
                let (destination, options) = split_options(text);
                request.destination = Cow::Borrowed(destination);
                options.map(str::to_owned)
            }
            Cow::Owned(text) => {
                let (destination, options) = split_options(text);
                request.destination = Cow::Owned(destination.to_owned());
                options.map(str::to_owned)
            }
        };
        for option in options.iter().flat_map(|options| options.split('&')) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let field = name.strip_prefix("consumer.").unwrap_or(name);
            request.consumer_field(name, field, Cow::Owned(value.to_owned()))?;
        }
        // Headers beat options, and the first of a repeated header wins: so they are read last to first.
        let headers: smallvec::SmallVec<[_; 16]> = frame.headers().collect();
        let (mut durable, mut auto_delete, mut exclusive, mut ack) = (false, true, false, "auto");
        for header in headers.iter().rev() {
            let (name, value) = (header.raw_name(), header.raw_value());
            match name {
                "ack" => ack = value,
                "selector" => request.selector = Some(header.value()).filter(|text| !text.trim().is_empty()),
                "browser" => request.browse = flag(name, value)?,
                "durable" | "persistent" => durable = flag(name, value)?,
                "auto-delete" => auto_delete = flag(name, value)?,
                "exclusive" => exclusive = flag(name, value)?,
                "prefetch-count" => request.credit = Some(prefetch_count(name, value)?),
                "x-priority" => request.priority = rabbit_priority(name, value)?,
                "x-queue-type" if value == "stream" => return Err(unsupported(name, value)),
                "transformation" => transformation(value)?,
                _ if RABBIT_UNBUILT.contains(&name) => return Err(unsupported(name, value)),
                _ => {
                    if let Some(field) = name.strip_prefix("activemq.") {
                        request.consumer_field(name, field, header.value())?;
                    }
                }
            }
        }
        request.settle = match ack {
            "auto" => SettleMode::Auto,
            "client" => SettleMode::Cumulative,
            "client-individual" => SettleMode::Individual,
            other => return Err(invalid("ack", other, "auto, client or client-individual")),
        };
        let to_topic = ["/topic/", "/exchange/"];
        let to_topic = to_topic.iter().any(|prefix| request.destination.trim_start().starts_with(prefix));
        // RabbitMQ gives each topic subscription a queue of its own, which is exclusive as it is.
        if exclusive && !to_topic {
            return Err(unsupported("exclusive", "true"));
        }
        // RabbitMQ's durable topic subscription goes by its id. Its queues are durable in any case.
        if durable && !auto_delete && to_topic && request.durable.is_none() {
            request.durable = Some(frame.get("id").ok_or_else(|| missing("SUBSCRIBE", "id"))?);
        }
        if request.browse && version == Version::V10 {
            return Err(Refusal::new(Code::Unsupported, "browser:true needs STOMP 1.1 or 1.2"));
        }
        Ok(request)
    }

    /// One field of ActiveMQ's consumers; `name` is the spelling the client used.
    fn consumer_field(&mut self, name: &str, field: &str, value: Cow<'a, str>) -> Result<(), Refusal> {
        match field {
            "prefetchSize" => {
                let number: u32 = value.trim().parse().unwrap_or(0);
                if number == 0 {
                    return Err(invalid(name, &value, "a number of at least 1"));
                }
                self.credit = Some(number.min(CREDIT_MAX));
            }
            // The second spelling is that of clients before ActiveMQ 5.7.
            "subscriptionName" | "subcriptionName" => self.durable = Some(value),
            "selector" => self.selector = Some(value).filter(|text| !text.trim().is_empty()),
            "noLocal" => self.no_local = flag(name, &value)?,
            "priority" => {
                let number: i8 = value.trim().parse().unwrap_or(-1);
                if number < 0 {
                    return Err(invalid(name, &value, "a number from 0 to 127"));
                }
                self.priority = number;
            }
            // Has no effect, as in ActiveMQ: deliveries never wait for one another.
            "dispatchAsync" => {
                flag(name, &value)?;
            }
            _ => {
                let harmless =
                    |(unbuilt, default): &(&str, &str)| *unbuilt == field && *default == value.trim();
                if !ACTIVEMQ_UNBUILT.iter().any(harmless) {
                    return Err(unsupported(name, &value));
                }
            }
        }
        Ok(())
    }
}

fn prefetch_count(name: &str, value: &str) -> Result<u32, Refusal> {
    let number: u32 = value.trim().parse().map_err(|_| invalid(name, value, "a number"))?;
    Ok(if number == 0 { CREDIT_MAX } else { number.min(CREDIT_MAX) })
}

fn rabbit_priority(name: &str, value: &str) -> Result<i8, Refusal> {
    let number: i64 = value.trim().parse().map_err(|_| invalid(name, value, "a number"))?;
    Ok(i8::try_from(number.clamp(i64::from(i8::MIN), i64::from(i8::MAX))).unwrap_or(0))
}

/// Maps and lists leave as JSON in any case, so asking for that is granted; other formats are not built.
fn transformation(value: &str) -> Result<(), Refusal> {
    match value {
        "jms-json" | "jms-map-json" | "jms-byte" => Ok(()),
        other => Err(unsupported("transformation", other)),
    }
}

pub(crate) fn missing(command: &str, header: &str) -> Refusal {
    Refusal::new(Code::MissingHeader, format!("{command} needs a header {header}"))
}

/// A subscription that is on.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) key: SubscriptionKey,
    pub(crate) browse: bool,
    /// Its durable name.
    pub(crate) durable: Option<Box<str>>,
    /// Raw id; empty for one of 1.0 that has none.
    pub(crate) id: Box<str>,
    /// Raw destination, by which 1.0 may unsubscribe; empty in later versions.
    pub(crate) destination: Box<str>,
}

/// How a table entry is called. Raw header values hold no line end, so the kinds cannot be mistaken for one another.
pub(crate) fn name_of_destination(destination: &str) -> String {
    format!("\n{destination}")
}

/// Subscriptions by name. Most connections have one.
#[derive(Debug, Default)]
enum Named {
    #[default]
    None,
    One(Box<(Box<str>, Active)>),
    Many(Box<HashMap<Box<str>, Active, RandomState>>),
}

impl Named {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(all) => all.len(),
        }
    }

    fn get(&self, name: &str) -> Option<&Active> {
        match self {
            Self::None => None,
            Self::One(one) => (*one.0 == *name).then_some(&one.1),
            Self::Many(all) => all.get(name),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &Active)> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(one) => (Some((&*one.0, &one.1)), None),
            Self::Many(all) => (None, Some(all.iter().map(|(name, active)| (&**name, active)))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Adds one whose name is not taken.
    fn insert(&mut self, name: Box<str>, active: Active) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(Box::new((name, active))),
            Self::One(one) => Self::Many(Box::new(HashMap::from_iter([*one, (name, active)]))),
            Self::Many(mut all) => {
                all.insert(name, active);
                Self::Many(all)
            }
        };
    }

    fn remove(&mut self, name: &str) -> Option<Active> {
        match self {
            Self::Many(all) if all.len() > 1 => all.remove(name),
            Self::Many(all) => {
                let removed = all.remove(name)?;
                *self = Self::None;
                Some(removed)
            }
            Self::One(one) if *one.0 == *name => match std::mem::take(self) {
                Self::One(one) => Some(one.1),
                Self::None | Self::Many(_) => None,
            },
            Self::None | Self::One(_) => None,
        }
    }
}

/// A connection's subscriptions by name: the raw id, or in 1.0 the destination.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    active: Named,
    next: u32,
    /// Own temporary queues, as the client writes them, that it has subscribed to itself at some time.
    claimed: Rare<HashSet<Box<str>, RandomState>>,
    /// Own temporary queues subscribed to for a client that expects that of a `reply-to`.
    automatic: Rare<HashMap<Box<str>, SubscriptionKey, RandomState>>,
}

impl Subscriptions {
    /// A number for the next subscription, unless there are too many or the name is taken.
    pub(crate) fn reserve(&mut self, name: &str, id: &str, max: usize) -> Result<SubscriptionKey, Refusal> {
        if self.active.get(name).is_some() {
            let sentence = if id.is_empty() {
                "this connection already has a subscription without an id to this destination".to_owned()
            } else {
                format!("this connection already has a subscription with the id \"{id}\"")
            };
            return Err(Refusal::new(Code::DuplicateSubscription, sentence));
        }
        if self.active.len() + self.automatic.get().map_or(0, HashMap::len) >= max {
            return Err(Refusal::new(
                Code::LimitReached,
                format!("a connection has at most {max} subscriptions"),
            ));
        }
        let key = SubscriptionKey(self.next);
        self.next = self.next.wrapping_add(1);
        Ok(key)
    }

    pub(crate) fn insert(&mut self, name: &str, active: Active) {
        self.active.insert(name.into(), active);
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Active> {
        self.active.get(name)
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Active> {
        self.active.remove(name)
    }

    /// Takes out the subscription of 1.0 to this destination.
    pub(crate) fn remove_destination(&mut self, destination: &str) -> Option<Active> {
        if let Some(active) = self.active.remove(name_of_destination(destination).as_str()) {
            return Some(active);
        }
        let found = self.active.iter().find(|(_, active)| *active.destination == *destination);
        let name: Box<str> = found?.0.into();
        self.active.remove(&name)
    }

    /// Forgets a subscription the broker has ended; its id, if it had one.
    pub(crate) fn remove_key(&mut self, key: SubscriptionKey) -> Option<Box<str>> {
        let automatic = self.automatic.get().into_iter().flatten();
        if let Some((label, _)) = automatic.into_iter().find(|(_, known)| **known == key) {
            let label = label.clone();
            self.remove_automatic(&label);
            return Some(label);
        }
        let name: Box<str> = self.active.iter().find(|(_, active)| active.key == key)?.0.into();
        self.active.remove(&name).map(|active| active.id)
    }

    /// Whether deliveries under this number are a browser's.
    pub(crate) fn is_browser(&self, key: SubscriptionKey) -> bool {
        self.active.iter().any(|(_, active)| active.key == key && active.browse)
    }

    /// Whether the broker should subscribe the client to this temporary queue of its own.
    pub(crate) fn wants_automatic(&self, label: &str) -> bool {
        let claimed = self.claimed.get().is_some_and(|claimed| claimed.contains(label));
        !claimed && !self.automatic.get().is_some_and(|automatic| automatic.contains_key(label))
    }

    pub(crate) fn insert_automatic(&mut self, label: &str, key: SubscriptionKey) {
        self.automatic.make().insert(label.into(), key);
    }

    pub(crate) fn remove_automatic(&mut self, label: &str) -> Option<SubscriptionKey> {
        self.automatic.get_mut()?.remove(label)
    }

    /// The client subscribes to this temporary queue itself. Returns the automatic subscription to end first.
    pub(crate) fn claim(&mut self, label: &str) -> Option<SubscriptionKey> {
        let claimed = self.claimed.make();
        if !claimed.contains(label) {
            claimed.insert(label.into());
        }
        self.automatic.get_mut()?.remove(label)
    }
}
