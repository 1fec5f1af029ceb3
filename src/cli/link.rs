//! A blocking socket with its buffers, for the protocols of the command line: one packet at a time, with deadlines.
#![expect(clippy::disallowed_methods, reason = "a client of the broker: its deadlines are its own")]

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use sabir_bench::websocket::{self, Codec};

use super::Failure;
use super::server::{Location, Server};

const READ_BYTES: usize = 64 * 1024;
pub(super) const CLOSED: &str = "the server closed the connection";

/// One connection and what is on its way in and out.
pub(super) struct Link {
    stream: Stream,
    /// Bytes travel in the messages of a WebSocket.
    codec: Option<Codec>,
    /// Bytes from `start` on have been received and not been read.
    input: Vec<u8>,
    start: usize,
    out: Vec<u8>,
}

impl Link {
    /// Connects; over WebSocket, if the server is there, with this sub-protocol.
    pub(super) fn open(
        server: &Server,
        timeout: Duration,
        subprotocol: &str,
        binary_only: bool,
    ) -> Result<Self, Failure> {
        let place = &server.place;
        let mut link = Self::plain(place, timeout)?;
        let Some(path) = &server.websocket else { return Ok(link) };
        let failed = |sentence| Failure::Failed(format!("{place}: {sentence}"));
        let patience = Some(timeout.max(Duration::from_millis(1)));
        link.stream.set_read_timeout(patience).map_err(|error| broken(&error))?;
        let early =
            websocket::handshake(&mut link.stream, &place.to_string(), path, subprotocol).map_err(failed)?;
        link.codec = Some(Codec::new(binary_only));
        link.unwrap(&early)?;
        Ok(link)
    }

    /// Connects, with nothing between the bytes and the socket.
    pub(super) fn plain(place: &Location, timeout: Duration) -> Result<Self, Failure> {
        let stream = Stream::open(place, timeout)
            .map_err(|error| Failure::Failed(format!("{place} cannot be reached: {error}")))?;
        Ok(Self { stream, codec: None, input: Vec::new(), start: 0, out: Vec::new() })
    }

    /// What is to be written.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Writes it. That the server does not read is a failure; that the connection broke is left to the caller, because
    /// the server may have said why.
    pub(super) fn write(&mut self) -> Result<Option<io::Error>, Failure> {
        if let Some(codec) = &mut self.codec
            && !self.out.is_empty()
        {
            codec.wrap(&mut self.out, 0);
        }
        let written = self.stream.write_all(&self.out);
        self.out.clear();
        match written {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(Failure::TimedOut("the server does not read what it is sent".to_owned()))
            }
            Err(error) => Ok(Some(error)),
        }
    }

    /// What has come and has not been read.
    pub(super) fn input(&self) -> &[u8] {
        self.input.get(self.start..).unwrap_or_default()
    }

    /// The first `count` bytes of the input have been read.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Reads more; false if the deadline came first.
    pub(super) fn fill(&mut self, deadline: Option<Instant>) -> Result<bool, Failure> {
        let wait = match deadline {
            None => None,
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                Some(wait) if !wait.is_zero() => Some(wait),
                _ => return Ok(false),
            },
        };
        self.stream.set_read_timeout(wait).map_err(|error| broken(&error))?;
        self.input.drain(..self.start.min(self.input.len()));
        self.start = 0;
        let filled = self.input.len();
        // Grows with a large frame, so that its bytes are looked at a bounded number of times.
        self.input.resize(filled + READ_BYTES.max(filled), 0);
        let read = self.stream.read(self.input.get_mut(filled..).unwrap_or_default());
        self.input.truncate(filled + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => Err(Failure::Failed(CLOSED.to_owned())),
            Ok(_) if self.codec.is_some() => {
                let wire = self.input.split_off(filled);
                self.unwrap(&wire)?;
                Ok(true)
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) => Err(broken(&error)),
        }
    }

    /// Takes bytes of a WebSocket's wire. What stands before a farewell is read first.
    fn unwrap(&mut self, wire: &[u8]) -> Result<(), Failure> {
        let Some(codec) = &mut self.codec else { return Ok(()) };
        let before = self.input.len();
        let mut answers = Vec::new();
        let result = codec.feed(wire, &mut self.input, &mut answers);
        if !answers.is_empty() {
            // A server that does not take a pong is noticed by what we ask of it.
            let _ = self.stream.write_all(&answers);
        }
        match result {
            Err(sentence) if self.input.len() == before => Err(Failure::Failed(sentence)),
            _ => Ok(()),
        }
    }
}

pub(super) fn broken(error: &io::Error) -> Failure {
    Failure::Failed(format!("the connection broke: {error}"))
}

enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixStream),
}

impl Stream {
    fn open(place: &Location, timeout: Duration) -> io::Result<Self> {
        match place {
            Location::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, timeout.max(Duration::from_millis(1))) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            stream.set_write_timeout(Some(timeout.max(Duration::from_millis(1))))?;
                            return Ok(Self::Tcp(stream));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            #[cfg(unix)]
            Location::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                stream.set_write_timeout(Some(timeout.max(Duration::from_millis(1))))?;
                Ok(Self::Unix(stream))
            }
            #[cfg(not(unix))]
            Location::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
            #[cfg(unix)]
            Self::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }
}

impl io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            #[cfg(unix)]
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            #[cfg(unix)]
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
