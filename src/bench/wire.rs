//! One connection to a broker: a socket, and the bytes that have come and have not been read.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long one read waits. Whoever reads looks up then, whether somebody wants it to stop.
const READ_WAIT: Duration = Duration::from_millis(200);

/// A socket with its input.
pub(crate) struct Wire {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// Bytes from `start` to `filled` have come and have not been read.
    start: usize,
    filled: usize,
}

impl Wire {
    /// Connects to `server`; one read takes up to `buffer_bytes`.
    pub(crate) fn open(server: &str, buffer_bytes: usize) -> Result<Self, String> {
        let socket =
            TcpStream::connect(server).map_err(|error| format!("cannot connect to {server}: {error}"))?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        socket.set_read_timeout(Some(READ_WAIT)).map_err(|error| error.to_string())?;
        Ok(Self { socket, buffer: vec![0; buffer_bytes], start: 0, filled: 0 })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.socket.write_all(bytes).map_err(|error| format!("cannot write: {error}"))
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
                self.filled += count;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(format!("cannot read: {error}")),
        }
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
