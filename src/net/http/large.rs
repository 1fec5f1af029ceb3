//! Bodies that are not in memory, on their way into replies: as they are, a window at a time; or whole, where a form
//! must have it whole and it is not too large for that. The runtime's blocking threads wait for the disk.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use hyper::body::{Frame, SizeHint};
use sabir_model::chunks::WINDOW_BYTES;
use sabir_model::message::Message;
use sabir_model::stored::Stored;
use tokio::task::JoinHandle;

use super::party::Received;
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

/// Brings bodies into memory for a form that holds them whole, as long as all of them together are no larger than a frame
/// may be. Tells how many of the first messages have been looked at: the others are to be left for another reply. One that is
/// too large by itself stays as it is, and is shown cut.
pub(super) async fn load(shared: &Arc<Shared>, received: &mut [Received]) -> usize {
    let mut room = shared.limits.frame_bytes_max as u64;
    for (at, one) in received.iter_mut().enumerate() {
        let Some(stored) = one.message.stored_body() else { continue };
        let length = stored.length();
        if length > shared.limits.frame_bytes_max as u64 {
            continue;
        }
        if length > room {
            return at;
        }
        room -= length;
        match loaded(&one.message, shared.limits.frame_bytes_max).await {
            Ok(message) => one.message = message,
            Err(error) => tracing::error!(%error, "a message body cannot be read; it is shown as missing"),
        }
    }
    received.len()
}
