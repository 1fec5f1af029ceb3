//! Bodies that are not in memory. On their way in they are written where they are kept, a piece at a time. On their way out
//! they are sent as they are, a window at a time; or whole, where a form must have it whole and it is not too large for
//! that. The runtime's blocking threads wait for the disk.

use std::future::poll_fn;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use hyper::body::{Body as _, Frame, SizeHint};
use sabir_admin::Problem;
use sabir_broker::BodyWriter;
use sabir_model::chunks::WINDOW_BYTES;
use sabir_model::error::Code;
use sabir_model::limits::Limits;
use sabir_model::message::Message;
use sabir_model::stored::{Stored, Utf8Check};
use tokio::task::JoinHandle;

use super::party::{Received, deadline_after};
use super::{Visit, announced, too_late};
use crate::net::Shared;

/// A body that is sent as it lies there.
#[derive(Debug)]
pub(super) struct Windows {
    body: Stored,
    /// Where the window on its way ends.
    asked: u64,
    given: u64,
    coming: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Windows {
    pub(super) fn new(body: Stored) -> Self {
        let mut windows = Self { body, asked: 0, given: 0, coming: None };
        windows.ask();
        windows
    }

    /// While one is sent, the next one comes.
    fn ask(&mut self) {
        let from = self.asked;
        let left = self.body.length() - from;
        let length = usize::try_from(left).map_or(WINDOW_BYTES, |left| left.min(WINDOW_BYTES));
        if length == 0 {
            return;
        }
        self.asked += length as u64;
        let body = self.body.clone();
        self.coming = Some(tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            body.read_at(from, &mut bytes)?;
            Ok(bytes.into())
        }));
    }

    fn left(&self) -> u64 {
        self.body.length() - self.given
    }
}

impl hyper::body::Body for Windows {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(coming) = self.coming.as_mut() else { return Poll::Ready(None) };
        let result = ready!(Pin::new(coming).poll(cx));
        self.coming = None;
        match result.map_err(io::Error::other).flatten() {
            Ok(bytes) => {
                self.given += bytes.len() as u64;
                self.ask();
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Err(error) => {
                tracing::error!(%error, "a message body cannot be read; its receiver is cut off");
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

/// The body of a request.
pub(super) enum Arrived {
    /// It is in memory.
    Whole(Bytes),
    /// It is too large for that.
    Large(Large),
}

/// A body that was written where it is kept as it came.
pub(super) struct Large {
    pub(super) body: Stored,
    pub(super) is_text: bool,
    fingerprint: u64,
}

impl Arrived {
    /// The same for the same body.
    pub(super) fn fingerprint(&self, visit: &Visit) -> u64 {
        match self {
            Self::Whole(bytes) => {
                let mut hasher = visit.shared.http.replies.hasher();
                hasher.write(bytes);
                hasher.finish()
            }
            Self::Large(large) => large.fingerprint,
        }
    }
}

/// What comes of a large body.
struct Intake {
    writer: BodyWriter,
    text: Utf8Check,
    hasher: DefaultHasher,
}

impl Intake {
    /// Writes a piece, on a thread that may wait for the disk.
    async fn put(mut self, piece: Vec<u8>) -> Result<Self, Problem> {
        let written = tokio::task::spawn_blocking(move || {
            self.text.take(&piece);
            self.hasher.write(&piece);
            self.writer.write(&piece).map(|()| self)
        });
        Ok(written.await.map_err(|_| lost())??)
    }

    async fn finish(self) -> Result<Large, Problem> {
        let Self { writer, text, hasher } = self;
        let body = tokio::task::spawn_blocking(move || writer.finish()).await.map_err(|_| lost())??;
        Ok(Large { body, is_text: text.is_text(), fingerprint: hasher.finish() })
    }
}

fn lost() -> Problem {
    Problem::new(Code::Internal, "the body was lost on its way to the disk")
}

/// Takes in the body of a request: in memory, or, if it turns out to be large, where `begin` says, which is asked for its
/// place with its length, if that is known. There is no bound to the time that a large one takes, but its bytes must keep
/// coming.
///
/// # Errors
/// It is larger than `limits.body_bytes_max`, does not arrive in time, breaks off, is refused or cannot be written.
pub(super) async fn take(
    visit: &Visit,
    headers: &HeaderMap,
    mut body: Body,
    begin: impl Fn(Option<u64>) -> Result<BodyWriter, Problem>,
) -> Result<Arrived, Problem> {
    let Limits { body_bytes_max, blob_bytes_min, .. } = *visit.shared.limits;
    let too_large = || {
        let sentence = format!("the body is larger than {body_bytes_max} bytes (limits.body_bytes_max)");
        Problem::new(Code::TooLarge, sentence)
    };
    let announced = announced(headers);
    if announced.is_some_and(|length| length > body_bytes_max as u64) {
        return Err(too_large());
    }
    let patience = Duration::from_millis(visit.shared.options.http.request_timeout_ms);
    // A small body has so much time in all.
    let deadline = deadline_after(patience);
    let new_intake = |length| {
        let hasher = visit.shared.http.replies.hasher();
        begin(length).map(|writer| Intake { writer, text: Utf8Check::default(), hasher })
    };
    let mut intake = match announced {
        Some(length) if length >= blob_bytes_min as u64 => Some(new_intake(announced)?),
        _ => None,
    };
    let mut piece: Vec<u8> = Vec::new();
    let mut total: usize = 0;
    loop {
        let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let deadline = if intake.is_some() { deadline_after(patience) } else { deadline };
        let Ok(next) = tokio::time::timeout_at(deadline, next).await else { return Err(too_late(visit)) };
        let Some(frame) = next else { break };
        let frame = frame.map_err(|_| Problem::new(Code::MalformedFrame, "the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        total = total.saturating_add(data.len());
        if total > body_bytes_max {
            return Err(too_large());
        }
        piece.extend_from_slice(&data);
        if intake.is_none() && total >= blob_bytes_min {
            intake = Some(new_intake(None)?);
        }
        if piece.len() >= WINDOW_BYTES
            && let Some(writing) = intake.take()
        {
            intake = Some(writing.put(std::mem::take(&mut piece)).await?);
        }
    }
    match intake {
        None => Ok(Arrived::Whole(piece.into())),
        Some(writing) => Ok(Arrived::Large(writing.put(piece).await?.finish().await?)),
    }
}

/// The message with its body in memory.
///
/// # Errors
/// The body is longer than `most`, or cannot be read.
pub(super) async fn loaded(message: &Message, most: usize) -> io::Result<Message> {
    if message.stored_body().is_none() {
        return Ok(message.clone());
    }
    let message = message.clone();
    tokio::task::spawn_blocking(move || message.loaded(most)).await.map_err(io::Error::other).flatten()
}

/// Deliveries with their bodies in memory, for a form that holds them whole: the first of them, as long as all their bodies
/// together are no larger than a frame may be. The others are to be left for another reply. One that is too large by itself
/// stays as it is, and is shown cut.
pub(super) async fn load(shared: &Shared, received: &[Received]) -> Vec<Received> {
    let most = shared.limits.frame_bytes_max as u64;
    let mut room = most;
    let mut shown = Vec::with_capacity(received.len());
    for one in received {
        let length = one.message.stored_body().map_or(0, Stored::length);
        if length <= most && length > room {
            break;
        }
        let message = match loaded(&one.message, shared.limits.frame_bytes_max).await {
            Ok(message) => {
                room -= length.min(room);
                message
            }
            // It is shown cut, or as missing if it cannot be read.
            Err(_) => one.message.clone(),
        };
        shown.push(Received { message, ..one.clone() });
    }
    shown
}
