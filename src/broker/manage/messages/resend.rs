//! Sending an edited message in the place of one that waits.

use bytes::Bytes;
use sabir_model::access::Principal;
use sabir_model::clock::Timestamp;
use sabir_model::command::Promise;
use sabir_model::destination::Destination;
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::MessageId;
use sabir_model::message::{Body, Facts, Field, FieldsWriter, Tag};

use super::carry::{Carrier, Goal, Load, fields_of, give_back, is_mark};
use super::{MessageEntry, look_up};
use crate::broker::Broker;
use crate::work::{Work, finish};

/// A message as somebody has edited it.
#[derive(Debug)]
pub struct Edited {
    /// Where it goes; where it came from if nobody says.
    pub to: Option<Destination>,
    /// Its facts; the broker gives it a new id.
    pub facts: Facts,
    /// Its fields.
    pub fields: FieldsWriter,
    /// Its body.
    pub body: Body<'static>,
}

impl Edited {
    /// The message as it is, but for the fields that `drops` names, and for what only the broker may say: an edited message
    /// is a new one, of whoever has edited it, and no dead letter.
    #[must_use]
    pub fn of(entry: &MessageEntry, drops: impl Fn(&Field<'_>) -> bool) -> Self {
        let fields = fields_of(&entry.message, |field| match field {
            Field::Plain(Tag::UserId | Tag::SenderMessageId | Tag::DedupId, _) => false,
            Field::Property(name, _) if is_mark(name) => false,
            field => !drops(field),
        });
        let body = match entry.message.same_body() {
            Body::Borrowed(bytes) => Body::Shared(Bytes::copy_from_slice(bytes)),
            Body::Shared(bytes) => Body::Shared(bytes),
            Body::Stored(stored) => Body::Stored(stored),
        };
        let facts = Facts { timestamp: Timestamp::default(), ..*entry.message.facts() };
        Self { to: None, facts, fields, body }
    }
}

/// What came of a resend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resent {
    /// The id of the new message.
    pub id: MessageId,
    /// Whether it is in the log, as far as that can be told of a topic.
    pub logged: bool,
    /// The old one is not there any more once this is kept, and the new one is if it is logged.
    pub promise: Option<Promise>,
}

impl Broker {
    /// Sends what `edit` makes of a message, and removes the message, in one group of the log.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`], [`Code::UnknownDelivery`]; [`Code::Conflict`] if a consumer has it or nobody receives
    /// it; what `edit` says; those of a send. The message stays then.
    pub fn resend(
        &self,
        virtual_host: &str,
        name: &str,
        sequence: u64,
        who: &Principal,
        edit: impl FnOnce(&MessageEntry) -> Result<Edited, Refusal>,
    ) -> Result<Resent, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let queue = self.find_managed(&host, name)?;
        let mut work = Work::new(self.now());
        let seen = look_up(&self.shared, &queue, &[sequence]).entries.pop();
        let reserved = seen.and_then(|seen| queue.lock().core.reserve(&queue, &seen, &mut work));
        self.shared.account(&mut work);
        let Some(reserved) = reserved else { return Err(self.why_not(&queue, sequence)) };
        let mut carrier = Carrier::new(self, &host, who);
        let id = self.next_id();
        let mut sent_to = None;
        let result = edit(&reserved.entry).and_then(|edited| {
            let Edited { to, facts, mut fields, body } = edited;
            let goal = match to {
                Some(to) => Goal::Destination(to),
                None => match carrier.origin(&reserved.entry.message) {
                    Ok(goal) => goal,
                    Err(_) if reserved.entry.death().is_none() => {
                        Goal::Destination(self.destination_of(&reserved.entry)?)
                    }
                    Err(refusal) => return Err(refusal),
                },
            };
            if let Some(name) = who.name() {
                fields.field(Tag::UserId, name.as_bytes());
            }
            let timestamp = match facts.timestamp {
                given if given == Timestamp::default() => work.now.wall,
                given => given,
            };
            sent_to = Some((goal.clone(), facts.persistent));
            let load = Load {
                token: Some(reserved.token),
                goal,
                facts: Facts { id, timestamp, ..facts },
                fields,
                original: None,
                body,
            };
            let mut results = carrier.carry(&[load], &mut work);
            results.pop().unwrap_or(Ok(None))
        });
        if result.is_err() {
            give_back(self, &queue, &[reserved.token], &mut work);
        }
        while finish(&self.shared, &mut work) {}
        let promise = result?;
        let logged = sent_to.is_some_and(|(goal, persistent)| match goal {
            // By now it exists.
            Goal::Destination(to) => persistent && host.find_queue(&to).is_none_or(|queue| queue.logs()),
            Goal::Backlog(queue, _) => persistent && queue.logs(),
        });
        Ok(Resent { id, logged, promise })
    }

    /// Where a message is, or was sent.
    fn destination_of(&self, entry: &MessageEntry) -> Result<Destination, Refusal> {
        let sent_to = entry.message.destination().map(|sent| sent.to_owned());
        entry.queue.clone().or(sent_to).ok_or_else(|| {
            Refusal::new(Code::UnknownDestination, "the message does not say where it goes: say it in \"to\"")
        })
    }
}
