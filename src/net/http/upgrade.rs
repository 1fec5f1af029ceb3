//! The door from HTTP to WebSocket: the handshake, and the socket's way from hyper to the driver.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;

use super::{Visit, echo, guard, text};
use crate::net::Shared;
use crate::net::detect::{PREFIX_BYTES_MAX, Protocol};
use crate::net::listener::start;
use crate::net::reader::Transport;
use crate::net::socket::{Peer, Prefixed};
use crate::net::websocket::deflate::{Agreement, negotiate};
use crate::net::websocket::{self, Shape, Subprotocol, Terms};

/// Bytes of the wire that are looked at before a protocol is settled on.
const GUESS_BYTES_MAX: usize = 4 * 1024;

/// What a WebSocket is to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    Messages(Protocol),
    /// A protocol that its first bytes will tell.
    Something,
    /// Whatever comes, back to where it came from.
    Echo,
}

/// Opens a WebSocket that carries STOMP.
pub(super) async fn stomp(Extension(visit): Extension<Arc<Visit>>, request: Request) -> Response {
    answer(upgrade(&visit, Carries::Messages(Protocol::Stomp), request).await)
}

/// Opens a WebSocket that carries MQTT.
pub(super) async fn mqtt(Extension(visit): Extension<Arc<Visit>>, request: Request) -> Response {
    answer(upgrade(&visit, Carries::Messages(Protocol::Mqtt), request).await)
}

/// Opens a WebSocket that carries what the client's sub-protocol says: the first it offers that is spoken here. Who offers
/// none shows by the first bytes.
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
    let carries = match offered.iter().find_map(spoken) {
        Some(protocol) => Carries::Messages(protocol),
        None if offered.is_empty() => Carries::Something,
        None => return *refuse_offers(Protocol::ALL.into_iter().flat_map(Protocol::subprotocols).copied()),
    };
    answer(upgrade(&visit, carries, request).await)
}

/// Opens a WebSocket that sends back what it gets, if that is wanted.
pub(super) async fn echo(Extension(visit): Extension<Arc<Visit>>, request: Request) -> Response {
    if !visit.shared.options.http.websocket_echo {
        return text(StatusCode::NOT_FOUND, "the echo is off; http.websocket_echo turns it on\n".to_owned());
    }
    answer(upgrade(&visit, Carries::Echo, request).await)
}

fn answer(result: Result<Response, Box<Response>>) -> Response {
    result.unwrap_or_else(|refusal| *refusal)
}

fn refuse_offers(known: impl Iterator<Item = &'static str>) -> Box<Response> {
    let known: Vec<&str> = known.collect();
    let sentence =
        format!("none of the offered sub-protocols is spoken here; these are: {}", known.join(", "));
    refuse(StatusCode::BAD_REQUEST, &sentence)
}

fn refuse(status: StatusCode, sentence: &str) -> Box<Response> {
    Box::new(text(status, format!("{sentence}\n")))
}

/// Checks the handshake (RFC 6455 §4.2) and has the connection go on as a WebSocket.
async fn upgrade(
    visit: &Arc<Visit>,
    carries: Carries,
    mut request: Request,
) -> Result<Response, Box<Response>> {
    let headers = &request.headers().clone();
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
    let values = |name: &HeaderName| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let offers = values(&header::SEC_WEBSOCKET_PROTOCOL);
    let chosen = match carries {
        Carries::Something | Carries::Echo => None,
        Carries::Messages(protocol) => match websocket::choose_subprotocol(offers, protocol.subprotocols()) {
            Subprotocol::None => None,
            Subprotocol::Chosen(name) => Some(HeaderValue::from_static(name)),
            Subprotocol::Unknown => return Err(refuse_offers(protocol.subprotocols().iter().copied())),
        },
    };
    let deflate = match visit.shared.options.http.websocket_compression {
        true => negotiate(values(&header::SEC_WEBSOCKET_EXTENSIONS)),
        false => None,
    };

    // Only now: no page of another origin gets to use a login that the browser keeps.
    let peer = Peer { principal: guard::vouched(visit, headers).await?, ..visit.peer.clone() };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(go_on(Arc::clone(visit), peer, carries, deflate, upgraded));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    if let Some(name) = chosen {
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    if let Some(extension) = deflate.and_then(|deflate| HeaderValue::from_str(&deflate.answer()).ok()) {
        answer.insert(header::SEC_WEBSOCKET_EXTENSIONS, extension);
    }
    Ok(response)
}

/// Takes the socket back from hyper and gives it to the driver.
async fn go_on(
    visit: Arc<Visit>,
    peer: Peer,
    carries: Carries,
    deflate: Option<Agreement>,
    upgraded: hyper::upgrade::OnUpgrade,
) {
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
    let (mut socket, mut early) = (parts.io.into_inner(), parts.read_buf);
    let mut terms =
        Terms { shape: Shape::Stream, message_bytes_max: shared.limits.frame_bytes_max as u64, deflate };
    let protocol = match carries {
        Carries::Messages(protocol) => protocol,
        Carries::Something => {
            let patience = shared.options.greeting_timeout;
            let guessed = guess(&mut socket, &mut early, &terms);
            match tokio::time::timeout(patience, guessed).await {
                Ok(Ok(protocol)) => protocol,
                Ok(Err(_)) => return,
                // It has its own words for silence.
                Err(_) => Protocol::Stomp,
            }
        }
        Carries::Echo => {
            return echo::run(Arc::clone(shared), socket, &early, terms, permit).await;
        }
    };
    terms.shape = protocol.shape();
    if terms.shape != Shape::Lines {
        // It is a stream to the protocol, which has bounds of its own: a message may be a whole frame with a large body.
        let body = shared.limits.body_bytes_max as u64;
        terms.message_bytes_max = terms.message_bytes_max.saturating_add(body);
    }
    let (socket, writer) = open(shared, socket, &early, &terms);
    start(shared, protocol, peer, Transport::WebSocket(Box::new(socket)), writer, &[], permit);
}

fn open(
    shared: &Shared,
    socket: Prefixed,
    early: &Bytes,
    terms: &Terms,
) -> (websocket::WebSocket, Box<dyn sabir_broker::Writer>) {
    websocket::split(socket, early, terms, shared.clock.refresh().instant, &shared.census)
}

/// Reads until the first bytes of the messages say which protocol they are of; what has been read is in `early`.
async fn guess(socket: &mut Prefixed, early: &mut Bytes, terms: &Terms) -> io::Result<Protocol> {
    let mut wire = BytesMut::from(early.as_ref());
    loop {
        let mut prefix = [0; PREFIX_BYTES_MAX];
        let found = match websocket::peek(&wire, terms, &mut prefix) {
            Some(data) if wire.len() < GUESS_BYTES_MAX => Protocol::guess(data),
            // A farewell, or a mistake of the transport's: any driver knows what to say.
            _ => Some(Protocol::Stomp),
        };
        if let Some(protocol) = found {
            *early = wire.freeze();
            return Ok(protocol);
        }
        if socket.read_buf(&mut wire).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *early = Bytes::copy_from_slice(&wire);
    }
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
