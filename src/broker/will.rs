//! Wills: messages sent on behalf of clients that have vanished.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use sabir_model::access::{Action, Principal, Remote, Resource};
use sabir_model::clock::Timestamp;
use sabir_model::command::Will;
use sabir_model::destination::{Destination, Targets};
use sabir_model::error::Refusal;
use sabir_model::ids::{ConnectionId, MessageId};
use sabir_model::message::{Body, Facts, FieldsWriter, Tag};
use sabir_model::varint::{self, read_block, write_block};

use crate::broker::Shared;
use crate::publish::{Failure, Incoming, execute, plan};
use crate::registry::VirtualHost;
use crate::route::resolve;
use crate::work::Work;

/// A will, kept until it is sent or not. Behind a pointer, for most sessions have none.
#[derive(Clone, Debug)]
pub(crate) struct OwnedWill(Box<Words>);

#[derive(Clone, Debug)]
struct Words {
    targets: Targets,
    /// `expires` counts from the sending.
    facts: Facts,
    fields: Box<[u8]>,
    body: Bytes,
    delay_ms: u64,
    principal: Principal,
}

impl OwnedWill {
    /// Checks that `who` may send it.
    pub(crate) fn new(shared: &Shared, who: &Principal, will: &Will<'_>) -> Result<Self, Refusal> {
        for target in will.targets {
            shared.check(who, Action::Send, Resource::Destination(target.as_ref()))?;
        }
        Ok(Self(Box::new(Words {
            targets: will.targets.clone(),
            facts: will.facts,
            fields: will.fields.into(),
            body: Bytes::copy_from_slice(will.body),
            delay_ms: will.delay_ms,
            principal: who.clone(),
        })))
    }

    /// Milliseconds between the end of the connection and the sending.
    pub(crate) fn delay_ms(&self) -> u64 {
        self.0.delay_ms
    }

    /// The stored form.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.delay_ms.to_le_bytes());
        out.extend_from_slice(&self.0.facts.encode());
        write_block(out, self.0.principal.name().unwrap_or_default().as_bytes());
        varint::write(out, self.0.targets.len() as u64);
        for target in &self.0.targets {
            let mut stored = Vec::new();
            target.encode(&mut stored);
            write_block(out, &stored);
        }
        write_block(out, &self.0.fields);
        write_block(out, &self.0.body);
    }

    /// Reads the stored form; `None` if it is not one.
    pub(crate) fn decode(input: &[u8]) -> Option<Self> {
        let (delay, rest) = input.split_first_chunk::<8>()?;
        let (facts, mut rest) = Facts::decode(rest)?;
        let name = std::str::from_utf8(read_block(&mut rest)?).ok()?;
        let principal = match name {
            "" => Principal::anonymous(Remote::Local),
            name => Principal::user(name, Remote::Local),
        };
        let (count, used) = varint::read(rest)?;
        rest = rest.get(used..)?;
        let mut targets = Targets::new();
        for _ in 0..count {
            targets.push(Destination::decode(read_block(&mut rest)?)?);
        }
        let fields = read_block(&mut rest)?.into();
        let body = Bytes::copy_from_slice(read_block(&mut rest)?);
        let delay_ms = u64::from_le_bytes(*delay);
        Some(Self(Box::new(Words { targets, facts, fields, body, delay_ms, principal })))
    }
}

/// Sends a will. What refuses it, refuses it in silence: there is nobody to tell.
pub(crate) fn send_will(shared: &Shared, host: &VirtualHost, OwnedWill(will): &OwnedWill, work: &mut Work) {
    let mut fields = FieldsWriter::new();
    if let Some(name) = will.principal.name() {
        fields.field(Tag::UserId, name.as_bytes());
    }
    let mut facts = will.facts;
    if facts.expires != Timestamp::NEVER {
        facts.expires = Timestamp(work.now.wall.0.saturating_add(facts.expires.0));
    }
    let sent = Sent {
        targets: &will.targets,
        facts,
        stamp: fields.as_slice(),
        fields: &will.fields,
        body: Body::Shared(will.body.clone()),
        keeps_in_log: true,
    };
    if let Err(refusal) = send_for_nobody(shared, host, Some(&will.principal), &sent, work) {
        tracing::info!(user = %will.principal, %refusal, "a will was not sent");
    }
}

/// A message that no connection sends.
pub(crate) struct Sent<'a> {
    pub(crate) targets: &'a Targets,
    pub(crate) facts: Facts,
    pub(crate) stamp: &'a [u8],
    pub(crate) fields: &'a [u8],
    pub(crate) body: Body<'a>,
    /// Whether a last value goes to the log.
    pub(crate) keeps_in_log: bool,
}

/// Sends a message in the name of `who`, or (`None`) of the broker itself, which may do anything.
pub(crate) fn send_for_nobody(
    shared: &Shared,
    host: &VirtualHost,
    who: Option<&Principal>,
    sent: &Sent<'_>,
    work: &mut Work,
) -> Result<(), Refusal> {
    let number = shared.next_message.fetch_add(1, Ordering::Relaxed);
    let facts = Facts {
        id: MessageId { origin: u64::from(shared.boot) << 32, number },
        timestamp: work.now.wall,
        ..sent.facts
    };
    let _keeping = facts.retain.then(|| host.keep_value());
    for _ in 0..4 {
        let route = Arc::new(resolve(shared, host, who, sent.targets)?);
        let incoming = Incoming {
            facts,
            stamp: sent.stamp,
            fields: sent.fields,
            body: sent.body.clone(),
            connection: ConnectionId(0),
            once: None,
            keeps_in_log: sent.keeps_in_log,
        };
        let mut planned = Vec::new();
        plan(&route, &incoming, work, &mut planned);
        match execute(shared, host, &planned, &[], &incoming.context(), work) {
            Ok(_) => return Ok(()),
            Err(Failure::Refused(refusal)) => return Err(refusal),
            Err(Failure::Stale) => {}
        }
    }
    Ok(())
}
