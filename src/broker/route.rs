//! Resolving where a message goes: targets and routing rules become legs, each a message of its own with its queues and
//! live subscribers. A resolved route is immutable and cached by the connections that use it.

use std::sync::Arc;

use sabir_model::access::{Action, Principal, Resource};
use sabir_model::delivery::{Grant, Guarantee};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::ConnectionId;
use sabir_model::message::{FieldsWriter, Tag};
use sabir_model::selector::Selector;
use smallvec::SmallVec;

use crate::bindings::Subscriber;
use crate::broker::Shared;
use crate::client_session::ClientSession;
use crate::policy::Policy;
use crate::queue::{Queue, Role};
use crate::registry::{HIDE_DOLLAR, Interest, Live, Stamp, VirtualHost};
use crate::retained::Retained;

/// How deep rules may lead to further rules.
const DEPTH_MAX: usize = 16;
/// Legs of one route.
const LEGS_MAX: usize = 10_000;

/// One queue of a leg.
#[derive(Debug)]
pub(crate) struct QueueTarget {
    pub(crate) queue: Arc<Queue>,
    pub(crate) selector: Option<Arc<Selector>>,
    pub(crate) no_local: Option<ConnectionId>,
    /// Only if some active consumer would take it.
    pub(crate) selector_aware: bool,
    /// What may be lost goes only to consumers that are there.
    pub(crate) keeps_persistent_only: bool,
    /// Skip it when full, instead of refusing the send.
    pub(crate) skip_when_full: bool,
}

/// One message of a send.
#[derive(Debug)]
pub(crate) struct Leg {
    /// Encoded destination and original destination.
    pub(crate) head: Vec<u8>,
    /// All of these must match.
    pub(crate) conditions: SmallVec<[Arc<Selector>; 1]>,
    /// If it passes its conditions, this group has a match. Such a leg delivers nothing itself.
    pub(crate) group: Option<usize>,
    /// Only if none of these groups has a match.
    pub(crate) unless: SmallVec<[usize; 1]>,
    pub(crate) queues: SmallVec<[QueueTarget; 1]>,
    pub(crate) live: Vec<Arc<Live>>,
    pub(crate) sessions: Vec<SessionTarget>,
    /// The most that any of the sessions is granted.
    pub(crate) granted: Guarantee,
    /// The topic that may keep the message as its last value.
    pub(crate) topic: Option<Destination>,
    /// The policy of the topic, for live subscribers.
    pub(crate) policy: Arc<Policy>,
}

/// A client session, of which some subscriptions match.
#[derive(Debug)]
pub(crate) struct SessionTarget {
    pub(crate) session: Arc<ClientSession>,
    /// What they grant together.
    pub(crate) grant: Arc<Grant>,
    /// Where some leave out what the session itself publishes: what the others grant, if there are others.
    pub(crate) own: Option<Option<Arc<Grant>>>,
}

impl SessionTarget {
    /// What is granted for a message from `connection`; nothing if it is left out.
    pub(crate) fn grant_for(&self, connection: ConnectionId) -> Option<&Arc<Grant>> {
        match &self.own {
            Some(own) if self.session.is_on(connection) => own.as_ref(),
            _ => Some(&self.grant),
        }
    }
}

/// What a route's stamp is about.
#[derive(Debug)]
enum Stamped {
    /// It depends on no subscription.
    Nothing,
    /// Subscriptions to names whose first level is counted where the topic's is.
    Topic(usize),
    /// Any subscription or queue.
    Everything,
}

/// Where a send to some targets goes.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) legs: Vec<Leg>,
    pub(crate) groups: usize,
    /// The one queue this is all about, if it is as simple as that.
    pub(crate) single: Option<Arc<Queue>>,
    /// It is all about the one client session of the one leg.
    pub(crate) one_session: bool,
    stamp: Stamp,
    stamped: Stamped,
    permissions: u64,
}

impl Route {
    /// Whether it still holds.
    pub(crate) fn is_fresh(&self, shared: &Shared, host: &VirtualHost) -> bool {
        let holds = match &self.stamped {
            Stamped::Nothing => true,
            Stamped::Topic(shard) => host.stamp(*shard) == self.stamp,
            Stamped::Everything => host.any_stamp() == self.stamp,
        };
        holds
            && self.permissions == shared.authorizer.generation()
            && self.legs.iter().all(|leg| {
                leg.queues
                    .iter()
                    .all(|target| !target.queue.deleted.load(std::sync::atomic::Ordering::Acquire))
            })
    }
}

/// Resolves `targets` for somebody, or for the broker itself. All are authorised before anything happens.
pub(crate) fn resolve(
    shared: &Shared,
    host: &VirtualHost,
    who: Option<&Principal>,
    targets: &[Destination],
) -> Result<Route, Refusal> {
    // Stamps are taken before looking, so that a change in between makes the route stale, not wrong.
    let any = host.any_stamp();
    let one = targets.first().filter(|first| targets.len() == 1 && first.kind() == Kind::Topic);
    let shard = one.map(|topic| host.stamp_shard(topic));
    let one_stamp = shard.map(|shard| host.stamp(shard));
    let permissions = shared.authorizer.generation();
    let mut resolver =
        Resolver { shared, host, who, legs: Vec::new(), groups: 0, ruled: false, path: Vec::new() };
    let composite = (targets.len() > 1).then(|| {
        let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
        names.join(",")
    });
    let mut seen: Vec<&Destination> = Vec::new();
    for target in targets {
        if seen.contains(&target) {
            continue;
        }
        seen.push(target);
        resolver.expand(target, composite.as_deref(), Place::default())?;
    }
    let Resolver { legs, groups, ruled, .. } = resolver;
    let single = match legs.as_slice() {
        [leg] if leg.is_plain() && leg.live.is_empty() && leg.sessions.is_empty() => {
            match leg.queues.as_slice() {
                [target]
                    if target.selector.is_none()
                        && target.no_local.is_none()
                        && !target.selector_aware
                        && !target.keeps_persistent_only
                        && !target.skip_when_full =>
                {
                    Some(Arc::clone(&target.queue))
                }
                _ => None,
            }
        }
        _ => None,
    };
    let one_session = match legs.as_slice() {
        [leg] => {
            leg.is_plain()
                && leg.live.is_empty()
                && leg.queues.is_empty()
                && matches!(leg.sessions.as_slice(), [one] if one.own.is_none())
        }
        _ => false,
    };
    let (stamped, stamp) = match (shard, one_stamp) {
        (Some(shard), Some(stamp)) if !ruled => (Stamped::Topic(shard), stamp),
        // A plain queue depends on no subscription; only its deletion makes the route stale, and that is checked.
        _ if !ruled && single.is_some() && targets.len() == 1 => (Stamped::Nothing, any),
        _ => (Stamped::Everything, any),
    };
    Ok(Route { legs, groups, single, one_session, stamp, stamped, permissions })
}

#[derive(Clone, Default)]
struct Place {
    conditions: SmallVec<[Arc<Selector>; 1]>,
    unless: SmallVec<[usize; 1]>,
}

struct Resolver<'a> {
    shared: &'a Shared,
    host: &'a VirtualHost,
    who: Option<&'a Principal>,
    legs: Vec<Leg>,
    groups: usize,
    ruled: bool,
    /// Destinations being expanded, so that rules that lead back end.
    path: Vec<Destination>,
}

impl Leg {
    /// Whether it applies to every message.
    fn is_plain(&self) -> bool {
        self.conditions.is_empty() && self.unless.is_empty()
    }

    /// Whether nobody receives what it makes.
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.live.is_empty() && self.sessions.is_empty()
    }
}

impl Resolver<'_> {
    fn check(&self, action: Action, target: &Destination) -> Result<(), Refusal> {
        match self.who {
            Some(who) => self.shared.check(who, action, Resource::Destination(target.as_ref())),
            None => Ok(()),
        }
    }

    fn expand(&mut self, target: &Destination, original: Option<&str>, place: Place) -> Result<(), Refusal> {
        if self.path.contains(target) {
            return Ok(());
        }
        if self.path.len() >= DEPTH_MAX || self.legs.len() >= LEGS_MAX {
            return Err(Refusal::new(
                Code::LimitReached,
                format!("the routing rules for {target} lead too far or to too many targets"),
            ));
        }
        if self.who.is_some() && target.kind() == Kind::Topic && Retained::is_told(target.canonical()) {
            let sentence =
                format!("topics that begin with '$' are the broker's own: nobody may send to {target}");
            return Err(Refusal::new(Code::AccessDenied, sentence));
        }
        self.check(Action::Send, target)?;
        self.path.push(target.clone());
        let result = self.expand_rules(target, original, place);
        self.path.pop();
        result
    }

    fn expand_rules(
        &mut self,
        target: &Destination,
        original: Option<&str>,
        place: Place,
    ) -> Result<(), Refusal> {
        let rules = &self.shared.rules;
        let forwarded = original.map_or_else(|| target.to_string(), str::to_owned);
        if let (Kind::Queue, false, Some(mirror)) =
            (target.kind(), target.is_temporary(), &rules.mirrored_queues)
        {
            self.ruled = true;
            let name = format!("{}{}{}", mirror.prefix, target.dotted(), mirror.postfix);
            let topic = Destination::from_dotted(Kind::Topic, false, &name)?;
            self.expand(&topic, Some(&forwarded), place.clone())?;
        }
        let mut unless = place.unless.clone();
        let mut keeps = true;
        for rule in rules.composites.iter().filter(|rule| rule.name.matches(target.as_ref())) {
            self.ruled = true;
            let group = rule.send_when_not_matched.then_some(self.groups);
            self.groups += usize::from(rule.send_when_not_matched);
            for forward in &rule.forward_to {
                let mut place = place.clone();
                place.conditions.extend(forward.selector.clone());
                if group.is_some() {
                    // What the target makes of the message, being subject to rules itself, is another matter.
                    self.legs.push(Leg { group, ..self.leg(target, original, &place) });
                }
                self.expand(&forward.destination, Some(&forwarded), place)?;
            }
            match group {
                Some(group) => unless.push(group),
                None => keeps &= !rule.forward_only,
            }
        }
        if !keeps {
            return Ok(());
        }
        let mut leg = Leg { unless, ..self.leg(target, original, &place) };
        match target.kind() {
            Kind::Queue => leg.queues.push(plain(self.queue(target)?)),
            Kind::Topic => {
                leg.topic = (!target.is_temporary()).then(|| target.clone());
                self.topic(target, &mut leg)?;
            }
        }
        self.legs.push(leg);
        Ok(())
    }

    /// A leg that nothing receives yet.
    fn leg(&self, target: &Destination, original: Option<&str>, place: &Place) -> Leg {
        Leg {
            head: head(target, original),
            conditions: place.conditions.clone(),
            group: None,
            unless: place.unless.clone(),
            queues: SmallVec::new(),
            live: Vec::new(),
            sessions: Vec::new(),
            granted: Guarantee::AtMostOnce,
            topic: None,
            policy: self.shared.policies.lookup(target),
        }
    }

    fn queue(&self, target: &Destination) -> Result<Arc<Queue>, Refusal> {
        if let Some(queue) = self.host.find_queue(target) {
            return Ok(queue);
        }
        if target.is_temporary() {
            let sentence = format!("{target} does not exist any more");
            return Err(Refusal::new(Code::UnknownDestination, sentence));
        }
        self.check(Action::Create, target)?;
        self.host.queue(self.shared, target, Role::Plain)
    }

    fn topic(&mut self, target: &Destination, leg: &mut Leg) -> Result<(), Refusal> {
        if target.is_temporary() && !self.host.temporary_topics.read().contains_key(target) {
            let sentence = format!("{target} does not exist any more");
            return Err(Refusal::new(Code::UnknownDestination, sentence));
        }
        for rule in self.shared.rules.virtual_topics.iter().filter(|rule| rule.name.matches(target.as_ref()))
        {
            let declared: Vec<Destination> = {
                let groups = self.host.groups.read();
                groups.iter().filter_map(|group| rule.declared_queue(group, target)).collect()
            };
            for queue in declared {
                self.host.queue(self.shared, &queue, Role::Plain)?;
            }
            for queue in self.host.matching_queues(&rule.queues_of(target)?) {
                if !leg.queues.iter().any(|known| known.queue.id == queue.id) {
                    leg.queues.push(QueueTarget {
                        selector_aware: rule.selector_aware,
                        skip_when_full: rule.drop_on_resource_limit,
                        ..plain(queue)
                    });
                }
            }
        }
        let mut subscribers: Vec<Subscriber> = Vec::new();
        let topics = self.host.topics.read();
        topics.for_each_match_with(target.canonical(), HIDE_DOLLAR, |interest| match interest {
            Interest::Session(subscriber) => subscribers.push(subscriber.clone()),
            Interest::Live(live) => leg.live.push(Arc::clone(live)),
            Interest::Bound(bound) => {
                if !leg.queues.iter().any(|known| known.queue.id == bound.queue.id) {
                    leg.queues.push(QueueTarget {
                        selector: bound.selector.clone(),
                        no_local: bound.no_local,
                        keeps_persistent_only: matches!(bound.queue.role, Role::Group { .. }),
                        ..plain(Arc::clone(&bound.queue))
                    });
                }
            }
        });
        drop(topics);
        leg.sessions = merge(subscribers);
        leg.granted = leg.sessions.iter().map(|one| one.grant.guarantee).max().unwrap_or_default();
        Ok(())
    }
}

/// One target per session, in the order of their first subscriptions that match.
fn merge(mut subscribers: Vec<Subscriber>) -> Vec<SessionTarget> {
    let id = |one: &Subscriber| Arc::as_ptr(&one.session).addr();
    subscribers.sort_by_key(|one| (id(one), one.terms.order));
    subscribers
        .chunk_by(|a, b| id(a) == id(b))
        .filter_map(|of_one| {
            let session = Arc::clone(&of_one.first()?.session);
            let together = |subscribers: &mut dyn Iterator<Item = &Subscriber>| {
                let mut grant = None;
                for one in subscribers {
                    one.terms.add_to(grant.get_or_insert_with(Grant::default));
                }
                grant.map(Arc::new)
            };
            let grant = together(&mut of_one.iter())?;
            let leaves_out = of_one.iter().any(|one| one.terms.no_local);
            let own = leaves_out.then(|| together(&mut of_one.iter().filter(|one| !one.terms.no_local)));
            Some(SessionTarget { session, grant, own })
        })
        .collect()
}

fn plain(queue: Arc<Queue>) -> QueueTarget {
    QueueTarget {
        queue,
        selector: None,
        no_local: None,
        selector_aware: false,
        keeps_persistent_only: false,
        skip_when_full: false,
    }
}

fn head(destination: &Destination, original: Option<&str>) -> Vec<u8> {
    let mut fields = FieldsWriter::new();
    fields.destination(Tag::Destination, destination);
    if let Some(original) = original.filter(|original| **original != destination.to_string()) {
        fields.field(Tag::OriginalDestination, original.as_bytes());
    }
    fields.as_slice().to_vec()
}
