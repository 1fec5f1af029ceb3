//! What a service manager is told, over a real socket, and what `sabir health` tells a container engine.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::client::{Client, send, tcp};
use crate::server::{PATIENCE, Server, fail_to_start};

/// The manager's side.
struct Manager(UnixDatagram);

impl Manager {
    fn at(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let count = self.0.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap().lines().map(str::to_owned).collect()
    }

    /// The next message with this line, and how many came before it.
    fn wait_for(&self, line: &str) -> (Vec<String>, usize) {
        for before in 0.. {
            let message = self.next();
            if message.iter().any(|one| one == line) {
                return (message, before);
            }
        }
        unreachable!("the loop has no end")
    }
}

fn health(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sabir")).env_clear().arg("health").args(words).output().unwrap()
}

#[test]
fn a_manager_is_told_of_recovery_readiness_life_and_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    Client::connect(tcp(server.stomp)).write(&send("/queue/kept", "persistent:true\nreceipt:r\n", b"x"));
    server.stop();

    let path = dir.path().join("notify");
    let manager = Manager::at(&SocketAddr::from_pathname(&path).unwrap());
    let server = Server::start_in(
        dir.path(),
        &[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "2000000")],
    );
    assert_eq!(manager.next(), ["STATUS=recovering the message log"]);
    let ready = manager.next();
    assert_eq!(ready[0], "READY=1");
    let stomp = format!("STOMP on {}", server.stomp);
    assert!(ready[1].starts_with("STATUS=serving ") && ready[1].contains(&stomp), "{ready:?}");
    let (alive, before) = manager.wait_for("WATCHDOG=1");
    assert_eq!(
        (alive, before),
        (vec!["WATCHDOG=1".to_owned(), "STATUS=serving 0 connections".to_owned()], 0)
    );
    let _client = Client::connect(tcp(server.stomp));
    let again = ["WATCHDOG=1", "STATUS=serving 1 connections"];
    while manager.next() != again {}
    server.signal(Signal::TERM);
    let (stop, _) = manager.wait_for("STOPPING=1");
    assert_eq!(stop[1], "STATUS=stopping: 1 connections may finish");
    assert_eq!(stop[2], "EXTEND_TIMEOUT_USEC=40000000", "ten seconds to drain, thirty for the log");
    assert!(server.wait().success());
}

#[test]
fn an_abstract_address_is_served_and_nobody_asks_for_signs_of_life() {
    let name = format!("sabir-test-{}", std::process::id());
    let manager = Manager::at(&SocketAddr::from_abstract_name(&name).unwrap());
    let server = Server::start(&[("NOTIFY_SOCKET", &format!("@{name}"))]);
    manager.wait_for("READY=1");
    server.signal(Signal::TERM);
    assert_eq!(manager.wait_for("STOPPING=1").1, 0);
    assert!(server.wait().success());
}

#[test]
fn a_manager_that_is_not_there_hinders_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    for (address, said) in [(nowhere.to_str().unwrap(), "cannot be told anything"), ("x", "NOTIFY_SOCKET is")]
    {
        let server = Server::start_in(
            dir.path(),
            &[("NOTIFY_SOCKET", address), ("WATCHDOG_USEC", "soon"), ("log.level", "debug")],
        );
        drop(Client::connect(tcp(server.stomp)));
        server.stop();
        let (_, log) =
            fail_to_start(dir.path(), &[("NOTIFY_SOCKET", address), ("listeners.any", "192.0.2.1:0")]);
        assert!(log.contains(said), "{log}");
    }
}

#[test]
fn a_manager_is_told_why_the_server_did_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = Manager::at(&SocketAddr::from_pathname(&path).unwrap());
    let (status, _) = fail_to_start(
        dir.path(),
        &[("NOTIFY_SOCKET", path.to_str().unwrap()), ("listeners.any", "0.0.0.0:0")],
    );
    assert_eq!(status, Some(1));
    let told = manager.next();
    assert!(
        told.len() == 1 && told[0].starts_with("STATUS=") && told[0].contains("listeners.any"),
        "{told:?}"
    );
}

#[test]
fn health_is_the_status_of_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sabir.sock");
    let unix = format!("unix:{}", socket.display());
    // Users bar the way to everything but this.
    let users = dir.path().join("users.toml");
    let server = Server::start(&[
        ("listeners.unix", socket.to_str().unwrap()),
        ("security.users_file", users.to_str().unwrap()),
        ("security.allow_anonymous_local", "false"),
    ]);
    let url = format!("http://{}", server.http);
    let listener = format!("listeners.any={}", server.any);
    for words in [&[url.as_str()][..], &[&unix], &["--set", "listeners.http=off", "--set", &listener]] {
        let output = health(words);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"ready\n"[..]), "{words:?}");
    }
    server.stop();
    for url in [&url, &unix] {
        let output = health(&[url]);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.starts_with("sabir: ") && said.contains("cannot be reached") && said.lines().count() == 1
        );
    }
}
