//! The messages of a queue over HTTP: looking at them, moving, copying, deleting, and sending one again after an edit.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use sabir_broker::Broker;
use sabir_broker::manage::{Chosen, Deed, Edited, Errand, MessageEntry, MessageListing, Step, Tally, Text};
use sabir_json::{BodyForm, Draft, EnvelopeError, RenderOptions, View};
use sabir_model::access::Action;
use sabir_model::clock::Timestamp;
use sabir_model::command::TargetKey;
use sabir_model::delivery::Delivery;
use sabir_model::destination::{Destination, Kind, Targets};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::SubscriptionKey;
use sabir_model::message::{Body, Field, FieldsWriter, Tag};
use sabir_model::pattern::Pattern;
use sabir_model::selector::{Options, Selector};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::answer::{Ask, JsonBody, LIMIT_DEFAULT, LIMIT_MAX, aside, json, raw_json};
use crate::dead_letters;
use crate::problem::Problem;
use crate::promises::kept;
use crate::query::{Name, Names};
use crate::routes::Routes;

/// Bytes of a body that a list shows.
const BODY_SHOWN_MAX: usize = 4096;
/// Bytes of a page of messages after which it ends early.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Messages that one request may name.
const SEQUENCES_MAX: usize = 10_000;

/// The paths about messages that wait, dead letters among them.
#[must_use]
pub fn messages() -> Routes {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    let routes = Routes::new()
        .at("/v1/queues/{name}/messages", [(GET, get(list))])
        .at("/v1/queues/{name}/messages/move", [(POST, post(shift))])
        .at("/v1/queues/{name}/messages/copy", [(POST, post(copy))])
        .at("/v1/queues/{name}/messages/delete", [(POST, post(erase))])
        .at("/v1/queues/{name}/messages/{sequence}", [(GET, get(one)), (Method::DELETE, delete(erase_one))])
        .at("/v1/queues/{name}/messages/{sequence}/resend", [(POST, post(resend))]);
    dead_letters::add(routes)
}

/// The number of a message.
fn sequence(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| {
        let sentence = format!("there is no message {text:?}: messages go by numbers");
        Problem { field: Some("sequence".into()), ..Problem::new(Code::UnknownDelivery, sentence) }
    })
}

fn selector(text: &str) -> Result<Option<Selector>, Problem> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let parsed = Selector::parse_with(text, Options { convert_strings: true });
    parsed.map(Some).map_err(|refusal| Problem { field: Some("selector".into()), ..refusal.into() })
}

/// A message as management shows it.
fn render(entry: &MessageEntry, body: BodyForm, out: &mut Vec<u8>) {
    let state = if entry.unsettled { "unsettled" } else { "ready" };
    let head =
        format!("{{\"sequence\":{},\"state\":\"{state}\",\"attempts\":{},", entry.sequence, entry.attempts);
    out.extend_from_slice(head.as_bytes());
    let delivery = Delivery {
        message: &entry.message,
        subscription: SubscriptionKey(0),
        queue: entry.queue.as_ref(),
        token: None,
        attempt: entry.attempts + u32::from(entry.unsettled),
        redelivered: entry.redelivered,
        browsed: true,
        grant: None,
        sequence: None,
        progress: 0,
    };
    View::of(&delivery).members(&RenderOptions { body }, out);
    if let Some(death) = entry.death() {
        let death = json!({
            "cause": death.cause,
            "originalDestination": death.original_destination,
            "time": death.time.0,
            "deliveries": death.deliveries,
        });
        out.extend_from_slice(format!(",\"deadLetter\":{death}").as_bytes());
    }
    out.push(b'}');
}

async fn list(mut ask: Ask, Name(name): Name) -> Result<Response, Problem> {
    let limit = ask.params.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    let after = match ask.params.take("after").as_deref() {
        None | Some("") => 0,
        Some(text) => text.parse().map_err(|_| {
            Problem::invalid("after", "after must be the number of a message, as in \"next\"")
        })?,
    };
    let selector = selector(&ask.params.take("selector").unwrap_or_default())?;
    let text = Text::new(&ask.params.take("text").unwrap_or_default());
    ask.finish()?;
    ask.may_on_queue(Action::Browse, &name)?;
    let listing = MessageListing { after, limit: usize::try_from(limit).unwrap_or(1), selector, text };
    let out = aside(move || {
        let page = ask.broker.list_messages(&ask.vhost, &name, &listing)?;
        let mut out = b"{\"items\":[".to_vec();
        let mut next = page.next;
        let shown = page.items.iter().enumerate();
        for (at, entry) in shown {
            if at > 0 {
                out.push(b',');
            }
            render(entry, BodyForm::Head(BODY_SHOWN_MAX), &mut out);
            if out.len() > PAGE_BYTES_MAX && at + 1 < page.items.len() {
                next = Some(entry.sequence);
                break;
            }
        }
        let next = next.map(|next| next.to_string());
        out.extend_from_slice(
            format!("],\"next\":{},\"total\":{}}}", json!(next), json!(page.total)).as_bytes(),
        );
        Ok(out)
    });
    Ok(raw_json(StatusCode::OK, out.await?))
}

async fn one(mut ask: Ask, Names(name, number): Names) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_on_queue(Action::Browse, &name)?;
    let number = sequence(&number)?;
    let out = aside(move || {
        let entry = ask.broker.message(&ask.vhost, &name, number)?;
        let mut out = Vec::with_capacity(1024 + entry.message.memory());
        render(&entry, BodyForm::Head(usize::MAX), &mut out);
        Ok(out)
    });
    Ok(raw_json(StatusCode::OK, out.await?))
}

async fn erase_one(mut ask: Ask, Names(name, number): Names) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_on_queue(Action::Manage, &name)?;
    let number = sequence(&number)?;
    let broker = ask.broker.clone();
    let promise = aside(move || broker.delete_message(&ask.vhost, &name, number)).await?;
    kept(&ask.broker, promise).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Which messages something is to be done with, and what.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    to: Option<String>,
    sequences: Option<Vec<u64>>,
    selector: Option<String>,
    all: Option<bool>,
    max: Option<u64>,
    pub(crate) rate: Option<u32>,
}

impl Order {
    /// The messages it names, and how many of them at most.
    pub(crate) fn chosen(&mut self) -> Result<(Chosen, Option<u64>), Problem> {
        if self.max == Some(0) {
            return Err(Problem::invalid("max", "max must be at least 1"));
        }
        let chosen = match (self.sequences.take(), self.selector.take(), self.all) {
            (Some(sequences), None, None | Some(false)) => {
                if sequences.len() > SEQUENCES_MAX {
                    let sentence = format!("a request names at most {SEQUENCES_MAX} messages");
                    return Err(Problem::invalid("sequences", sentence));
                }
                Chosen::Sequences(sequences)
            }
            (None, Some(text), None | Some(false)) => match selector(&text)? {
                Some(selector) => Chosen::Matching(selector),
                None => {
                    return Err(Problem::invalid(
                        "selector",
                        "an empty selector chooses nothing: say \"all\"",
                    ));
                }
            },
            (None, None, Some(true)) => Chosen::All,
            _ => {
                let sentence = "say which messages: one of \"sequences\", \"selector\" and \"all\": true";
                return Err(Problem::invalid("sequences", sentence));
            }
        };
        Ok((chosen, self.max))
    }

    /// The one destination it names.
    fn target(&mut self) -> Result<Destination, Problem> {
        match self.to.take() {
            Some(to) => target(&to),
            None => Err(Problem::invalid("to", "say where they go: \"to\": \"queue://NAME\"")),
        }
    }

    /// Complains about what is of no use here.
    pub(crate) fn finish(&self, what: &str) -> Result<(), Problem> {
        let extra = [("to", self.to.is_some()), ("rate", self.rate.is_some())];
        match extra.into_iter().find(|(_, there)| *there) {
            Some((name, _)) => Err(Problem::invalid(name, format!("{what} knows no {name:?}"))),
            None => Ok(()),
        }
    }
}

fn target(text: &str) -> Result<Destination, Problem> {
    let of_to = |refusal: Refusal| Problem { field: Some("to".into()), ..refusal.into() };
    let pattern = Pattern::parse_qualified(text, Kind::Queue).map_err(of_to)?;
    pattern.as_literal().map(|destination| destination.to_owned()).ok_or_else(|| {
        Problem::invalid("to", format!("{pattern} is a pattern; messages go to a destination by name"))
    })
}

async fn shift(ask: Ask, Name(name): Name, body: JsonBody) -> Result<Response, Problem> {
    transfer(ask, name, &body, "moved", Deed::Move).await
}

async fn copy(ask: Ask, Name(name): Name, body: JsonBody) -> Result<Response, Problem> {
    transfer(ask, name, &body, "copied", Deed::Copy).await
}

async fn transfer(
    mut ask: Ask,
    name: String,
    body: &JsonBody,
    word: &str,
    deed: impl FnOnce(Destination) -> Deed,
) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_on_queue(Action::Manage, &name)?;
    let mut order: Order = body.parse()?;
    let to = order.target()?;
    let (chosen, max) = order.chosen()?;
    order.finish("moving or copying")?;
    ask.may(Action::Send, &to)?;
    let errand = begin(&ask, name, deed(to), chosen, max).await?;
    let tally = drive(&ask.broker, errand, word).await?;
    Ok(json(StatusCode::OK, &json!({ word: tally.done, "unsettled": tally.unsettled })))
}

async fn erase(mut ask: Ask, Name(name): Name, body: JsonBody) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_on_queue(Action::Manage, &name)?;
    let mut order: Order = body.parse()?;
    let (chosen, max) = order.chosen()?;
    order.finish("deleting")?;
    let errand = begin(&ask, name, Deed::Delete, chosen, max).await?;
    let tally = drive(&ask.broker, errand, "deleted").await?;
    Ok(json(StatusCode::OK, &json!({ "removed": tally.done, "unsettled": tally.unsettled })))
}

/// Finds what an errand is about.
pub(crate) async fn begin(
    ask: &Ask,
    name: String,
    deed: Deed,
    chosen: Chosen,
    max: Option<u64>,
) -> Result<Errand, Problem> {
    let (broker, vhost, principal) = (ask.broker.clone(), ask.vhost.clone(), ask.principal.clone());
    aside(move || broker.errand(&vhost, &name, &principal, deed, chosen, max)).await
}

/// Brings an errand to its end, and waits until that is durable. If who waits for it leaves, it ends with the batch.
pub(crate) async fn drive(broker: &Broker, mut errand: Errand, word: &str) -> Result<Tally, Problem> {
    loop {
        let worker = broker.clone();
        let (step, back) = aside(move || {
            let step = worker.step(&mut errand, usize::MAX);
            Ok((step, errand))
        })
        .await?;
        errand = back;
        match step {
            Step::More => {}
            Step::Done => {
                kept(broker, errand.tally.promise).await;
                return Ok(errand.tally);
            }
            Step::Blocked(refusal) => {
                kept(broker, errand.tally.promise).await;
                let done = errand.tally.done;
                let sentence = match done {
                    0 => refusal.sentence.into_owned(),
                    _ => format!("{}; {done} had been {word} before", refusal.sentence),
                };
                return Err(Problem::new(refusal.code, sentence));
            }
        }
    }
}

/// What is said of a message that is to be sent again.
struct Changes {
    to: Option<Destination>,
    /// The fields of the envelope that are given, null included.
    given: Vec<String>,
    envelope: Vec<u8>,
}

impl Changes {
    fn read(body: &JsonBody) -> Result<Self, Problem> {
        let mut members: BTreeMap<String, Box<RawValue>> = body.parse()?;
        let mut to = None;
        for name in ["to", "destination"] {
            let Some(value) = members.remove(name) else { continue };
            let text: Option<String> = serde_json::from_str(value.get())
                .map_err(|_| Problem::invalid(name, format!("{name} must be a destination")))?;
            if let Some(text) = text
                && to.replace(target(&text)?).is_some()
            {
                return Err(Problem::invalid(name, "\"to\" and \"destination\" say the same: give one"));
            }
        }
        let given = members.keys().cloned().collect();
        let envelope = serde_json::to_vec(&members)
            .map_err(|_| Problem::new(Code::InvalidBody, "the changes are no message"))?;
        Ok(Self { to, given, envelope })
    }

    fn draft(&self) -> Result<Draft<'_>, Problem> {
        Draft::parse(&self.envelope).map_err(problem_of)
    }

    fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|given| given == name)
    }

    /// The message with what is given in the place of what it had.
    fn apply(&self, entry: &MessageEntry, now: Timestamp) -> Result<Edited, EnvelopeError> {
        let draft = Draft::parse(&self.envelope)?;
        let targets = Targets::new();
        let mut fields = FieldsWriter::new();
        let publish = draft.publish(&targets, TargetKey { slot: 0, generation: 0 }, now, &mut fields)?;
        let mut edited = Edited::of(entry, |field| match field {
            Field::Property(..) => self.is_given("properties") || self.is_given("userProperties"),
            Field::Plain(tag, _) => name_of(*tag).is_some_and(|name| self.is_given(name)),
        });
        edited.fields.raw(publish.fields);
        edited.to = self.to.clone();
        let facts = publish.facts;
        if self.is_given("persistent") {
            edited.facts.persistent = facts.persistent;
        }
        if self.is_given("priority") {
            edited.facts.priority = facts.priority;
        }
        if self.is_given("ttl") || self.is_given("expiration") {
            edited.facts.expires = facts.expires;
        }
        if self.is_given("timestamp") {
            edited.facts.timestamp = facts.timestamp;
        }
        // What was a last value once is one again only if somebody says so.
        edited.facts.retain = facts.retain;
        if self.is_given("body") || self.is_given("bodyBase64") {
            edited.facts.body_kind = facts.body_kind;
            edited.body = Body::Shared(publish.body.octets().unwrap_or_default().to_vec().into());
        }
        Ok(edited)
    }
}

/// The name in the envelope of a field that can be edited.
fn name_of(tag: Tag) -> Option<&'static str> {
    match tag {
        Tag::ReplyTo | Tag::ReplyToText => Some("replyTo"),
        Tag::CorrelationText | Tag::CorrelationBytes => Some("correlationId"),
        Tag::Type => Some("type"),
        Tag::ContentType => Some("contentType"),
        Tag::ContentEncoding => Some("contentEncoding"),
        Tag::GroupId => Some("groupId"),
        Tag::GroupSequence => Some("groupSeq"),
        Tag::Destination
        | Tag::OriginalDestination
        | Tag::UserId
        | Tag::DeliveryTime
        | Tag::DedupId
        | Tag::TraceContext
        | Tag::SenderMessageId
        | Tag::AppId
        | Tag::TextProperty
        | Tag::Property => None,
    }
}

fn problem_of(error: EnvelopeError) -> Problem {
    let EnvelopeError { code, sentence, field, place } = error;
    Problem { field, place, ..Problem::new(code, sentence) }
}

async fn resend(mut ask: Ask, Names(name, number): Names, body: JsonBody) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_on_queue(Action::Manage, &name)?;
    let number = sequence(&number)?;
    let changes = Changes::read(&body)?;
    // What is wrong by itself is told with its place, before anything is touched.
    changes.draft()?;
    let broker = ask.broker.clone();
    let now = broker.now().wall;
    let sent = aside(move || {
        let edit = |entry: &MessageEntry| {
            changes.apply(entry, now).map_err(|error| Refusal::new(error.code, error.sentence))
        };
        broker.resend(&ask.vhost, &name, number, &ask.principal, edit)
    })
    .await?;
    kept(&ask.broker, sent.promise).await;
    // What is not to survive is promised nothing, though the end of the old one may be.
    let promise = sent.promise.filter(|_| sent.logged);
    let durability = match promise {
        Some(promise) if promise.synced => "fsync",
        Some(_) => "os",
        None => "memory",
    };
    let body = json!({
        "id": sent.id.to_string(),
        "position": promise.map(|promise| promise.position.0),
        "durability": durability,
    });
    Ok(json(StatusCode::CREATED, &body))
}
