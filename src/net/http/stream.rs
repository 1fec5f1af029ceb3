//! Streams: Server-Sent Events and lines of JSON from topics, patterns, queues and durable subscriptions.
//!
//! What comes from a queue is leased to the stream. While the stream stands a message counts as received when its lease is
//! over; when it breaks, its leases go on for their time, and a client that comes back with `Last-Event-ID` settles what
//! it has seen and gets the rest again, in order. A topic keeps nothing: there a client that comes back is told of the gap.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use sabir_admin::Problem;
use sabir_http::{cloudevents, sse};
use sabir_json::{BodyForm, RenderOptions, View};
use sabir_model::base64;
use sabir_model::clock::{Instant, Timestamp};
use sabir_model::destination::Kind;
use sabir_model::error::{Code, Refusal};
use sabir_model::message::BodyKind;
use sabir_model::pattern::Pattern;
use sabir_model::settlement::{SettleMode, Settlement};
use tokio::sync::watch;

use super::consume::{Envelope, durable_source, queue_source, write_leased};
use super::leases::{LeaseId, Puller, Source, Verdict};
use super::params::{Call, Name, Names};
use super::party::{Inbox, Party, Received, arrival, leased};
use super::pipe::{Flowing, Pipe, pipe};
use super::{Visit, random, until};
use crate::net::Shared;

/// Silence after which a comment keeps the connection alive.
const BEAT: Duration = Duration::from_secs(15);
/// How long a client should wait before it comes back.
const RETRY_MS: u32 = 2000;
/// Messages of a topic written at once.
const BATCH: usize = 64;
/// Size from which a piece of a queue's stream is not made larger.
const PIECE_BYTES: usize = 64 * 1024;
/// Messages unsettled on one stream, where the request does not say, and at most.
const CREDIT: u64 = 1000;
const CREDIT_MAX: u64 = 10_000;
/// Live messages that may wait for a slow reader; beyond it the oldest is dropped and counted.
const LIVE_MAX: usize = 1000;
/// How long a message is a stream's, where the request does not say.
const LEASE_MS: u64 = 5000;
/// The longest that a broken stream is kept for its client.
const GRACE: Duration = Duration::from_secs(60);
/// Streams at a time, with those kept for clients that may come back.
const STREAMS_MAX: usize = 20_000;
/// How often a stream that has no credit left looks whether it has some again.
const CREDIT_CHECK: Duration = Duration::from_millis(50);

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Server-Sent Events.
    Events,
    /// One JSON document a line.
    Lines,
}

/// A message that a stream has written and nobody has settled.
struct Written {
    serial: u64,
    lease: LeaseId,
    received: Received,
}

#[derive(Default)]
struct Window {
    written: VecDeque<Written>,
    next_serial: u64,
}

/// What a queue's stream keeps while its connection comes and goes.
struct Kept {
    source: Source,
    puller: Arc<Puller>,
    window: Mutex<Window>,
    /// Counts the connections it has had; an older one ends when it sees a newer.
    connection: watch::Sender<u64>,
    /// When it is forgotten; absent while a connection is there.
    until: Mutex<Option<Instant>>,
}

/// All streams that can be taken up again.
#[derive(Default)]
pub(super) struct Streams(Mutex<HashMap<u128, Arc<Kept>>>);

impl Streams {
    /// Forgets streams whose clients did not come back.
    pub(super) fn tick(&self, now: Instant) {
        let mut streams = self.0.lock();
        let mut over = Vec::new();
        streams.retain(|_, kept| {
            let stays = kept.until.lock().is_none_or(|until| until > now);
            if !stays {
                over.push(Arc::clone(kept));
            }
            stays
        });
        drop(streams);
        drop(over);
    }

    pub(super) fn close(&self) {
        let streams = std::mem::take(&mut *self.0.lock());
        drop(streams);
    }

    /// Takes in a stream. Where there is no place, the broken one goes that would be forgotten first.
    fn insert(&self, id: u128, kept: Arc<Kept>) -> Result<(), Refusal> {
        let mut streams = self.0.lock();
        let mut over = None;
        if streams.len() >= STREAMS_MAX {
            let first = streams.iter().filter_map(|(id, kept)| Some(((*kept.until.lock())?, *id))).min();
            let Some((_, first)) = first else {
                let sentence = format!("there are {STREAMS_MAX} streams, the most there may be");
                return Err(Refusal::new(Code::LimitReached, sentence));
            };
            over = streams.remove(&first);
        }
        streams.insert(id, kept);
        drop(streams);
        drop(over);
        Ok(())
    }
}

/// How a stream's task goes about it.
struct Writer {
    shared: Arc<Shared>,
    format: Format,
    envelope: Envelope,
    id: u128,
}

impl Writer {
    fn begin(&self, buffer: &mut Vec<u8>) {
        if self.format == Format::Events {
            sse::retry(RETRY_MS, buffer);
        }
    }

    fn message(
        &self,
        serial: u64,
        lease: Option<(LeaseId, Timestamp)>,
        received: &Received,
        buffer: &mut Vec<u8>,
    ) {
        let mut data = Vec::with_capacity(256);
        // A document is written whole; what is too large for one is shown cut.
        let whole = received.message.stored_body().and_then(|_| {
            let message = received.message.loaded(self.shared.limits.frame_bytes_max).ok()?;
            Some(Received { message, ..received.clone() })
        });
        let received = whole.as_ref().unwrap_or(received);
        match lease {
            _ if self.envelope == Envelope::None => write_bare(received, &mut data),
            Some((lease, expires)) => write_leased(received, lease, expires, self.envelope, &mut data),
            None if self.envelope == Envelope::CloudEvent => {
                cloudevents::write(&received.delivery(), None, &mut data);
            }
            None => View::of(&received.delivery()).object(&RenderOptions::default(), &mut data),
        }
        match self.format {
            Format::Events => {
                sse::event(Some("message"), Some(&sse::event_id(self.id, serial)), &data, buffer);
            }
            Format::Lines => {
                // The event's id goes first into the document.
                let rest = data.get(1..).unwrap_or_default();
                // An attribute of an event has no capitals.
                let name = if self.envelope == Envelope::CloudEvent { "eventid" } else { "eventId" };
                buffer.extend_from_slice(format!("{{\"{name}\":\"").as_bytes());
                buffer.extend_from_slice(sse::event_id(self.id, serial).as_bytes());
                buffer.extend_from_slice(b"\",");
                buffer.extend_from_slice(rest);
                buffer.push(b'\n');
            }
        }
    }

    fn gap(&self, serial: u64, missed: Option<u64>, buffer: &mut Vec<u8>) {
        let data = serde_json::json!({ "missed": missed }).to_string();
        match self.format {
            Format::Events => {
                let id = sse::event_id(self.id, serial);
                sse::event(Some("gap"), Some(&id), data.as_bytes(), buffer);
            }
            Format::Lines => {
                buffer.extend_from_slice(format!("{{\"gap\":{data}}}\n").as_bytes());
            }
        }
    }

    fn end(&self, refusal: &Refusal, buffer: &mut Vec<u8>) {
        let data = serde_json::json!({ "code": refusal.code.as_str(), "detail": refusal.sentence });
        match self.format {
            Format::Events => sse::event(Some("end"), None, data.to_string().as_bytes(), buffer),
            Format::Lines => buffer.extend_from_slice(format!("{{\"end\":{data}}}\n").as_bytes()),
        }
    }

    fn beat(&self, buffer: &mut Vec<u8>) {
        match self.format {
            Format::Events => sse::comment(buffer),
            Format::Lines => buffer.push(b'\n'),
        }
    }
}

/// A message's body alone; octets that are no text in base64.
fn write_bare(received: &Received, out: &mut Vec<u8>) {
    let Some(body) = received.message.body().octets() else {
        return View::of(&received.delivery()).object(&RenderOptions { body: BodyForm::Head(0) }, out);
    };
    match received.message.facts().body_kind {
        BodyKind::Map | BodyKind::List => View::of(&received.delivery()).body(out),
        _ if std::str::from_utf8(body).is_ok() => out.extend_from_slice(body),
        _ => base64::encode(body, out),
    }
}

/// What a request for a stream says.
struct Wanted {
    format: Format,
    envelope: Envelope,
    credit: usize,
    lease: Duration,
    /// Settled by the client, or by time.
    by_client: bool,
    last: Option<(u128, u64)>,
}

fn wanted(call: &mut Call, headers: &HeaderMap) -> Result<Wanted, Problem> {
    let params = &mut call.params;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let envelope = Envelope::wanted(params, headers)?;
    let format = if accept.contains("ndjson") { Format::Lines } else { Format::Events };
    if format == Format::Lines && envelope == Envelope::None {
        return Err(Problem::invalid(
            "envelope",
            "a body alone may be more than a line; it needs text/event-stream",
        ));
    }
    let credit = params.number("credit", 1, CREDIT_MAX)?.unwrap_or(CREDIT);
    let lease = params.span("lease", call.visit.shared.options.http.lease_max_ms)?;
    let by_client = match params.take("ack").as_deref() {
        None | Some("auto") => false,
        Some("client") => true,
        Some(_) => return Err(Problem::invalid("ack", "ack must be auto or client")),
    };
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let last = last.or_else(|| params.take("lastEventId")).filter(|text| !text.is_empty());
    let last = last.as_deref().map(|text| {
        // An id of nobody's: the client has seen something that we know nothing of.
        sse::read_event_id(text).unwrap_or((0, 0))
    });
    Ok(Wanted {
        format,
        envelope,
        credit: usize::try_from(credit).unwrap_or(1),
        lease: lease.unwrap_or(Duration::from_millis(LEASE_MS)),
        by_client,
        last,
    })
}

fn reply(format: Format, flowing: Flowing) -> Response {
    let media = match format {
        Format::Events => "text/event-stream",
        Format::Lines => "application/x-ndjson",
    };
    let headers = [
        (header::CONTENT_TYPE, media),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (StatusCode::OK, headers, Body::new(flowing)).into_response()
}

/// `GET /v1/queues/{name}/stream`.
pub(super) async fn queue(mut call: Call, Name(name): Name, headers: HeaderMap) -> Result<Response, Problem> {
    let wanted = wanted(&mut call, &headers)?;
    let source = queue_source(&mut call, &name)?;
    call.params.finish()?;
    start_kept(&call.visit, source, wanted)
}

/// `GET /v1/subscriptions/{client}/{name}/stream`.
pub(super) async fn subscription(
    mut call: Call,
    Names(client, name): Names,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = wanted(&mut call, &headers)?;
    let role = call.role(Some(&client));
    call.params.finish()?;
    let source = durable_source(&call.visit, role, &client, &name)?;
    start_kept(&call.visit, source, wanted)
}

/// Takes up a stream of a queue, or begins one.
fn start_kept(visit: &Arc<Visit>, source: Source, wanted: Wanted) -> Result<Response, Problem> {
    let shared = Arc::clone(&visit.shared);
    let streams = &shared.http.streams;
    let known = wanted.last.and_then(|(id, _)| {
        let kept = streams.0.lock().get(&id).map(Arc::clone)?;
        (kept.source == source).then_some((id, kept))
    });
    let (id, kept, seen) = match (known, wanted.last) {
        (Some((id, kept)), Some((_, seen))) => (id, kept, Some(seen)),
        _ => {
            let puller = Puller::open(&shared, &visit.peer, &source)?;
            let kept = Arc::new(Kept {
                source,
                puller,
                window: Mutex::new(Window { written: VecDeque::new(), next_serial: 1 }),
                connection: watch::Sender::new(0),
                until: Mutex::new(None),
            });
            let id = random();
            streams.insert(id, Arc::clone(&kept))?;
            (id, kept, None)
        }
    };
    *kept.until.lock() = None;
    let mut number = 0;
    kept.connection.send_modify(|connection| {
        *connection += 1;
        number = *connection;
    });
    let (pipe, flowing) = pipe();
    let (format, envelope) = (wanted.format, wanted.envelope);
    let writer = Writer { shared: Arc::clone(&shared), format, envelope, id };
    tokio::spawn(run_kept(writer, pipe, kept, wanted, number, seen));
    Ok(reply(format, flowing))
}

/// Serves a queue's stream over one connection.
async fn run_kept(
    writer: Writer,
    mut pipe: Pipe,
    kept: Arc<Kept>,
    wanted: Wanted,
    number: u64,
    seen: Option<u64>,
) {
    let leases = &writer.shared.http.leases;
    let mut connection = kept.connection.subscribe();
    let mut closing = writer.shared.closing.subscribe();
    let then = if wanted.by_client { Settlement::Failed } else { Settlement::Accepted };
    let mut buffer = Vec::new();
    writer.begin(&mut buffer);
    if let Some(seen) = seen {
        resume(&writer, &kept, &wanted, seen, then, &mut buffer);
    }
    if !write_out(&writer, &mut pipe, &kept, &wanted, then, &mut buffer).await {
        suspend(&writer, &kept, &wanted, number);
        return;
    }
    loop {
        let open = {
            let mut window = kept.window.lock();
            window.written.retain(|written| leases.holds(written.lease));
            wanted.credit.saturating_sub(window.written.len()).min(leases.room())
        };
        kept.puller.want(open);
        while buffer.len() < PIECE_BYTES {
            let got = kept.puller.take(1);
            if got.is_empty() {
                break;
            }
            lease_out(&writer, &kept, &wanted, got, then, &mut buffer);
        }
        if !buffer.is_empty() {
            if !write_out(&writer, &mut pipe, &kept, &wanted, then, &mut buffer).await {
                break;
            }
            continue;
        }
        let check = if open == 0 { CREDIT_CHECK } else { BEAT };
        tokio::select! {
            arrived = kept.puller.arrival() => {
                if let Err(refusal) = arrived {
                    writer.end(&refusal, &mut buffer);
                    write_out(&writer, &mut pipe, &kept, &wanted, then, &mut buffer).await;
                    break;
                }
            }
            () = until(&mut connection, |newest| *newest != number) => break,
            () = until(&mut closing, |closing| *closing) => break,
            () = pipe.closed() => break,
            () = tokio::time::sleep(check) => {
                if open > 0 {
                    writer.beat(&mut buffer);
                    if !write_out(&writer, &mut pipe, &kept, &wanted, then, &mut buffer).await {
                        break;
                    }
                }
            }
        }
    }
    suspend(&writer, &kept, &wanted, number);
}

/// Writes to a queue's stream. While the client does not read, nothing that was written counts as received.
async fn write_out(
    writer: &Writer,
    pipe: &mut Pipe,
    kept: &Kept,
    wanted: &Wanted,
    then: Settlement,
    buffer: &mut Vec<u8>,
) -> bool {
    let mut sending = std::pin::pin!(pipe.send(Bytes::from(std::mem::take(buffer))));
    let mut waited = false;
    loop {
        tokio::select! {
            sent = sending.as_mut() => {
                if sent && waited {
                    hold_on(writer, kept, wanted.lease, then);
                }
                return sent;
            }
            () = tokio::time::sleep((wanted.lease / 4).max(CREDIT_CHECK)) => {
                waited = true;
                hold_on(writer, kept, wanted.lease, then);
            }
        }
    }
}

/// Gives what the stream has written its time anew.
fn hold_on(writer: &Writer, kept: &Kept, lease: Duration, then: Settlement) {
    let until = writer.shared.clock.refresh().instant.after(lease);
    let ids: Vec<LeaseId> = kept.window.lock().written.iter().map(|written| written.lease).collect();
    writer.shared.http.leases.rewrite(&ids, until, then);
}

/// Leases what has come to the stream, and writes it.
fn lease_out(
    writer: &Writer,
    kept: &Arc<Kept>,
    wanted: &Wanted,
    got: Vec<Received>,
    then: Settlement,
    buffer: &mut Vec<u8>,
) {
    let now = writer.shared.clock.refresh();
    let until = now.instant.after(wanted.lease);
    let expires = now.wall.after(wanted.lease);
    let owner = &kept.source.role.principal;
    let mut window = kept.window.lock();
    for received in got {
        let Some(token) = received.token else { continue };
        let Some(lease) =
            writer.shared.http.leases.lease(&kept.puller, owner, (&received.message, token), until, then)
        else {
            kept.puller.release([token]);
            continue;
        };
        let serial = window.next_serial;
        window.next_serial += 1;
        writer.message(serial, Some((lease, expires)), &received, buffer);
        window.written.push_back(Written { serial, lease, received });
    }
}

/// Settles what the client has seen, and writes the rest again.
fn resume(writer: &Writer, kept: &Kept, wanted: &Wanted, seen: u64, then: Settlement, buffer: &mut Vec<u8>) {
    let leases = &writer.shared.http.leases;
    let now = writer.shared.clock.refresh();
    let mut window = kept.window.lock();
    let count = window.written.partition_point(|written| written.serial <= seen);
    let received: Vec<_> =
        window.written.drain(..count).map(|written| (written.lease, Verdict::Ack)).collect();
    // One that is settled already is what the client wanted, too.
    leases.settle(&received, &kept.source.role.principal, now.instant);
    window.written.retain(|written| leases.holds(written.lease));
    let until = now.instant.after(wanted.lease);
    let ids: Vec<LeaseId> = window.written.iter().map(|written| written.lease).collect();
    leases.rewrite(&ids, until, then);
    let expires = now.wall.after(wanted.lease);
    for written in &window.written {
        writer.message(written.serial, Some((written.lease, expires)), &written.received, buffer);
    }
}

/// The connection has gone: what was written is kept for the client to come back to.
fn suspend(writer: &Writer, kept: &Kept, wanted: &Wanted, number: u64) {
    if *kept.connection.borrow() != number {
        // Somebody has taken it over.
        return;
    }
    kept.puller.give_back();
    let grace = wanted.lease.min(GRACE);
    hold_on(writer, kept, grace, Settlement::Failed);
    let until = writer.shared.clock.refresh().instant.after(grace);
    *kept.until.lock() = Some(until);
}

/// `GET /v1/topics/{name}/stream`: a topic or a pattern of topics.
pub(super) async fn topic(mut call: Call, Name(name): Name, headers: HeaderMap) -> Result<Response, Problem> {
    let wanted = wanted(&mut call, &headers)?;
    let role = call.role(None);
    let selector = call.params.take("selector");
    call.params.finish()?;
    let visit = &call.visit;
    let pattern = Pattern::from_dotted(Kind::Topic, false, &name)?;
    let inbox = Inbox::for_live(LIVE_MAX);
    let mut party = Party::open(&visit.shared, &visit.peer, &role, Arc::clone(&inbox))?;
    let patterns = [pattern];
    let mut request = leased(&patterns, selector.as_deref());
    request.settle = SettleMode::Auto;
    party.subscribe(request)?;
    let (pipe, flowing) = pipe();
    let (format, envelope) = (wanted.format, wanted.envelope);
    let writer = Writer { shared: Arc::clone(&visit.shared), format, envelope, id: random() };
    tokio::spawn(run_live(writer, pipe, party, inbox, wanted.last.is_some()));
    Ok(reply(format, flowing))
}

/// Serves a topic's stream.
async fn run_live(writer: Writer, mut pipe: Pipe, mut party: Party, inbox: Arc<Inbox>, came_back: bool) {
    let mut closing = writer.shared.closing.subscribe();
    let mut buffer = Vec::new();
    let mut serial = 1;
    writer.begin(&mut buffer);
    if came_back {
        writer.gap(0, None, &mut buffer);
    }
    if !pipe.send(Bytes::from(std::mem::take(&mut buffer))).await {
        return;
    }
    loop {
        let got = inbox.take(BATCH);
        if !got.is_empty() {
            let dropped = inbox.take_dropped();
            if dropped > 0 {
                writer.gap(serial - 1, Some(dropped), &mut buffer);
            }
            for received in &got {
                writer.message(serial, None, received, &mut buffer);
                serial += 1;
            }
            if !pipe.send(Bytes::from(std::mem::take(&mut buffer))).await {
                return;
            }
            continue;
        }
        tokio::select! {
            () = arrival(&inbox) => {}
            refusal = std::future::poll_fn(|cx| party.poll_end(cx)) => {
                writer.end(&refusal, &mut buffer);
                pipe.send(Bytes::from(std::mem::take(&mut buffer))).await;
                return;
            }
            () = until(&mut closing, |closing| *closing) => return,
            () = pipe.closed() => return,
            () = tokio::time::sleep(BEAT) => {
                writer.beat(&mut buffer);
                if !pipe.send(Bytes::from(std::mem::take(&mut buffer))).await {
                    return;
                }
            }
        }
    }
}
