//! `sabir store` on the message log of a server that has been killed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::server::Server;

fn sabir(words: &[&str], data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sabir"));
    command.env_clear().args(words).arg("--data-dir").arg(data).stdin(Stdio::null());
    command.output().unwrap()
}

/// Status, output and complaint.
fn store(command: &str, options: &[&str], data: &Path) -> (Option<i32>, String, String) {
    let output = sabir(&[&["store", command], options].concat(), data);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn publish(server: &Server, bodies: std::ops::Range<u32>) {
    for body in bodies {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sabir"));
        command.env_clear().env("SABIR_SERVER", format!("stomp://{}", server.stomp));
        let sent =
            command.args(["pub", "/queue/orders", &format!("order {body}"), "--persistent", "--receipt"]);
        assert!(sent.status().unwrap().success());
    }
}

/// Turns a letter of a message's body, in whichever segment it is.
fn spoil(data: &Path, body: &str) -> PathBuf {
    let journal = data.join("shard-0/J");
    for entry in std::fs::read_dir(&journal).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(body.len()).position(|piece| piece == body.as_bytes()) {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            return path;
        }
    }
    panic!("{body} is nowhere in {}", journal.display());
}

#[test]
fn a_damaged_log_is_named_and_repaired_and_keeps_what_was_not_hit() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let small = [("store.segment_bytes", "64 KiB")];
    let server = Server::start_in(dir.path(), &small);
    publish(&server, 0..12);
    let (status, _, complaint) = store("inspect", &[], &data);
    assert_eq!(status, Some(1));
    assert!(complaint.contains("is in use by another process (pid "), "{complaint}");
    drop(server);
    // Another start folds it into a checkpoint.
    drop(Server::start_in(dir.path(), &small));

    let (status, text, _) = store("inspect", &[], &data);
    assert_eq!(status, Some(0));
    assert!(text.contains("format       3\n"), "{text}");
    let line = text.lines().find(|line| line.ends_with("  queue://orders")).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some("12"), "{text}");
    let (_, text, _) = store("inspect", &["--json"], &data);
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    let queues = whole["queues"].as_array().unwrap();
    let orders = queues.iter().find(|queue| queue["name"] == "queue://orders").unwrap();
    assert_eq!((&orders["messages"], &orders["oldest"]), (&12.into(), &1.into()));
    let (status, _, complaint) = store("verify", &[], &data);
    assert_eq!((status, complaint.as_str()), (Some(0), ""));
    let (status, text, _) = store("repair", &["--yes"], &data);
    assert_eq!((status, text.as_str()), (Some(0), "nothing is to be repaired\n"));

    let file = spoil(&data, "order 5");
    let (status, text, complaint) = store("verify", &[], &data);
    assert_eq!((status, complaint.as_str()), (Some(1), "sabir: the message log is damaged\n"));
    assert!(text.contains(&format!(" of {} are damaged\n", file.display())), "{text}");
    assert!(text.contains("messages 6 to 6 of queue 1"), "{text}");
    let (status, text, _) = store("verify", &["--json"], &data);
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &whole["sound"], &whole["lost"][0]["first"]), (Some(1), &false.into(), &6.into()));

    let before = std::fs::read(&file).unwrap();
    let (status, text, complaint) = store("repair", &[], &data);
    assert_eq!(status, Some(1));
    assert!(text.ends_with("nothing was changed\n") && complaint.contains("add --yes"), "{text}{complaint}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let (status, text, _) = store("repair", &["--yes"], &data);
    assert_eq!(status, Some(0));
    assert!(text.ends_with("the message log is repaired\n"), "{text}");
    assert_eq!(std::fs::read_dir(data.join("quarantine")).unwrap().count(), 1);
    assert_eq!(store("verify", &[], &data).0, Some(0));

    let server = Server::start_in(dir.path(), &small);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sabir"));
    command.env_clear().env("SABIR_SERVER", format!("stomp://{}", server.stomp));
    let output = command.args(["sub", "/queue/orders", "--count", "11", "--timeout", "60"]).output().unwrap();
    let orders = String::from_utf8(output.stdout).unwrap();
    let expected: String = (0..12).filter(|n| *n != 5).map(|n| format!("order {n}\n")).collect();
    assert_eq!(orders, expected);
}

#[test]
fn a_directory_without_a_log_stays_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let (status, _, complaint) = store("verify", &[], dir.path());
    assert_eq!(status, Some(1));
    assert!(complaint.contains("there is no message log in "), "{complaint}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
