//! Whatever keeps the server from starting is one sentence that says what to do.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::client::{Client, send, tcp, unix};
use crate::server::{Server, fail_to_start};

/// Asserts that it does not start and that exactly one line says why, with these words.
fn refuses(settings: &[(&str, &str)], words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let (status, said) = fail_to_start(dir.path(), settings);
    assert_eq!(status, Some(1), "{said}");
    let is_error = |line: &&str| line.contains("\"ERROR\"") || line.starts_with("sabir:");
    let errors: Vec<&str> = said.lines().filter(is_error).collect();
    let [line] = errors.as_slice() else { panic!("not one sentence: {said}") };
    for word in words {
        assert!(line.contains(word), "no “{word}” in {line}");
    }
}

#[test]
fn an_address_in_use_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["listeners.stomp", "listeners.any", "listeners.http"] {
        refuses(&[(key, &address)], &[key, &address, "another process listens there"]);
    }
}

#[test]
fn an_address_of_another_machine_is_refused() {
    refuses(
        &[("listeners.stomp", "192.0.2.1:0"), ("security.allow_anonymous_remote", "true")],
        &["192.0.2.1:0", "does not have that address"],
    );
}

#[test]
fn an_open_listener_without_users_says_how_to_add_one() {
    refuses(
        &[("listeners.stomp", "0.0.0.0:0")],
        &["listeners.stomp", "sabir user add", "allow_anonymous_remote"],
    );
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let (status, said) = fail_to_start(dir.path(), &[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    server.stop();
    Server::start_in(dir.path(), &[]).stop();
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("data"), "a file where a directory should be").unwrap();
    let (status, said) = fail_to_start(dir.path(), &[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("the store directory") && !said.contains("users.toml"), "{said}");
}

/// Changes one byte wherever the directory's files hold `text`, as a failing disk would.
fn damage(dir: &Path, text: &[u8]) {
    let mut damaged = 0;
    let mut paths = vec![dir.join("data")];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0, "the message is in some file");
}

#[test]
fn a_damaged_log_is_refused_with_the_file_and_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let mut client = Client::connect(tcp(server.stomp));
    for n in 0..50 {
        client.write(&send("/queue/kept", "persistent:true\nreceipt:r\n", format!("number {n}").as_bytes()));
        assert_eq!(client.frame().command, "RECEIPT");
    }
    server.stop();
    damage(dir.path(), b"number 3");
    let (status, said) = fail_to_start(dir.path(), &[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("damaged") && said.contains("quarantine"), "{said}");
    assert!(said.contains("/data/"), "{said}");
}

#[test]
fn what_quarantine_leaves_of_a_queue_without_a_name_is_in_a_queue_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let mut client = Client::connect(tcp(server.stomp));
    // The queue's name is written before its first message.
    for body in ["the first", "the second", "the third"] {
        client.write(&send("/queue/kept", "persistent:true\nreceipt:r\n", body.as_bytes()));
        assert_eq!(client.frame().command, "RECEIPT");
    }
    server.stop();
    // The name may be in a frame of its own: whether the log's thread took it together with the first message is chance.
    damage(dir.path(), b"kept");
    damage(dir.path(), b"the first");
    let server = Server::start_in(dir.path(), &[("store.quarantine", "true")]);
    let mut client = Client::connect(tcp(server.stomp));
    // A new queue gets neither the number nor the messages of the nameless one.
    client.write(&send("/queue/new", "persistent:true\nreceipt:r\n", b"other"));
    assert_eq!(client.frame().command, "RECEIPT");
    server.stop();
    let server = Server::start_in(dir.path(), &[]);
    let mut client = Client::connect(tcp(server.stomp));
    for (queue, bodies) in
        [("/queue/recovered.1", &["the second", "the third"][..]), ("/queue/new", &["other"])]
    {
        client.subscribe(queue);
        for body in bodies {
            assert_eq!(client.frame().body, body.as_bytes(), "{queue}");
        }
    }
}

#[test]
fn a_users_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users.toml");
    fs::write(&users, "nonsense").unwrap();
    refuses(&[("security.users_file", users.to_str().unwrap())], &["users.toml"]);
}

#[test]
fn a_unix_socket_left_behind_is_replaced_and_a_used_one_or_a_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sabir.sock");
    let setting = path.to_str().unwrap().to_owned();

    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind");
    let server = Server::start(&[("listeners.unix", &setting)]);
    Client::connect(unix(&path)).send("/queue/unix", b"x");
    refuses(&[("listeners.unix", &setting)], &["listeners.unix", "another process listens there"]);
    server.stop();
    assert!(!path.exists(), "taken away at the end");

    fs::write(&path, "precious").unwrap();
    refuses(&[("listeners.unix", &setting)], &["a file that is not a socket"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}
