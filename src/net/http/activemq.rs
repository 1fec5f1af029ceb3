//! ActiveMQ's REST calls: `/api/message/NAME`. A message that is consumed is leased until its reply has been handed to the
//! socket, so that a client that has gone away loses nothing; what ActiveMQ keeps for a `clientId` between two calls, a
//! topic's consumer, is kept here for a while, too.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use sabir_admin::{Caller, Problem};
use sabir_http::activemq::{self, Media, Post, Settling};
use sabir_http::{incoming, token};
use sabir_json::{RenderOptions, View};
use sabir_model::clock::Instant;
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::Code;
use sabir_model::pattern::Pattern;
use sabir_model::settlement::{SettleMode, Settlement};

use super::consume::settle_by_token;
use super::large::{self, Arrived, Windows};
use super::leases::{LeaseId, Source, Verdict};
use super::params::{Call, Name, decode, role};
use super::party::{Inbox, Party, Received, Role, arrival, deadline_after, kept, leased};
use super::send::{announce, name_headers, problem_of, publish_one};
use super::{Visit, json, read_body};
use crate::net::Shared;

/// Time in which a browser has seen what it may see.
const BROWSE_MAX: Duration = Duration::from_secs(10);
/// Messages that wait for a topic's consumer between two calls.
const LIVE_MAX: usize = 1000;
/// How long a topic's consumer is kept after its last call.
const KEPT: Duration = Duration::from_secs(60);
/// Topic consumers kept at a time; beyond it the one idle longest goes.
const CONSUMERS_MAX: usize = 10_000;
/// Time in which a reply must have reached the socket.
const REPLY_LEASE: Duration = Duration::from_secs(30);

/// A topic's consumer between two calls of one client.
struct Live {
    inbox: Arc<Inbox>,
    party: Mutex<Party>,
    used: Mutex<Instant>,
    /// Calls of one client take turns.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct LiveKey {
    role: Role,
    pattern: Pattern,
    selector: Option<Box<str>>,
}

/// Topic consumers kept for clients that named themselves.
#[derive(Default)]
pub(super) struct Consumers(Mutex<HashMap<LiveKey, Arc<Live>>>);

impl Consumers {
    pub(super) fn tick(&self, now: Instant) {
        let mut over = Vec::new();
        self.0.lock().retain(|_, live| {
            let stays = Arc::strong_count(live) > 1 || now.since(*live.used.lock()) < KEPT;
            if !stays {
                over.push(Arc::clone(live));
            }
            stays
        });
        drop(over);
    }

    pub(super) fn close(&self) {
        let consumers = std::mem::take(&mut *self.0.lock());
        drop(consumers);
    }

    fn forget(&self, role: &Role) {
        let mut over = Vec::new();
        self.0.lock().retain(|key, live| {
            let stays = key.role != *role;
            if !stays {
                over.push(Arc::clone(live));
            }
            stays
        });
        drop(over);
    }
}

/// `/api/message` and `/api/message/{*destination}`, any method.
pub(super) async fn call(call: Call, request: Request) -> Result<Response, Problem> {
    let path = match request.uri().path().strip_prefix("/api/message/") {
        Some(path) => Some(decode(path, false)?),
        None => None,
    };
    let Call { visit, caller, params, .. } = call;
    if *request.method() == Method::POST {
        return post(&visit, &caller, path.as_deref(), params.rest(), request).await;
    }
    consume(&visit, &caller, path.as_deref(), &params.rest(), request.headers()).await
}

async fn post(
    visit: &Arc<Visit>,
    caller: &Caller,
    path: Option<&str>,
    params: Vec<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let named = name_headers(&parts.headers);
    // A form is read whole.
    let is_form = parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded")
    });
    let arrived = if is_form {
        Arrived::Whole(read_body(visit, &parts.headers, body).await?)
    } else {
        large::take(visit, &parts.headers, body, |length| {
            match activemq::post(path, &params, &named, &[]).map_err(problem_of)? {
                Post::Message(message) => {
                    let role = role(caller, message.virtual_host, None);
                    announce(visit, &role, Some(&message.address), &message.draft, length)
                }
                Post::Unsubscribe { .. } => {
                    Err(Problem::new(Code::InvalidBody, "to unsubscribe needs no body"))
                }
            }
        })
        .await?
    };
    let (body, stored) = match arrived {
        Arrived::Whole(body) => (body, None),
        Arrived::Large(large) => (Bytes::new(), Some(large)),
    };
    let message = match activemq::post(path, &params, &named, &body).map_err(problem_of)? {
        Post::Message(message) => message,
        Post::Unsubscribe { client_id, virtual_host } => {
            let role = role(caller, virtual_host, client_id.as_deref());
            visit.shared.http.consumers.forget(&role);
            return Ok(plain(StatusCode::OK, "Unsubscribed", None));
        }
    };
    let mut message = message;
    if let Some(large) = stored {
        message.draft.body = incoming::stored(&named, Some("text/plain"), large.body, large.is_text);
    }
    let role = role(caller, message.virtual_host, None);
    let sent = publish_one(visit, &role, Some(&message.address), &message.draft)?;
    let id = sent.id.to_string();
    if !message.synchronous {
        return Ok(plain(StatusCode::ACCEPTED, "Message accepted", Some(&id)));
    }
    kept(&visit.shared.broker, sent.promise).await;
    Ok(plain(StatusCode::OK, "Message sent", Some(&id)))
}

fn plain(status: StatusCode, text: &'static str, id: Option<&str>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let mut response = (status, headers, text).into_response();
    if let Some(value) = id.and_then(|id| HeaderValue::from_str(id).ok()) {
        response.headers_mut().insert(HeaderName::from_static("messageid"), value);
    }
    response
}

async fn consume(
    visit: &Arc<Visit>,
    caller: &Caller,
    path: Option<&str>,
    params: &[(String, String)],
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let wanted = activemq::consume(path, params, &name_headers(headers)).map_err(problem_of)?;
    let destination = Destination::parse_qualified(&wanted.address, Kind::Topic)?;
    let deadline = deadline_after(Duration::from_millis(wanted.wait_ms));
    let selector = wanted.selector.as_deref();
    let pattern = Pattern::from(destination.clone());
    if let Settling::Browse { max } = wanted.settling {
        let role = role(caller, wanted.virtual_host, None);
        let max = usize::try_from(max).unwrap_or(1);
        return browse(visit, &role, &pattern, selector, max, deadline).await;
    }
    if destination.kind() == Kind::Topic {
        let role = role(caller, wanted.virtual_host, wanted.client_id.as_deref());
        let keeps = wanted.client_id.is_some() && !wanted.one_shot;
        let received = from_topic(visit, role, pattern, selector, keeps, deadline).await?;
        return Ok(match received {
            Some(received) => answer(&received, wanted.media, None, Payload::plain),
            None => StatusCode::NO_CONTENT.into_response(),
        });
    }
    let source = Source {
        role: role(caller, wanted.virtual_host, None),
        pattern,
        durable: None,
        selector: selector.map(Into::into),
    };
    let leases = &visit.shared.http.leases;
    if leases.room() == 0 {
        return Err(leases.full().into());
    }
    let puller = leases.puller(&visit.shared, &visit.peer, source)?;
    let got = puller.pull(1, deadline).await?.keep().pop();
    let Some((received, token)) = got.and_then(|one| one.token.map(|token| (one, token))) else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let options = &visit.shared.options.http;
    let (by_client, lease) = match wanted.settling {
        Settling::Client { lease_ms } => {
            let ms = lease_ms.unwrap_or(options.lease_default_ms).min(options.lease_max_ms);
            (true, Duration::from_millis(ms))
        }
        Settling::Auto | Settling::Browse { .. } => (false, REPLY_LEASE),
    };
    let until = visit.shared.clock.refresh().instant.after(lease);
    let Some(id) =
        leases.lease(&puller, &caller.principal, (&received.message, token), until, Settlement::Failed)
    else {
        puller.release([token]);
        return Err(leases.full().into());
    };
    if by_client {
        return Ok(answer(&received, wanted.media, Some(id), Payload::plain));
    }
    let (shared, owner) = (Arc::clone(&visit.shared), caller.clone());
    Ok(answer(&received, wanted.media, None, move |payload| {
        Body::new(UntilTaken { payload, shared, owner, id, is_unreadable: false })
    }))
}

/// A reply's body.
enum Payload {
    Bytes(Option<Bytes>),
    Windows(Windows),
}

impl Payload {
    fn plain(self) -> Body {
        match self {
            Self::Bytes(bytes) => bytes.unwrap_or_default().into(),
            Self::Windows(windows) => Body::new(windows),
        }
    }

    fn is_taken(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_none(),
            Self::Windows(windows) => hyper::body::Body::is_end_stream(windows),
        }
    }
}

/// A reply's body that settles its message: accepted once the connection has taken the bytes, back to its place in the
/// queue if it never did.
struct UntilTaken {
    payload: Payload,
    shared: Arc<Shared>,
    owner: Caller,
    id: LeaseId,
    /// The body cannot be read: that counts as an attempt, or it would be tried for ever.
    is_unreadable: bool,
}

impl hyper::body::Body for UntilTaken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match &mut self.payload {
            Payload::Bytes(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Payload::Windows(windows) => ready!(Pin::new(windows).poll_frame(cx)),
        };
        self.is_unreadable = matches!(frame, Some(Err(_)));
        // As long as the client reads, it is its.
        let until = self.shared.clock.refresh().instant.after(REPLY_LEASE);
        if self.shared.http.leases.extend(self.id, &self.owner.principal, until).is_err() {
            let over = std::io::Error::other("the message's lease is over");
            return Poll::Ready(frame.map(|_| Err(over)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.payload.is_taken()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.payload {
            Payload::Bytes(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Payload::Windows(windows) => windows.size_hint(),
        }
    }
}

impl Drop for UntilTaken {
    fn drop(&mut self) {
        let verdict = match self.payload.is_taken() {
            true => Verdict::Ack,
            false if self.is_unreadable => Verdict::Release(Duration::ZERO),
            false => Verdict::Return,
        };
        let now = self.shared.clock.refresh().instant;
        // It may have been too late; then it is in the queue again, and nothing is to be done.
        let _ = self.shared.http.leases.settle_one(self.id, verdict, &self.owner.principal, now);
    }
}

/// A message as a reply of its own, its body as it is.
pub(super) fn bare(received: &Received) -> Response {
    answer(received, None, None, Payload::plain)
}

fn answer(
    received: &Received,
    media: Option<Media>,
    lease: Option<LeaseId>,
    body: impl FnOnce(Payload) -> Body,
) -> Response {
    let delivery = received.delivery();
    let reply = activemq::reply(&delivery, media);
    let payload = match reply.stored {
        Some(stored) => Payload::Windows(Windows::new(stored.clone())),
        None => Payload::Bytes(Some(Bytes::from(reply.body.into_owned()))),
    };
    let mut response = Response::new(body(payload));
    let headers = response.headers_mut();
    for (name, value) in reply.headers {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            continue;
        };
        headers.append(name, value);
    }
    let octets = HeaderValue::from_static("application/octet-stream");
    let content_type = HeaderValue::try_from(reply.content_type.as_ref()).unwrap_or(octets);
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(id) = lease {
        let mut text = Vec::new();
        token::write(id.0, &mut text);
        if let Ok(value) = HeaderValue::from_bytes(&text) {
            headers.insert(HeaderName::from_static("ack-token"), value);
        }
    }
    response
}

async fn from_topic(
    visit: &Arc<Visit>,
    role: Role,
    pattern: Pattern,
    selector: Option<&str>,
    keeps: bool,
    deadline: tokio::time::Instant,
) -> Result<Option<Received>, Problem> {
    let key = LiveKey { role, pattern, selector: selector.map(Into::into) };
    let consumers = &visit.shared.http.consumers;
    let known = consumers.0.lock().get(&key).map(Arc::clone);
    let live = match known {
        Some(live) => live,
        None => {
            let inbox = Inbox::for_live(LIVE_MAX);
            let mut party = Party::open(&visit.shared, &visit.peer, &key.role, Arc::clone(&inbox))?;
            let mut request = leased(std::slice::from_ref(&key.pattern), selector);
            request.settle = SettleMode::Auto;
            party.subscribe(request)?;
            let used = Mutex::new(visit.shared.clock.refresh().instant);
            let turn = tokio::sync::Mutex::new(());
            let live = Arc::new(Live { inbox, party: Mutex::new(party), used, turn });
            if keeps {
                let mut map = consumers.0.lock();
                if map.len() >= CONSUMERS_MAX
                    && let Some(idlest) =
                        map.iter().min_by_key(|(_, live)| *live.used.lock()).map(|(key, _)| key.clone())
                {
                    map.remove(&idlest);
                }
                map.insert(key, Arc::clone(&live));
            }
            live
        }
    };
    let Ok(_turn) = tokio::time::timeout_at(deadline, live.turn.lock()).await else { return Ok(None) };
    let mut closing = visit.shared.closing.subscribe();
    let arrived = async {
        tokio::select! {
            () = arrival(&live.inbox) => None,
            refusal = std::future::poll_fn(|cx| live.party.lock().poll_end(cx)) => Some(refusal),
            () = super::until(&mut closing, |closing| *closing) => None,
        }
    };
    if let Ok(Some(refusal)) = tokio::time::timeout_at(deadline, arrived).await {
        return Err(refusal.into());
    }
    *live.used.lock() = visit.shared.clock.refresh().instant;
    Ok(live.inbox.take(1).pop())
}

/// Looks at a queue's messages without taking any.
async fn browse(
    visit: &Arc<Visit>,
    role: &Role,
    pattern: &Pattern,
    selector: Option<&str>,
    max: usize,
    deadline: tokio::time::Instant,
) -> Result<Response, Problem> {
    let inbox = Inbox::for_live(max);
    let mut party = Party::open(&visit.shared, &visit.peer, role, Arc::clone(&inbox))?;
    let mut request = leased(std::slice::from_ref(pattern), selector);
    request.browse = true;
    request.must_exist = true;
    party.subscribe(request)?;
    // It ends by itself; what is in the log only takes a moment.
    let deadline = deadline.max(deadline_after(BROWSE_MAX));
    let mut got = Vec::new();
    while got.len() < max {
        got.append(&mut inbox.take(max - got.len()));
        if inbox.is_browsed() || tokio::time::timeout_at(deadline, arrival(&inbox)).await.is_err() {
            got.append(&mut inbox.take(max - got.len()));
            break;
        }
        party.resume();
    }
    // It is a look: what has no room is not shown.
    let got = large::load(&visit.shared, &got).await;
    let mut out = b"{\"messages\":[".to_vec();
    for (at, received) in got.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        View::of(&received.delivery()).object(&RenderOptions::default(), &mut out);
    }
    out.extend_from_slice(b"]}");
    Ok(json(StatusCode::OK, out))
}

/// `DELETE /api/ack/{token}`.
pub(super) async fn ack(call: Call, Name(lease): Name) -> Result<Response, Problem> {
    call.params.finish()?;
    settle_by_token(&call.visit, &call.caller, &lease, Verdict::Ack).await
}

/// `POST /api/nack/{token}?requeue=`.
pub(super) async fn nack(mut call: Call, Name(lease): Name) -> Result<Response, Problem> {
    let requeue = call.params.flag("requeue")?.unwrap_or(true);
    call.params.finish()?;
    let verdict = if requeue { Verdict::Release(Duration::ZERO) } else { Verdict::Reject };
    settle_by_token(&call.visit, &call.caller, &lease, verdict).await
}
