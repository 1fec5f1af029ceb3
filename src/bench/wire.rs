//! One connection to a broker: a socket, perhaps with WebSocket on it, and the bytes that have come and have not been read.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::websocket::{self, Codec};

/// How long one read waits. Whoever reads looks up then, whether somebody wants it to stop.
const READ_WAIT: Duration = Duration::from_millis(200);
/// How long a handshake waits.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(20);

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    address: String,
    /// Over WebSocket at this path.
    path: Option<String>,
}

impl Place {
    /// What `--server` and `--url` say.
    pub(crate) fn of(server: &str, url: Option<&str>, default_path: &str) -> Result<Self, String> {
        match url {
            None => Ok(Self { address: server.to_owned(), path: None }),
            Some(url) => {
                let (address, path) = websocket::parse_url(url, default_path)?;
                Ok(Self { address, path: Some(path) })
            }
        }
    }
}

/// A socket with its input.
pub(crate) struct Wire {
    socket: TcpStream,
    codec: Option<Codec>,
    buffer: Vec<u8>,
    /// Bytes from `start` to `filled` have come and have not been read.
    start: usize,
    filled: usize,
}

impl Wire {
    /// Connects; one read takes up to `buffer_bytes`. A WebSocket is to carry `subprotocol`, as text if it may be that.
    pub(crate) fn open(
        place: &Place,
        buffer_bytes: usize,
        subprotocol: &str,
        binary_only: bool,
    ) -> Result<Self, String> {
        let Place { address, path } = place;
        let mut socket =
            TcpStream::connect(address).map_err(|error| format!("cannot connect to {address}: {error}"))?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut early = Vec::new();
        let mut codec = None;
        if let Some(path) = path {
            socket.set_read_timeout(Some(HANDSHAKE_WAIT)).map_err(|error| error.to_string())?;
            early = websocket::handshake(&mut socket, address, path, subprotocol)?;
            codec = Some(Codec::new(binary_only));
        }
        socket.set_read_timeout(Some(READ_WAIT)).map_err(|error| error.to_string())?;
        let mut wire = Self { socket, codec, buffer: vec![0; buffer_bytes], start: 0, filled: 0 };
        wire.unwrap(&early)?;
        Ok(wire)
    }

    /// Makes a message of what `out` holds from `start` on, where bytes travel in messages.
    pub(crate) fn seal(&mut self, out: &mut Vec<u8>, start: usize) {
        if let Some(codec) = &mut self.codec {
            codec.wrap(out, start);
        }
    }

    /// Writes sealed bytes.
    pub(crate) fn write_sealed(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.socket.write_all(bytes).map_err(|error| format!("cannot write: {error}"))
    }

    /// Writes bytes, where they travel in messages as one of them.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        match &mut self.codec {
            None => self.write_sealed(bytes),
            Some(codec) => {
                let mut out = bytes.to_vec();
                codec.wrap(&mut out, 0);
                self.write_sealed(&out)
            }
        }
    }

    /// Reads more; false if nothing came for a while.
    pub(crate) fn fill(&mut self) -> Result<bool, String> {
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        match self.socket.read(self.buffer.get_mut(self.filled..).unwrap_or_default()) {
            Ok(0) => Err("the broker closed the connection".into()),
            Ok(count) => {
                if self.codec.is_some() {
                    let wire = self.buffer.get(self.filled..self.filled + count).unwrap_or_default().to_vec();
                    self.unwrap(&wire)?;
                } else {
                    self.filled += count;
                }
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(format!("cannot read: {error}")),
        }
    }

    /// Takes bytes of a WebSocket's wire.
    fn unwrap(&mut self, wire: &[u8]) -> Result<(), String> {
        let Some(codec) = &mut self.codec else { return Ok(()) };
        let (mut data, mut answers) = (Vec::new(), Vec::new());
        codec.feed(wire, &mut data, &mut answers)?;
        // Data is never more than the wire's bytes that it came in, but for what was there before the handshake ended.
        if self.filled + data.len() > self.buffer.len() {
            self.buffer.resize(self.filled + data.len(), 0);
        }
        if let Some(room) = self.buffer.get_mut(self.filled..self.filled + data.len()) {
            room.copy_from_slice(&data);
        }
        self.filled += data.len();
        if answers.is_empty() { Ok(()) } else { self.write_sealed(&answers) }
    }

    /// What has come and has not been read.
    pub(crate) fn input(&self) -> &[u8] {
        self.buffer.get(self.start..self.filled).unwrap_or_default()
    }

    /// The first `count` bytes of the input have been read.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.filled);
    }
}
