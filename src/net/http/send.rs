//! Sending: one message or many, as JSON, as CloudEvents or raw, and a request that waits for its reply.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use sabir_admin::Problem;
use sabir_broker::{BodyWriter, Connection};
use sabir_http::incoming::{self, Form, Incoming};
use sabir_json::{Draft, RenderOptions, View};
use sabir_model::clock::Timestamp;
use sabir_model::command::{Outcome, Promise, Publish};
use sabir_model::destination::{Kind, Targets};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::MessageId;
use sabir_model::message::FieldsWriter;
use sabir_model::pattern::Pattern;
use sabir_model::session::Host;
use sabir_model::settlement::Settlement;

use super::idempotency::{self, Known};
use super::large::{self, Arrived};
use super::params::{Call, Name};
use super::party::{Inbox, Party, Role, all_of, arrival, deadline_after, kept, leased};
use super::{Visit, json, read_body};

/// What a connection sends with, made with its first message.
pub(super) struct Sender {
    role: Role,
    party: Party,
    fields: FieldsWriter,
}

impl Sender {
    fn open(visit: &Visit, role: &Role) -> Result<Box<Self>, Refusal> {
        let party = Party::open(&visit.shared, &visit.peer, role, Arc::new(Inbox::default()))?;
        Ok(Box::new(Self { role: role.clone(), party, fields: FieldsWriter::new() }))
    }

    /// Publishes one message. `target` is where it goes if the path says so.
    fn publish(&mut self, draft: &Draft<'_>, target: Option<&str>, now: Timestamp) -> Result<Sent, Problem> {
        self.with_publish(draft, target, now, |connection, publish| match connection.publish(publish) {
            Outcome::Accepted(promise) => Ok(Sent { id: connection.last_id(), promise }),
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Later => unreachable!("sending is answered at once"),
        })
    }

    /// Asks whether a message may come whose body is still to be read, and for a place for it.
    fn announce(
        &mut self,
        draft: &Draft<'_>,
        target: Option<&str>,
        now: Timestamp,
        length: Option<u64>,
    ) -> Result<BodyWriter, Problem> {
        self.with_publish(draft, target, now, |connection, publish| {
            connection.body_writer(&publish, length).map_err(Into::into)
        })
    }

    fn with_publish<T>(
        &mut self,
        draft: &Draft<'_>,
        target: Option<&str>,
        now: Timestamp,
        act: impl FnOnce(&mut Connection, Publish<'_>) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let said = draft.destination.as_deref();
        let address = match (target, said) {
            (Some(target), None) => target,
            (None, Some(said)) => said,
            (Some(target), Some(said)) if target == said => target,
            (Some(target), Some(said)) => {
                let sentence = format!("the path says {target} and the message says {said}");
                return Err(Problem::invalid("destination", sentence));
            }
            (None, None) => {
                return Err(Problem::invalid("destination", "the message needs a destination"));
            }
        };
        let (targets, key) = self.party.addresses.resolve(address, || parse_targets(address))?;
        self.fields.clear();
        let publish = draft.publish(targets, key, now, &mut self.fields).map_err(problem_of)?;
        act(&mut self.party.connection, publish)
    }
}

/// A message that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) id: MessageId,
    pub(super) promise: Option<Promise>,
}

impl Sent {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{{\"id\":\"{}\",", self.id).as_bytes());
        match self.promise {
            Some(promise) => {
                let level = if promise.synced { "fsync" } else { "os" };
                let position = promise.position.0;
                out.extend_from_slice(
                    format!("\"position\":{position},\"durability\":\"{level}\"}}").as_bytes(),
                );
            }
            None => out.extend_from_slice(b"\"position\":null,\"durability\":\"memory\"}"),
        }
    }
}

/// The targets of an address: qualified destinations, separated by commas.
///
/// # Errors
/// One of them is none.
pub(super) fn parse_targets(address: &str) -> Result<Targets, Refusal> {
    let mut default = Kind::Queue;
    let mut targets = Vec::new();
    for part in address.split(',') {
        let pattern = Pattern::parse_qualified(part, default)?;
        let Some(destination) = pattern.as_literal() else {
            let sentence = format!("{pattern} is a pattern; a message goes to destinations by name");
            return Err(Refusal::new(Code::InvalidDestination, sentence));
        };
        default = destination.kind();
        targets.push(destination.clone());
    }
    Ok(Targets::from_iter(targets))
}

pub(super) fn problem_of(error: sabir_json::EnvelopeError) -> Problem {
    Problem { field: error.field, place: error.place, ..Problem::new(error.code, error.sentence) }
}

/// `POST /v1/messages`.
pub(super) async fn anywhere(mut call: Call, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let target = call.params.take("destination");
    send(call, target, &headers, body).await
}

/// `POST /v1/queues/{name}/messages`.
pub(super) async fn to_queue(
    call: Call,
    Name(name): Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    send(call, Some(format!("queue://{name}")), &headers, body).await
}

/// `POST /v1/topics/{name}/messages`.
pub(super) async fn to_topic(
    call: Call,
    Name(name): Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    send(call, Some(format!("topic://{name}")), &headers, body).await
}

/// What the request's media type and parameters say that its body is.
fn form_of(headers: &HeaderMap, raw: bool) -> Form {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let cloud_event = headers.contains_key("ce-specversion");
    Form::of(media, cloud_event, raw)
}

async fn send(
    mut call: Call,
    target: Option<String>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let role = call.role(None);
    let Call { visit, caller, mut params, target: place } = call;
    let synchronous = params.flag("sync")?.unwrap_or(true);
    let form = form_of(headers, params.flag("raw")?.unwrap_or(false));
    let named = name_headers(headers);
    let rest = params.rest();
    let arrived = if form == Form::Raw {
        let sent = incoming::read(form, &rest, &named, &[]).map_err(problem_of)?.drafts.pop();
        let sent = sent.unwrap_or_default();
        large::take(&visit, headers, body, |length| announce(&visit, &role, target.as_deref(), &sent, length))
            .await?
    } else {
        Arrived::Whole(read_body(&visit, headers, body).await?)
    };
    let fingerprint = arrived.fingerprint(&visit);
    let body;
    let Incoming { drafts, is_batch } = match arrived {
        Arrived::Whole(bytes) => {
            body = bytes;
            incoming::read(form, &rest, &named, &body).map_err(problem_of)?
        }
        Arrived::Large(large) => {
            let mut incoming = incoming::read(form, &rest, &named, &[]).map_err(problem_of)?;
            for draft in &mut incoming.drafts {
                draft.body = incoming::stored(&named, None, large.body.clone(), large.is_text);
            }
            incoming
        }
    };
    let now = visit.shared.clock.refresh().instant;
    let pending = match headers.get("idempotency-key") {
        None => None,
        Some(_) if drafts.len() > idempotency::MESSAGES_MAX => {
            let sentence = format!("at most {} messages can be sent with a key", idempotency::MESSAGES_MAX);
            return Err(Problem::new(Code::LimitReached, sentence));
        }
        Some(key) => {
            let key = idempotency::Key::new(&caller.principal, &place, key.as_bytes())?;
            match visit.shared.http.replies.look_up(key, fingerprint, now)? {
                Known::New(pending) => Some(pending),
                Known::Replied(status, body, promise) => {
                    kept(&visit.shared.broker, promise).await;
                    return Ok(json(status, body));
                }
            }
        }
    };
    let (status, reply, promise) = publish_all(&visit, &role, target.as_deref(), &drafts, is_batch)?;
    if let Some(pending) = pending {
        pending.replied(status, &reply, promise);
    }
    if !synchronous {
        return Ok(json(StatusCode::ACCEPTED, reply));
    }
    kept(&visit.shared.broker, promise).await;
    Ok(json(status, reply))
}

/// Header names and values as text; a value that is none is left out, as no field of ours is made of octets.
pub(super) fn name_headers(headers: &HeaderMap) -> Vec<(&str, &str)> {
    headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect()
}

/// Has the connection's sender do something, made anew if another acted before.
fn with_sender<T>(
    visit: &Visit,
    role: &Role,
    publish: impl FnOnce(&mut Sender, Timestamp) -> T,
) -> Result<T, Refusal> {
    let mut place = visit.sender.lock();
    // One that an operator has closed goes.
    place.take_if(|sender| sender.role != *role || sender.party.has_ended());
    let sender = match &mut *place {
        Some(sender) => sender,
        other => other.insert(Sender::open(visit, role)?),
    };
    let done = publish(sender, visit.shared.clock.refresh().wall);
    sender.party.end_batch();
    Ok(done)
}

/// Asks by the connection's sender whether a large message may come.
pub(super) fn announce(
    visit: &Visit,
    role: &Role,
    target: Option<&str>,
    draft: &Draft<'_>,
    length: Option<u64>,
) -> Result<BodyWriter, Problem> {
    with_sender(visit, role, |sender, now| sender.announce(draft, target, now, length))?
}

/// Publishes one message by the connection's sender.
pub(super) fn publish_one(
    visit: &Visit,
    role: &Role,
    target: Option<&str>,
    draft: &Draft<'_>,
) -> Result<Sent, Problem> {
    with_sender(visit, role, |sender, now| sender.publish(draft, target, now))?
}

/// Publishes in order; gives the status, the reply, and what the reply must wait for.
fn publish_all(
    visit: &Visit,
    role: &Role,
    target: Option<&str>,
    drafts: &[Draft<'_>],
    is_batch: bool,
) -> Result<(StatusCode, Vec<u8>, Option<Promise>), Problem> {
    let mut reply = Vec::with_capacity(80 * drafts.len().max(1));
    if let ([draft], false) = (drafts, is_batch) {
        let sent = publish_one(visit, role, target, draft)?;
        sent.write(&mut reply);
        return Ok((StatusCode::CREATED, reply, sent.promise));
    }
    let results = with_sender(visit, role, |sender, now| {
        drafts.iter().map(|draft| sender.publish(draft, target, now)).collect::<Vec<_>>()
    })?;
    let mut failed = 0_usize;
    reply.extend_from_slice(b"{\"messages\":[");
    for (at, result) in results.iter().enumerate() {
        if at > 0 {
            reply.push(b',');
        }
        match result {
            Ok(sent) => sent.write(&mut reply),
            Err(problem) => {
                failed += 1;
                let error = serde_json::json!({
                    "error": { "code": problem.code.as_str(), "detail": problem.detail, "field": problem.field }
                });
                reply.extend_from_slice(error.to_string().as_bytes());
            }
        }
    }
    let promises = results.iter().filter_map(|result| result.as_ref().ok()?.promise);
    let promise = all_of(promises);
    reply.extend_from_slice(format!("],\"failed\":{failed}}}").as_bytes());
    let status = if failed == 0 { StatusCode::CREATED } else { StatusCode::MULTI_STATUS };
    Ok((status, reply, promise))
}

/// `POST /v1/queues/{name}/request`.
pub(super) async fn request_queue(
    call: Call,
    Name(name): Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    ask(call, &format!("queue://{name}"), &headers, body).await
}

/// `POST /v1/topics/{name}/request`.
pub(super) async fn request_topic(
    call: Call,
    Name(name): Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    ask(call, &format!("topic://{name}"), &headers, body).await
}

/// Sends one message with a reply address of its own, and waits for what comes there.
async fn ask(mut call: Call, target: &str, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let role = call.role(None);
    let Call { visit, mut params, .. } = call;
    let patience = params.span("timeout", visit.shared.options.http.wait_max_ms)?;
    let patience = patience.unwrap_or(std::time::Duration::from_secs(10));
    let form = form_of(headers, params.flag("raw")?.unwrap_or(false));
    let named = name_headers(headers);
    let body = read_body(&visit, headers, body).await?;
    let rest = params.rest();
    let mut drafts = incoming::read(form, &rest, &named, &body).map_err(problem_of)?.drafts;
    let (Some(mut draft), true) = (drafts.pop(), drafts.is_empty()) else {
        return Err(Problem::new(Code::InvalidBody, "a request is one message"));
    };

    let deadline = deadline_after(patience);
    let inbox = Arc::new(Inbox::default());
    let party = Party::open(&visit.shared, &visit.peer, &role, Arc::clone(&inbox))?;
    let mut asking = Sender { role, party, fields: FieldsWriter::new() };
    let address = asking.party.connection.temporary(Kind::Queue, "reply")?;
    asking.party.subscribe(leased(&[Pattern::from(address.clone())], None))?;
    inbox.want(1);
    asking.party.resume();
    draft.reply_to = Some(address.to_string().into());
    draft.correlation_id.get_or_insert_with(|| address.dotted().into());
    let sent = asking.publish(&draft, Some(target), visit.shared.clock.refresh().wall);
    asking.party.end_batch();
    sent?;
    let mut asking = asking.party;
    tokio::select! {
        () = arrival(&inbox) => {}
        refusal = std::future::poll_fn(|cx| asking.poll_end(cx)) => return Err(refusal.into()),
        () = tokio::time::sleep_until(deadline) => {
            let sentence = format!("no reply came within {} ms", patience.as_millis());
            return Err(Problem::new(Code::TimedOut, sentence));
        }
    }
    let Some(reply) = large::load(&visit.shared, &inbox.take(1)).await.pop() else {
        return Err(Problem::new(Code::Internal, "the reply was lost on its way"));
    };
    if let Some(token) = reply.token {
        asking.settle(&[(token, Settlement::Accepted)], false);
    }
    let mut out = Vec::with_capacity(256);
    View::of(&reply.delivery()).object(&RenderOptions::default(), &mut out);
    Ok(json(StatusCode::OK, out))
}
