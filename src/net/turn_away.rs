//! Saying no to a connection that there is no place for, in the words of the protocol it speaks.

use std::sync::Arc;
use std::time::Duration;

use sabir_model::chunks::Chunks;
use sabir_model::command::{Command, Outcome, Promise, Publish, ReceiptTime, WireAck};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::Refusal;
use sabir_model::event::Event;
use sabir_model::session::{EgressNote, Host};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Shared;
use super::detect::Detected;
use super::listener::{self, Speaks};
use super::socket::{Prefixed, Socket};

/// Time for all of it: whoever is refused does not get to hold a socket.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tells `socket` why it is refused, and closes it.
pub(crate) async fn turn_away(shared: Arc<Shared>, socket: Socket, speaks: Speaks, refusal: Refusal) {
    let Ok(_place) = shared.refusals.try_acquire() else { return };
    // Nobody is left to be told if this takes too long or fails.
    let _ = tokio::time::timeout(PATIENCE, say_no(&shared, socket, speaks, refusal)).await;
}

async fn say_no(shared: &Shared, socket: Socket, speaks: Speaks, refusal: Refusal) -> std::io::Result<()> {
    let (detected, Prefixed { mut socket, .. }) = listener::greet(socket, speaks).await?;
    let words = match detected {
        Detected::Messages(protocol) => {
            let now = shared.clock.refresh();
            let (mut session, _) = protocol.open(&shared.limits, now.instant);
            let mut out = Chunks::new();
            // Whatever the session makes of it, what it has to say is in `out`.
            let _ = session.notify(now, Event::Closing(refusal.clone()), &mut Nobody(refusal), &mut out);
            out.to_vec()
        }
        Detected::Http => {
            let body = format!("{refusal}\n");
            format!(
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
                 Retry-After: 5\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        }
        Detected::NeedMore | Detected::Unknown(_) => format!("{refusal}\n").into_bytes(),
    };
    say(&mut socket, &words).await
}

/// Writes the last words and waits for the peer to have read them.
pub(crate) async fn say(socket: &mut Socket, words: &[u8]) -> std::io::Result<()> {
    socket.write_all(words).await?;
    socket.shutdown().await?;
    let mut sink = [0; 512];
    while socket.read(&mut sink).await? > 0 {}
    Ok(())
}

/// The broker of a connection that has none.
struct Nobody(Refusal);

impl Host for Nobody {
    fn publish(&mut self, _: Publish<'_>) -> Outcome {
        Outcome::Refused(self.0.clone())
    }

    fn settle(&mut self, _: WireAck) {}

    fn settle_now(&mut self, _: WireAck) -> Outcome {
        Outcome::Refused(self.0.clone())
    }

    fn ask(&mut self, _: Command<'_>) -> Outcome {
        Outcome::Refused(self.0.clone())
    }

    fn temporary(&mut self, _: Kind, _: &str) -> Result<Destination, Refusal> {
        Err(self.0.clone())
    }

    fn temporary_label(&self, _: &Destination) -> Option<&str> {
        None
    }

    fn receipt(&mut self, _: Option<Promise>) -> ReceiptTime {
        ReceiptTime::Now
    }

    fn note(&mut self, _: EgressNote<'_>) {}

    fn session_name(&self) -> String {
        String::new()
    }
}
