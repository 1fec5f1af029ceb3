//! The door from HTTP to WebSocket: the handshake, and the socket's way from hyper to the driver.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use hyper_util::rt::TokioIo;

use super::{Visit, text};
use crate::net::detect::Protocol;
use crate::net::listener::start;
use crate::net::reader::Transport;
use crate::net::socket::Prefixed;
use crate::net::websocket::{self, Subprotocol};

/// Opens a WebSocket that carries STOMP.
pub(super) async fn stomp(Extension(visit): Extension<Arc<Visit>>, request: Request) -> Response {
    match upgrade(&visit, Protocol::Stomp, request) {
        Ok(response) => response,
        Err(response) => *response,
    }
}

/// Opens a WebSocket that carries MQTT.
pub(super) async fn mqtt(Extension(visit): Extension<Arc<Visit>>, request: Request) -> Response {
    match upgrade(&visit, Protocol::Mqtt, request) {
        Ok(response) => response,
        Err(response) => *response,
    }
}

/// Opens a WebSocket that carries what the client's sub-protocol says: the first it offers that is spoken here. Who offers
/// none means STOMP, as with ActiveMQ.
pub(super) async fn any(Extension(visit): Extension<Arc<Visit>>, request: Request) -> Response {
    let offered: Vec<&str> = request
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    let spoken = |name: &&str| Protocol::ALL.into_iter().find(|known| known.subprotocols().contains(name));
    let found = offered.iter().find_map(spoken);
    if found.is_none() && !offered.is_empty() {
        let names: Vec<&str> = Protocol::ALL.into_iter().flat_map(Protocol::subprotocols).copied().collect();
        let sentence =
            format!("none of the offered sub-protocols is spoken here; these are: {}", names.join(", "));
        return *refuse(StatusCode::BAD_REQUEST, &sentence);
    }
    match upgrade(&visit, found.unwrap_or(Protocol::Stomp), request) {
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
    fn a_header_that_is_a_list_is_searched_word_by_word() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(lists(&headers, &header::CONNECTION, "upgrade"));
        assert!(!lists(&headers, &header::CONNECTION, "upgr"));
    }
}
