//! A small HTTP/1.1 client over one kept connection, for the load generator and the command line: requests with a body in
//! one piece, answers of known length or in chunks, and answers that are read line by line while they come.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// What one read takes.
const READ_BYTES: usize = 16 * 1024;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nothing came in time.
    TimedOut,
    /// The connection broke, or what came is no HTTP; a sentence.
    Broken(String),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Broken(format!("the connection broke: {error}")),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut => f.write_str("the server does not answer"),
            Self::Broken(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for Error {}

/// An answer. Names of headers are in small letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body; of one that is read by line, nothing.
    pub body: Vec<u8>,
}

impl Reply {
    /// The value of the first header with this name.
    #[must_use]
    pub fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked {
        /// Bytes of the chunk at hand that have not been read.
        left: u64,
    },
    UntilEnd,
}

/// One connection.
#[derive(Debug)]
pub struct Http {
    socket: TcpStream,
    /// Header lines of every request: whom it is for and who asks.
    common: String,
    input: Vec<u8>,
    at: usize,
    /// The answer that is being read by line, and its bytes that are no whole line yet.
    open: Body,
    partial: Vec<u8>,
}

impl Http {
    /// Connects to `address`. With a user, requests carry Basic credentials.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn open(address: &str, user: Option<(&str, &str)>, timeout: Duration) -> Result<Self, Error> {
        let timeout = timeout.max(Duration::from_millis(1));
        let unreachable = |error: io::Error| Error::Broken(format!("{address} cannot be reached: {error}"));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for place in address.to_socket_addrs().map_err(unreachable)? {
            match TcpStream::connect_timeout(&place, timeout) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    socket.set_read_timeout(Some(timeout))?;
                    socket.set_write_timeout(Some(timeout))?;
                    let mut common = format!("Host: {address}\r\n");
                    if let Some((name, password)) = user {
                        let mut code = Vec::new();
                        sabir_model::base64::encode(format!("{name}:{password}").as_bytes(), &mut code);
                        let code = String::from_utf8_lossy(&code);
                        common.push_str(&format!("Authorization: Basic {code}\r\n"));
                    }
                    let (open, partial) = (Body::Length(0), Vec::new());
                    return Ok(Self { socket, common, input: Vec::new(), at: 0, open, partial });
                }
                Err(error) => last = error,
            }
        }
        Err(unreachable(last))
    }

    /// How long a read may take.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn set_patience(&mut self, patience: Option<Duration>) -> Result<(), Error> {
        let patience = patience.map(|patience| patience.max(Duration::from_millis(1)));
        Ok(self.socket.set_read_timeout(patience)?)
    }

    /// Appends a request to `out`. Further header lines end with CR LF each.
    pub fn encode(&self, out: &mut Vec<u8>, method: &str, target: &str, headers: &str, body: &[u8]) {
        let head = format!(
            "{method} {target} HTTP/1.1\r\n{}{headers}Content-Length: {}\r\n\r\n",
            self.common,
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body);
    }

    /// Writes encoded requests.
    ///
    /// # Errors
    /// The server does not take them.
    pub fn write(&mut self, requests: &[u8]) -> Result<(), Error> {
        Ok(self.socket.write_all(requests)?)
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// There is none.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<Reply, Error> {
        let mut out = Vec::new();
        self.encode(&mut out, method, target, headers, body);
        self.write(&out)?;
        self.receive()
    }

    /// The whole answer to the oldest request that has none.
    ///
    /// # Errors
    /// There is none.
    pub fn receive(&mut self) -> Result<Reply, Error> {
        let mut reply = self.receive_head()?;
        while let Some(mut piece) = self.piece()? {
            reply.body.append(&mut piece);
        }
        Ok(reply)
    }

    /// The head of the answer; the body follows with [`Http::line`].
    ///
    /// # Errors
    /// There is none.
    pub fn receive_head(&mut self) -> Result<Reply, Error> {
        loop {
            let rest = self.rest();
            if let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
                self.at += end + 4;
                let reply = parse_head(&head)?;
                // An announcement, such as 100.
                if reply.status < 200 {
                    continue;
                }
                self.open = body_of(&reply)?;
                self.partial.clear();
                return Ok(reply);
            }
            if rest.len() > HEAD_BYTES_MAX {
                return Err(Error::Broken("the server's answer has no end: is it HTTP?".into()));
            }
            if !self.fill()? {
                return Err(Error::Broken("the server closed the connection".into()));
            }
        }
    }

    /// The next line of the answer, without its end; nothing at its end. After a time-out it may be asked for again.
    ///
    /// # Errors
    /// Nothing came in time, or the connection broke.
    pub fn line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.partial.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            match self.piece()? {
                Some(mut piece) => self.partial.append(&mut piece),
                None if self.partial.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.partial))),
            }
        }
    }

    /// What is there of the body; nothing at its end.
    fn piece(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.open {
            Body::Length(0) => Ok(None),
            Body::Length(left) => {
                let piece = self.take(left)?;
                self.open = Body::Length(left - piece.len() as u64);
                Ok(Some(piece))
            }
            Body::UntilEnd => {
                if self.rest().is_empty() && !self.fill()? {
                    self.open = Body::Length(0);
                    return Ok(None);
                }
                self.take(u64::MAX).map(Some)
            }
            Body::Chunked { left: 0 } => {
                let size = self.head_line()?;
                let digits = size.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(digits, 16)
                    .ok()
                    .filter(|size| *size < u64::MAX - 2)
                    .ok_or_else(|| Error::Broken("a chunk of the server's answer has no length".into()))?;
                if size == 0 {
                    // Trailers, up to an empty line.
                    while !self.head_line()?.is_empty() {}
                    self.open = Body::Length(0);
                    return Ok(None);
                }
                // The line end behind the chunk counts with it.
                self.open = Body::Chunked { left: size + 2 };
                self.piece()
            }
            Body::Chunked { left } => {
                let mut piece = self.take(left)?;
                let left = left - piece.len() as u64;
                self.open = Body::Chunked { left };
                let excess = 2u64.saturating_sub(left).min(piece.len() as u64);
                piece.truncate(piece.len() - usize::try_from(excess).unwrap_or(0));
                Ok(Some(piece))
            }
        }
    }

    /// A line of the framing, without its end.
    fn head_line(&mut self) -> Result<String, Error> {
        loop {
            let rest = self.rest();
            if let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
                self.at += end + 2;
                return Ok(line);
            }
            if rest.len() > HEAD_BYTES_MAX || !self.fill()? {
                return Err(Error::Broken("the server's answer breaks off".into()));
            }
        }
    }

    /// At least one and at most `most` bytes.
    fn take(&mut self, most: u64) -> Result<Vec<u8>, Error> {
        if self.rest().is_empty() && !self.fill()? {
            return Err(Error::Broken("the server's answer breaks off".into()));
        }
        let rest = self.rest();
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(rest.len());
        let piece = rest.get(..count).unwrap_or_default().to_vec();
        self.at += count;
        Ok(piece)
    }

    fn rest(&self) -> &[u8] {
        self.input.get(self.at..).unwrap_or_default()
    }

    /// Reads more; false at the end of the stream.
    fn fill(&mut self) -> Result<bool, Error> {
        self.input.drain(..self.at.min(self.input.len()));
        self.at = 0;
        let filled = self.input.len();
        self.input.resize(filled + READ_BYTES.max(filled), 0);
        let read = loop {
            match self.socket.read(self.input.get_mut(filled..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.input.truncate(filled + read.as_ref().copied().unwrap_or(0));
        Ok(read? > 0)
    }
}

fn parse_head(head: &str) -> Result<Reply, Error> {
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let number = status.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    let Some(number) = number else {
        return Err(Error::Broken("what the server answers is no HTTP".into()));
    };
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Reply { status: number, headers, body: Vec::new() })
}

fn body_of(reply: &Reply) -> Result<Body, Error> {
    if matches!(reply.status, 204 | 304) {
        return Ok(Body::Length(0));
    }
    if reply.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Ok(Body::Chunked { left: 0 });
    }
    match reply.header("content-length").map(str::parse) {
        Some(Ok(length)) => Ok(Body::Length(length)),
        Some(Err(_)) => Err(Error::Broken("the length of the server's answer is no number".into())),
        None => Ok(Body::UntilEnd),
    }
}

/// Appends `text` as it stands in one segment of a path or in one value of a query (RFC 3986 §2).
pub fn put_percent_encoded(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    /// A server that answers what it is asked with these bytes, cut into pieces, and tells what that was.
    fn server(answer: &'static [u8], piece: usize) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut asked = [0; 4096];
            let count = stream.read(&mut asked).unwrap();
            for part in answer.chunks(piece) {
                stream.write_all(part).unwrap();
            }
            String::from_utf8(asked[..count].to_vec()).unwrap()
        });
        (address, asked)
    }

    #[test]
    fn answers_are_read_whatever_their_end_is_known_by() {
        for (answer, status, body) in [
            (&b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello"[..], 201, "hello"),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\nok", 200, "ok"),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
            (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, "until the end"),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n,\r\n0\r\nT: 1\r\n\r\n",
                200,
                "hello,",
            ),
        ] {
            for piece in [1, usize::MAX] {
                let (address, asked) = server(answer, piece);
                let mut http = Http::open(&address, Some(("a", "b")), Duration::from_secs(10)).unwrap();
                let reply = http.request("POST", "/x?y=z", "X-A: b\r\n", b"body").unwrap();
                assert_eq!((reply.status, reply.body), (status, body.as_bytes().to_vec()));
                assert_eq!(
                    asked.join().unwrap(),
                    format!(
                        "POST /x?y=z HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic YTpi\r\nX-A: b\r\n\
                         Content-Length: 4\r\n\r\nbody"
                    )
                );
            }
        }
    }

    #[test]
    fn a_stream_is_read_by_line() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{}\n\n\r\n3\r\n[1,\r\n4\r\n2]\nx\r\n0\r\n\r\n";
        for piece in [1, 7, usize::MAX] {
            let (address, _asked) = server(answer, piece);
            let mut http = Http::open(&address, None, Duration::from_secs(10)).unwrap();
            http.write(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            assert_eq!(http.receive_head().unwrap().status, 200);
            let mut lines = Vec::new();
            while let Some(line) = http.line().unwrap() {
                lines.push(String::from_utf8(line).unwrap());
            }
            assert_eq!(lines, ["{}", "", "[1,2]", "x"]);
        }
    }

    #[test]
    fn what_is_no_answer_is_said_so() {
        for (answer, sentence) in [
            (&b"SSH-2.0\r\n\r\n"[..], "what the server answers is no HTTP"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "the server's answer breaks off"),
            (b"", "the server closed the connection"),
        ] {
            let (address, _asked) = server(answer, usize::MAX);
            let mut http = Http::open(&address, None, Duration::from_secs(10)).unwrap();
            assert_eq!(http.request("GET", "/", "", b""), Err(Error::Broken(sentence.to_owned())));
        }
    }

    #[test]
    fn names_are_encoded_for_urls() {
        let mut out = String::new();
        put_percent_encoded("a.b/č ~?", &mut out);
        assert_eq!(out, "a.b%2F%C4%8D%20~%3F");
    }
}
