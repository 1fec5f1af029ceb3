//! WebSocket as a transport: the handshake's rules (RFC 6455 §4), and the two halves that carry a byte stream.
//!
//! After the upgrade the raw socket is taken back from the HTTP library, so an idle WebSocket costs what an idle TCP
//! connection does. Only the owner's task writes: whoever delivers appends plain bytes to the outbox, and the owner
//! wraps what has gathered, once per flush.

use std::io::{self, IoSlice};
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
use super::deframe::{self, BadFrame, Control, Deframer};
use super::socket::{Prefixed, ReadHalf, WriteHalf};

/// Time between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// A peer that has sent nothing at all, not even a pong, for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(95);
/// Payload of one outgoing message. Clients with small message buffers can read it, and it keeps a flush in cache.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
const _: () = assert!(MESSAGE_BYTES_MAX <= deframe::SEALED_BYTES_MAX);

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

/// The way out: frames, owned by the connection's task.
#[derive(Debug)]
struct Wire {
    /// Taken when our direction is closed.
    half: Option<WriteHalf>,
    /// Whole frames on their way, from `at` on.
    frames: Vec<u8>,
    at: usize,
    /// Bytes of the outbox that the data frame in `frames` carries.
    claimed: usize,
    /// The protocol wants binary messages only.
    binary_only: bool,
    /// The latest pong, a ping or a close, waiting for the frame in progress to end.
    control: Vec<u8>,
    census: Arc<Census>,
}

impl Wire {
    /// Writes what is in `frames`, then the control frames.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let rest = self.frames.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                self.at = 0;
                self.frames = std::mem::take(&mut self.control);
                if self.frames.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let Some(half) = self.half.as_mut() else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            let count = ready!(half.poll_write(cx, &[IoSlice::new(rest)]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.census.wrote(count);
            self.at += count;
        }
    }

    /// Wraps the front of `slices` in one frame: text if it is UTF-8, cut where a character ends; else, or where the
    /// protocol wants only that, binary.
    fn wrap(&mut self, slices: &[IoSlice<'_>]) {
        let available: usize = slices.iter().map(|slice| slice.len()).sum();
        let wanted = available.min(MESSAGE_BYTES_MAX);
        let mut frame = Vec::with_capacity(deframe::SEAL_BYTES + wanted);
        frame.extend_from_slice(&[0; deframe::SEAL_BYTES]);
        for slice in slices {
            let room = deframe::SEAL_BYTES + wanted - frame.len();
            frame.extend_from_slice(slice.get(..slice.len().min(room)).unwrap_or_default());
        }
        let text = !self.binary_only
            && match std::str::from_utf8(frame.get(deframe::SEAL_BYTES..).unwrap_or_default()) {
                Ok(_) => true,
                // Cut inside a character: the rest of it goes with the next message.
                Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
                    frame.truncate(deframe::SEAL_BYTES + error.valid_up_to());
                    true
                }
                Err(_) => false,
            };
        self.claimed = frame.len() - deframe::SEAL_BYTES;
        self.at = deframe::seal(&mut frame, text);
        self.frames = frame;
    }

    /// Queues a control frame behind what is on its way.
    fn control(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        // A peer that pings without reading gets one pong for the latest (§5.5.3) and cannot make this grow.
        if self.control.len() > 512 {
            self.control.clear();
        }
        write(&mut self.control);
    }
}

/// The half in the outbox.
struct WebSocketWriter(Arc<Mutex<Wire>>);

impl Writer for WebSocketWriter {
    fn try_write(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        // Framing is the owner's business.
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.lock();
        loop {
            // Bytes count as written only when the frame that carries them has left: the outbox settles by that.
            ready!(wire.poll_drain(cx))?;
            let claimed = std::mem::take(&mut wire.claimed);
            if claimed > 0 {
                return Poll::Ready(Ok(claimed));
            }
            wire.wrap(slices);
            if wire.claimed == 0 {
                return Poll::Ready(Ok(0));
            }
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
    message_bytes_max: u64,
    binary_only: bool,
    now: Instant,
    census: &Arc<Census>,
) -> (WebSocket, Box<dyn Writer>) {
    let Prefixed { prefix, socket } = socket;
    let early =
        if prefix.is_empty() { early.clone() } else { [early.as_ref(), prefix.as_ref()].concat().into() };
    let (read, write) = socket.split();
    let wire = Arc::new(Mutex::new(Wire {
        half: Some(write),
        frames: Vec::new(),
        at: 0,
        claimed: 0,
        binary_only,
        control: Vec::new(),
        census: Arc::clone(census),
    }));
    let reader = WebSocket {
        half: read,
        early,
        deframer: Deframer::new(message_bytes_max, binary_only),
        bad: None,
        wire: Arc::clone(&wire),
        heard: now,
        ping_at: now.after(PING_INTERVAL),
        said_close: false,
    };
    (reader, Box::new(WebSocketWriter(wire)))
}

impl WebSocket {
    /// Reads data bytes into the front of `buf`; 0 when the peer has closed.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(bad) = self.bad {
                self.say_close(bad.code, bad.reason);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, bad.reason)));
            }
            if self.deframer.is_closed() {
                return Poll::Ready(Ok(0));
            }
            let count = if self.early.is_empty() {
                ready!(self.half.poll_read(cx, buf))?
            } else {
                let count = self.early.len().min(buf.len());
                self.early.copy_to_slice(buf.get_mut(..count).unwrap_or_default());
                count
            };
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            if self.early.is_empty() {
                self.early = Bytes::new();
            }
            self.heard = now;
            let mut controls = Vec::new();
            let (data, result) = self.deframer.feed(buf.get_mut(..count).unwrap_or_default(), &mut controls);
            self.bad = result.err();
            for control in controls {
                match control {
                    Control::Ping(payload) if !self.said_close => {
                        self.wire.lock().control(|out| deframe::pong(&payload, out));
                    }
                    Control::Ping(_) | Control::Pong => {}
                    Control::Close(code) => self.say_close(code.unwrap_or(deframe::CLOSE_NORMAL), ""),
                }
            }
            if data > 0 {
                return Poll::Ready(Ok(data));
            }
        }
    }

    /// Reads wire bytes and throws them away; for the time after our farewell.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.half.poll_read(cx, buf)
    }

    /// Writes control frames that wait and what is left of a data frame.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.lock().poll_drain(cx)
    }

    /// Queues the closing frame, once.
    pub(crate) fn say_close(&mut self, code: u16, reason: &str) {
        if !self.said_close {
            self.said_close = true;
            self.wire.lock().control(|out| deframe::close(code, reason, out));
        }
    }

    /// Closes our direction of the socket.
    pub(crate) fn end_write(&mut self) {
        self.wire.lock().half = None;
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
            self.wire.lock().control(deframe::ping);
            self.ping_at = now.after(PING_INTERVAL);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::socket::Socket;

    /// A server's end, its writer, and the peer.
    fn pair() -> (WebSocket, Box<dyn Writer>, tokio::net::UnixStream) {
        let (ours, theirs) = tokio::net::UnixStream::pair().expect("a pair of sockets");
        let socket = Prefixed { prefix: Bytes::new(), socket: Socket::Unix(ours) };
        let census = Arc::new(Census::new(1, None));
        let (reader, writer) = split(socket, &Bytes::new(), 1000, false, Instant(1), &census);
        (reader, writer, theirs)
    }

    #[tokio::test]
    async fn a_ping_leaves_each_thirty_seconds_and_silence_after_it_is_the_end() {
        let (mut reader, _writer, mut peer) = pair();
        let second = |n: u64| Instant(n * 1_000_000);
        assert!(reader.timeout(second(29)).is_ok());
        assert_eq!(reader.next_timeout(), Instant(1).after(PING_INTERVAL));
        for (time, due) in [(31, true), (61, true), (62, false), (92, true)] {
            assert!(reader.timeout(second(time)).is_ok());
            poll_fn(|cx| reader.poll_drain(cx)).await.expect("the peer reads");
            if due {
                let mut ping = [0; 2];
                peer.read_exact(&mut ping).await.expect("a ping");
                assert_eq!(ping, [0x89, 0], "at {time} s");
            }
        }
        assert!(reader.timeout(second(97)).is_err());
    }

    #[tokio::test]
    async fn a_peer_that_answers_pings_lives_on() {
        let (mut reader, _writer, mut peer) = pair();
        let second = |n: u64| Instant(n * 1_000_000);
        // A pong, then one byte of data, so that there is something to wait for.
        peer.write_all(&[0x8a, 0x80, 1, 2, 3, 4, 0x82, 0x81, 0, 0, 0, 0, b'x']).await.expect("room");
        let mut buf = [0; 64];
        let count = poll_fn(|cx| reader.poll_read(cx, second(60), &mut buf)).await.expect("data");
        assert_eq!(buf.get(..count), Some(&b"x"[..]));
        assert!(reader.timeout(second(154)).is_ok());
        assert!(reader.timeout(second(156)).is_err());
    }

    #[tokio::test]
    async fn bytes_count_as_written_only_when_their_whole_frame_has_left() {
        let (_reader, mut writer, mut peer) = pair();
        let payload = vec![b'x'; 100 * MESSAGE_BYTES_MAX];
        let write = async {
            let mut rest = payload.as_slice();
            while !rest.is_empty() {
                let count = poll_fn(|cx| writer.poll_write(cx, &[IoSlice::new(rest)])).await;
                let count = count.expect("the peer reads");
                assert_eq!(count, MESSAGE_BYTES_MAX);
                rest = rest.get(count..).unwrap_or_default();
            }
        };
        let read = async {
            let mut wire = vec![0; payload.len() + 100 * deframe::SEAL_BYTES];
            peer.read_exact(&mut wire).await.expect("all of it");
        };
        tokio::join!(write, read);
    }

    const STOMP: [&str; 4] = ["v12.stomp", "v11.stomp", "v10.stomp", "stomp"];

    #[test]
    fn the_key_is_answered_as_in_the_standards_example() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ==").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for bad in ["", "dGhlIHNhbXBsZQ==", "no base64 at all!!!!!!!!", "dGhlIHNhbXBsZSBub25jZSBpcyBsb25n"] {
            assert_eq!(accept_key(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn exactly_one_offered_subprotocol_is_chosen_and_none_where_none_was_offered() {
        let choose = |offers: &[&str]| choose_subprotocol(offers.iter().copied(), &STOMP);
        assert_eq!(choose(&["v10.stomp, v11.stomp,v12.stomp"]), Subprotocol::Chosen("v12.stomp"));
        assert_eq!(choose(&["v10.stomp", "v11.stomp"]), Subprotocol::Chosen("v11.stomp"));
        assert_eq!(choose(&["mqtt, stomp"]), Subprotocol::Chosen("stomp"));
        assert_eq!(choose(&[]), Subprotocol::None);
        assert_eq!(choose(&[" "]), Subprotocol::None);
        assert_eq!(choose(&["mqtt"]), Subprotocol::Unknown);
    }

    #[test]
    fn a_page_of_another_origin_must_be_listed() {
        let listed = |origin: &str| origin == "https://app.example";
        let allowed = |origin, host| origin_allowed(origin, host, false, listed);
        assert!(allowed(None, Some("broker:8161")));
        assert!(allowed(Some("http://broker:8161"), Some("broker:8161")));
        assert!(allowed(Some("https://app.example"), Some("broker:8161")));
        assert!(!allowed(Some("https://evil.example"), Some("broker:8161")));
        assert!(!allowed(Some("http://broker:9999"), Some("broker:8161")));
        assert!(!allowed(Some("null"), Some("broker:8161")));
        assert!(!allowed(Some("null"), None));
        assert!(origin_allowed(Some("https://evil.example"), None, true, |_| true));
    }

    #[test]
    fn a_foreign_name_that_resolves_to_loopback_lets_no_page_in() {
        let local = |host: &str| origin_allowed(Some(&format!("http://{host}")), Some(host), true, |_| false);
        for own in ["localhost:8161", "127.0.0.1:8161", "[::1]:8161", "LOCALHOST"] {
            assert!(local(own), "{own}");
        }
        for foreign in ["rebound.example:8161", "127.0.0.1.example", "localhost.example"] {
            assert!(!local(foreign), "{foreign}");
        }
    }
}
