//! The way from a task to the body of a reply, which tells how far the connection has come with it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{mpsc, watch};

/// Time without progress after which a reader that does not read has gone.
const STALL: Duration = Duration::from_secs(30);

/// The body of a stream's reply: what its task writes. It tells how many pieces the connection has asked for; it asks for
/// one when it has room, so whoever waits for that knows that the piece before is on its way.
pub(super) struct Flowing {
    pieces: mpsc::Receiver<Bytes>,
    taken: u64,
    asked: watch::Sender<u64>,
}

impl hyper::body::Body for Flowing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = self.taken + 1;
        self.asked.send_if_modified(|asked| std::mem::replace(asked, next) != next);
        let Poll::Ready(piece) = self.pieces.poll_recv(cx) else { return Poll::Pending };
        self.taken = next;
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A stream's way to its connection, and the body at its end.
pub(super) fn pipe() -> (Pipe, Flowing) {
    let (out, pieces) = mpsc::channel(1);
    let (asked, asking) = watch::channel(0);
    (Pipe { out, asking, sent: 0 }, Flowing { pieces, taken: 0, asked })
}

/// The writing end.
pub(super) struct Pipe {
    out: mpsc::Sender<Bytes>,
    asking: watch::Receiver<u64>,
    sent: u64,
}

impl Pipe {
    /// Writes a piece and waits until the connection asks for the next. False if the client has gone, or does not read.
    pub(super) async fn send(&mut self, piece: Bytes) -> bool {
        if piece.is_empty() {
            return true;
        }
        let write = async {
            self.out.send(piece).await.ok()?;
            self.sent += 1;
            let wanted = self.sent;
            self.asking.wait_for(|asked| *asked > wanted).await.ok().map(drop)
        };
        matches!(tokio::time::timeout(STALL, write).await, Ok(Some(())))
    }

    /// Waits until the client has gone.
    pub(super) async fn closed(&self) {
        self.out.closed().await;
    }
}
