//! The command line against a whole server, as a shell uses it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

use crate::client::{Client, tcp};
use crate::server::Server;

fn sabir(server: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sabir"));
    command.env_clear().env("SABIR_SERVER", server).args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command with this standard input to its end.
fn run(server: &str, words: &[&str], input: &[u8]) -> Output {
    let mut child = sabir(server, words).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// What a command prints that has to succeed.
fn prints(server: &str, words: &[&str], input: &[u8]) -> String {
    let output = run(server, words, input);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Status and complaint of a command that has to fail.
fn fails(server: &str, words: &[&str]) -> (Option<i32>, String) {
    let output = run(server, words, b"");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A `sabir sub` of MQTT that is subscribed when this returns: it has printed the message that was kept for it.
fn listen(server: &str, topic: &str, words: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    prints(server, &["pub", topic, "ready", "--retain", "--qos", "1"], b"");
    let mut child = sabir(server, &[&["sub", topic], words].concat()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("ready"), "{line}");
    (child, out)
}

fn mqtt(server: &Server) -> String {
    format!("mqtt://{}", server.mqtt)
}

#[test]
fn lines_go_through_a_pipe_and_come_out_in_order_with_every_quality_and_version() {
    let server = Server::start(&[]);
    for version in ["3.1", "3.1.1", "5"] {
        for qos in ["0", "1", "2"] {
            let url = format!("mqtt://{}?version={version}", server.any);
            let topic = format!("lines/{version}/{qos}");
            let (mut child, mut out) = listen(&url, &topic, &["--qos", qos, "-n", "301"]);
            let input: String = (0..300).map(|n| format!("line {n}\n")).collect();
            prints(&url, &["pub", &topic, "--lines", "--qos", qos], input.as_bytes());
            let mut text = String::new();
            std::io::Read::read_to_string(&mut out, &mut text).unwrap();
            assert_eq!(text, input, "MQTT {version}, QoS {qos}");
            assert!(child.wait().unwrap().success());
        }
    }
}

#[test]
fn a_session_keeps_what_was_not_taken() {
    let server = Server::start(&[]);
    let url = mqtt(&server);
    let sub = |count: &str, expiry: &str| {
        let words = ["sub", "kept/#", "--client-id", "shop", "--session-expiry", expiry, "-n", count];
        run(&url, &[&words[..], &["--idle", "2"]].concat(), b"")
    };
    assert_eq!(sub("1", "600").status.code(), Some(3), "nothing is there yet");
    prints(&url, &["pub", "kept/a", "--lines", "--qos", "1"], b"1\n2\n3\n4\n5\n");
    assert_eq!(sub("2", "600").stdout, b"1\n2\n");
    assert_eq!(sub("2", "0").stdout, b"3\n4\n");
    assert_eq!(sub("1", "600").stdout, b"", "the last one was the last");
}

#[test]
fn a_message_crosses_to_stomp_with_its_headers() {
    let server = Server::start(&[]);
    let mut client = Client::connect(tcp(server.stomp));
    client.subscribe("/topic/crossing.here");
    let words =
        ["pub", "crossing/here", "hello", "-H", "colour:red", "--content-type", "text/x", "--qos", "1"];
    prints(&mqtt(&server), &words, b"");
    let frame = client.frame();
    assert_eq!(frame.body, b"hello");
    assert_eq!((frame.header("colour"), frame.header("content-type")), (Some("red"), Some("text/x")));
}

#[test]
fn a_request_is_answered_by_whoever_serves_the_topic() {
    let server = Server::start(&[]);
    let url = mqtt(&server);
    let (mut child, mut out) = listen(&url, "service/a", &["--json", "-n", "2"]);
    let asking = sabir(&url, &["request", "service/a", "how many?", "--timeout", "60"]).spawn().unwrap();
    let mut question = String::new();
    out.read_line(&mut question).unwrap();
    assert!(question.contains("\"body\":\"how many?\""), "{question}");
    let topic = question.split("\"response-topic\":\"").nth(1).unwrap().split('"').next().unwrap();
    prints(&url, &["pub", topic, "seven", "--qos", "1"], b"");
    let output = asking.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"seven\n"[..]));
    assert!(child.wait().unwrap().success());
}

#[test]
fn failures_are_one_sentence_and_a_status() {
    let server = Server::start(&[]);
    let url = mqtt(&server);
    let (status, said) = fails(&url, &["sub", "a/#/b"]);
    assert_eq!((status, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.starts_with("sabir: the server ") && said.ends_with("]\n"), "{said}");
    assert_eq!(fails(&url, &["pub", "a/+", "x"]).0, Some(2));
    assert_eq!(fails(&url, &["sub", "a", "--selector", "b = 1"]).0, Some(2));
    assert_eq!(fails(&url, &["request", "nobody/here", "x", "--timeout", "1"]).0, Some(3));
    let stomp = format!("mqtt://{}", server.stomp);
    assert_eq!(fails(&stomp, &["pub", "a", "x"]).0, Some(1));
}
