//! The HTTP paths there are so far: health, metrics, the contract, and the door to WebSocket.
//!
//! One connection is one task that hyper drives with an axum router. An upgraded socket leaves hyper for good and goes
//! on as an ordinary connection of the driver.

use std::pin::pin;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use sabir_model::clock::Clock;

use super::census::Permit;
use super::detect::Protocol;
use super::listener::start;
use super::reader::Transport;
use super::socket::{Peer, Prefixed};
use super::websocket::{self, Subprotocol};
use super::{SERVER_NAME, Shared};

/// Largest request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header fields of a request.
const HEADERS_MAX: usize = 64;
/// Largest request body. No path reads one, so this only says no early.
const BODY_BYTES_MAX: u64 = 64 * 1024;

/// Every path, as `openapi.yaml` lists them: a test compares the two.
const ROUTES: [&str; 7] =
    ["/", "/healthz/live", "/healthz/ready", "/metrics", "/mqtt", "/openapi.yaml", "/stomp"];

const CONTRACT: &str = include_str!("../../openapi.yaml");

static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    ROUTES
        .into_iter()
        .fold(Router::new(), |router, path| {
            let route = match path {
                "/" => get(front_page),
                "/healthz/live" => get(|| async { text(StatusCode::OK, "alive\n".to_owned()) }),
                "/healthz/ready" => get(ready),
                "/metrics" => get(metrics),
                "/openapi.yaml" => get(|| async { ([(header::CONTENT_TYPE, "application/yaml")], CONTRACT) }),
                "/stomp" => get(stomp),
                "/mqtt" => get(mqtt),
                other => unreachable!("{other} is in ROUTES and has no handler"),
            };
            router.route(path, route)
        })
        .fallback(|| async {
            text(StatusCode::NOT_FOUND, "nothing is here; / lists what there is\n".to_owned())
        })
});

/// What handlers know of the connection that a request came by.
struct Visit {
    shared: Arc<Shared>,
    peer: Peer,
    /// The connection's place; a WebSocket takes it along.
    permit: Mutex<Option<Permit>>,
}

/// Serves one HTTP connection until it ends, is upgraded, or the server closes.
pub(super) async fn serve(shared: Arc<Shared>, socket: Prefixed, peer: Peer, permit: Permit) {
    let mut closing = shared.closing.subscribe();
    let patience = shared.options.greeting_timeout;
    let visit = Arc::new(Visit { shared, peer, permit: Mutex::new(Some(permit)) });
    let inner = TowerToHyperService::new(ROUTER.clone());
    let service = hyper::service::service_fn(|mut request: hyper::Request<Incoming>| {
        let inner = inner.clone();
        request.extensions_mut().insert(Arc::clone(&visit));
        async move {
            if announces_too_much(&request) {
                let refusal = text(StatusCode::PAYLOAD_TOO_LARGE, "no path here takes a body\n".to_owned());
                return Ok(([(header::CONNECTION, "close")], refusal).into_response());
            }
            hyper::service::Service::call(&inner, request).await
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut open = true;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(peer = visit.peer.name, %error, "HTTP connection ended");
                }
                return;
            }
            _ = closing.wait_for(|closing| *closing), if open => {
                open = false;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn announces_too_much(request: &hyper::Request<Incoming>) -> bool {
    request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .is_some_and(|length| length > BODY_BYTES_MAX)
}

/// A plain answer that no browser takes for anything else or keeps.
fn text(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body).into_response()
}

async fn front_page(Extension(visit): Extension<Arc<Visit>>) -> Response {
    let listening: String = visit.shared.endpoints.iter().map(|endpoint| format!("  {endpoint}\n")).collect();
    let body = format!(
        "{SERVER_NAME}, a message broker\n\nListening:\n{listening}\nHere:\n\
         \x20 /stomp          STOMP over WebSocket\n\
         \x20 /mqtt           MQTT over WebSocket\n\
         \x20 /healthz/live   is the process alive\n\
         \x20 /healthz/ready  does it take messages\n\
         \x20 /metrics        Prometheus metrics\n\
         \x20 /openapi.yaml   this list for machines\n"
    );
    text(StatusCode::OK, body)
}

async fn ready(Extension(visit): Extension<Arc<Visit>>) -> Response {
    let closing = *visit.shared.closing.borrow();
    match visit.shared.broker.is_ready() {
        Ok(()) if !closing => text(StatusCode::OK, "ready\n".to_owned()),
        Ok(()) => text(StatusCode::SERVICE_UNAVAILABLE, "the broker is shutting down\n".to_owned()),
        Err(sentence) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{sentence}\n")),
    }
}

async fn metrics(Extension(visit): Extension<Arc<Visit>>) -> Response {
    let shared = &visit.shared;
    let process = sabir_admin::Process {
        uptime_seconds: shared.clock.now().0 as f64 / 1e6,
        version: env!("CARGO_PKG_VERSION"),
        usage: sabir_admin::Usage::read(),
    };
    let body = sabir_admin::metrics(&shared.broker.stats(), &shared.census.snapshot(), &process);
    let headers = [
        (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, body).into_response()
}

/// Opens a WebSocket that carries STOMP.
async fn stomp(Extension(visit): Extension<Arc<Visit>>, request: Request) -> Response {
    match upgrade(&visit, Protocol::Stomp, request) {
        Ok(response) => response,
        Err(response) => *response,
    }
}

/// Opens a WebSocket that carries MQTT.
async fn mqtt(Extension(visit): Extension<Arc<Visit>>, request: Request) -> Response {
    match upgrade(&visit, Protocol::Mqtt, request) {
        Ok(response) => response,
        Err(response) => *response,
    }
}

fn refuse(status: StatusCode, sentence: &str) -> Box<Response> {
    Box::new(text(status, format!("{sentence}\n")))
}

/// Checks the handshake (RFC 6455 §4.2) and has the connection go on as a WebSocket.
fn upgrade(visit: &Arc<Visit>, protocol: Protocol, mut request: Request) -> Result<Response, Box<Response>> {
    let headers = request.headers();
    let wants_upgrade =
        lists(headers, &header::CONNECTION, "upgrade") && lists(headers, &header::UPGRADE, "websocket");
    if !wants_upgrade || request.method() != Method::GET {
        let mut response =
            refuse(StatusCode::UPGRADE_REQUIRED, "this path speaks WebSocket; ask for an upgrade");
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        return Err(response);
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = refuse(StatusCode::UPGRADE_REQUIRED, "the WebSocket version here is 13");
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(response);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| websocket::accept_key(key.as_bytes()));
    let Some(key) = key.and_then(|key| HeaderValue::from_str(&key).ok()) else {
        return Err(refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64"));
    };
    let word = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = headers.get(header::ORIGIN).map(|value| value.to_str().unwrap_or("unreadable"));
    let local_peer = visit.peer.remote.is_none_or(|address| address.is_loopback());
    let listed = |origin: &str| visit.shared.options.origins.iter().any(|entry| entry.allows(origin));
    if !websocket::origin_allowed(origin, word(&header::HOST), local_peer, listed) {
        tracing::info!(origin, peer = visit.peer.name, "WebSocket refused by its origin");
        return Err(refuse(
            StatusCode::FORBIDDEN,
            "pages of this origin may not connect; http.allowed_origins lists those that may",
        ));
    }
    let offers =
        headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let chosen = match websocket::choose_subprotocol(offers, protocol.subprotocols()) {
        Subprotocol::None => None,
        Subprotocol::Chosen(name) => Some(HeaderValue::from_static(name)),
        Subprotocol::Unknown => {
            let known = protocol.subprotocols().join(", ");
            return Err(refuse(
                StatusCode::BAD_REQUEST,
                &format!("none of the offered sub-protocols is spoken here; these are: {known}"),
            ));
        }
    };

    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(go_on(Arc::clone(visit), protocol, upgraded));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    if let Some(name) = chosen {
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok(response)
}

/// Takes the socket back from hyper and gives it to the driver.
async fn go_on(visit: Arc<Visit>, protocol: Protocol, upgraded: hyper::upgrade::OnUpgrade) {
    let upgraded = match upgraded.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(peer = visit.peer.name, %error, "the upgrade to WebSocket failed");
            return;
        }
    };
    let (Ok(parts), Some(permit)) = (upgraded.downcast::<TokioIo<Prefixed>>(), visit.permit.lock().take())
    else {
        tracing::error!("an upgraded connection is not the socket it was made of");
        return;
    };
    let shared = &visit.shared;
    let (socket, writer) = websocket::split(
        parts.io.into_inner(),
        &parts.read_buf,
        shared.limits.frame_bytes_max as u64,
        protocol.is_binary(),
        shared.clock.refresh().instant,
        &shared.census,
    );
    start(shared, protocol, visit.peer.clone(), Transport::WebSocket(Box::new(socket)), writer, &[], permit);
}

/// Whether a header that is a list of words has this one.
fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|entry| entry.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_lists_exactly_the_paths_there_are() {
        let paths = CONTRACT.split_once("\npaths:\n").expect("openapi.yaml has paths").1;
        let listed: Vec<&str> = paths
            .lines()
            .take_while(|line| line.is_empty() || line.starts_with([' ', '#']))
            .filter_map(|line| line.strip_prefix("  /")?.strip_suffix(':'))
            .collect();
        let mut listed: Vec<String> = listed.into_iter().map(|path| format!("/{path}")).collect();
        listed.sort();
        assert_eq!(listed, ROUTES);
        // Building it checks that every path has a handler.
        let _ = ROUTER.clone();
    }

    #[test]
    fn a_header_that_is_a_list_is_searched_word_by_word() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(lists(&headers, &header::CONNECTION, "upgrade"));
        assert!(!lists(&headers, &header::CONNECTION, "upgr"));
    }
}
