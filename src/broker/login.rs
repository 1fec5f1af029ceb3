//! Letting a connection in: the proof of who it is, on threads of its own; then permission, virtual host, client id and,
//! where it asks for one, its client session.

use std::sync::Arc;

use bytes::Bytes;
use sabir_model::access::{Action, Attempt, Exchange, Principal, Resource, Step};
use sabir_model::command::{Open, Outcome, Will};
use sabir_model::destination::Targets;
use sabir_model::error::{Code, Refusal};
use sabir_model::event::{Event, Opened};
use sabir_model::message::{Facts, FieldsWriter, Tag};

use crate::connection::Connection;
use crate::mailbox::{Mailbox, Owner};
use crate::stats::add;
use crate::will::OwnedWill;

/// What a login in progress has asked for.
pub(crate) struct Opening {
    client_id: Option<Arc<str>>,
    virtual_host: Option<Box<str>>,
    session: Option<Terms>,
    /// The exchange, where the proof takes several steps.
    exchange: Option<Box<dyn Exchange>>,
}

/// What it has asked of its client session.
pub(crate) struct Terms {
    pub(crate) clean_start: bool,
    pub(crate) lasts_ms: u64,
    pub(crate) credit: u32,
    will: Option<KeptWill>,
}

struct KeptWill {
    targets: Targets,
    facts: Facts,
    fields: Box<[u8]>,
    body: Bytes,
    delay_ms: u64,
}

impl Terms {
    /// The will, checked for whom it belongs to.
    pub(crate) fn take_will(
        &mut self,
        shared: &crate::broker::Shared,
        who: &Principal,
    ) -> Result<Option<OwnedWill>, Refusal> {
        let Some(kept) = self.will.take() else { return Ok(None) };
        let will = Will {
            targets: &kept.targets,
            facts: kept.facts,
            fields: &kept.fields,
            body: &kept.body,
            delay_ms: kept.delay_ms,
        };
        OwnedWill::new(shared, who, &will).map(Some)
    }
}

impl Connection {
    /// Goes on where the proof has come to.
    pub(crate) fn logged_in(&mut self, result: Result<Step, Refusal>) -> Event {
        let result = match result {
            Ok(Step::Challenge { data, next }) => {
                if let Some(opening) = self.aside.get_mut().and_then(|aside| aside.opening.as_mut()) {
                    opening.exchange = Some(next);
                }
                return Event::Challenge(data);
            }
            Ok(Step::Done { principal, data }) => Ok((principal, data)),
            Err(refusal) => Err(refusal),
        };
        match self.opened(result) {
            Ok(opened) => Event::Opened(opened),
            Err(refusal) => Event::OpenRefused(refusal),
        }
    }

    fn opened(&mut self, result: Result<(Principal, Vec<u8>), Refusal>) -> Result<Opened, Refusal> {
        let opening = self.aside.get_mut().and_then(|aside| aside.opening.take());
        let (principal, data) =
            result.inspect_err(|_: &Refusal| add(&self.shared.counters.logins_failed, 1))?;
        self.admit(principal)?;
        let Some(opening) = opening else {
            return Ok(Opened { resumed: false, data });
        };
        let Opening { client_id, virtual_host, session, .. } = *opening;
        if let Some(name) = virtual_host.as_deref() {
            self.host = self.shared.host_named(name);
        }
        let resumed = match (client_id, session) {
            (Some(client_id), Some(terms)) => self.enter_session(&client_id, terms)?,
            (Some(client_id), None) => {
                let mut known = self.host.client_ids.lock();
                if known.contains_key(&client_id) {
                    let sentence = format!("the client id \"{client_id}\" is in use by another connection");
                    return Err(Refusal::new(Code::ClientIdInUse, sentence));
                }
                known.insert(client_id.clone(), self.id);
                drop(known);
                self.client_id = Some(client_id);
                false
            }
            (None, Some(_)) => {
                return Err(Refusal::new(Code::InvalidClientId, "a client session needs a client id"));
            }
            (None, None) => false,
        };
        self.tell_owner();
        tracing::debug!(
            connection = self.id.0,
            peer = %self.mailbox.info.peer,
            listener = self.mailbox.info.listener,
            user = %self.principal,
            "connection opened"
        );
        Ok(Opened { resumed, data })
    }

    /// Takes somebody's word for who the client is: it is let in as this principal if it names no login of its own.
    pub fn vouch(&mut self, principal: Principal) {
        self.aside.make().vouched = Some(principal);
    }

    /// Lets others know whose the connection is.
    pub(crate) fn tell_owner(&self) {
        *self.mailbox.owner.lock() = Owner {
            principal: self.principal.clone(),
            host: Arc::clone(&self.host),
            client_id: self.client_id.clone(),
        };
    }

    /// Lets somebody in who has proved who they are.
    pub(crate) fn admit(&mut self, principal: Principal) -> Result<(), Refusal> {
        let failed = |_: &Refusal| add(&self.shared.counters.logins_failed, 1);
        self.shared.check(&principal, Action::Connect, Resource::Server).inspect_err(failed)?;
        let mut fields = FieldsWriter::new();
        if let Some(name) = principal.name() {
            fields.field(Tag::UserId, name.as_bytes());
        }
        self.stamp = fields.as_slice().into();
        self.principal = principal;
        Ok(())
    }

    pub(crate) fn open(&mut self, open: Open<'_>) -> Outcome {
        let remote = self.mailbox.info.remote();
        self.aside.make().opening = Some(Box::new(Opening {
            client_id: open.client_id.filter(|id| !id.is_empty()).map(Into::into),
            virtual_host: open.virtual_host.map(Into::into),
            session: open.session.map(|terms| Terms {
                clean_start: terms.clean_start,
                lasts_ms: terms.lasts_ms,
                credit: terms.credit.max(1),
                will: terms.will.map(|will| KeptWill {
                    targets: will.targets.clone(),
                    facts: will.facts,
                    fields: will.fields.into(),
                    body: Bytes::copy_from_slice(will.body),
                    delay_ms: will.delay_ms,
                }),
            }),
            exchange: None,
        }));
        let shared = Arc::clone(&self.shared);
        if let Some((mechanism, initial)) = open.mechanism {
            if !shared.authenticator.mechanisms().contains(&mechanism) {
                self.aside.make().opening = None;
                let known = shared.authenticator.mechanisms().join(", ");
                let offered =
                    if known.is_empty() { "offers none".to_owned() } else { format!("offers {known}") };
                return Outcome::Refused(Refusal::new(
                    Code::UnsupportedMechanism,
                    format!("the broker does not know the mechanism of authentication; it {offered}"),
                ));
            }
            let (mechanism, initial): (Box<str>, Box<[u8]>) = (mechanism.into(), initial.into());
            return self.prove(move || shared.authenticator.begin(&mechanism, &initial, remote));
        }
        if open.login.is_none()
            && open.passcode.is_none()
            && let Some(principal) = self.aside.get().and_then(|aside| aside.vouched.clone())
        {
            self.mailbox.tell_login(Ok(Step::Done { principal, data: Vec::new() }));
            return Outcome::Later;
        }
        let login: Option<Box<str>> = open.login.map(Into::into);
        let passcode: Option<Box<[u8]>> = open.passcode.map(Into::into);
        self.prove(move || {
            let attempt = Attempt::new(login.as_deref(), passcode.as_deref(), remote);
            let principal = shared.authenticator.authenticate(&attempt)?;
            Ok(Step::Done { principal, data: Vec::new() })
        })
    }

    /// Takes the client's next word of an exchange.
    pub(crate) fn respond(&mut self, response: &[u8]) -> Outcome {
        let opening = self.aside.get_mut().and_then(|aside| aside.opening.as_mut());
        let exchange = opening.and_then(|opening| opening.exchange.take());
        let Some(exchange) = exchange else {
            return Outcome::Refused(Refusal::new(Code::UnexpectedFrame, "nothing was asked"));
        };
        let response: Box<[u8]> = response.into();
        self.prove(move || Exchange::step(exchange, &response))
    }

    /// Does what takes long elsewhere; the result comes through the mailbox.
    fn prove(&mut self, work: impl FnOnce() -> Result<Step, Refusal> + Send + 'static) -> Outcome {
        let mailbox: Arc<Mailbox> = Arc::clone(&self.mailbox);
        let job: Box<dyn FnOnce() + Send> = Box::new(move || mailbox.tell_login(work()));
        let accepted = match &self.shared.pool {
            Some(pool) => pool.submit(job),
            None => {
                job();
                true
            }
        };
        if accepted {
            return Outcome::Later;
        }
        self.aside.make().opening = None;
        Outcome::Refused(Refusal::new(Code::LimitReached, "too many logins wait to be checked; try again"))
    }
}
