//! What a service manager is told: that the server is ready, what it is doing, that it still answers.
//!
//! The protocol is that of `sd_notify(3)`: lines of `KEY=VALUE` in a datagram to the socket that `NOTIFY_SOCKET` names.
//! Without that variable nothing is sent. Nothing here can keep the server from serving: a manager that does not listen is
//! mentioned once in the log.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sabir_broker::Broker;
use tokio::sync::watch;

/// A manager whose queue is full gets this long to make room.
const SEND_PATIENCE: Duration = Duration::from_secs(1);
/// See [`Supervisor::look`].
const LOOK: Duration = Duration::from_secs(5);
/// For how long work that moves on asks not to be given up; several looks, so that one may be late.
const EXTENSION: Duration = Duration::from_secs(30);
/// Less processor time than this between two looks is no progress: looking itself costs some.
const CPU_SECONDS_MIN: f64 = 0.02;
/// Room for closing the log once all connections have gone.
const CLOSING: Duration = Duration::from_secs(30);

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub(crate) struct Supervisor {
    address: Option<SocketAddr>,
    /// Time without a sign of life after which the manager takes the server for dead.
    watchdog: Option<Duration>,
    /// How often work that takes long is looked at.
    look: Duration,
    complained: AtomicBool,
}

impl Supervisor {
    /// What the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`. What of it makes no sense is named in
    /// the log and passed over.
    pub(crate) fn from_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let address = variable("NOTIFY_SOCKET").and_then(|text| {
            address(&text).map_err(|error| tracing::warn!("NOTIFY_SOCKET is {text:?}: {error}")).ok()
        });
        let (span, pid) = (variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
        let watchdog = watchdog(span.as_deref(), pid.as_deref(), std::process::id()).unwrap_or_else(|name| {
            tracing::warn!("{name} is no number; nobody is told that the server still answers");
            None
        });
        let watchdog = watchdog.filter(|_| address.is_some());
        Self { address, watchdog, look: LOOK, complained: AtomicBool::new(false) }
    }

    /// A manager that listens at `path` and wants to hear something within every `watchdog`.
    #[cfg(test)]
    pub(crate) fn new(path: &std::path::Path, watchdog: Duration) -> Self {
        Self {
            address: SocketAddr::from_pathname(path).ok(),
            watchdog: Some(watchdog),
            look: Duration::from_millis(10),
            complained: AtomicBool::new(false),
        }
    }

    /// The log is read and every listener accepts.
    pub(crate) async fn ready(self: &Arc<Self>, listening: &str) {
        self.say(format!("READY=1\n{}", status(listening))).await;
    }

    /// The server ends, and may take this long to let connections finish.
    pub(crate) async fn stopping(self: &Arc<Self>, connections: usize, drain: Duration) {
        let doing = status(&format!("stopping: {connections} connections may finish"));
        self.say(format!("STOPPING=1\n{doing}\n{}", extend(drain.saturating_add(CLOSING)))).await;
    }

    /// The server did not start, or ended badly.
    pub(crate) fn failed(&self, sentence: &str) {
        self.send(&status(sentence));
    }

    /// Does `work`, and tells how it gets on. As long as it does, the manager is asked not to give it up; work that neither
    /// reads nor computes gets no such help.
    pub(crate) async fn during<T>(self: &Arc<Self>, doing: &str, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if self.address.is_none() {
            return work.await;
        }
        self.say(status(doing)).await;
        let mut before = Effort::now();
        loop {
            tokio::select! {
                done = work.as_mut() => return done,
                () = tokio::time::sleep(self.look) => {
                    let now = Effort::now();
                    let mut text = status(&now.told(doing));
                    if now.is_beyond(&before) {
                        // A string takes every line.
                        let _ = write!(text, "\n{}", extend(EXTENSION));
                    }
                    before = now;
                    self.say(text).await;
                }
            }
        }
    }

    /// Starts telling that the server answers, if the manager wants to know; ends with the runtime. `turns` counts the
    /// turns of the ticker.
    pub(crate) fn watch(self: &Arc<Self>, broker: Broker, turns: watch::Receiver<u64>) {
        if let Some(span) = self.watchdog {
            tokio::spawn(Arc::clone(self).keep_watch(span / 2, broker, turns));
        }
    }

    async fn keep_watch(self: Arc<Self>, half: Duration, broker: Broker, mut turns: watch::Receiver<u64>) {
        let mut interval = tokio::time::interval(half);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            match tokio::time::timeout(half, answers(&broker, &mut turns)).await {
                Ok(Some(connections)) => {
                    let doing = status(&format!("serving {connections} connections"));
                    self.say(format!("WATCHDOG=1\n{doing}")).await;
                }
                // The log's own last words say why.
                Ok(None) => {}
                Err(_) => tracing::warn!(
                    "the broker did not answer within {} ms; the service manager is not told that it is alive",
                    half.as_millis()
                ),
            }
        }
    }

    async fn say(self: &Arc<Self>, text: String) {
        if self.address.is_some() {
            let this = Arc::clone(self);
            // Nothing depends on whether it arrives.
            let _ = tokio::task::spawn_blocking(move || this.send(&text)).await;
        }
    }

    /// A socket for each message, as `sd_notify` does: the manager may have made its own anew.
    fn send(&self, text: &str) {
        let Some(address) = &self.address else { return };
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(SEND_PATIENCE))?;
            socket.send_to_addr(text.as_bytes(), address)
        });
        if let Err(error) = sent
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("the service manager cannot be told anything (NOTIFY_SOCKET): {error}");
        }
    }
}

/// Connections now, if all that moves the broker moves: the runtime starts a task and a thread, the ticker ends a whole
/// turn (clock, timers, the broker's sweep under the locks of its queues), and the maps of connections and the log let
/// somebody in. The disk is not asked: a slow one is no reason to be killed.
async fn answers(broker: &Broker, turns: &mut watch::Receiver<u64>) -> Option<usize> {
    turns.mark_unchanged();
    // The turn that ends first may have begun before the question.
    for _ in 0..2 {
        turns.changed().await.ok()?;
    }
    let broker = broker.clone();
    let asked = tokio::spawn(async move {
        tokio::task::spawn_blocking(move || broker.store().failed().is_none().then(|| broker.connections()))
            .await
    });
    asked.await.ok()?.ok()?
}

/// How much the process has done so far, where the system tells.
#[derive(Clone, Copy, Debug)]
struct Effort {
    read_bytes: Option<u64>,
    cpu_seconds: Option<f64>,
}

impl Effort {
    fn now() -> Self {
        let io = std::fs::read_to_string("/proc/self/io").ok();
        Self {
            read_bytes: io.as_deref().and_then(read_bytes),
            cpu_seconds: sabir_admin::Usage::read().map(|usage| usage.cpu_seconds),
        }
    }

    fn told(&self, doing: &str) -> String {
        match self.read_bytes {
            Some(bytes) => format!("{doing}: {} MiB read", bytes >> 20),
            None => doing.to_owned(),
        }
    }

    /// Whether something has been done since; where nobody knows, it has.
    fn is_beyond(&self, before: &Self) -> bool {
        // Looking reads a few files of /proc.
        let read =
            self.read_bytes.zip(before.read_bytes).map(|(now, then)| now.saturating_sub(then) > 64 << 10);
        let computed =
            self.cpu_seconds.zip(before.cpu_seconds).map(|(now, then)| now - then >= CPU_SECONDS_MIN);
        match (read, computed) {
            (None, None) => true,
            (read, computed) => read == Some(true) || computed == Some(true),
        }
    }
}

/// The field `rchar` of `/proc/self/io`: bytes read, from the disk or from its cache.
fn read_bytes(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("rchar: "))?.trim().parse().ok()
}

/// A line that people see in `systemctl status`.
fn status(text: &str) -> String {
    format!("STATUS={}", text.replace(['\n', '\r'], " "))
}

fn extend(by: Duration) -> String {
    format!("EXTEND_TIMEOUT_USEC={}", by.as_micros())
}

/// Reads `NOTIFY_SOCKET`: a path, or `@` and a name without a file (an abstract address of Linux).
fn address(text: &OsStr) -> io::Result<SocketAddr> {
    let unknown = |what: &str| io::Error::new(io::ErrorKind::Unsupported, what.to_owned());
    match text.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(text),
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        _ => Err(unknown("only an absolute path or @NAME can be sent to")),
    }
}

/// Reads `WATCHDOG_USEC` and `WATCHDOG_PID`: the span, if one is set and meant for the process `own`. On error the name of
/// the variable that is no number.
fn watchdog(span: Option<&OsStr>, pid: Option<&OsStr>, own: u32) -> Result<Option<Duration>, &'static str> {
    let number = |text: &OsStr| text.to_str().and_then(|text| text.parse::<u64>().ok());
    let Some(span) = span else { return Ok(None) };
    let span = number(span).ok_or("WATCHDOG_USEC")?;
    if let Some(pid) = pid
        && number(pid).ok_or("WATCHDOG_PID")? != u64::from(own)
    {
        return Ok(None);
    }
    // Zero is how a manager that asks for nothing may say so.
    Ok((span > 0).then(|| Duration::from_micros(span)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn watched(span: Option<&str>, pid: Option<&str>) -> Result<Option<u128>, &'static str> {
        watchdog(span.map(OsStr::new), pid.map(OsStr::new), 7).map(|span| span.map(|span| span.as_micros()))
    }

    #[test]
    fn a_watchdog_is_kept_only_where_one_is_set_for_this_process() {
        assert_eq!(watched(Some("3000000"), Some("7")), Ok(Some(3_000_000)));
        assert_eq!(watched(Some("3000000"), None), Ok(Some(3_000_000)));
        assert_eq!(watched(Some("3000000"), Some("8")), Ok(None), "another process is meant");
        assert_eq!(watched(None, Some("7")), Ok(None));
        assert_eq!(watched(Some("0"), None), Ok(None));
        assert_eq!(watched(Some("soon"), None), Err("WATCHDOG_USEC"));
        assert_eq!(watched(Some("1"), Some("-1")), Err("WATCHDOG_PID"));
    }

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        let of = |text: &str| address(OsStr::new(text));
        assert!(of("/run/notify").is_ok_and(|found| found.as_pathname().is_some()));
        assert!(of("@notify").is_ok_and(|found| found.as_pathname().is_none() && !found.is_unnamed()));
        for bad in ["notify", "vsock:2:1234", &format!("/{}", "x".repeat(200))] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_work_that_moves_on_gets_more_time() {
        let effort = |read_bytes, cpu_seconds| Effort { read_bytes, cpu_seconds };
        let before = effort(Some(10 << 20), Some(1.0));
        assert!(effort(Some(20 << 20), Some(1.0)).is_beyond(&before), "it reads");
        assert!(effort(Some(10 << 20), Some(2.0)).is_beyond(&before), "it computes");
        assert!(!effort(Some((10 << 20) + 100), Some(1.01)).is_beyond(&before), "it hangs");
        assert!(effort(None, None).is_beyond(&before), "nobody knows");
        assert_eq!(read_bytes("rchar: 123\nwchar: 4\n"), Some(123));
        assert_eq!(before.told("recovering"), "recovering: 10 MiB read");
    }

    #[test]
    fn long_work_is_told_of_and_asks_for_time_while_it_moves_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let supervisor = Arc::new(Supervisor::new(&path, Duration::from_secs(60)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = runtime.block_on(supervisor.during("reading", async {
            let mut told: Vec<String> = Vec::new();
            while !told.iter().any(|one| one.contains("EXTEND_TIMEOUT_USEC")) {
                drop(std::fs::read("/proc/self/exe").unwrap());
                tokio::time::sleep(Duration::from_millis(1)).await;
                let mut message = [0; 200];
                while let Ok(count) = manager.recv(&mut message) {
                    told.push(String::from_utf8_lossy(&message[..count]).into_owned());
                }
            }
            told
        }));
        assert_eq!(told[0], "STATUS=reading");
        let last = told.last().unwrap();
        assert!(
            last.starts_with("STATUS=reading: ") && last.contains(" MiB read\nEXTEND_TIMEOUT_USEC=30000000")
        );
    }

    #[test]
    fn a_status_is_one_line_whatever_it_tells() {
        assert_eq!(status("two\nREADY=1"), "STATUS=two READY=1");
    }
}
