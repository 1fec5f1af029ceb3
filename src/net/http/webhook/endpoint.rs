//! The HTTP client of one webhook: it signs, connects to addresses that may be called, keeps connections for the next
//! request, and says what came of an attempt. It follows no redirect and remembers no cookie.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use sabir_model::clock::Instant;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::definition::{Definition, Format, Plan};
use super::render::{Rendered, describe, render};
use super::retry::{Answer, retry_after};
use super::signer::{Secret, message_id, signatures};
use super::targets::Targets;
use super::tls::Tls;
use super::url::Url;
use crate::net::http::large::loaded;
use crate::net::http::party::Received;
use crate::net::{SERVER_NAME, SystemClock};

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// What of an answer's body is read so that the connection can be used again, and for how long; nobody looks at it.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Largest head of an answer, and most headers.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 128;

/// What all webhooks of a server share.
pub(super) struct Common {
    pub(super) targets: Targets,
    pub(super) tls: Tls,
    pub(super) clock: Arc<SystemClock>,
    /// Bytes of requests under way of one webhook.
    pub(super) bytes_max: usize,
    /// Largest body that is brought into memory.
    pub(super) body_bytes_max: usize,
}

struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

/// Where a webhook's requests go.
pub(super) struct Endpoint {
    common: Arc<Common>,
    virtual_host: Box<str>,
    name: Box<str>,
    url: Url,
    secrets: Vec<Secret>,
    headers: Vec<(HeaderName, HeaderValue)>,
    format: Format,
    timeout: Duration,
    idle: Mutex<Vec<Idle>>,
    /// One name is looked up at a time.
    lookups: Arc<Semaphore>,
    /// Places for KiB of requests under way.
    room: Semaphore,
    room_kib: u32,
}

impl Endpoint {
    pub(super) fn new(common: Arc<Common>, key: (&str, &str), definition: &Definition, plan: Plan) -> Self {
        let room_kib = u32::try_from(common.bytes_max.div_ceil(1024)).unwrap_or(u32::MAX >> 3).max(1);
        Self {
            common,
            virtual_host: key.0.into(),
            name: key.1.into(),
            url: plan.url,
            secrets: plan.secrets,
            headers: plan.headers,
            format: definition.format,
            timeout: Duration::from_millis(definition.timeout),
            idle: Mutex::default(),
            lookups: Arc::new(Semaphore::new(1)),
            room: Semaphore::new(room_kib as usize),
            room_kib,
        }
    }

    /// Closes connections that nobody has used for a while; says whether there are others.
    pub(super) fn prune(&self, now: Instant) -> bool {
        let mut idle = self.idle.lock();
        idle.retain(|one| now.since(one.since) < IDLE && !one.sender.is_closed());
        !idle.is_empty()
    }

    /// Sends a message once.
    pub(super) async fn attempt(&self, received: &Received, number: u32) -> Answer {
        // What is rendered is at most about so large: text in JSON has escapes, octets are in base64.
        let size = received.message.weight().saturating_mul(2).div_ceil(1024);
        let places = u32::try_from(size).unwrap_or(u32::MAX).clamp(1, self.room_kib);
        let Ok(_room) = self.room.acquire_many(places).await else {
            return Answer::Failed("the server is shutting down".to_owned());
        };
        // A signature is over the whole.
        let message = match loaded(&received.message, self.common.body_bytes_max).await {
            Ok(message) => message,
            Err(error) => return Answer::Failed(format!("the body of the message is not sent: {error}")),
        };
        let received = &Received { message, ..received.clone() };
        let Rendered { body, headers } = render(&received.delivery(), self.format);
        let wall = self.common.clock.refresh().wall.0;
        let id = message_id(&self.virtual_host, &self.name, &received.message.id().to_string());
        let head = self.head(headers, &id, wall / 1000, number, &body);
        let request = || {
            let mut request = Request::post(self.url.path.as_str()).body(Body::from(body.clone())).ok()?;
            request.headers_mut().clone_from(&head);
            Some(request)
        };
        let answered = match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(answered) => answered,
            Err(_) => Err(format!("no answer within {} ms", self.timeout.as_millis())),
        };
        let (sender, response) = match answered {
            Ok(answered) => answered,
            Err(why) => return Answer::Failed(why),
        };
        let status = response.status().as_u16();
        let asked = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let asked = asked.and_then(|text| retry_after(text, wall));
        self.keep(sender, response.into_body()).await;
        Answer::Status { status, retry_after: asked }
    }

    fn head(&self, mut headers: HeaderMap, id: &str, seconds: u64, number: u32, body: &[u8]) -> HeaderMap {
        headers.insert(header::HOST, self.url.authority.clone());
        headers.insert(header::USER_AGENT, HeaderValue::from_static(SERVER_NAME));
        // Whoever defines a webhook goes before whoever sends a message.
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        let mut put = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        put("webhook-id", id);
        put("webhook-timestamp", &seconds.to_string());
        if !self.secrets.is_empty() {
            put("webhook-signature", &signatures(&self.secrets, id, seconds, body));
        }
        put("sabir-attempt", &number.to_string());
        headers
    }

    /// Sends a request over a connection that is there, or a new one.
    async fn exchange(
        &self,
        request: impl Fn() -> Option<Request<Body>>,
    ) -> Result<(SendRequest<Body>, Response<Incoming>), String> {
        let made = || request().ok_or_else(|| "the request cannot be written".to_owned());
        loop {
            let Some(Idle { mut sender, .. }) = self.idle.lock().pop() else { break };
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.send_request(made()?).await {
                Ok(response) => return Ok((sender, response)),
                // The receiver may have closed it meanwhile, which shows as a reset, too. The id tells the request apart
                // should it have got there after all.
                Err(error) if !error.is_parse() => break,
                Err(error) => return Err(format!("the request failed: {}", describe(&error))),
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(made()?).await;
        let response = response.map_err(|error| format!("the request failed: {}", describe(&error)))?;
        Ok((sender, response))
    }

    async fn connect(&self) -> Result<SendRequest<Body>, String> {
        let Url { host, port, .. } = &self.url;
        let addresses = self.common.targets.resolve(host, *port, &self.lookups).await?;
        // One that does not answer must not take the time of the others.
        let patience = self.timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut why = format!("{host} has no address");
        for address in addresses {
            match tokio::time::timeout(patience, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => {
                    // A request is written as a whole; waiting for more would only delay it.
                    let _ = socket.set_nodelay(true);
                    if !self.url.secure {
                        return speak(socket).await;
                    }
                    return speak(self.common.tls.connect(host, socket).await?).await;
                }
                Ok(Err(error)) => why = format!("cannot connect to {address}: {error}"),
                Err(_) => why = format!("cannot connect to {address} within {} ms", patience.as_millis()),
            }
        }
        Err(why)
    }

    /// Reads what is left of an answer, within bounds, and keeps the connection if it can be used again.
    async fn keep(&self, sender: SendRequest<Body>, mut body: Incoming) {
        let rest = async {
            let mut bytes = 0;
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let Ok(frame) = frame else { return false };
                bytes += frame.data_ref().map_or(0, axum::body::Bytes::len);
                if bytes > ANSWER_BYTES_MAX {
                    return false;
                }
            }
            true
        };
        if tokio::time::timeout(ANSWER_PATIENCE, rest).await == Ok(true) && !sender.is_closed() {
            let since = self.common.clock.refresh().instant;
            self.idle.lock().push(Idle { sender, since });
        }
    }
}

/// Begins HTTP on a socket. The connection ends when nobody has its sender any more.
async fn speak<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    socket: T,
) -> Result<SendRequest<Body>, String> {
    let begun = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .handshake::<_, Body>(TokioIo::new(socket))
        .await;
    let (sender, connection) =
        begun.map_err(|error| format!("the connection failed: {}", describe(&error)))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a webhook's connection ended");
        }
    });
    Ok(sender)
}
