//! One connection to a broker: a socket, perhaps with WebSocket on it, what is to be written, and the beginning of what
//! has not come whole. It is greeted with blocking reads and measured without any.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::websocket::{self, Codec};

/// How long one blocking read waits. Whoever reads looks up then, whether its time is over.
const READ_WAIT: Duration = Duration::from_millis(200);
/// How long a handshake waits.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(20);
/// What one read takes.
const READ_BYTES: usize = 256 * 1024;
/// Connections from one source address. The system has about 28,000 ports for each; some are in use or cooling down.
const PER_SOURCE: usize = 10_000;

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp(String),
    Unix(String),
    /// Over WebSocket: address and path.
    WebSocket(String, String),
}

impl Place {
    /// What `--server` and `--url` say. A WebSocket without a path is at `path`.
    pub(crate) fn of(server: &str, url: Option<&str>, path: &str) -> Result<Self, String> {
        let Some(url) = url else { return Ok(Self::Tcp(server.to_owned())) };
        if let Some(address) = url.strip_prefix("tcp://") {
            let address = address.trim_end_matches('/');
            if address.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.is_empty()) {
                return Err(format!("{url:?} is not tcp://HOST:PORT"));
            }
            Ok(Self::Tcp(address.to_owned()))
        } else if let Some(path) = url.strip_prefix("unix://") {
            if path.is_empty() {
                return Err(format!("{url:?} is not unix://PATH"));
            }
            Ok(Self::Unix(path.to_owned()))
        } else if url.starts_with("ws://") {
            let (address, path) = websocket::parse_url(url, path)?;
            Ok(Self::WebSocket(address, path))
        } else {
            Err(format!("{url:?} is none of tcp://HOST:PORT, unix://PATH, ws://HOST:PORT/PATH"))
        }
    }

    /// `http://HOST:PORT`, or what `--server` says.
    pub(crate) fn of_http(server: &str, url: Option<&str>) -> Result<Self, String> {
        match url.map(|url| (url, url.strip_prefix("http://"))) {
            None => Ok(Self::Tcp(server.to_owned())),
            Some((_, Some(rest))) => {
                let address = rest.split('/').next().unwrap_or_default();
                let has_port = address.contains(':');
                Ok(Self::Tcp(if has_port { address.to_owned() } else { format!("{address}:80") }))
            }
            Some((url, None)) => Err(format!("{url:?} is not http://HOST:PORT")),
        }
    }

    /// What a `Host` header says.
    pub(crate) fn authority(&self) -> &str {
        match self {
            Self::Tcp(address) | Self::WebSocket(address, _) => address,
            Self::Unix(_) => "localhost",
        }
    }
}

/// The address that connection `index` of many comes from, so that ports do not run out: on the loopback network every
/// address is ours.
pub(crate) fn source_of(index: usize) -> Option<Ipv4Addr> {
    let block = u8::try_from(index / PER_SOURCE).ok()?;
    (block > 0).then(|| Ipv4Addr::new(127, 0, 1, block))
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn tcp(address: &str, source: Option<Ipv4Addr>) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for place in address.to_socket_addrs()? {
            match Self::tcp_from(place, source) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn tcp_from(place: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<Self> {
        let stream = match source.filter(|_| place.is_ipv4() && place.ip().is_loopback()) {
            None => TcpStream::connect_timeout(&place, HANDSHAKE_WAIT)?,
            Some(source) => {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
                socket.connect_timeout(&place.into(), HANDSHAKE_WAIT)?;
                socket.into()
            }
        };
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    fn set_read_timeout(&self, wait: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(wait)),
            Self::Unix(stream) => stream.set_read_timeout(Some(wait)),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where reads go. One serves all connections of a thread, because a connection keeps only what is not whole.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    data: Vec<u8>,
    wire: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { data: vec![0; READ_BYTES], wire: Vec::new() }
    }
}

/// A socket with its output and what is left of its input.
#[derive(Debug)]
pub(crate) struct Link {
    stream: Stream,
    codec: Option<Box<Codec>>,
    partial: Vec<u8>,
    /// Sealed bytes that are to be written, from `written` on.
    pub(crate) out: Vec<u8>,
    written: usize,
}

impl Link {
    /// Connects, from `source` if one is given. A WebSocket is to carry `subprotocol`, as text if it may be that.
    pub(crate) fn open(
        place: &Place,
        source: Option<Ipv4Addr>,
        subprotocol: &str,
        binary_only: bool,
    ) -> Result<Self, String> {
        let unreachable = |error: io::Error| match place {
            Place::Unix(path) => format!("cannot connect to {path}: {error}"),
            _ => format!("cannot connect to {}: {error}", place.authority()),
        };
        let mut stream = match place {
            Place::Tcp(address) | Place::WebSocket(address, _) => Stream::tcp(address, source),
            Place::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
        }
        .map_err(unreachable)?;
        let mut codec = None;
        let mut partial = Vec::new();
        let mut answers = Vec::new();
        if let Place::WebSocket(address, path) = place {
            stream.set_read_timeout(HANDSHAKE_WAIT).map_err(unreachable)?;
            let early = websocket::handshake(&mut stream, address, path, subprotocol)?;
            let mut fresh = Codec::new(binary_only);
            fresh.feed(&early, &mut partial, &mut answers)?;
            codec = Some(Box::new(fresh));
        }
        stream.set_read_timeout(READ_WAIT).map_err(unreachable)?;
        Ok(Self { stream, codec, partial, out: answers, written: 0 })
    }

    /// From now on, nothing waits.
    pub(crate) fn unblock(&self) -> Result<(), String> {
        self.stream.set_nonblocking().map_err(|error| error.to_string())
    }

    /// Makes a message of what `out` holds from `start` on, where bytes travel in messages.
    pub(crate) fn seal(&mut self, start: usize) {
        if let Some(codec) = &mut self.codec {
            codec.wrap(&mut self.out, start);
        }
    }

    /// Whether what was to be written has not all been taken.
    pub(crate) fn is_blocked(&self) -> bool {
        self.written < self.out.len()
    }

    /// Writes what the socket takes; true if that is all.
    pub(crate) fn flush(&mut self) -> Result<bool, String> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("cannot write: {error}")),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(true)
    }

    /// Reads once, and gives all that has come and has not been taken; nothing if nothing new has come. What is not taken
    /// of it is handed to [`Link::keep`].
    pub(crate) fn read<'a>(&mut self, scratch: &'a mut Scratch) -> Result<Option<&'a [u8]>, String> {
        let kept = self.partial.len();
        let Scratch { data, wire } = scratch;
        let room = if self.codec.is_some() {
            data.clear();
            data.extend_from_slice(&self.partial);
            wire.resize(READ_BYTES, 0);
            wire.as_mut_slice()
        } else {
            // Room for a large frame grows with it, so that its bytes are copied a bounded number of times.
            let wanted = READ_BYTES.max(kept * 2);
            if data.len() < wanted {
                data.resize(wanted, 0);
            }
            if let Some(front) = data.get_mut(..kept) {
                front.copy_from_slice(&self.partial);
            }
            data.get_mut(kept..).unwrap_or_default()
        };
        let count = match self.stream.read(room) {
            Ok(0) => return Err("the broker closed the connection".into()),
            Ok(count) => count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(format!("cannot read: {error}")),
        };
        self.partial.clear();
        let Some(codec) = &mut self.codec else { return Ok(data.get(..kept + count)) };
        let start = self.out.len();
        let fed = codec.feed(wire.get(..count).unwrap_or_default(), data, &mut self.out);
        // What stands before a farewell is read first; the next read finds the end.
        match fed {
            Err(problem) if data.len() == kept => Err(problem),
            _ => {
                if self.out.len() > start {
                    self.flush()?;
                }
                Ok(Some(data))
            }
        }
    }

    /// What has been read and not taken.
    pub(crate) fn early(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    /// Takes back what is not whole yet.
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        self.partial.extend_from_slice(rest);
    }

    /// Writes `bytes` as one message and reads until `take` has found what it waits for. It gets the input and says how
    /// much of it it has taken, and whether that is all it wanted. For greetings, while reads still block.
    pub(crate) fn ask(
        &mut self,
        scratch: &mut Scratch,
        bytes: &[u8],
        what: &str,
        patience: Duration,
        mut take: impl FnMut(&[u8]) -> Result<(usize, bool), String>,
    ) -> Result<(), String> {
        let start = self.out.len();
        self.out.extend_from_slice(bytes);
        self.seal(start);
        let deadline = Instant::now() + patience;
        while !self.flush()? {
            if Instant::now() > deadline {
                return Err("the broker does not read".into());
            }
        }
        // What came with the handshake, if anything.
        if !self.partial.is_empty() {
            let early = std::mem::take(&mut self.partial);
            let (taken, done) = take(&early)?;
            self.keep(early.get(taken..).unwrap_or_default());
            if done {
                return Ok(());
            }
        }
        while Instant::now() <= deadline {
            let Some(input) = self.read(scratch)? else { continue };
            let (taken, done) = take(input)?;
            self.keep(input.get(taken..).unwrap_or_default());
            if done {
                return Ok(());
            }
        }
        Err(format!("no {what} from the broker"))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_by_urls() {
        let of = |url| Place::of("here:1", Some(url), "/mqtt");
        assert_eq!(Place::of("here:1", None, "/mqtt"), Ok(Place::Tcp("here:1".into())));
        assert_eq!(of("tcp://there:2"), Ok(Place::Tcp("there:2".into())));
        assert_eq!(of("unix:///run/sabir"), Ok(Place::Unix("/run/sabir".into())));
        assert_eq!(of("ws://there:3"), Ok(Place::WebSocket("there:3".into(), "/mqtt".into())));
        for bad in ["there:2", "tcp://there", "tcp://:1", "unix://", "wss://there:1", "http://there:1"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert_eq!(Place::of_http("h:1", Some("http://there:4/x")), Ok(Place::Tcp("there:4".into())));
        assert!(Place::of_http("h:1", Some("tcp://there:4")).is_err());
    }

    #[test]
    fn many_connections_come_from_several_addresses() {
        assert_eq!(source_of(0), None);
        assert_eq!(source_of(PER_SOURCE), Some(Ipv4Addr::new(127, 0, 1, 1)));
        assert_eq!(source_of(3 * PER_SOURCE + 5), Some(Ipv4Addr::new(127, 0, 1, 3)));
        assert_eq!(source_of(300 * PER_SOURCE), None);
    }
}
