//! Pulling messages and settling them by lease tokens: a consumer that dies loses nothing, for what it has not settled
//! goes back when the lease is over.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use sabir_admin::{Caller, Problem};
use sabir_http::token;
use sabir_json::{RenderOptions, View};
use sabir_model::clock::Timestamp;
use sabir_model::destination::Kind;
use sabir_model::error::{Code, Refusal};
use sabir_model::pattern::Pattern;
use sabir_model::settlement::Settlement;
use serde::Deserialize;

use super::leases::{LeaseId, Puller, Source, Verdict};
use super::params::{Name, Names, Params};
use super::party::{Received, Role, all_of, deadline_after, kept};
use super::{Visit, json, read_body};

/// Most messages of one pull.
const PULL_MAX: u64 = 1000;
/// Most leases settled by one request.
const SETTLE_MAX: usize = 10_000;

/// Who pulls, from where the query says.
pub(super) fn role(caller: &Caller, virtual_host: Option<String>, client_id: Option<&str>) -> Role {
    Role {
        principal: caller.principal.clone(),
        virtual_host: virtual_host.unwrap_or_else(|| "/".to_owned()).into(),
        client_id: client_id.map(Into::into),
    }
}

/// `POST /v1/queues/{name}/pull`.
pub(super) async fn pull_queue(
    Extension(visit): Extension<Arc<Visit>>,
    Extension(caller): Extension<Caller>,
    Name(name): Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let source = Source {
        role: role(&caller, params.take("vhost"), None),
        pattern: Pattern::from_dotted(Kind::Queue, false, &name)?,
        durable: None,
        selector: params.take("selector").map(Into::into),
    };
    pull(&visit, &caller, source, params).await
}

/// `POST /v1/subscriptions/{client}/{name}/pull`: from a durable subscription that exists.
pub(super) async fn pull_subscription(
    Extension(visit): Extension<Arc<Visit>>,
    Extension(caller): Extension<Caller>,
    Names(client, name): Names,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let role = role(&caller, params.take("vhost"), Some(&client));
    let source = durable_source(&visit, role, &client, &name)?;
    pull(&visit, &caller, source, params).await
}

/// The source that a durable subscription is.
pub(super) fn durable_source(visit: &Visit, role: Role, client: &str, name: &str) -> Result<Source, Problem> {
    let Some((pattern, selector)) = visit.shared.broker.durable(&role.virtual_host, client, name) else {
        let sentence = format!("\"{client}\" has no durable subscription \"{name}\"");
        return Err(Refusal::new(Code::UnknownSubscription, sentence).into());
    };
    Ok(Source { role, pattern, durable: Some(name.into()), selector: selector.map(Into::into) })
}

async fn pull(
    visit: &Arc<Visit>,
    caller: &Caller,
    source: Source,
    mut params: Params,
) -> Result<Response, Problem> {
    let options = &visit.shared.options.http;
    let most = params.number("max", 1, PULL_MAX)?.unwrap_or(1);
    let most = usize::try_from(most).unwrap_or(1);
    let wait = params.span("wait", options.wait_max_ms)?.unwrap_or_default();
    let lease = lease_span(&mut params, visit)?;
    params.finish()?;
    let leases = &visit.shared.http.leases;
    leases.check_room(most)?;
    let deadline = deadline_after(wait);
    let puller = leases.puller(&visit.shared, &visit.peer, source)?;
    let got = puller.pull(most, deadline).await?;
    Ok(json(StatusCode::OK, render_leased(visit, caller, &puller, &got, lease)))
}

pub(super) fn lease_span(params: &mut Params, visit: &Visit) -> Result<Duration, Problem> {
    let options = &visit.shared.options.http;
    let default = Duration::from_millis(options.lease_default_ms);
    Ok(params.span("lease", options.lease_max_ms)?.unwrap_or(default))
}

/// Leases what was pulled and writes it as the reply's document.
fn render_leased(
    visit: &Visit,
    caller: &Caller,
    puller: &Arc<Puller>,
    got: &[Received],
    lease: Duration,
) -> Vec<u8> {
    let now = visit.shared.clock.refresh();
    let until = now.instant.after(lease);
    let expires = Timestamp(now.wall.0.saturating_add(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)));
    let mut out = Vec::with_capacity(64 + 256 * got.len());
    out.extend_from_slice(b"{\"messages\":[");
    for (at, received) in got.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let Some(token) = received.token else { continue };
        let id = visit.shared.http.leases.lease(puller, &caller.principal, token, until, Settlement::Failed);
        write_leased(received, id, expires, now.wall, &mut out);
    }
    out.extend_from_slice(b"]}");
    out
}

/// One leased message as JSON.
pub(super) fn write_leased(
    received: &Received,
    id: LeaseId,
    expires: Timestamp,
    now: Timestamp,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"lease\":\"");
    token::write(id.0, out);
    out.extend_from_slice(format!("\",\"leaseExpires\":{},", expires.0).as_bytes());
    View::of(&received.delivery()).members(now, &RenderOptions::default(), out);
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
    let promise = visit.shared.http.leases.settle(id, &caller.principal, verdict, now)?;
    kept(&visit.shared.broker, promise).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/leases/{lease}/ack`.
pub(super) async fn ack(
    Extension(visit): Extension<Arc<Visit>>,
    Extension(caller): Extension<Caller>,
    Name(lease): Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Params::read(query.as_deref())?.finish()?;
    settle_by_token(&visit, &caller, &lease, Verdict::Ack).await
}

/// `POST /v1/leases/{lease}/release?delay=`.
pub(super) async fn release(
    Extension(visit): Extension<Arc<Visit>>,
    Extension(caller): Extension<Caller>,
    Name(lease): Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let delay = params.span("delay", visit.shared.options.http.lease_max_ms)?.unwrap_or_default();
    params.finish()?;
    settle_by_token(&visit, &caller, &lease, Verdict::Release(delay)).await
}

/// `POST /v1/leases/{lease}/reject`.
pub(super) async fn reject(
    Extension(visit): Extension<Arc<Visit>>,
    Extension(caller): Extension<Caller>,
    Name(lease): Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Params::read(query.as_deref())?.finish()?;
    settle_by_token(&visit, &caller, &lease, Verdict::Reject).await
}

/// `POST /v1/leases/{lease}/extend?lease=`.
pub(super) async fn extend(
    Extension(visit): Extension<Arc<Visit>>,
    Extension(caller): Extension<Caller>,
    Name(lease): Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let span = lease_span(&mut params, &visit)?;
    params.finish()?;
    let now = visit.shared.clock.refresh();
    visit.shared.http.leases.extend(lease_id(&lease)?, &caller.principal, now.instant.after(span))?;
    let expires = now.wall.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
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
pub(super) async fn settle_many(
    Extension(visit): Extension<Arc<Visit>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::read(query.as_deref())?.finish()?;
    let body = read_body(&visit, &headers, body).await?;
    let verdicts: Verdicts = serde_json::from_slice(&body).map_err(|error| Problem::json(&error))?;
    let lists = [
        (&verdicts.ack, Verdict::Ack),
        (&verdicts.release, Verdict::Release(Duration::ZERO)),
        (&verdicts.reject, Verdict::Reject),
    ];
    let total: usize = lists.iter().map(|(list, _)| list.len()).sum();
    if total > SETTLE_MAX {
        let sentence = format!("at most {SETTLE_MAX} leases can be settled at once");
        return Err(Problem::new(Code::LimitReached, sentence));
    }
    let now = visit.shared.clock.refresh().instant;
    let mut promises = Vec::new();
    let mut settled = 0_usize;
    let mut errors = Vec::new();
    for (list, verdict) in lists {
        for lease in list {
            let result = lease_id(lease)
                .and_then(|id| Ok(visit.shared.http.leases.settle(id, &caller.principal, verdict, now)?));
            match result {
                Ok(promise) => {
                    settled += 1;
                    promises.extend(promise);
                }
                Err(problem) => errors.push(serde_json::json!({
                    "lease": lease, "code": problem.code.as_str(), "detail": problem.detail,
                })),
            }
        }
    }
    kept(&visit.shared.broker, all_of(promises)).await;
    let body = serde_json::json!({ "settled": settled, "errors": errors });
    Ok(json(StatusCode::OK, body.to_string().into_bytes()))
}
