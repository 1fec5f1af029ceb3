//! Sending messages that a queue holds somewhere else. What leaves the queue is held by management meanwhile, as a consumer
//! would hold it; its put there and its acknowledgement here are one group of the log, as in a transaction.

use std::sync::Arc;

use sabir_model::access::Principal;
use sabir_model::clock::Timestamp;
use sabir_model::command::Promise;
use sabir_model::destination::{Destination, DestinationRef, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::headers::ValueRef;
use sabir_model::ids::{DeliveryToken, MessageId};
use sabir_model::message::{Body, Facts, Field, Fields, FieldsWriter, Message, Tag};
use sabir_model::settlement::Settlement;
use sabir_store::Level;

use super::MANAGEMENT;
use crate::broker::Broker;
use crate::publish::{Context, Failure, Incoming, Planned, execute, plan};
use crate::queue::Queue;
use crate::registry::VirtualHost;
use crate::route::{Route, resolve};
use crate::work::{Work, settle};

/// Where a message goes.
#[derive(Clone)]
pub(crate) enum Goal {
    /// Where a send would go.
    Destination(Destination),
    /// Back into the backlog of the one subscription or session it died in; the others have had it.
    Backlog(Arc<Queue>, Destination),
}

/// A message on its way.
pub(crate) struct Load<'a> {
    /// What it leaves behind.
    pub(crate) token: Option<DeliveryToken>,
    pub(crate) goal: Goal,
    pub(crate) facts: Facts,
    /// Its fields, but for its destinations.
    pub(crate) fields: FieldsWriter,
    /// Where it had been sent first, if that is to be told.
    pub(crate) original: Option<String>,
    pub(crate) body: Body<'a>,
}

/// Whether a name is that of a property that only dead letters have.
pub(crate) fn is_mark(name: &str) -> bool {
    matches!(
        name,
        "dlqDeliveryFailureCause"
            | "dlqSource"
            | "dlqHistory"
            | "dlqAttempts"
            | "dlqAttemptHistory"
            | "dlqTime"
            | "originalExpiration"
    )
}

/// A message's fields without its destinations, and without those that are not wanted.
pub(crate) fn fields_of(message: &Message, wanted: impl Fn(&Field<'_>) -> bool) -> FieldsWriter {
    let mut fields = FieldsWriter::new();
    for field in message.fields() {
        match field {
            Field::Plain(Tag::Destination | Tag::OriginalDestination, _) => {}
            _ if !wanted(&field) => {}
            Field::Plain(tag, value) => fields.field(tag, value),
            Field::Property(name, value) => fields.property(name, &value),
        }
    }
    fields
}

/// Whether it is worth trying again later.
pub(crate) fn is_for_now(code: Code) -> bool {
    matches!(
        code,
        Code::DestinationFull | Code::StorageFull | Code::MemoryFull | Code::ShuttingDown | Code::Internal
    )
}

/// What sends messages for somebody, and remembers where they go.
pub(crate) struct Carrier<'a> {
    broker: &'a Broker,
    host: &'a Arc<VirtualHost>,
    who: &'a Principal,
    routes: Vec<(Destination, Arc<Route>)>,
    backlogs: Vec<(String, Option<Arc<Queue>>)>,
}

impl<'a> Carrier<'a> {
    pub(crate) fn new(broker: &'a Broker, host: &'a Arc<VirtualHost>, who: &'a Principal) -> Self {
        Self { broker, host, who, routes: Vec::new(), backlogs: Vec::new() }
    }

    /// A message as it is, for another destination.
    pub(crate) fn load<'m>(
        message: &'m Message,
        token: Option<DeliveryToken>,
        to: &Destination,
        id: MessageId,
    ) -> Load<'m> {
        let sent_to = message.destination().map(DestinationRef::to_owned);
        let first = message.fields().find_text(Tag::OriginalDestination).map(str::to_owned);
        let original = first.or_else(|| sent_to.map(|sent| sent.to_string()));
        Load {
            token,
            goal: Goal::Destination(to.clone()),
            // A last value is one by being published, not by being moved.
            facts: Facts { id, retain: false, ..*message.facts() },
            fields: fields_of(message, |_| true),
            original: original.filter(|original| *original != to.to_string()),
            body: message.same_body(),
        }
    }

    /// A dead letter as it was before it was one, for where it came from.
    ///
    /// # Errors
    /// Nobody can tell where that is.
    pub(crate) fn way_back<'m>(
        &mut self,
        message: &'m Message,
        token: Option<DeliveryToken>,
        now: Timestamp,
    ) -> Result<Load<'m>, Refusal> {
        let fields = message.fields();
        let expires = match fields.find_property("originalExpiration") {
            Some(ValueRef::I64(at)) => Timestamp(at.cast_unsigned()),
            _ => Timestamp::NEVER,
        };
        // What has expired is sent back because somebody wants it all the same.
        let expires = if expires.has_passed(now) { Timestamp::NEVER } else { expires };
        Ok(Load {
            token,
            goal: self.origin(message)?,
            facts: Facts { retain: false, expires, ..*message.facts() },
            fields: fields_of(message, |field| !matches!(field, Field::Property(name, _) if is_mark(name))),
            original: None,
            body: message.same_body(),
        })
    }

    /// Where a dead letter came from.
    ///
    /// # Errors
    /// It does not say, or what it says has gone.
    pub(crate) fn origin(&mut self, message: &Message) -> Result<Goal, Refusal> {
        let fields = message.fields();
        let came_from = fields.find_text(Tag::OriginalDestination);
        let (Some(came_from), Some(_)) = (came_from, fields.find_property("dlqSource")) else {
            let sentence = "a message that does not say where it came from stays where it is";
            return Err(Refusal::new(Code::UnknownDestination, sentence));
        };
        let destination = Destination::parse_qualified(came_from, Kind::Queue)?;
        match fields.find_property("dlqSource") {
            Some(ValueRef::Str(source))
                if ["durable://", "session://", "group://"].iter().any(|kind| source.starts_with(kind)) =>
            {
                match self.backlog(source) {
                    Some(queue) => Ok(Goal::Backlog(queue, destination)),
                    None => Err(no_subscription(source)),
                }
            }
            _ => Ok(Goal::Destination(destination)),
        }
    }

    fn backlog(&mut self, title: &str) -> Option<Arc<Queue>> {
        if let Some((_, found)) = self.backlogs.iter().find(|(known, _)| known == title) {
            return found.clone();
        }
        let found = self.broker.find_managed(self.host, title).ok();
        self.backlogs.push((title.to_owned(), found.clone()));
        found
    }

    fn route(&mut self, to: &Destination) -> Result<Arc<Route>, Refusal> {
        if let Some((_, route)) = self.routes.iter().find(|(known, _)| known == to) {
            return Ok(Arc::clone(route));
        }
        let route =
            Arc::new(resolve(&self.broker.shared, self.host, Some(self.who), std::slice::from_ref(to))?);
        self.routes.push((to.clone(), Arc::clone(&route)));
        Ok(route)
    }

    /// Sends all of it in one group of the log, or what can be sent one by one; tells of each what became of it. What is not
    /// sent is held by management still.
    pub(crate) fn carry(
        &mut self,
        loads: &[Load<'_>],
        work: &mut Work,
    ) -> Vec<Result<Option<Promise>, Refusal>> {
        let reason = match self.carry_together(loads, work) {
            Ok(promise) => return vec![Ok(promise); loads.len()],
            Err(refusal) => refusal,
        };
        if loads.len() == 1 {
            return vec![Err(reason)];
        }
        let mut results = Vec::with_capacity(loads.len());
        for load in loads {
            let result = self.carry_together(std::slice::from_ref(load), work);
            let blocked = matches!(&result, Err(refusal) if is_for_now(refusal.code));
            results.push(result);
            if blocked {
                break;
            }
        }
        results
    }

    fn carry_together(&mut self, loads: &[Load<'_>], work: &mut Work) -> Result<Option<Promise>, Refusal> {
        let settlements: Vec<(DeliveryToken, Settlement)> =
            loads.iter().filter_map(|load| Some((load.token?, Settlement::Accepted))).collect();
        for _ in 0..4 {
            let mut planned = Vec::with_capacity(loads.len());
            for load in loads {
                self.plan(load, work, &mut planned)?;
            }
            let context = Context { connection: MANAGEMENT, once: None, keeps_in_log: true };
            match execute(&self.broker.shared, self.host, &planned, &settlements, &context, work) {
                Ok(promise) => return Ok(promise),
                Err(Failure::Refused(refusal)) => return Err(refusal),
                Err(Failure::Stale) => {
                    self.routes.clear();
                    self.backlogs.clear();
                }
            }
        }
        Err(Refusal::new(Code::Internal, "the destination is being deleted and created at the same time"))
    }

    fn plan(&mut self, load: &Load<'_>, work: &Work, planned: &mut Vec<Planned>) -> Result<(), Refusal> {
        let (to, only) = match &load.goal {
            Goal::Destination(to) => (to, None),
            Goal::Backlog(queue, topic) => (topic, Some(queue)),
        };
        let route = self.route(to)?;
        // A rule that forwards tells of itself.
        let told =
            route.legs.iter().any(|leg| Fields::new(&leg.head).find(Tag::OriginalDestination).is_some());
        let mut stamp = FieldsWriter::new();
        if let (Some(original), false) = (&load.original, told) {
            stamp.field(Tag::OriginalDestination, original.as_bytes());
        }
        let incoming = Incoming {
            facts: load.facts,
            stamp: stamp.as_slice(),
            fields: load.fields.as_slice(),
            body: load.body.clone(),
            connection: MANAGEMENT,
            once: None,
            keeps_in_log: true,
        };
        let mut made = Vec::new();
        plan(&route, &incoming, work, &mut made);
        if let Some(queue) = only {
            made.retain_mut(|one| one.only_to(queue.id));
            if made.is_empty() {
                return Err(no_subscription(&queue.title()));
            }
        }
        if !made.iter().any(Planned::is_received) {
            let sentence = format!("nobody receives what is sent to {to}: the message stays where it is");
            return Err(Refusal::new(Code::Conflict, sentence));
        }
        planned.append(&mut made);
        Ok(())
    }
}

fn no_subscription(title: &str) -> Refusal {
    let sentence = format!("{title} does not exist any more, or does not want the message any more");
    Refusal::new(Code::UnknownSubscription, sentence)
}

/// Gives back what could not be sent: in its old place, with no attempt counted.
pub(crate) fn give_back(broker: &Broker, queue: &Arc<Queue>, tokens: &[DeliveryToken], work: &mut Work) {
    if tokens.is_empty() {
        return;
    }
    let items = tokens.iter().map(|token| (*token, Settlement::Released));
    // What is only given back is not logged.
    settle(&broker.shared, queue, MANAGEMENT, items, Level::Os, work, |_| {});
}
