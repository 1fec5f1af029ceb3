//! Subscriptions: how they begin and end, and how much of them may be on the way.

use sabir_model::chunks::Chunks;
use sabir_model::command::{Command, Subscribe};
use sabir_model::destination::Kind;
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::SubscriptionKey;
use sabir_model::pattern::Pattern;
use sabir_model::session::{EgressNote, Host};
use sabir_model::settlement::SettleMode;

use crate::address;
use crate::answers::say;
use crate::error::EnvelopeError;
use crate::execute::{Core, accepted, of_destination};
use crate::request::{Op, Request, invalid, missing, needed};
use crate::subscriptions::Active;
use crate::window::CREDIT_MAX;

impl Core {
    pub(crate) fn subscribe(
        &mut self,
        request: &Request<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), EnvelopeError> {
        let Request { draft, words, .. } = request;
        let id = needed(Op::Subscribe, "id", words.id.as_deref())?;
        let to = needed(Op::Subscribe, "destination", draft.destination.as_deref())?;
        let settle = match words.ack.as_deref() {
            None | Some("auto") => SettleMode::Auto,
            Some("client") => SettleMode::Cumulative,
            Some("individual") => SettleMode::Individual,
            Some(other) => {
                return Err(invalid("ack", format!("ack is auto, client or individual, not {other:?}")));
            }
        };
        let patterns = address::patterns(to).map_err(of_destination)?;
        let has = |kind| patterns.iter().any(|pattern: &Pattern| pattern.kind() == kind);
        let durable = words.durable.as_deref();
        if words.browse && has(Kind::Topic) {
            return Err(of_destination(Refusal::new(
                Code::InvalidDestination,
                "only a queue can be browsed",
            )));
        }
        if durable.is_some() && has(Kind::Queue) {
            let sentence = "only a topic can have a durable subscription; a queue keeps its messages anyway";
            return Err(of_destination(Refusal::new(Code::InvalidDestination, sentence)));
        }
        let prefetch = self.limits.prefetch;
        let usual = match (words.browse, durable) {
            (true, _) => prefetch.browser,
            (false, Some(_)) => prefetch.durable,
            (false, None) if has(Kind::Queue) => prefetch.queue,
            (false, None) => prefetch.topic,
        };
        if words.credit == Some(0) {
            // A subscription starts with something; it can be paused as soon as it is on.
            return Err(invalid("credit", "credit is at least 1 when a subscription starts".to_owned()));
        }
        let credit = words.credit.map_or(usual, granted);
        let key = self.subscriptions.reserve(id, self.limits.subscriptions_max)?;
        // Before the broker knows the subscription, for the first delivery may follow at once.
        host.note(EgressNote::Attach { key, label: id.as_bytes(), settle, options: 0 });
        let outcome = host.ask(Command::Subscribe(Subscribe {
            key,
            patterns: &patterns,
            settle,
            credit: Some(credit),
            selector: words.selector.as_deref().filter(|text| !text.trim().is_empty()),
            selector_converts_text: true,
            durable,
            browse: words.browse,
            no_local: words.no_local,
            priority: draft.priority.and_then(|priority| i8::try_from(priority).ok()).unwrap_or(0),
            must_exist: words.must_exist,
        }));
        let promise = accepted(outcome).inspect_err(|_| host.note(EgressNote::Detach(key)))?;
        self.subscriptions.insert(id, Active { key, browse: words.browse, durable: durable.is_some() });
        self.ok(request, promise, host, out, |answer| answer.number("credit", u64::from(credit)));
        Ok(())
    }

    /// Changes how many deliveries of a subscription may be unsettled at a time.
    pub(crate) fn credit(
        &mut self,
        request: &Request<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), EnvelopeError> {
        let id = needed(Op::Credit, "id", request.words.id.as_deref())?;
        let Some(credit) = request.words.credit else {
            return Err(missing(Op::Credit, "credit"));
        };
        let limit = granted(credit);
        let key = self.subscriptions.get(id).map(|active| active.key).ok_or_else(|| no_subscription(id))?;
        let promise = accepted(host.ask(Command::Credit { key, limit }))?;
        self.ok(request, promise, host, out, |answer| answer.number("credit", u64::from(limit)));
        Ok(())
    }

    pub(crate) fn unsubscribe(
        &mut self,
        request: &Request<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), EnvelopeError> {
        let words = &request.words;
        let promise = match (words.id.as_deref(), words.durable.as_deref()) {
            (Some(_), Some(_)) => {
                let sentence = "durable names one that is not active; to end one that is, use id and forget";
                return Err(invalid("durable", sentence.to_owned()));
            }
            (None, Some(name)) => accepted(host.ask(Command::ForgetDurable { name, client_id: None }))?,
            (id, None) => {
                let id = needed(Op::Unsubscribe, "id", id)?;
                let known = self.subscriptions.get(id).map(|active| active.durable);
                if words.forget && known == Some(false) {
                    let sentence = "only a durable subscription can be forgotten";
                    return Err(invalid("forget", sentence.to_owned()));
                }
                let Some(active) = self.subscriptions.remove(id) else {
                    return Err(no_subscription(id));
                };
                let Active { key, browse, .. } = active;
                // First the broker: acknowledgements that came before still find their window.
                let outcome = host.ask(Command::Unsubscribe { key, forget_durable: words.forget });
                host.note(EgressNote::Detach(key));
                // A browser that has seen everything is gone by itself.
                if browse { accepted(outcome).unwrap_or(None) } else { accepted(outcome)? }
            }
        };
        self.ok(request, promise, host, out, |_| {});
        Ok(())
    }

    /// The broker has ended a subscription.
    pub(crate) fn subscription_ended(
        &mut self,
        key: SubscriptionKey,
        refusal: &Refusal,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) {
        host.note(EgressNote::Detach(key));
        if self.reply_queue.as_ref().is_some_and(|(_, known)| *known == key) {
            // The next request makes another one.
            self.reply_queue = None;
        }
        let Some(id) = self.subscriptions.remove_key(key) else { return };
        say("closed", None, out, |answer| {
            answer.text("id", &id);
            answer.refusal(refusal);
        });
    }
}

/// The credit given to who asks for so much.
fn granted(credit: u64) -> u32 {
    u32::try_from(credit).unwrap_or(CREDIT_MAX).min(CREDIT_MAX)
}

fn no_subscription(id: &str) -> EnvelopeError {
    let sentence = format!("this connection has no subscription {id:?}");
    EnvelopeError { field: Some("id".into()), ..EnvelopeError::new(Code::UnknownSubscription, sentence) }
}
