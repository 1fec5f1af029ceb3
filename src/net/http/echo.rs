//! A WebSocket that sends every message back, off unless it is wanted: so that conformance suites meet the very transport
//! that carries protocols.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use sabir_model::clock::Instant;

use crate::net::Shared;
use crate::net::census::Permit;
use crate::net::socket::Prefixed;
use crate::net::websocket::deframe::CLOSE_GOING_AWAY;
use crate::net::websocket::{self, Payload, Terms, WebSocket};

/// Largest message that is sent back: it is held whole.
const MESSAGE_BYTES_MAX: u64 = 17 * 1024 * 1024;
/// Time for the farewell to leave, and for the peer to have read it.
const FAREWELL: Duration = Duration::from_secs(5);
/// Bytes that are read and dropped after the farewell.
const LINGER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Serves one connection until it ends.
pub(super) async fn run(shared: Arc<Shared>, socket: Prefixed, early: &Bytes, terms: Terms, _permit: Permit) {
    let terms = Terms { message_bytes_max: terms.message_bytes_max.min(MESSAGE_BYTES_MAX), ..terms };
    let now = shared.clock.refresh().instant;
    let (socket, writer) = websocket::split(socket, early, &terms, now, &shared.census);
    // Its half of the wire would belong to an outbox; here is none.
    drop(writer);
    let mut socket = socket.with_messages();
    // Whatever has ended it, the peer is told what is to be told.
    let _ = converse(&shared, &mut socket).await;
    let _ = tokio::time::timeout(FAREWELL, part(&mut socket)).await;
}

async fn converse(shared: &Shared, socket: &mut WebSocket) -> io::Result<()> {
    let mut closing = shared.closing.subscribe();
    let mut message = Vec::new();
    loop {
        let now = shared.clock.refresh().instant;
        socket.timeout(now)?;
        let pause = socket.next_timeout().since(now);
        let payload = tokio::select! {
            heard = hear(shared, socket, &mut message) => match heard? {
                Some(payload) => payload,
                None => return Ok(()),
            },
            () = tokio::time::sleep(pause) => continue,
            _ = closing.wait_for(|closing| *closing) => {
                socket.say_close(CLOSE_GOING_AWAY, "the broker ends the connection");
                return Ok(());
            }
        };
        socket.send(payload, &message);
        // A large one's room is not kept for the next.
        message = Vec::new();
        poll_fn(|cx| socket.poll_drain(cx)).await?;
    }
}

/// The next message; nothing when the peer has closed. Pings are answered meanwhile.
async fn hear(shared: &Shared, socket: &mut WebSocket, message: &mut Vec<u8>) -> io::Result<Option<Payload>> {
    poll_fn(|cx| {
        let now: Instant = shared.clock.refresh().instant;
        let heard = socket.poll_message(cx, now, message);
        match socket.poll_drain(cx) {
            Poll::Ready(Err(error)) if heard.is_pending() => Poll::Ready(Err(error)),
            _ => heard,
        }
    })
    .await
}

/// Writes what is left and reads what still comes, so that the last words arrive.
async fn part(socket: &mut WebSocket) -> io::Result<()> {
    poll_fn(|cx| socket.poll_drain(cx)).await?;
    socket.end_write();
    let mut sink = [0; 4096];
    let mut dropped = 0;
    while dropped < LINGER_BYTES_MAX {
        match poll_fn(|cx| socket.poll_discard(cx, &mut sink)).await? {
            0 => break,
            count => dropped += count,
        }
    }
    Ok(())
}
