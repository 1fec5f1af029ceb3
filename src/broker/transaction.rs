//! A local transaction: sends and settlements kept until commit, then carried out as one group of the log.

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashSet;
use sabir_model::clock::Timestamp;
use sabir_model::command::Publish;
use sabir_model::destination::Targets;
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::{ConnectionId, DeliveryToken, MessageId};
use sabir_model::message::{Body, Facts};
use sabir_model::settlement::Settlement;

use crate::publish::Incoming;

/// A send that waits for its commit.
#[derive(Debug)]
pub(crate) struct KeptSend {
    pub(crate) targets: Targets,
    facts: Facts,
    fields: Box<[u8]>,
    body: Bytes,
}

impl KeptSend {
    pub(crate) fn incoming<'a>(&'a self, stamp: &'a [u8], connection: ConnectionId) -> Incoming<'a> {
        Incoming {
            facts: self.facts,
            stamp,
            fields: &self.fields,
            body: Body::Shared(self.body.clone()),
            connection,
        }
    }
}

/// One open transaction of one connection.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) sends: Vec<KeptSend>,
    pub(crate) settlements: Vec<(DeliveryToken, Settlement)>,
    tokens: HashSet<DeliveryToken, RandomState>,
    bytes: usize,
}

impl Transaction {
    /// Notes a delivery as settled in this transaction; true if it was already.
    pub(crate) fn settles(&mut self, token: DeliveryToken) -> bool {
        !self.tokens.insert(token)
    }

    /// Keeps a send.
    pub(crate) fn keep(
        &mut self,
        publish: &Publish<'_>,
        id: MessageId,
        now: Timestamp,
        bytes_max: usize,
        items_max: usize,
    ) -> Result<(), Refusal> {
        let body = publish.body.as_slice();
        let bytes = self.bytes.saturating_add(publish.fields.len() + body.len());
        if bytes > bytes_max {
            let sentence = format!("a transaction may hold {bytes_max} bytes; this one would hold more");
            return Err(Refusal::new(Code::LimitReached, sentence));
        }
        if self.sends.len() + self.settlements.len() >= items_max {
            let sentence = format!("a transaction may hold {items_max} sends and acknowledgements");
            return Err(Refusal::new(Code::LimitReached, sentence));
        }
        self.bytes = bytes;
        let mut facts = publish.facts;
        facts.id = id;
        if facts.timestamp == Timestamp::default() {
            facts.timestamp = now;
        }
        self.sends.push(KeptSend {
            targets: publish.targets.clone(),
            facts,
            fields: publish.fields.into(),
            body: match &publish.body {
                Body::Shared(bytes) => bytes.clone(),
                Body::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            },
        });
        Ok(())
    }
}
