//! A blocking STOMP connection for the command line: one frame at a time, with deadlines.
#![expect(clippy::disallowed_methods, reason = "a client of the broker: its deadlines are its own")]

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sabir_stomp::client::{self, Connect, Decoder, Version};

use super::{Failure, ServerArgs};

const PORT: u16 = 61613;
const READ_BYTES: usize = 64 * 1024;
const CLOSED: &str = "the server closed the connection";

/// Where a server is and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Server {
    place: Location,
    login: Option<String>,
    passcode: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Location {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Server {
    /// Reads `stomp://user:password@host:port`, of which everything but the host may be left out, or `unix:path`.
    /// `%40` and the like stand for characters that would end a part.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{:?} is not stomp://USER:PASSWORD@HOST:PORT or unix:PATH", without_password(text));
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(wrong());
            }
            return Ok(Self { place: Location::Unix(path.into()), login: None, passcode: None });
        }
        let rest = match text.split_once("://") {
            Some(("stomp" | "tcp", rest)) => rest,
            Some(_) => return Err(wrong()),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, rest),
        };
        let (login, passcode) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((login, passcode)) => (
                Some(percent_decoded(login).ok_or_else(wrong)?),
                Some(percent_decoded(passcode).ok_or_else(wrong)?),
            ),
            None => (None, None),
        };
        if [&login, &passcode].into_iter().flatten().any(|part| part.contains(['\n', '\r', '\0'])) {
            return Err(wrong());
        }
        let (host, port) = match address.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or_else(wrong)?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) })
            }
            None => match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| wrong()))?;
        if host.is_empty() || host.contains(['/', ' ', '?']) {
            return Err(wrong());
        }
        Ok(Self { place: Location::Tcp { host: host.to_owned(), port }, login, passcode })
    }

    fn of(args: &ServerArgs) -> Result<Self, Failure> {
        let text = match &args.server {
            Some(text) => text.clone(),
            None => match std::env::var("SABIR_SERVER") {
                Ok(text) if !text.is_empty() => text,
                _ => "stomp://127.0.0.1:61613".to_owned(),
            },
        };
        Self::parse(&text).map_err(Failure::Usage)
    }
}

/// For messages: the text with what might be a password left out.
fn without_password(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, address)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://…@{address}"),
            None => format!("…@{address}"),
        },
        None => text.to_owned(),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
            out.push(high << 4 | low);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
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

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            #[cfg(unix)]
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            #[cfg(unix)]
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}

/// A frame of the server, copied out of the buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) command: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    /// The server's own words in an ERROR.
    fn complaint(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        let sentence = body.lines().find(|line| !line.trim().is_empty()).or_else(|| self.get("message"));
        let sentence = sentence.unwrap_or("an error without words").trim().to_owned();
        match self.get("code") {
            Some(code) if !sentence.contains(code) => format!("the server says: {sentence} [{code}]"),
            _ => format!("the server says: {sentence}"),
        }
    }
}

/// A connection that has been greeted.
pub(super) struct Connection {
    stream: Stream,
    decoder: Decoder,
    /// Bytes from `start` on have been received and not been read.
    input: Vec<u8>,
    start: usize,
    out: Vec<u8>,
    pub(super) version: Version,
    pub(super) timeout: Duration,
    receipts: u64,
}

impl Connection {
    /// Connects and introduces itself.
    pub(super) fn open(args: &ServerArgs, client_id: Option<&str>) -> Result<Self, Failure> {
        let server = Server::of(args)?;
        for (what, text) in [("client id", client_id), ("virtual host", Some(args.virtual_host.as_str()))] {
            if text.is_some_and(|text| text.contains(['\n', '\r', '\0'])) {
                return Err(Failure::Usage(format!("a {what} cannot hold a line end")));
            }
        }
        let stream = Stream::open(&server.place, args.timeout)
            .map_err(|error| Failure::Failed(format!("{} cannot be reached: {error}", server.place)))?;
        let mut connection = Self {
            stream,
            decoder: Decoder::default(),
            input: Vec::new(),
            start: 0,
            out: Vec::new(),
            version: Version::V12,
            timeout: args.timeout,
            receipts: 0,
        };
        let connect = Connect {
            host: Some(&args.virtual_host),
            login: server.login.as_deref(),
            passcode: server.passcode.as_deref(),
            client_id,
            ..Connect::default()
        };
        client::connect(&mut connection.out, &connect);
        connection.flush()?;
        let greeting = connection.next(Some(connection.deadline())).map_err(|failure| match failure {
            Failure::Failed(sentence) if sentence == CLOSED => Failure::Failed(format!(
                "{} closes the connection without a greeting; is it STOMP?",
                server.place
            )),
            other => other,
        });
        match greeting? {
            Some(greeting) if greeting.command == "CONNECTED" => {
                let version = greeting.get("version").unwrap_or("1.0");
                connection.version = Version::parse(version)
                    .ok_or_else(|| Failure::Failed(format!("the server speaks STOMP {version}")))?;
                connection.decoder.set_version(connection.version);
                Ok(connection)
            }
            Some(other) => Err(Failure::Failed(format!("the server greets with {}", other.command))),
            None => Err(Failure::TimedOut(format!("{} does not greet", server.place))),
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// The buffer of frames to be written.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// A receipt's name that is used once.
    pub(super) fn receipt(&mut self) -> String {
        self.receipts += 1;
        format!("r{}", self.receipts)
    }

    /// Writes what is in the buffer. If the server has closed, what it said last is the reason.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        let out = std::mem::take(&mut self.out);
        let written = self.stream.write_all(&out);
        self.out = out;
        self.out.clear();
        let Err(error) = written else { return Ok(()) };
        if error.kind() == io::ErrorKind::WouldBlock {
            return Err(Failure::TimedOut("the server does not read what it is sent".to_owned()));
        }
        loop {
            match self.next(Some(Instant::now() + Duration::from_secs(1))) {
                Ok(Some(_)) => {}
                Ok(None) => return Err(Failure::Failed(format!("the connection broke: {error}"))),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Whether a whole frame lies in the buffer, so that [`Connection::next`] will not wait.
    pub(super) fn has_next(&mut self) -> Result<bool, Failure> {
        let decoded = self.decoder.next(self.input.get(self.start..).unwrap_or_default());
        decoded.map(|decoded| decoded.frame.is_some()).map_err(|refusal| garbled(&refusal))
    }

    /// The next frame, or nothing until the deadline. An ERROR and the end of the connection are failures.
    pub(super) fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Message>, Failure> {
        loop {
            let rest = self.input.get(self.start..).unwrap_or_default();
            let decoded = self.decoder.next(rest).map_err(|refusal| garbled(&refusal))?;
            let message = decoded.frame.map(|frame| Message {
                command: frame.command().to_owned(),
                headers: frame
                    .headers()
                    .map(|header| (header.name().into_owned(), header.value().into_owned()))
                    .collect(),
                body: frame.body().to_vec(),
            });
            self.start += decoded.consumed;
            match message {
                Some(message) if message.command == "ERROR" => {
                    return Err(Failure::Failed(message.complaint()));
                }
                Some(message) => return Ok(Some(message)),
                None => {
                    if !self.fill(deadline)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Reads more; false if the deadline came first.
    fn fill(&mut self, deadline: Option<Instant>) -> Result<bool, Failure> {
        let wait = match deadline {
            None => None,
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                Some(wait) if !wait.is_zero() => Some(wait),
                _ => return Ok(false),
            },
        };
        let broken = |error: io::Error| Failure::Failed(format!("the connection broke: {error}"));
        self.stream.set_read_timeout(wait).map_err(broken)?;
        self.input.drain(..self.start);
        self.start = 0;
        let filled = self.input.len();
        // Grows with a large frame, so that its bytes are looked at a bounded number of times.
        self.input.resize(filled + READ_BYTES.max(filled), 0);
        let read = self.stream.read(self.input.get_mut(filled..).unwrap_or_default());
        self.input.truncate(filled + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => Err(Failure::Failed(CLOSED.to_owned())),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) => Err(broken(error)),
        }
    }

    /// Says goodbye and waits until the server has done everything it was asked before; other frames are dropped.
    pub(super) fn disconnect(mut self) -> Result<(), Failure> {
        let receipt = self.receipt();
        client::disconnect(&mut self.out, self.version, Some(&receipt));
        self.flush()?;
        let deadline = self.deadline();
        while let Some(message) = self.next(Some(deadline))? {
            if message.command == "RECEIPT" && message.get("receipt-id") == Some(&receipt) {
                return Ok(());
            }
        }
        Err(Failure::TimedOut("the server does not confirm that it did everything".to_owned()))
    }
}

fn garbled(refusal: &sabir_model::error::Refusal) -> Failure {
    Failure::Failed(format!("the server does not speak STOMP: {}", refusal.sentence))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn servers_are_read_from_their_urls() {
        for (text, place, login, passcode) in [
            ("stomp://127.0.0.1:61613", "127.0.0.1:61613", None, None),
            ("broker", "broker:61613", None, None),
            ("broker:1/", "broker:1", None, None),
            ("stomp://alice:secret@broker", "broker:61613", Some("alice"), Some("secret")),
            ("stomp://al%40ice:s%3Ae@c:r@[::1]:7", "[::1]:7", Some("al@ice"), Some("s:e@c:r")),
            ("alice@broker:1", "broker:1", Some("alice"), Some("")),
            ("[::1]", "[::1]:61613", None, None),
            ("unix:/run/s.sock", "/run/s.sock", None, None),
            ("unix:///run/s.sock", "/run/s.sock", None, None),
        ] {
            let server = Server::parse(text).unwrap();
            assert_eq!(server.place.to_string(), place, "{text}");
            assert_eq!((server.login.as_deref(), server.passcode.as_deref()), (login, passcode), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_said_without_the_password() {
        for text in [
            "",
            "http://x",
            "stomp://",
            "broker:x",
            "broker:99999",
            "[::1",
            "[::1]x",
            "a%zz@b",
            "a%0a@b",
            "unix:",
            "a/b",
        ] {
            assert!(Server::parse(text).is_err(), "{text}");
        }
        let sentence = Server::parse("mqtt://alice:secret@broker").err().unwrap();
        assert_eq!(sentence, "\"mqtt://…@broker\" is not stomp://USER:PASSWORD@HOST:PORT or unix:PATH");
    }

    #[test]
    fn an_error_is_told_in_the_servers_words() {
        let mut error = Message {
            command: "ERROR".into(),
            body: b"\nNo such queue.\nmore".to_vec(),
            ..Message::default()
        };
        assert_eq!(error.complaint(), "the server says: No such queue.");
        error.headers.push(("code".into(), "unknown-destination".into()));
        assert_eq!(error.complaint(), "the server says: No such queue. [unknown-destination]");
        error.body.clear();
        error.headers.push(("message".into(), "gone".into()));
        assert_eq!(error.complaint(), "the server says: gone [unknown-destination]");
    }
}
