//! Letting a connection in: the password check on threads of its own, then permission, virtual host and client id.

use std::sync::Arc;

use sabir_model::access::{Action, Attempt, Principal, Resource};
use sabir_model::command::{Open, Outcome};
use sabir_model::error::{Code, Refusal};
use sabir_model::message::{FieldsWriter, Tag};

use crate::connection::Connection;
use crate::stats::add;

/// What a login in progress has asked for.
pub(crate) struct Opening {
    pub(crate) client_id: Option<Box<str>>,
    pub(crate) virtual_host: Option<Box<str>>,
}

impl Connection {
    pub(crate) fn opened(&mut self, result: Result<Principal, Refusal>) -> Result<(), Refusal> {
        let opening = self.opening.take();
        let principal = result.inspect_err(|_| add(&self.shared.counters.logins_failed, 1))?;
        self.shared
            .check(&principal, Action::Connect, Resource::Server)
            .inspect_err(|_| add(&self.shared.counters.logins_failed, 1))?;
        if let Some(name) = opening.as_ref().and_then(|opening| opening.virtual_host.as_deref()) {
            self.host = self.shared.host_named(name);
        }
        if let Some(client_id) = opening.and_then(|opening| opening.client_id) {
            let mut known = self.host.client_ids.lock();
            if known.contains_key(&client_id) {
                let sentence = format!("the client id \"{client_id}\" is in use by another connection");
                return Err(Refusal::new(Code::ClientIdInUse, sentence));
            }
            known.insert(client_id.clone(), self.id);
            drop(known);
            self.client_id = Some(client_id);
        }
        let mut fields = FieldsWriter::new();
        if let Some(name) = principal.name() {
            fields.field(Tag::UserId, name.as_bytes());
        }
        self.stamp = fields.as_slice().to_vec();
        self.principal = principal;
        tracing::debug!(
            connection = self.id.0,
            peer = %self.info.peer,
            listener = self.info.listener,
            user = %self.principal,
            "connection opened"
        );
        Ok(())
    }

    pub(crate) fn open(&mut self, open: Open<'_>) -> Outcome {
        let remote = self.info.remote();
        let login: Option<Box<str>> = open.login.map(Into::into);
        let passcode: Option<Box<[u8]>> = open.passcode.map(Into::into);
        self.opening = Some(Opening {
            client_id: open.client_id.filter(|id| !id.is_empty()).map(Into::into),
            virtual_host: open.virtual_host.map(Into::into),
        });
        let (shared, mailbox) = (Arc::clone(&self.shared), Arc::clone(&self.mailbox));
        let check = Box::new(move || {
            let attempt = Attempt::new(login.as_deref(), passcode.as_deref(), remote);
            let result = shared.authenticator.authenticate(&attempt);
            *mailbox.login.lock() = Some(result);
            mailbox.outbox.wake_owner();
        });
        let accepted = match &self.shared.pool {
            Some(pool) => pool.submit(check),
            None => {
                check();
                true
            }
        };
        if accepted {
            Outcome::Later
        } else {
            self.opening = None;
            Outcome::Refused(Refusal::new(
                Code::LimitReached,
                "too many logins wait to be checked; try again",
            ))
        }
    }
}
