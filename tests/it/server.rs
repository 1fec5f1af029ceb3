//! A server process of one test's own, on ports that the system chose.
#![expect(
    clippy::disallowed_methods,
    reason = "waits for a process; what it has said is kept until it is looked at"
)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Far beyond what anything here takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    /// What it says on standard error, line by line; ends with the process.
    lines: Receiver<String>,
    pub(crate) stomp: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    pub(crate) any: SocketAddr,
    pub(crate) http: SocketAddr,
    /// Removed with the server.
    dir: Option<TempDir>,
}

fn command(dir: &Path, settings: &[(&str, &str)]) -> Command {
    // Another build of it can be named, for measuring.
    let binary = std::env::var_os("SABIR_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_sabir").into());
    let mut command = Command::new(binary);
    command.arg("serve").arg("--data-dir").arg(dir.join("data"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let ports = ["listeners.stomp", "listeners.mqtt", "listeners.any", "listeners.http"];
    for key in ports.into_iter().filter(|key| !settings.iter().any(|(set, _)| set == key)) {
        command.arg("--set").arg(format!("{key}=127.0.0.1:0"));
    }
    // `SABIR_TEST_SETTINGS="limits.queue_memory_bytes_max=65536"`: all of these tests hold with it, too.
    for setting in std::env::var("SABIR_TEST_SETTINGS").unwrap_or_default().split_whitespace() {
        command.arg("--set").arg(setting);
    }
    for (key, value) in settings {
        match *key {
            // A file can hold what no single setting can.
            "--config" => command.arg(key).arg(value),
            // What a service manager puts into the environment.
            "NOTIFY_SOCKET" | "WATCHDOG_USEC" | "WATCHDOG_PID" => command.env(key, value),
            _ => command.arg("--set").arg(format!("{key}={value}")),
        };
    }
    command
}

impl Server {
    /// With a data directory of its own.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self::start_in(dir.path(), settings);
        server.dir = Some(dir);
        server
    }

    /// With its data in `dir`, which stays.
    pub(crate) fn start_in(dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut child = command(dir, settings).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut server =
            Self { child, lines, stomp: nowhere, mqtt: nowhere, any: nowhere, http: nowhere, dir: None };
        server.stomp = server.listening("STOMP on ");
        server.mqtt = server.listening("MQTT on ");
        server.any = server.listening("every protocol on ");
        server.http = server.listening("HTTP and WebSocket on ");
        server
    }

    fn listening(&self, what: &str) -> SocketAddr {
        let line = self.wait_for_line(&format!("listening: {what}"));
        let rest = line.split_once(what).unwrap().1;
        let end = rest.find(|c: char| !(c.is_ascii_digit() || ".:".contains(c))).unwrap_or(rest.len());
        rest[..end].parse().unwrap()
    }

    /// The next line on standard error that contains `text`.
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        let mut seen = String::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            if line.contains(text) {
                return line;
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        panic!("the server never said “{text}”; it said:\n{seen}");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(mut self) -> ExitStatus {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server did not end");
    }

    /// Asks it to stop and waits until it has, in good order.
    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}");
    }

    /// Resident memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server that must not start, and returns its status and what it said.
pub(crate) fn fail_to_start(dir: &Path, settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = command(dir, settings).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}
