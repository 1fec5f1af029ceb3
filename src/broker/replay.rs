//! A connection's side of its client session: taking it over, subscriptions, numbers that may be repeated, and the last
//! values that new subscriptions are owed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use sabir_model::access::{Action, Resource};
use sabir_model::command::{Bind, Outcome, Promise, Publish, Replay};
use sabir_model::delivery::{Delivery, Grant, Guarantee};
use sabir_model::destination::Kind;
use sabir_model::error::{Code, Refusal};
use sabir_model::event::Event;
use sabir_model::message::Message;
use sabir_model::pattern::Pattern;
use sabir_store::Level;

use crate::bindings::Terms;
use crate::client_session::{ClientSession, Ending, Entering, SESSION_KEY, State};
use crate::connection::Connection;
use crate::login;
use crate::publish::{Failure, begin, log_received, put};
use crate::ready::Entry;
use crate::recovery::{MARK_CLEAN, TABLE_COUNTERS};
use crate::session_log::{TABLE_RECEIVED, received_key};
use crate::session_subscribe::{Bound, Wanted};
use crate::will::{OwnedWill, send_will};
use crate::work::promise;

/// Last values looked up at a time.
const LOOKED_UP_MAX: usize = 64;
/// Last values sent before others have their turn.
const SENT_MAX: usize = 256;
/// Messages in a backlog above which last values wait.
const BACKLOG_MAX: u64 = 1024;

/// Last values that a new subscription is owed.
#[derive(Debug)]
pub(crate) struct Replaying {
    pattern: Pattern,
    pub(crate) grant: Arc<Grant>,
    /// The last topic done with.
    after: Option<Box<str>>,
}

impl Connection {
    /// Takes over the session of this client id, or begins one. Tells whether there was one to go on with.
    pub(crate) fn enter_session(
        &mut self,
        client_id: &Arc<str>,
        mut terms: login::Terms,
    ) -> Result<bool, Refusal> {
        let will = terms.take_will(&self.shared, &self.principal)?;
        let (shared, host) = (Arc::clone(&self.shared), Arc::clone(&self.host));
        let mut wills: Vec<OwnedWill> = Vec::new();
        let lasting = host.sessions.lock().get(client_id).is_some_and(|known| known.lasting);
        let entered = self.enter_or_begin(client_id, &terms, will, &mut wills);
        for will in &wills {
            send_will(&shared, &host, will, self.work.get());
        }
        let (session, resumed) = entered?;
        if lasting || session.lasting {
            // What the client is told from now on follows from what an earlier connection has changed, and from the end of
            // an earlier session: no crash may undo that. The mark is not there anyway; it gives the log a place to name.
            let mut group = shared.store.begin();
            group.remove(TABLE_COUNTERS, MARK_CLEAN);
            self.aside.make().opens_at = Some(promise(group.finish(Level::Fsync), Level::Fsync));
        }
        self.client_id = Some(Arc::clone(client_id));
        self.session = Some(session);
        self.grants_session = true;
        self.gated = true;
        self.outbox.gate();
        Ok(resumed)
    }

    /// Becomes the connection of the session, whoever else tries. Wills that this makes due go to `wills`.
    fn enter_or_begin(
        &mut self,
        client_id: &Arc<str>,
        terms: &login::Terms,
        will: Option<OwnedWill>,
        wills: &mut Vec<OwnedWill>,
    ) -> Result<(Arc<ClientSession>, bool), Refusal> {
        let (shared, host) = (Arc::clone(&self.shared), Arc::clone(&self.host));
        let now = self.work.get().now.wall;
        loop {
            let known = host.sessions.lock().get(client_id).map(Arc::clone);
            if let Some(known) = &known {
                if known.owner.as_deref() != self.principal.name() {
                    let sentence = format!("the session of \"{client_id}\" belongs to another user");
                    return Err(Refusal::new(Code::AccessDenied, sentence));
                }
                let left = known.leave(&shared, &host, None, self.work.get());
                wills.extend(left.will);
                if let Some(other) = left.was_on {
                    let mailbox = shared.connections.lock().get(&other).map(Arc::clone);
                    if let Some(mailbox) = mailbox {
                        mailbox.post(Event::Closing(Refusal::new(
                            Code::TakenOver,
                            "another connection with the same client id has taken over",
                        )));
                    }
                }
                if terms.clean_start || left.ends {
                    match known.end(&shared, &host, self.work.get()) {
                        Ending::Ended(will) => wills.extend(will),
                        // Somebody else was quicker.
                        Ending::Connected => continue,
                    }
                }
            }
            let (session, resumed) = {
                let mut sessions = host.sessions.lock();
                match (sessions.get(client_id), &known) {
                    (Some(session), Some(known)) if Arc::ptr_eq(session, known) => {
                        (Arc::clone(session), true)
                    }
                    // Somebody else was quicker.
                    (Some(_), _) => continue,
                    (None, _) => {
                        let owner = self.principal.name().map(Into::into);
                        let new =
                            ClientSession::new(Arc::clone(client_id), owner, terms.lasts_ms, terms.credit);
                        sessions.insert(Arc::clone(&new));
                        (new, false)
                    }
                }
            };
            let (lasts_ms, credit) = (terms.lasts_ms, terms.credit);
            let entering = Entering { now, lasts_ms, credit, will: will.clone() };
            if session.enter(&shared, &host, &self.outbox, entering) {
                return Ok((session, resumed));
            }
        }
    }

    fn session(&self) -> Result<Arc<ClientSession>, Refusal> {
        let session = self.session.as_ref().map(Arc::clone);
        session.ok_or_else(|| Refusal::new(Code::UnexpectedFrame, "the connection has no client session"))
    }

    /// The state of the session. A queue that is still held since the last send does not wait for it.
    fn state_of<'a>(&mut self, session: &'a ClientSession) -> MutexGuard<'a, State> {
        if let Some(state) = session.try_state() {
            return state;
        }
        self.release();
        session.state()
    }

    /// Changes what the session does when this connection ends, unless another one has taken it over.
    pub(crate) fn change_session(&mut self, change: impl FnOnce(&mut State)) {
        let Some(session) = self.session.as_ref().map(Arc::clone) else { return };
        let mut state = self.state_of(&session);
        if state.connection == Some(self.id) {
            change(&mut state);
        }
    }

    /// Leaves the session to whoever comes next.
    pub(crate) fn leave_session(&mut self) {
        let Some(session) = self.session.take() else { return };
        let (shared, host) = (Arc::clone(&self.shared), Arc::clone(&self.host));
        let left = session.leave(&shared, &host, Some(self.id), self.work.get());
        let mut wills: Vec<OwnedWill> = left.will.into_iter().collect();
        if left.ends
            && let Ending::Ended(will) = session.end(&shared, &host, self.work.get())
        {
            wills.extend(will);
        }
        for will in &wills {
            send_will(&shared, &host, will, self.work.get());
        }
    }

    pub(crate) fn bind(&mut self, bind: &Bind<'_>) -> Result<Option<Promise>, Refusal> {
        let session = self.session()?;
        let (shared, host) = (Arc::clone(&self.shared), Arc::clone(&self.host));
        let resource = match bind.pattern.as_literal() {
            Some(destination) => Resource::Destination(destination.as_ref()),
            None => Resource::Pattern(bind.pattern),
        };
        shared.check(&self.principal, Action::Consume, resource)?;
        if let (Kind::Queue, Some(destination)) = (bind.pattern.kind(), bind.pattern.as_literal())
            && host.find_queue(destination).is_none()
        {
            shared.check(&self.principal, Action::Create, resource)?;
        }
        let most = shared.limits.session_subscriptions_max;
        if session.bound.load(Ordering::Acquire) as usize >= most {
            let state = session.state();
            let known = state.bindings.contains(&host.topics.read(), bind.pattern, bind.group);
            drop(state);
            if !known {
                let sentence = format!("a client session may have {most} subscriptions");
                return Err(Refusal::new(Code::LimitReached, sentence));
            }
        }
        let direct = bind.pattern.kind() == Kind::Topic && bind.group.is_none();
        let guarantee = if direct { bind.guarantee } else { bind.guarantee.min(Guarantee::AtLeastOnce) };
        let terms = Terms {
            identifier: bind.identifier,
            guarantee,
            no_local: bind.no_local && direct,
            keep_retain: bind.keep_retain,
            order: 0,
        };
        // A live message published from now on must not overtake the replies of this very batch.
        self.gated = true;
        self.outbox.gate();
        let wanted = Wanted { pattern: bind.pattern, group: bind.group, terms };
        let Bound { new, consumes, promise } = session.bind(&shared, &host, Some(self.id), &wanted)?;
        self.grants_session |= consumes;
        let replay = match bind.replay {
            Replay::Always => true,
            Replay::IfNew => new,
            Replay::Never => false,
        };
        if replay && direct {
            self.release();
            host.values_are_kept();
            let grant = Grant { retained: true, ..terms.grant() };
            // A repeated subscription starts again.
            let mut owed = session.owed.lock();
            let owed = owed.make();
            owed.retain(|other| other.pattern != *bind.pattern);
            owed.push_back(Replaying { pattern: bind.pattern.clone(), grant: Arc::new(grant), after: None });
        }
        Ok(promise)
    }

    pub(crate) fn unbind(
        &mut self,
        pattern: &Pattern,
        share: Option<&str>,
    ) -> Result<Option<Promise>, Refusal> {
        let session = self.session()?;
        let (shared, host) = (Arc::clone(&self.shared), Arc::clone(&self.host));
        let ended = session.unbind(&shared, &host, self.id, (pattern, share), self.work.get())?;
        if share.is_none() {
            session.still_owe(|other| other.pattern != *pattern);
        }
        Ok(ended)
    }

    /// Sends a message that the client may repeat: a repetition is not sent again.
    pub(crate) fn send_once(
        &mut self,
        publish: &Publish<'_>,
        number: u16,
    ) -> Result<Option<Promise>, Refusal> {
        let session = self.session()?;
        let key = session.lasting.then(|| received_key(&self.host, &session.client_id, number));
        // Held until it is sent: whoever takes over finds the number and the message, or neither.
        let mut state = self.state_of(&session);
        state.check_in_charge(Some(self.id))?;
        if !state.received.insert(number) {
            // What it repeats may not be on disk yet: then this is not before it.
            return Ok(key.map(|key| log_received(&self.shared, &key)));
        }
        let result = self.send(publish, key.as_deref());
        if result.is_err() {
            state.received.remove(number);
        }
        result
    }

    /// Frees a number of [`Connection::send_once`].
    pub(crate) fn forget(&mut self, number: u16) -> Outcome {
        let session = match self.session() {
            Ok(session) => session,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let mut state = self.state_of(&session);
        if state.check_in_charge(Some(self.id)).is_err() || !state.received.remove(number) {
            return Outcome::Refused(Refusal::new(Code::UnknownDelivery, "no message goes by that number"));
        }
        if !session.lasting {
            return Outcome::Accepted(None);
        }
        // Before the client may use the number for another message, the log must have forgotten this one.
        let mut group = self.shared.store.begin();
        group.remove(TABLE_RECEIVED, &received_key(&self.host, &session.client_id, number));
        Outcome::Accepted(Some(promise(group.finish(Level::Fsync), Level::Fsync)))
    }

    /// Sends last values that are owed, as many as there is room for. The rest is owed to whoever is connected then. False
    /// if nothing is owed.
    pub(crate) fn replay(&mut self) -> bool {
        let owing = self.session.as_ref().filter(|session| session.owed.lock().get().is_some());
        let Some(session) = owing.map(Arc::clone) else { return false };
        let mut all = session.owed.lock();
        let Some(replays) = all.get_mut() else { return false };
        if replays.is_empty() || !session.is_on(self.id) {
            return false;
        }
        let mut sent = 0;
        while let Some(mut owed) = replays.pop_front() {
            let matches =
                self.host.retained.lock().next_matches(&owed.pattern, owed.after.as_deref(), LOOKED_UP_MAX);
            let last = matches.len() < LOOKED_UP_MAX;
            let mut stopped = false;
            for (topic, message) in matches {
                sent += 1;
                if sent > SENT_MAX {
                    self.outbox.wake_owner();
                    stopped = true;
                    break;
                }
                if !self.replay_one(&session, &message, &owed.grant) {
                    stopped = true;
                    break;
                }
                owed.after = Some(topic);
            }
            if stopped || !last {
                replays.push_front(owed);
            }
            if stopped {
                return true;
            }
        }
        all.clear();
        true
    }

    /// Sends one last value. False if there is no room now.
    fn replay_one(&mut self, session: &ClientSession, message: &Message, grant: &Arc<Grant>) -> bool {
        let now = self.work.get().now;
        if message.facts().expires.has_passed(now.wall) {
            return true;
        }
        let backlog = session.backlog().map(Arc::clone);
        let guarantee = message.facts().guarantee().min(grant.guarantee);
        let Some(queue) = backlog.filter(|_| guarantee > Guarantee::AtMostOnce) else {
            let delivery = Delivery {
                message,
                subscription: SESSION_KEY,
                queue: None,
                token: None,
                attempt: 1,
                redelivered: false,
                browsed: false,
                grant: Some(grant),
                sequence: None,
                progress: 0,
            };
            let taken = self.outbox.deliver_if_room(now, &delivery, &self.shared.counters);
            self.work.get().enlist(&self.outbox);
            return taken;
        };
        let mut held = queue.lock();
        if queue.deleted.load(Ordering::Acquire) {
            // A connection with a clean start has ended the session.
            return false;
        }
        let (messages_max, bytes_max) = (queue.policy.messages_max / 2, queue.policy.bytes_max / 2);
        let waiting = held.core.ready.len();
        if waiting >= BACKLOG_MAX || waiting > messages_max || held.core.bytes() > bytes_max {
            // Acknowledgements make room, and their batch comes by here. Before there is anything to acknowledge, what is
            // in the way must be written.
            if held.core.in_flight.len() == 0 && !self.outbox.is_idle() {
                self.outbox.resume_owner_when_written();
                self.work.get().enlist(&self.outbox);
            }
            return false;
        }
        if !held.core.make_room(&queue, self.work.get()) {
            return true;
        }
        let mut logged = message.facts().persistent && queue.logs();
        let sequence = held.core.take_sequence();
        if logged {
            match begin(&self.shared, message.memory() as u64) {
                Ok(mut group) => {
                    put(&mut group, message, &[(queue.id, sequence)]);
                    group.finish(Level::Os);
                }
                // No room on the disk: it is delivered all the same.
                Err(Failure::Refused(_) | Failure::Stale) => logged = false,
            }
        }
        let entry = Entry { grant: Some(Arc::clone(grant)), ..Entry::new(message.clone(), logged) };
        held.core.enqueue(&queue, sequence, entry, self.work.get());
        held.core.dispatch(&queue, self.work.get());
        true
    }
}
