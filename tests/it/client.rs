//! A STOMP client of raw bytes over anything that reads and writes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::server::PATIENCE;

/// Anything that carries bytes.
pub(crate) trait Pipe: Read + Write + Send {}

impl<T: Read + Write + Send> Pipe for T {}

/// A client's end of one connection.
pub(crate) struct Client {
    pipe: Box<dyn Pipe>,
    /// Bytes read beyond the last frame.
    early: Vec<u8>,
}

/// One frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) command: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Command, headers and body, for messages of failed assertions and for searching.
    pub(crate) fn text(&self) -> String {
        format!("{} {:?} {}", self.command, self.headers, self.body.escape_ascii())
    }
}

pub(crate) fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(crate) fn unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A SEND frame.
pub(crate) fn send(destination: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut frame =
        format!("SEND\ndestination:{destination}\ncontent-length:{}\n{headers}\n", body.len()).into_bytes();
    frame.extend_from_slice(body);
    frame.push(0);
    frame
}

impl Client {
    pub(crate) fn new(pipe: impl Pipe + 'static) -> Self {
        Self { pipe: Box::new(pipe), early: Vec::new() }
    }

    /// A client that is let in.
    pub(crate) fn connect(pipe: impl Pipe + 'static) -> Self {
        let mut client = Self::new(pipe);
        client.write(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0");
        let frame = client.frame();
        assert_eq!(frame.command, "CONNECTED", "{}", frame.text());
        client
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.pipe.write_all(bytes).unwrap();
    }

    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pipe.write_all(bytes)
    }

    pub(crate) fn subscribe(&mut self, destination: &str) {
        self.write(
            format!("SUBSCRIBE\nid:{destination}\ndestination:{destination}\nreceipt:s\n\n\0").as_bytes(),
        );
        let frame = self.frame();
        assert_eq!(frame.command, "RECEIPT", "{}", frame.text());
    }

    /// Sends with a receipt and waits for it.
    pub(crate) fn send(&mut self, destination: &str, body: &[u8]) {
        self.write(&send(destination, "receipt:p\n", body));
        let frame = self.frame();
        assert_eq!(frame.command, "RECEIPT", "{}", frame.text());
    }

    /// The next frame; `None` when the server has closed in good order.
    pub(crate) fn try_frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let beats = self.early.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
            self.early.drain(..beats);
            if let Some((frame, length)) = parse(&self.early) {
                self.early.drain(..length);
                return Ok(Some(frame));
            }
            let mut buffer = [0; 64 * 1024];
            let count = self.pipe.read(&mut buffer)?;
            if count == 0 {
                assert!(self.early.is_empty(), "the stream ends inside of {}", self.early.escape_ascii());
                return Ok(None);
            }
            self.early.extend_from_slice(&buffer[..count]);
        }
    }

    pub(crate) fn frame(&mut self) -> Frame {
        self.try_frame().unwrap().expect("another frame before the end")
    }

    /// Asserts that the next frame is an ERROR with this code, and that the stream ends after it without a reset.
    pub(crate) fn expect_error(&mut self, code: &str) {
        let frame = self.frame();
        assert_eq!(frame.command, "ERROR", "{}", frame.text());
        assert!(frame.text().contains(code), "{}", frame.text());
        self.expect_end();
    }

    pub(crate) fn expect_end(&mut self) {
        let end = self.try_frame().expect("an end in good order");
        assert_eq!(end, None);
    }

    /// All that comes until the end, as text.
    pub(crate) fn rest(mut self) -> String {
        let mut rest = std::mem::take(&mut self.early);
        self.pipe.read_to_end(&mut rest).unwrap();
        String::from_utf8_lossy(&rest).into_owned()
    }
}

fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let head_length = bytes.windows(2).position(|pair| pair == b"\n\n")? + 2;
    let head = std::str::from_utf8(&bytes[..head_length]).unwrap();
    let mut lines = head.lines();
    let command = lines.next()?.to_owned();
    let headers: Vec<(String, String)> = lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let rest = &bytes[head_length..];
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = match length {
        Some((_, length)) => length.parse().unwrap(),
        None => rest.iter().position(|byte| *byte == 0)?,
    };
    if rest.len() <= length {
        return None;
    }
    assert_eq!(rest[length], 0, "a frame ends with NUL");
    Some((Frame { command, headers, body: rest[..length].to_vec() }, head_length + length + 1))
}
