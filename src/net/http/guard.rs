//! Who makes a request: HTTP Basic, the console's cookie, or nobody; and whether a browser sends it on behalf of a page
//! that may not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use sabir_admin::{Caller, Problem};
use sabir_http::token;
use sabir_model::access::{Action, Credentials, Principal, Resource};
use sabir_model::base64;
use sabir_model::clock::Instant;
use sabir_model::error::{Code, Refusal};
use serde::{Deserialize, Serialize};

use super::{Visit, random};
use crate::net::websocket::{is_own_name, origin_allowed};

/// The console's cookie.
const COOKIE: &str = "sabir-session";
/// Logins of the console at a time; beyond it the one that ends first is forgotten.
const LOGINS_MAX: usize = 10_000;
/// How long a connection's caller is believed without asking again.
const BELIEVED: Duration = Duration::from_secs(10);
/// Largest body of a login.
const LOGIN_BYTES_MAX: usize = 4096;
/// Sent by the console, which asks for a password itself.
const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The caller of a connection, as proved last.
pub(super) struct Believed {
    proof: Box<[u8]>,
    principal: Principal,
    until: Instant,
}

/// Logins of the console: random tokens and whom they stand for.
#[derive(Default)]
pub(super) struct Logins(Mutex<HashMap<u128, (Principal, Instant)>>);

impl Logins {
    fn start(&self, principal: Principal, until: Instant, now: Instant) -> u128 {
        let token = random();
        let mut logins = self.0.lock();
        if logins.len() >= LOGINS_MAX {
            logins.retain(|_, (_, until)| *until > now);
            if logins.len() >= LOGINS_MAX
                && let Some(first) =
                    logins.iter().min_by_key(|(_, (_, until))| *until).map(|(token, _)| *token)
            {
                logins.remove(&first);
            }
        }
        logins.insert(token, (principal, until));
        token
    }

    fn find(&self, token: u128, now: Instant) -> Option<Principal> {
        self.0.lock().get(&token).filter(|(_, until)| *until > now).map(|(principal, _)| principal.clone())
    }

    fn end(&self, token: u128) {
        self.0.lock().remove(&token);
    }
}

fn cookie(headers: &HeaderMap) -> Option<u128> {
    let value = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    token::read(value)
}

/// The answer to whoever has to say who they are.
fn unauthorized(headers: &HeaderMap, refusal: Refusal) -> Problem {
    let mut problem = Problem::from(refusal);
    if problem.status == StatusCode::UNAUTHORIZED && !headers.contains_key(REQUESTED_WITH) {
        let challenge = HeaderValue::from_static("Basic realm=\"Sabir\", charset=\"UTF-8\"");
        problem.header = Some(Box::new((header::WWW_AUTHENTICATE, challenge)));
    }
    problem
}

/// Finds out who sends a request.
pub(super) async fn caller(visit: &Arc<Visit>, headers: &HeaderMap) -> Result<Principal, Problem> {
    let now = visit.shared.clock.refresh().instant;
    let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let token = cookie(headers);
    if authorization.is_none()
        && let Some(token) = token
    {
        let known = visit.shared.http.logins.find(token, now);
        return known.ok_or_else(|| {
            let refusal = Refusal::new(Code::AuthenticationFailed, "the login is over; log in again");
            unauthorized(headers, refusal)
        });
    }
    let proof = authorization.unwrap_or_default();
    if let Some(believed) = &*visit.believed.lock()
        && *believed.proof == *proof
        && now < believed.until
    {
        return Ok(believed.principal.clone());
    }
    let principal = match authorization {
        None => prove(visit, None).await,
        Some(value) => match basic(value) {
            Some(pair) => prove(visit, Some(pair)).await,
            None => Err(Refusal::new(
                Code::AuthenticationFailed,
                "the Authorization header must be Basic with a name and a password",
            )),
        },
    };
    let principal = principal.map_err(|refusal| unauthorized(headers, refusal))?;
    let broker = &visit.shared.broker;
    broker.check(&principal, Action::Connect, Resource::Server).map_err(Problem::from)?;
    let until = now.after(BELIEVED);
    *visit.believed.lock() = Some(Believed { proof: proof.into(), principal: principal.clone(), until });
    Ok(principal)
}

/// Whom a WebSocket's handshake names, so that the protocol inside need not: a login by header must be right, one by cookie
/// that is over counts as none.
pub(super) async fn vouched(
    visit: &Arc<Visit>,
    headers: &HeaderMap,
) -> Result<Option<Principal>, Box<Response>> {
    if headers.contains_key(header::AUTHORIZATION) {
        let principal = caller(visit, headers).await;
        return principal.map(Some).map_err(|problem| Box::new(problem.into_response()));
    }
    let now = visit.shared.clock.refresh().instant;
    Ok(cookie(headers).and_then(|token| visit.shared.http.logins.find(token, now)))
}

/// Name and password of a Basic header (RFC 7617).
fn basic(value: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = base64::decode(rest.trim_ascii())?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(decoded.get(..colon)?.to_vec()).ok()?;
    Some((name, decoded.get(colon + 1..)?.to_vec()))
}

/// Proves it, on a thread that may wait.
async fn prove(visit: &Arc<Visit>, pair: Option<(String, Vec<u8>)>) -> Result<Principal, Refusal> {
    let broker = visit.shared.broker.clone();
    let remote = match visit.peer.remote {
        Some(address) => sabir_model::access::Remote::Address(address),
        None => sabir_model::access::Remote::Local,
    };
    let proof = tokio::task::spawn_blocking(move || match &pair {
        None => broker.authenticate(Credentials::None, remote),
        Some((login, passcode)) if login.is_empty() && passcode.is_empty() => {
            broker.authenticate(Credentials::None, remote)
        }
        Some((login, passcode)) => broker.authenticate(Credentials::Password { login, passcode }, remote),
    });
    proof.await.unwrap_or_else(|_| Err(Refusal::new(Code::Internal, "the login could not be checked")))
}

/// Whether a browser sends this for a page that may not: changes need our own page or a listed one, and through a foreign
/// name of this machine (DNS rebinding) nothing may be read either.
fn check_origin(visit: &Visit, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let word = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = word(&header::HOST);
    let local_peer = visit.peer.remote.is_none_or(|address| address.is_loopback());
    let listed = |origin: &str| visit.shared.options.origins.iter().any(|entry| entry.allows(origin));
    let origin = headers.get(header::ORIGIN).map(|value| value.to_str().unwrap_or("unreadable"));
    // Some reading takes what it reads.
    let path = request.uri().path();
    let takes = path.starts_with("/api/message") || path.ends_with("/stream");
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) && !takes;
    let site = word(&FETCH_SITE);
    let refused = match (origin, site) {
        (Some(_), _) if !safe => !origin_allowed(origin, host, local_peer, listed),
        (None, Some("cross-site" | "same-site")) if !safe => true,
        (_, Some("same-origin" | "same-site" | "cross-site")) if local_peer && origin.is_none() => {
            host.is_some_and(|host| !is_own_name(host))
        }
        _ => false,
    };
    if refused {
        return Err(Problem::new(
            Code::AccessDenied,
            "pages of this origin may not do this; http.allowed_origins lists those that may",
        ));
    }
    Ok(())
}

/// Cross-origin reading (CORS) for listed origins only.
fn allow_origin(visit: &Visit, origin: Option<&HeaderValue>, response: &mut Response) {
    let Some(value) = origin else { return };
    let listed = |origin: &str| visit.shared.options.origins.iter().any(|entry| entry.allows(origin));
    if value.to_str().is_ok_and(listed) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        let shown = HeaderValue::from_static("messageID, Ack-Token, Retry-After, Location");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, shown);
    }
}

/// Answers a preflight of a listed origin.
fn preflight(visit: &Visit, request: &Request) -> Option<Response> {
    let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    let origin = request.headers().get(header::ORIGIN)?;
    if *request.method() != Method::OPTIONS {
        return None;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    allow_origin(visit, Some(origin), &mut response);
    if response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, wanted.clone());
        if let Some(names) = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    Some(response)
}

/// Whether a path is everybody's: what says nothing about messages, and what asks for a login itself.
fn is_public(path: &str) -> bool {
    matches!(path, "/" | "/healthz/live" | "/healthz/ready" | "/openapi.yaml" | "/docs" | "/v1/session")
        || ["/console/", "/docs/", "/stomp", "/mqtt", "/ws"].iter().any(|prefix| path.starts_with(prefix))
}

/// Lets requests in: the caller is known to whoever comes next.
pub(super) async fn guard(
    Extension(visit): Extension<Arc<Visit>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(response) = preflight(&visit, &request) {
        return response;
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let websocket = request.headers().contains_key(header::UPGRADE);
    // The door to WebSocket looks at origins itself.
    if !websocket && let Err(problem) = check_origin(&visit, &request) {
        return problem.into_response();
    }
    if !is_public(request.uri().path()) {
        match caller(&visit, request.headers()).await {
            Ok(principal) => {
                let broker = visit.shared.broker.clone();
                request.extensions_mut().insert(Caller { broker, principal });
            }
            Err(problem) => return problem.into_response(),
        }
    }
    let mut response = next.run(request).await;
    allow_origin(&visit, origin.as_ref(), &mut response);
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    user: String,
    password: String,
}

#[derive(Serialize)]
struct Who {
    user: Option<String>,
    anonymous: bool,
    may: May,
}

#[derive(Serialize)]
struct May {
    manage: bool,
}

fn who(visit: &Visit, principal: &Principal) -> Who {
    let manage = visit.shared.broker.check(principal, Action::Manage, Resource::Server).is_ok();
    Who {
        user: principal.name().map(str::to_owned),
        anonymous: principal.name().is_none(),
        may: May { manage },
    }
}

fn answer(who: &Who) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, serde_json::to_vec(who).unwrap_or_default()).into_response()
}

/// `GET /v1/session`: who the console talks for.
pub(super) async fn session(Extension(visit): Extension<Arc<Visit>>, headers: HeaderMap) -> Response {
    match caller(&visit, &headers).await {
        Ok(principal) => answer(&who(&visit, &principal)),
        Err(problem) => problem.into_response(),
    }
}

/// `POST /v1/session`: logs the console in.
pub(super) async fn log_in(Extension(visit): Extension<Arc<Visit>>, request: Request) -> Response {
    match try_log_in(&visit, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn try_log_in(visit: &Arc<Visit>, request: Request) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    // A form of another page cannot send this type without being asked first.
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"application/json"));
    if !is_json {
        return Err(Problem::invalid("Content-Type", "a login is application/json")
            .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let patience = Duration::from_millis(visit.shared.options.http.request_timeout_ms);
    let body = tokio::time::timeout(patience, to_bytes(request.into_body(), LOGIN_BYTES_MAX)).await;
    let Ok(Ok(body)) = body else {
        return Err(Problem::new(Code::TooLarge, "a login is small, and comes at once"));
    };
    let login: Login = serde_json::from_slice(&body).map_err(|error| Problem::json(&error))?;
    let proved = prove(visit, Some((login.user, login.password.into_bytes()))).await;
    let principal = proved.map_err(|refusal| unauthorized(&headers, refusal))?;
    visit.shared.broker.check(&principal, Action::Connect, Resource::Server)?;
    let now = visit.shared.clock.refresh().instant;
    let lasts = visit.shared.options.http.login_lasts_ms;
    let token =
        visit.shared.http.logins.start(principal.clone(), now.after(Duration::from_millis(lasts)), now);
    let mut response = answer(&who(visit, &principal));
    let cookie =
        format!("{COOKIE}={token:032x}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}", lasts / 1000);
    if let Ok(value) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    Ok(response)
}

/// `DELETE /v1/session`: logs the console out.
pub(super) async fn log_out(Extension(visit): Extension<Arc<Visit>>, headers: HeaderMap) -> Response {
    if let Some(token) = cookie(&headers) {
        visit.shared.http.logins.end(token);
    }
    let gone = HeaderValue::from_static("sabir-session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::SET_COOKIE, gone);
    response
}
