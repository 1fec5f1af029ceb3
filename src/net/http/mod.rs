//! The HTTP paths there are so far: health, metrics, the contract, and the door to WebSocket.
//!
//! One connection is one task that hyper drives with an axum router. An upgraded socket leaves hyper for good and goes
//! on as an ordinary connection of the driver.

mod upgrade;

use std::pin::pin;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Extension;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use sabir_model::clock::Clock;

use super::census::Permit;
use super::socket::{Peer, Prefixed};
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

const CONTRACT: &str = include_str!("../../../openapi.yaml");

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
                "/stomp" => get(upgrade::stomp),
                "/mqtt" => get(upgrade::mqtt),
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
}
