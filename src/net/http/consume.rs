//! Pulling messages and settling them by lease tokens: a consumer that dies loses nothing, for what it has not settled
//! goes back when the lease is over.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sabir_admin::{Caller, Problem};
use sabir_http::{cloudevents, token};
use sabir_json::{RenderOptions, View};
use sabir_model::clock::Timestamp;
use sabir_model::destination::Kind;
use sabir_model::error::{Code, Refusal};
use sabir_model::pattern::Pattern;
use sabir_model::settlement::Settlement;
use serde::Deserialize;

use super::large;
use super::leases::{LeaseId, Puller, Source, Verdict};
use super::params::{Call, Name, Names, Params};
use super::party::{Received, Role, deadline_after, kept};
use super::{Visit, json, read_body};

/// Most messages of one pull.
const PULL_MAX: u64 = 1000;
/// Most leases settled by one request.
const SETTLE_MAX: usize = 10_000;

/// What stands around a message that is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    /// The JSON form.
    Json,
    /// A CloudEvent in JSON.
    CloudEvent,
    /// Nothing: the body alone.
    None,
}

impl Envelope {
    /// What a request asks for, by name or by the type it accepts.
    pub(super) fn wanted(params: &mut Params, headers: &HeaderMap) -> Result<Self, Problem> {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match params.take("envelope").as_deref() {
            None if accept.contains("application/cloudevents") => Ok(Self::CloudEvent),
            None | Some("json") => Ok(Self::Json),
            Some("cloudevents") => Ok(Self::CloudEvent),
            Some("none") => Ok(Self::None),
            Some(_) => Err(Problem::invalid("envelope", "envelope must be json, cloudevents or none")),
        }
    }
}

/// The source that a queue is.
pub(super) fn queue_source(call: &mut Call, name: &str) -> Result<Source, Problem> {
    Ok(Source {
        role: call.role(None),
        pattern: Pattern::from_dotted(Kind::Queue, false, name)?,
        durable: None,
        selector: call.params.take("selector").map(Into::into),
    })
}

/// `POST /v1/queues/{name}/pull`.
pub(super) async fn pull_queue(
    mut call: Call,
    Name(name): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let source = queue_source(&mut call, &name)?;
    pull(call, source, &headers).await
}

/// `POST /v1/subscriptions/{client}/{name}/pull`: from a durable subscription that exists.
pub(super) async fn pull_subscription(
    mut call: Call,
    Names(client, name): Names,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let role = call.role(Some(&client));
    let source = durable_source(&call.visit, role, &client, &name)?;
    pull(call, source, &headers).await
}

/// The source that a durable subscription is.
pub(super) fn durable_source(visit: &Visit, role: Role, client: &str, name: &str) -> Result<Source, Problem> {
    let Some((pattern, selector)) = visit.shared.broker.durable(&role.virtual_host, client, name) else {
        let sentence = format!("\"{client}\" has no durable subscription \"{name}\"");
        return Err(Refusal::new(Code::UnknownSubscription, sentence).into());
    };
    Ok(Source { role, pattern, durable: Some(name.into()), selector: selector.map(Into::into) })
}

async fn pull(call: Call, source: Source, headers: &HeaderMap) -> Result<Response, Problem> {
    let Call { visit, caller, mut params, .. } = call;
    let most = params.number("max", 1, PULL_MAX)?.unwrap_or(1);
    let most = usize::try_from(most).unwrap_or(1);
    let wait = params.span("wait", visit.shared.options.http.wait_max_ms)?.unwrap_or_default();
    let lease = lease_span(&mut params, &visit)?;
    let envelope = Envelope::wanted(&mut params, headers)?;
    params.finish()?;
    if envelope == Envelope::None {
        return Err(Problem::invalid("envelope", "a lease has no place in a body alone"));
    }
    let leases = &visit.shared.http.leases;
    if leases.room() < most {
        return Err(leases.full().into());
    }
    let deadline = deadline_after(wait);
    let puller = leases.puller(&visit.shared, &visit.peer, source)?;
    let pulled = puller.pull(most, deadline).await?;
    // What has no room in this reply is for the next one.
    let shown = large::load(&visit.shared, pulled.items()).await;
    let mut got = pulled.keep();
    puller.release(got.drain(shown.len()..).filter_map(|one| one.token));
    let events = envelope == Envelope::CloudEvent;
    let mut response =
        json(StatusCode::OK, render_leased(&visit, &caller, &puller, (&got, &shown), lease, envelope));
    if events {
        let media = HeaderValue::from_static("application/cloudevents-batch+json; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, media);
    }
    Ok(response)
}

fn lease_span(params: &mut Params, visit: &Visit) -> Result<Duration, Problem> {
    let options = &visit.shared.options.http;
    let default = Duration::from_millis(options.lease_default_ms);
    Ok(params.span("lease", options.lease_max_ms)?.unwrap_or(default))
}

/// Leases what was pulled and writes it as the reply's document.
fn render_leased(
    visit: &Visit,
    caller: &Caller,
    puller: &Arc<Puller>,
    (got, shown): (&[Received], &[Received]),
    lease: Duration,
    envelope: Envelope,
) -> Vec<u8> {
    let now = visit.shared.clock.refresh();
    let until = now.instant.after(lease);
    let expires = now.wall.after(lease);
    let mut out = Vec::with_capacity(64 + 256 * got.len());
    let (begin, end): (&[u8], &[u8]) = match envelope {
        Envelope::CloudEvent => (b"[", b"]"),
        Envelope::Json | Envelope::None => (b"{\"messages\":[", b"]}"),
    };
    out.extend_from_slice(begin);
    let mut first = true;
    for (received, shown) in got.iter().zip(shown) {
        let Some(token) = received.token else { continue };
        let leases = &visit.shared.http.leases;
        let Some(id) =
            leases.lease(puller, &caller.principal, (&received.message, token), until, Settlement::Failed)
        else {
            // Others were faster; the room had been looked at.
            puller.release([token]);
            continue;
        };
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write_leased(shown, id, expires, envelope, &mut out);
    }
    out.extend_from_slice(end);
    out
}

/// One leased message as JSON.
pub(super) fn write_leased(
    received: &Received,
    id: LeaseId,
    expires: Timestamp,
    envelope: Envelope,
    out: &mut Vec<u8>,
) {
    if envelope == Envelope::CloudEvent {
        let mut lease = Vec::new();
        token::write(id.0, &mut lease);
        let lease = std::str::from_utf8(&lease).unwrap_or_default();
        cloudevents::write(&received.delivery(), Some((lease, expires)), out);
        return;
    }
    out.extend_from_slice(b"{\"lease\":\"");
    token::write(id.0, out);
    out.extend_from_slice(format!("\",\"leaseExpires\":{},", expires.0).as_bytes());
    View::of(&received.delivery()).members(&RenderOptions::default(), out);
    out.push(b'}');
}

fn lease_id(text: &str) -> Result<LeaseId, Problem> {
    let unknown = || Problem::new(Code::UnknownDelivery, "that is no lease token");
    token::read(text).map(LeaseId).ok_or_else(unknown)
}

/// Takes a verdict on a lease, and waits until it is as durable as its queue's level says.
pub(super) async fn settle_by_token(
    visit: &Visit,
    caller: &Caller,
    lease: &str,
    verdict: Verdict,
) -> Result<Response, Problem> {
    let id = lease_id(lease)?;
    let now = visit.shared.clock.refresh().instant;
    let promise = visit.shared.http.leases.settle_one(id, verdict, &caller.principal, now)?;
    kept(&visit.shared.broker, promise).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/leases/{lease}/ack`.
pub(super) async fn ack(call: Call, Name(lease): Name) -> Result<Response, Problem> {
    call.params.finish()?;
    settle_by_token(&call.visit, &call.caller, &lease, Verdict::Ack).await
}

/// `GET /v1/leases/{lease}/body`: the body of the message that is on lease, as it is, of any size.
pub(super) async fn body(call: Call, Name(lease): Name) -> Result<Response, Problem> {
    call.params.finish()?;
    let id = lease_id(&lease)?;
    let message = call.visit.shared.http.leases.message(id, &call.caller.principal)?;
    let received = Received { message, queue: None, token: None, attempt: 1, redelivered: false };
    Ok(super::activemq::bare(&received))
}

/// `POST /v1/leases/{lease}/release?delay=`.
pub(super) async fn release(mut call: Call, Name(lease): Name) -> Result<Response, Problem> {
    let most = call.visit.shared.options.http.lease_max_ms;
    let delay = call.params.span("delay", most)?.unwrap_or_default();
    call.params.finish()?;
    settle_by_token(&call.visit, &call.caller, &lease, Verdict::Release(delay)).await
}

/// `POST /v1/leases/{lease}/reject`.
pub(super) async fn reject(call: Call, Name(lease): Name) -> Result<Response, Problem> {
    call.params.finish()?;
    settle_by_token(&call.visit, &call.caller, &lease, Verdict::Reject).await
}

/// `POST /v1/leases/{lease}/extend?lease=`.
pub(super) async fn extend(mut call: Call, Name(lease): Name) -> Result<Response, Problem> {
    let span = lease_span(&mut call.params, &call.visit)?;
    call.params.finish()?;
    let shared = &call.visit.shared;
    let now = shared.clock.refresh();
    shared.http.leases.extend(lease_id(&lease)?, &call.caller.principal, now.instant.after(span))?;
    let expires = now.wall.after(span).0;
    Ok(json(StatusCode::OK, format!("{{\"leaseExpires\":{expires}}}").into_bytes()))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Verdicts {
    ack: Vec<String>,
    release: Vec<String>,
    reject: Vec<String>,
}

/// `POST /v1/leases`: many at once; those that cannot be settled are listed.
pub(super) async fn settle_many(call: Call, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let Call { visit, caller, params, .. } = call;
    params.finish()?;
    let body = read_body(&visit, &headers, body).await?;
    let verdicts: Verdicts = serde_json::from_slice(&body).map_err(|error| Problem::json(&error))?;
    let all = [
        (&verdicts.ack, Verdict::Ack),
        (&verdicts.release, Verdict::Release(Duration::ZERO)),
        (&verdicts.reject, Verdict::Reject),
    ];
    let total: usize = all.iter().map(|(list, _)| list.len()).sum();
    if total > SETTLE_MAX {
        let sentence = format!("at most {SETTLE_MAX} leases can be settled at once");
        return Err(Problem::new(Code::LimitReached, sentence));
    }
    let all = all.iter().flat_map(|(list, verdict)| list.iter().map(move |lease| (lease, *verdict)));
    let mut errors = Vec::new();
    let mut complain = |lease: &str, code: Code, detail: &str| {
        errors.push(serde_json::json!({ "lease": lease, "code": code.as_str(), "detail": detail }));
    };
    let (mut names, mut known) = (Vec::new(), Vec::new());
    for (lease, verdict) in all {
        match lease_id(lease) {
            Ok(id) => {
                names.push(lease);
                known.push((id, verdict));
            }
            Err(problem) => complain(lease, problem.code, &problem.detail),
        }
    }
    let now = visit.shared.clock.refresh().instant;
    let (promise, results) = visit.shared.http.leases.settle(&known, &caller.principal, now);
    let mut settled = 0_usize;
    for (lease, result) in names.iter().zip(results) {
        match result {
            Ok(()) => settled += 1,
            Err(refusal) => complain(lease, refusal.code, &refusal.sentence),
        }
    }
    kept(&visit.shared.broker, promise).await;
    let body = serde_json::json!({ "settled": settled, "errors": errors });
    Ok(json(StatusCode::OK, body.to_string().into_bytes()))
}
