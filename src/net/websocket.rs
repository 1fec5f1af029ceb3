//! WebSocket as a transport: the handshake's rules (RFC 6455 §4), and the two halves that carry a byte stream.
//!
//! After the upgrade the raw socket is taken back from the HTTP library, so an idle WebSocket costs what an idle TCP
//! connection does. `deframe` and `enframe` are frames in and out, `wire` is the way out, `inbox` the way in where more
//! may come out of the wire's bytes than they are (`deflate`) or messages matter as such.

pub(crate) mod deflate;
pub(crate) mod deframe;
mod enframe;
mod inbox;
#[cfg(test)]
mod tests;
mod utf8;
mod wire;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use sabir_broker::Writer;
use sabir_model::base64;
use sabir_model::clock::Instant;
use sha1::{Digest, Sha1};

use super::census::Census;
use super::socket::{Prefixed, ReadHalf};
use deflate::Agreement;
use deframe::{BadFrame, Control, Deframer, Rules};
use inbox::{Inbox, Pulled};
use wire::{WebSocketWriter, Wire};

pub(crate) use enframe::Payload;

/// Time between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// A peer that has sent nothing at all, not even a pong, for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(95);
/// Bytes of the wire that are kept while what they hold is handed on.
const WIRE_BYTES_MAX: usize = 16 * 1024;

/// The answer to the peer's `Sec-WebSocket-Key` (§4.2.2); `None` if the key is not 16 bytes in base64.
pub(crate) fn accept_key(key: &[u8]) -> Option<String> {
    if base64::decode(key)?.len() != 16 {
        return None;
    }
    let digest =
        Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let mut answer = Vec::new();
    base64::encode(&digest, &mut answer);
    String::from_utf8(answer).ok()
}

/// Which of the offered sub-protocols to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subprotocol {
    /// Nothing was offered, so nothing may be answered.
    None,
    /// This one, exactly as offered.
    Chosen(&'static str),
    /// Nothing offered is known here.
    Unknown,
}

/// Chooses from the values of `Sec-WebSocket-Protocol`; `known` has the best first.
pub(crate) fn choose_subprotocol<'a>(
    offers: impl Iterator<Item = &'a str>,
    known: &[&'static str],
) -> Subprotocol {
    let offered: Vec<&str> = offers.flat_map(|value| value.split(',')).map(str::trim).collect();
    if offered.iter().all(|name| name.is_empty()) {
        return Subprotocol::None;
    }
    known
        .iter()
        .copied()
        .find(|name| offered.contains(name))
        .map_or(Subprotocol::Unknown, Subprotocol::Chosen)
}

/// Whether a page of this origin may connect: one of the configured origins, or the host that was asked itself. Without
/// an origin it is not a browser, and the check has nothing to protect.
///
/// A browser on this machine (`local_peer`) may have been led here by a foreign name that was made to resolve to
/// loopback, where nobody needs a password; for it the same host counts only under a name no stranger can own.
pub(crate) fn origin_allowed(
    origin: Option<&str>,
    host: Option<&str>,
    local_peer: bool,
    listed: impl Fn(&str) -> bool,
) -> bool {
    let Some(origin) = origin else { return true };
    if listed(origin) {
        return true;
    }
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let same = host.is_some_and(|host| host.eq_ignore_ascii_case(authority));
    same && (!local_peer || is_own_name(authority))
}

/// `localhost` or an address, with or without a port.
pub(crate) fn is_own_name(authority: &str) -> bool {
    let name = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    name.is_some_and(|name| {
        name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
    })
}

/// How a protocol's bytes become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// They are a stream, cut anywhere: text where they are UTF-8, else binary.
    Stream,
    /// They are a stream in binary messages, and nothing else is accepted.
    Binary,
    /// Each line is one text message, without the line's end.
    Lines,
}

/// What holds for one WebSocket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// What goes out, and what may come in.
    pub(crate) shape: Shape,
    /// Largest message that may come in, also after inflating.
    pub(crate) message_bytes_max: u64,
    /// Compression, if it was agreed on.
    pub(crate) deflate: Option<Agreement>,
}

impl Terms {
    fn rules(&self) -> Rules {
        Rules {
            message_bytes_max: self.message_bytes_max,
            binary_only: self.shape == Shape::Binary,
            deflate: self.deflate.is_some(),
        }
    }
}

/// The half that the connection's task reads.
#[derive(Debug)]
pub(crate) struct WebSocket {
    half: ReadHalf,
    /// Bytes that the HTTP library had read beyond the handshake.
    early: Bytes,
    deframer: Deframer,
    /// Used where payload is not handed on in the buffer that it came in.
    inbox: Option<Box<Inbox>>,
    bad: Option<BadFrame>,
    wire: Arc<Mutex<Wire>>,
    heard: Instant,
    ping_at: Instant,
    said_close: bool,
}

/// Splits an upgraded socket into its two halves.
pub(crate) fn split(
    socket: Prefixed,
    early: &Bytes,
    terms: &Terms,
    now: Instant,
    census: &Arc<Census>,
) -> (WebSocket, Box<dyn Writer>) {
    let Prefixed { prefix, socket } = socket;
    let early =
        if prefix.is_empty() { early.clone() } else { [early.as_ref(), prefix.as_ref()].concat().into() };
    let (read, write) = socket.split();
    let wire = Arc::new(Mutex::new(Wire::new(write, terms.shape, terms.deflate, census)));
    let reader = WebSocket {
        half: read,
        early,
        deframer: Deframer::new(terms.rules()),
        inbox: terms.deflate.map(|_| Box::new(Inbox::new(false))),
        bad: None,
        wire: Arc::clone(&wire),
        heard: now,
        ping_at: now.after(PING_INTERVAL),
        said_close: false,
    };
    (reader, Box::new(WebSocketWriter(wire)))
}

/// The first data in bytes of the wire, so far as it fits into `out`, without keeping anything of them. Nothing, if there is
/// no more to come: the peer has said close or made a mistake.
pub(crate) fn peek<'a>(wire: &[u8], terms: &Terms, out: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut deframer = Deframer::new(terms.rules());
    let mut inbox = Inbox::new(false);
    inbox.fill(wire);
    let (count, result) = inbox.pull(&mut deframer, out, &mut Vec::new());
    if result.is_err() || deframer.is_closed() {
        return None;
    }
    out.get(..count)
}

impl WebSocket {
    /// Makes messages matter: [`WebSocket::poll_message`] is to be used, and not `poll_read`.
    pub(crate) fn with_messages(mut self) -> Self {
        self.inbox = Some(Box::new(Inbox::new(true)));
        self
    }

    /// Reads data bytes into the front of `buf`; 0 when the peer has closed.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.inbox.is_some() {
            return self.poll_inbox(cx, now, buf).map_ok(|(count, _)| count);
        }
        loop {
            self.check()?;
            if self.deframer.is_closed() {
                return Poll::Ready(Ok(0));
            }
            let count = ready!(self.poll_wire(cx, now, buf))?;
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            let mut controls = Vec::new();
            let (data, result) = self.deframer.feed(buf.get_mut(..count).unwrap_or_default(), &mut controls);
            self.bad = result.err();
            self.obey(controls);
            if data > 0 {
                return Poll::Ready(Ok(data));
            }
        }
    }

    /// Appends data of the message that is coming in to `message` until it is whole; then tells what it is. Nothing when
    /// the peer has closed.
    pub(crate) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        message: &mut Vec<u8>,
    ) -> Poll<io::Result<Option<Payload>>> {
        let mut buf = [0; 4096];
        loop {
            let (count, ended) = ready!(self.poll_inbox(cx, now, &mut buf))?;
            message.extend_from_slice(buf.get(..count).unwrap_or_default());
            if ended {
                return Poll::Ready(Ok(Some(Payload::text_if(self.deframer.is_text()))));
            }
            if count == 0 {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Reads through the inbox: how much came, and whether a message ends there that is to be told. Neither, when the peer
    /// has closed.
    fn poll_inbox(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, bool)>> {
        loop {
            self.check()?;
            let Some(inbox) = self.inbox.as_mut() else { return Poll::Ready(Ok((0, false))) };
            let mut controls = Vec::new();
            let (count, result) = inbox.pull(&mut self.deframer, buf, &mut controls);
            self.obey(controls);
            let ended = matches!(result, Ok(Pulled::End));
            let used_up = matches!(result, Ok(Pulled::More));
            self.bad = result.err();
            if count > 0 || ended {
                return Poll::Ready(Ok((count, ended)));
            }
            if self.deframer.is_closed() && self.bad.is_none() {
                return Poll::Ready(Ok((0, false)));
            }
            if used_up {
                let most = buf.len().min(WIRE_BYTES_MAX);
                let room = buf.get_mut(..most).unwrap_or_default();
                let count = ready!(self.poll_wire(cx, now, room))?;
                if count == 0 {
                    return Poll::Ready(Ok((0, false)));
                }
                if let Some(inbox) = self.inbox.as_mut() {
                    inbox.fill(buf.get(..count).unwrap_or_default());
                }
            }
        }
    }

    /// Ends the connection if the peer has made a mistake.
    fn check(&mut self) -> io::Result<()> {
        let Some(bad) = self.bad else { return Ok(()) };
        self.say_close(bad.code, bad.reason);
        Err(io::Error::new(io::ErrorKind::InvalidData, bad.reason))
    }

    /// Reads bytes of the wire; 0 at their end.
    fn poll_wire(&mut self, cx: &mut Context<'_>, now: Instant, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = if self.early.is_empty() {
            ready!(self.half.poll_read(cx, buf))?
        } else {
            let count = self.early.len().min(buf.len());
            self.early.copy_to_slice(buf.get_mut(..count).unwrap_or_default());
            if self.early.is_empty() {
                self.early = Bytes::new();
            }
            count
        };
        self.heard = now;
        Poll::Ready(Ok(count))
    }

    /// Answers control frames.
    fn obey(&mut self, controls: Vec<Control>) {
        for control in controls {
            match control {
                Control::Ping(payload) if !self.said_close => {
                    self.wire.lock().control(|out| enframe::pong(&payload, out));
                }
                Control::Ping(_) | Control::Pong => {}
                Control::Close(code) => self.say_close(code.unwrap_or(deframe::CLOSE_NORMAL), ""),
            }
        }
    }

    /// Queues a message of our own. For those who have the wire to themselves.
    pub(crate) fn send(&mut self, payload: Payload, message: &[u8]) {
        self.wire.lock().message(payload, message);
    }

    /// Reads wire bytes and throws them away; for the time after our farewell.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.half.poll_read(cx, buf)
    }

    /// Writes control frames that wait and what is left of a data frame.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.lock().poll_drain(cx)
    }

    /// Queues the closing frame, once. Nothing follows it.
    pub(crate) fn say_close(&mut self, code: u16, reason: &str) {
        if !self.said_close {
            self.said_close = true;
            self.wire.lock().close(code, reason);
        }
    }

    /// Closes our direction of the socket.
    pub(crate) fn end_write(&mut self) {
        self.wire.lock().end();
    }

    /// When to call [`WebSocket::timeout`].
    pub(crate) fn next_timeout(&self) -> Instant {
        self.ping_at
    }

    /// Sends the next ping.
    ///
    /// # Errors
    /// The peer has been silent for too long.
    pub(crate) fn timeout(&mut self, now: Instant) -> io::Result<()> {
        if now.since(self.heard) > SILENCE_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if now >= self.ping_at {
            self.wire.lock().control(enframe::ping);
            self.ping_at = now.after(PING_INTERVAL);
        }
        Ok(())
    }
}
