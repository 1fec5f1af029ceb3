//! Everything that speaks HTTP: messaging as requests, the management API, health and metrics, and the door to WebSocket.
//!
//! One connection is one task that hyper drives with an axum router. An upgraded socket leaves hyper for good and goes
//! on as an ordinary connection of the driver. What requests and replies mean is `sabir-http`'s and `sabir-admin`'s; here
//! is what needs a runtime: bodies, long polls, streams, and the leases behind them.

mod activemq;
mod consume;
mod echo;
mod guard;
mod idempotency;
mod large;
mod leases;
mod params;
mod party;
mod pipe;
mod send;
mod stream;
mod upgrade;
mod webhook;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use sabir_admin::{Problem, Routes};
use sabir_model::clock::Clock;
use sabir_model::error::Code;
use sabir_model::limits::Limits;

use super::census::Permit;
use super::socket::{Peer, Prefixed};
use super::{SERVER_NAME, Shared};

/// Largest request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header fields of a request.
const HEADERS_MAX: usize = 64;

const CONTRACT: &str = include_str!("../../../openapi.yaml");

/// What the HTTP side of one server keeps.
pub(crate) struct Desk {
    router: Router,
    leases: leases::Leases,
    logins: guard::Logins,
    replies: idempotency::Replies,
    streams: stream::Streams,
    consumers: activemq::Consumers,
    webhooks: webhook::Webhooks,
}

impl Desk {
    pub(crate) fn new(
        options: &super::HttpOptions,
        limits: &Limits,
        clock: &Arc<super::SystemClock>,
    ) -> Self {
        let router = routes()
            .into_router()
            .fallback(|| async {
                Problem::new(Code::UnknownCommand, "nothing is here; / lists what there is")
                    .with_status(StatusCode::NOT_FOUND)
            })
            .method_not_allowed_fallback(|| async {
                Problem::new(
                    Code::UnknownCommand,
                    "this path does not know that method; Allow lists those it knows",
                )
                .with_status(StatusCode::METHOD_NOT_ALLOWED)
            })
            .layer(axum::middleware::from_fn(guard::guard));
        Self {
            router,
            leases: leases::Leases::new(options.leases_max),
            logins: guard::Logins::default(),
            replies: idempotency::Replies::new(options.idempotency_max, options.idempotency_ms),
            streams: stream::Streams::default(),
            consumers: activemq::Consumers::default(),
            webhooks: webhook::Webhooks::new(&options.webhooks, limits.frame_bytes_max, clock),
        }
    }

    /// Begins what works without being asked: webhooks.
    pub(crate) fn start(&self, shared: &Arc<Shared>) {
        self.webhooks.restore(shared);
    }

    /// Waits until that has ended; after `patience` it is cut off.
    pub(crate) async fn ended(&self, patience: Duration) {
        self.webhooks.ended(patience).await;
    }

    /// What time does: called with every tick.
    pub(crate) fn tick(&self, now: sabir_model::clock::Instant) {
        self.leases.tick(now);
        self.streams.tick(now);
        self.consumers.tick(now);
    }

    /// Gives back what requests hold: the server ends.
    pub(crate) fn close(&self) {
        self.webhooks.close();
        self.streams.close();
        self.consumers.close();
        self.leases.close();
    }
}

/// Every path with its methods, as `openapi.yaml` lists them: a test compares the two.
fn routes() -> Routes {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const DELETE: Method = Method::DELETE;
    webhook::add(Routes::new())
        .merge(sabir_admin::console())
        .merge(sabir_admin::management())
        .merge(sabir_admin::messages())
        .at("/", [(GET, get(front_page))])
        .at("/healthz/live", [(GET, get(|| async { text(StatusCode::OK, "alive\n".to_owned()) }))])
        .at("/healthz/ready", [(GET, get(ready))])
        .at("/metrics", [(GET, get(metrics))])
        .at(
            "/openapi.yaml",
            [(GET, get(|| async { ([(header::CONTENT_TYPE, "application/yaml")], CONTRACT) }))],
        )
        .at("/ws", [(GET, get(upgrade::any))])
        .at("/ws/echo", [(GET, get(upgrade::echo))])
        .at("/stomp", [(GET, get(upgrade::stomp))])
        .at("/mqtt", [(GET, get(upgrade::mqtt))])
        .at(
            "/v1/session",
            [(GET, get(guard::session)), (POST, post(guard::log_in)), (DELETE, delete(guard::log_out))],
        )
        .at("/v1/messages", [(POST, post(send::anywhere))])
        .at("/v1/queues/{name}/messages", [(POST, post(send::to_queue))])
        .at("/v1/topics/{name}/messages", [(POST, post(send::to_topic))])
        .at("/v1/queues/{name}/request", [(POST, post(send::request_queue))])
        .at("/v1/topics/{name}/request", [(POST, post(send::request_topic))])
        .at("/v1/queues/{name}/pull", [(POST, post(consume::pull_queue))])
        .at("/v1/subscriptions/{client}/{name}/pull", [(POST, post(consume::pull_subscription))])
        .at(
            "/api/message",
            [(GET, get(activemq::call)), (POST, post(activemq::call)), (DELETE, delete(activemq::call))],
        )
        .at(
            "/api/message/{*destination}",
            [(GET, get(activemq::call)), (POST, post(activemq::call)), (DELETE, delete(activemq::call))],
        )
        .at("/api/ack/{token}", [(DELETE, delete(activemq::ack))])
        .at("/api/nack/{token}", [(POST, post(activemq::nack))])
        .at("/v1/queues/{name}/stream", [(GET, get(stream::queue))])
        .at("/v1/topics/{name}/stream", [(GET, get(stream::topic))])
        .at("/v1/subscriptions/{client}/{name}/stream", [(GET, get(stream::subscription))])
        .at("/v1/leases", [(POST, post(consume::settle_many))])
        .at("/v1/leases/{lease}/ack", [(POST, post(consume::ack))])
        .at("/v1/leases/{lease}/body", [(GET, get(consume::body))])
        .at("/v1/leases/{lease}/release", [(POST, post(consume::release))])
        .at("/v1/leases/{lease}/reject", [(POST, post(consume::reject))])
        .at("/v1/leases/{lease}/extend", [(POST, post(consume::extend))])
}

/// What handlers know of the connection that a request came by.
struct Visit {
    shared: Arc<Shared>,
    peer: Peer,
    /// The connection's place; a WebSocket takes it along.
    permit: Mutex<Option<Permit>>,
    /// Who was on this connection last, so that not every request is proved anew.
    believed: Mutex<Option<guard::Believed>>,
    /// The connection's own sender, made with its first message.
    sender: Mutex<Option<Box<send::Sender>>>,
}

/// Serves one HTTP connection until it ends, is upgraded, or the server closes.
pub(super) async fn serve(shared: Arc<Shared>, socket: Prefixed, peer: Peer, permit: Permit) {
    let mut closing = shared.closing.subscribe();
    let patience = shared.options.greeting_timeout;
    let inner = TowerToHyperService::new(shared.http.router.clone());
    let visit = Arc::new(Visit {
        shared,
        peer,
        permit: Mutex::new(Some(permit)),
        believed: Mutex::new(None),
        sender: Mutex::new(None),
    });
    let service = hyper::service::service_fn(|mut request: hyper::Request<Incoming>| {
        let inner = inner.clone();
        request.extensions_mut().insert(Arc::clone(&visit));
        async move { hyper::service::Service::call(&inner, request).await }
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

/// The length of the body that a request announces.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
}

fn too_late(visit: &Visit) -> Problem {
    let sentence =
        format!("the body did not arrive within {} ms", visit.shared.options.http.request_timeout_ms);
    Problem::new(Code::TimedOut, sentence).with_status(StatusCode::REQUEST_TIMEOUT)
}

/// Reads the body of a request.
///
/// # Errors
/// It is larger than `limits.body_bytes_max` or `limits.frame_bytes_max`, does not arrive in time, or breaks off.
async fn read_body(visit: &Visit, headers: &HeaderMap, mut body: Body) -> Result<Bytes, Problem> {
    let limits = &visit.shared.limits;
    let most = limits.body_bytes_max.min(limits.frame_bytes_max);
    let too_large = || {
        let key = if most < limits.body_bytes_max { "frame_bytes_max" } else { "body_bytes_max" };
        let sentence = format!("the body is larger than {most} bytes (limits.{key})");
        Problem::new(Code::TooLarge, sentence)
    };
    if announced(headers).is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    let patience = Duration::from_millis(visit.shared.options.http.request_timeout_ms);
    let read = async {
        let mut first: Option<Bytes> = None;
        let mut rest: Vec<u8> = Vec::new();
        let mut held = visit.shared.broker.hold_body();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|_| Problem::new(Code::MalformedFrame, "the body broke off"))?;
            let Ok(data) = frame.into_data() else { continue };
            let so_far = first.as_ref().map_or(0, Bytes::len) + rest.len();
            if so_far + data.len() > most {
                return Err(too_large());
            }
            held.grow(so_far + data.len()).map_err(|refusal| Problem::new(refusal.code, refusal.sentence))?;
            match &first {
                None => first = Some(data),
                Some(_) => rest.extend_from_slice(&data),
            }
        }
        Ok(match first {
            None => Bytes::new(),
            Some(first) if rest.is_empty() => first,
            Some(first) => {
                let mut whole = Vec::with_capacity(first.len() + rest.len());
                whole.extend_from_slice(&first);
                whole.append(&mut rest);
                Bytes::from(whole)
            }
        })
    };
    match tokio::time::timeout(patience, read).await {
        Ok(result) => result,
        Err(_) => Err(too_late(visit)),
    }
}

/// 128 random bits: what names something that nobody else may guess.
fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    u128::from_ne_bytes(bytes)
}

/// An answer in JSON, which nobody keeps.
fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body).into_response()
}

/// Waits until a watched value is as it should be, or nobody changes it any more.
async fn until<T>(watched: &mut tokio::sync::watch::Receiver<T>, is_so: impl FnMut(&T) -> bool) {
    drop(watched.wait_for(is_so).await);
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

/// The door to WebSocket; the console for a browser, and some words for everybody else.
async fn front_page(Extension(visit): Extension<Arc<Visit>>, request: Request) -> Response {
    if request.headers().contains_key(header::UPGRADE) {
        return upgrade::any(Extension(visit), request).await;
    }
    let accepts = request.headers().get_all(header::ACCEPT);
    if accepts.iter().any(|types| types.to_str().is_ok_and(|types| types.contains("text/html"))) {
        return sabir_admin::index();
    }
    let listening: String = visit.shared.endpoints.iter().map(|endpoint| format!("  {endpoint}\n")).collect();
    let body = format!(
        "{SERVER_NAME}, a message broker; a browser gets its console here\n\nListening:\n{listening}\nHere:\n\
         \x20 /v1/...         messages by request: send, pull, stream; and what there is, to look at and change\n\
         \x20 /api/message    the same for scripts of ActiveMQ\n\
         \x20 /docs           all of it, to read\n\
         \x20 /ws             STOMP or MQTT over WebSocket, by sub-protocol\n\
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

async fn metrics(Extension(visit): Extension<Arc<Visit>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = sabir_admin::Format::wanted(accept.unwrap_or_default());
    let shared = &visit.shared;
    let process = sabir_admin::Process {
        uptime_seconds: shared.clock.now().0 as f64 / 1e6,
        version: env!("CARGO_PKG_VERSION"),
        usage: sabir_admin::Usage::read(),
    };
    let shape = sabir_admin::Shape { format, rows_max: shared.options.http.metrics_rows_max };
    let (broker, net) = (shared.broker.clone(), shared.census.snapshot());
    // With many queues it takes a while: not where sockets wait.
    let made =
        tokio::task::spawn_blocking(move || sabir_admin::metrics(&broker.stats(), &net, &process, shape));
    let Ok(body) = made.await else {
        return Problem::new(Code::Internal, "the page could not be made").into_response();
    };
    let headers = [(header::CONTENT_TYPE, format.media_type()), (header::CACHE_CONTROL, "no-store")];
    (headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One operation of the contract.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Operation<'a> {
        method: &'a str,
        path: &'a str,
        summary: &'a str,
    }

    /// The operations in the order of the contract, whose layout a test holds to: paths are indented by two, methods by four.
    fn operations(contract: &str) -> Vec<Operation<'_>> {
        let paths = contract.split_once("\npaths:\n").map_or("", |(_, rest)| rest);
        let mut operations: Vec<Operation<'_>> = Vec::new();
        let mut path = "";
        for line in paths.lines().take_while(|line| line.is_empty() || line.starts_with([' ', '#'])) {
            let key = |indent: &str| line.strip_prefix(indent).filter(|rest| !rest.starts_with(' '));
            if let Some(found) = key("  ").and_then(|rest| rest.strip_suffix(':')) {
                path = found;
            } else if let Some(method) = key("    ").and_then(|rest| rest.strip_suffix(':'))
                && matches!(method, "get" | "put" | "post" | "delete" | "patch")
            {
                operations.push(Operation { method, path, summary: "" });
            } else if let Some(summary) = key("      ").and_then(|rest| rest.strip_prefix("summary: "))
                && let Some(operation) = operations.last_mut()
            {
                operation.summary = summary.trim_matches('"');
            }
        }
        operations
    }

    #[test]
    fn no_key_of_the_contract_is_there_twice() {
        let mut section = "";
        let mut known = std::collections::HashSet::new();
        for line in CONTRACT.lines() {
            let key = |indent: &str| {
                line.strip_prefix(indent)?.strip_suffix(':').filter(|key| !key.starts_with(' '))
            };
            if let Some(name) = key("").or_else(|| key("  ")) {
                section = name;
            }
            if let Some(name) = key("").or_else(|| key("  ")).or_else(|| key("    ")) {
                let name = if name == section { name.to_owned() } else { format!("{section} {name}") };
                assert!(known.insert(name.clone()), "{name}");
            }
        }
        assert!(known.len() > 100);
    }

    #[test]
    fn every_operation_says_what_it_does() {
        let operations = operations(CONTRACT);
        assert!(operations.len() > 20);
        for operation in &operations {
            assert!(!operation.summary.is_empty(), "{operation:?}");
        }
    }

    #[test]
    fn the_contract_lists_exactly_the_paths_there_are() {
        let mut known: Vec<String> = routes()
            .listed()
            .iter()
            .map(|(path, method)| format!("{} {path}", method.as_str().to_lowercase()).replace("{*", "{"))
            .collect();
        known.sort();
        let mut listed: Vec<String> = operations(CONTRACT)
            .iter()
            .map(|operation| format!("{} {}", operation.method, operation.path))
            .collect();
        listed.sort();
        assert_eq!(listed, known);
    }
}
