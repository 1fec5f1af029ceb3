//! Listeners: binding addresses with errors that a person can act on, accepting, and finding out what is spoken.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sabir_broker::ConnectionInfo;
use socket2::{Domain, SockAddr, SockRef, TcpKeepalive, Type};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::Shared;
use super::census::{Permit, Reason};
use super::detect::{Detected, PREFIX_BYTES_MAX, Protocol, answer_to_unknown, detect};
use super::driver::Driver;
use super::http;
use super::reader::Transport;
use super::shedding::after_failure;
use super::socket::{Peer, PlainWriter, Prefixed, Socket};
use super::turn_away::{say, turn_away};

/// Connections that the kernel holds ready for us; more than a burst of clients that all reconnect.
const BACKLOG: u32 = 4096;
/// Owner and group may connect to a Unix socket.
const UNIX_MODE: u32 = 0o660;
/// A peer that vanished without a word is noticed after about two minutes even where no heart-beats were agreed on.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;
/// A broker that was killed holds its ports until the system has cleared it away: so often, and after so long, they are asked
/// for again.
const BIND_AGAIN: Duration = Duration::from_millis(20);
const BIND_ATTEMPTS: u32 = 25;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// STOMP only.
    Stomp,
    /// MQTT only.
    Mqtt,
    /// Whatever the first bytes say.
    Any,
    /// HTTP only.
    Http,
}

impl Speaks {
    fn key(self, unix: bool) -> &'static str {
        match self {
            _ if unix => "listeners.unix",
            Self::Stomp => "listeners.stomp",
            Self::Mqtt => "listeners.mqtt",
            Self::Any => "listeners.any",
            Self::Http => "listeners.http",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Stomp => "STOMP",
            Self::Mqtt => "MQTT",
            Self::Any => "every protocol",
            Self::Http => "HTTP and WebSocket",
        }
    }
}

/// Something that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What it speaks.
    pub speaks: Speaks,
    /// Where it is, as one would type it.
    pub address: String,
}

/// `STOMP on 127.0.0.1:61613`
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.speaks.label(), self.address)
    }
}

/// A listener could not be made.
#[derive(Debug)]
pub struct BindError {
    key: &'static str,
    address: String,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, address, source } = self;
        write!(f, "cannot listen on {address} ({key}): ")?;
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "another process listens there; stop it, or choose another place with --set {key}=…"
                )
            }
            io::ErrorKind::AddrNotAvailable => f.write_str("this machine does not have that address"),
            io::ErrorKind::PermissionDenied => {
                f.write_str("permission denied; ports below 1024 and foreign directories need more rights")
            }
            _ => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A Unix socket's file, removed when its listener ends.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Bound listeners that do not accept yet.
pub struct Listeners {
    bound: Vec<(Speaks, String, Bound)>,
}

impl Listeners {
    /// Binds all addresses. Call it inside a runtime.
    ///
    /// # Errors
    /// The first that cannot be bound; those bound before it are closed again.
    pub fn bind(tcp: &[(Speaks, SocketAddr)], unix: &[PathBuf]) -> Result<Self, BindError> {
        let mut bound = Vec::with_capacity(tcp.len() + unix.len());
        for &(speaks, address) in tcp {
            // An IPv6 wildcard would take the port of an IPv4 wildcard that is listed too.
            let beside_v4 = tcp.iter().any(|(_, other)| other.is_ipv4() && other.port() == address.port());
            let failed = |source| BindError { key: speaks.key(false), address: address.to_string(), source };
            let listener = bind_tcp(address, beside_v4).map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            bound.push((speaks, address.to_string(), Bound::Tcp(listener)));
        }
        for path in unix {
            let address = path.display().to_string();
            let failed = |source| BindError { key: "listeners.unix", address: address.clone(), source };
            let listener = bind_unix(path).map_err(failed)?;
            let file = SocketFile(path.clone());
            bound.push((Speaks::Any, address, Bound::Unix(listener, file)));
        }
        Ok(Self { bound })
    }

    /// Binds all addresses, and asks for what is taken again for half a second, in which a broker that was killed has gone.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_patiently(tcp: &[(Speaks, SocketAddr)], unix: &[PathBuf]) -> Result<Self, BindError> {
        for _ in 1..BIND_ATTEMPTS {
            match Self::bind(tcp, unix) {
                Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => {
                    tokio::time::sleep(BIND_AGAIN).await;
                }
                done => return done,
            }
        }
        Self::bind(tcp, unix)
    }

    /// What listens where; a port that was 0 is known by now.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.bound
            .iter()
            .map(|(speaks, address, _)| Endpoint { speaks: *speaks, address: address.clone() })
            .collect()
    }

    pub(super) fn serve(self, shared: &Arc<Shared>) {
        for (speaks, _, bound) in self.bound {
            let shared = Arc::clone(shared);
            match bound {
                Bound::Tcp(listener) => tokio::spawn(accept_tcp(shared, speaks, listener)),
                Bound::Unix(listener, file) => tokio::spawn(accept_unix(shared, speaks, listener, file)),
            };
        }
    }
}

fn bind_tcp(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        SockRef::from(&socket).set_only_v6(only_v6)?;
    }
    // Accepted sockets inherit both, which saves two system calls per connection.
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is not a socket has that name",
            ));
        }
        // A socket that nobody answers is left over from a process that was killed.
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Before binding, so that the file is never open to more than it should be; after it, whatever the umask took.
    let mode = rustix::fs::Mode::from_raw_mode(UNIX_MODE);
    rustix::fs::fchmod(&socket, mode)?;
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(UNIX_MODE))?;
    socket.listen(BACKLOG as i32)?;
    UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))
}

async fn accept_tcp(shared: Arc<Shared>, speaks: Speaks, listener: TcpListener) {
    let mut closing = shared.closing.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        match accepted {
            Ok((stream, address)) => {
                let peer = Peer {
                    remote: Some(address.ip().to_canonical()),
                    name: address.to_string(),
                    listener: speaks.key(false),
                    principal: None,
                };
                welcome(&shared, Socket::Tcp(stream), peer, speaks);
            }
            Err(error) => {
                let next = || async { listener.accept().await.map(drop) };
                after_failure(&shared, &error, speaks.key(false), next).await;
            }
        }
    }
}

async fn accept_unix(shared: Arc<Shared>, speaks: Speaks, listener: UnixListener, _file: SocketFile) {
    let mut closing = shared.closing.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let process = stream.peer_cred().ok().and_then(|cred| cred.pid());
                let name = process.map_or_else(|| "unix".to_owned(), |pid| format!("unix (pid {pid})"));
                let peer = Peer { remote: None, name, listener: speaks.key(true), principal: None };
                welcome(&shared, Socket::Unix(stream), peer, speaks);
            }
            Err(error) => {
                let next = || async { listener.accept().await.map(drop) };
                after_failure(&shared, &error, speaks.key(true), next).await;
            }
        }
    }
}

fn welcome(shared: &Arc<Shared>, socket: Socket, peer: Peer, speaks: Speaks) {
    let permit = match shared.census.admit(peer.remote) {
        Ok(permit) => permit,
        Err(refusal) => {
            tracing::debug!(peer = peer.name, %refusal, "connection refused");
            tokio::spawn(turn_away(Arc::clone(shared), socket, speaks, refusal));
            return;
        }
    };
    match speaks {
        Speaks::Stomp => start_plain(shared, Protocol::Stomp, socket, peer, permit),
        Speaks::Mqtt => start_plain(shared, Protocol::Mqtt, socket, peer, permit),
        Speaks::Http => {
            let socket = Prefixed { prefix: Bytes::new(), socket };
            tokio::spawn(http::serve(Arc::clone(shared), socket, peer, permit));
        }
        Speaks::Any => {
            tokio::spawn(find_out(Arc::clone(shared), socket, peer, permit));
        }
    }
}

/// Starts a connection of which only this protocol is expected.
fn start_plain(shared: &Arc<Shared>, protocol: Protocol, socket: Socket, peer: Peer, permit: Permit) {
    let (read, write) = socket.split();
    let writer = Box::new(PlainWriter::new(write, Arc::clone(&shared.census)));
    start(shared, protocol, peer, Transport::Plain(read), writer, &[], permit);
}

/// Introduces a connection to the broker and gives it its task.
pub(super) fn start(
    shared: &Arc<Shared>,
    protocol: Protocol,
    peer: Peer,
    transport: Transport,
    writer: Box<dyn sabir_broker::Writer>,
    early: &[u8],
    permit: Permit,
) {
    let (session, egress) = protocol.open(&shared.limits, shared.clock.refresh().instant);
    let principal = peer.principal;
    let info = ConnectionInfo {
        remote: peer.remote,
        local: peer.remote.is_none(),
        peer: peer.name.into(),
        listener: peer.listener,
    };
    match shared.broker.connect(info, egress, writer) {
        Ok(mut connection) => {
            if let Some(principal) = principal {
                connection.vouch(principal);
            }
            tokio::spawn(Driver::new(shared, session, connection, transport, early, permit));
        }
        // The broker is going away, and so is its side of the socket.
        Err(refusal) => tracing::debug!(%refusal, "connection refused"),
    }
}

/// Reads until the first bytes say what is spoken.
pub(super) async fn greet(mut socket: Socket, speaks: Speaks) -> io::Result<(Detected, Prefixed)> {
    let known = match speaks {
        Speaks::Stomp => Some(Detected::Messages(Protocol::Stomp)),
        Speaks::Mqtt => Some(Detected::Messages(Protocol::Mqtt)),
        Speaks::Http => Some(Detected::Http),
        Speaks::Any => None,
    };
    if let Some(detected) = known {
        return Ok((detected, Prefixed { prefix: Bytes::new(), socket }));
    }
    let mut prefix = BytesMut::with_capacity(PREFIX_BYTES_MAX);
    loop {
        // Bounded by the capacity: a full prefix is never undecided.
        let count = socket.read_buf(&mut prefix).await?;
        match detect(&prefix) {
            Detected::NeedMore if count > 0 => {}
            detected => return Ok((detected, Prefixed { prefix: prefix.freeze(), socket })),
        }
    }
}

async fn find_out(shared: Arc<Shared>, socket: Socket, peer: Peer, permit: Permit) {
    let patience = shared.options.greeting_timeout;
    let Ok(Ok((detected, mut socket))) = tokio::time::timeout(patience, greet(socket, Speaks::Any)).await
    else {
        shared.census.turn_away(Reason::Silent);
        tracing::debug!(peer = peer.name, "connection closed before it said what it speaks");
        return;
    };
    match detected {
        Detected::Messages(protocol) => {
            let (read, write) = socket.socket.split();
            let writer = Box::new(PlainWriter::new(write, Arc::clone(&shared.census)));
            start(&shared, protocol, peer, Transport::Plain(read), writer, &socket.prefix, permit);
        }
        // A task of its own: this one was made for reading a few bytes.
        Detected::Http => drop(tokio::spawn(http::serve(shared, socket, peer, permit))),
        Detected::NeedMore if socket.prefix.is_empty() => {}
        Detected::NeedMore | Detected::Unknown(_) => {
            shared.census.not_understood();
            let guess = if let Detected::Unknown(guess) = detected { guess } else { None };
            tracing::debug!(peer = peer.name, looks_like = guess, "nothing that is spoken here");
            let words = answer_to_unknown(guess);
            let _ =
                tokio::time::timeout(Duration::from_secs(2), say(&mut socket.socket, words.as_bytes())).await;
        }
    }
}
