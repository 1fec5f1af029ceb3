//! The command line over HTTP and WebSocket, against a whole server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use crate::server::Server;

fn sabir(server: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sabir"));
    command.env_clear().env("SABIR_SERVER", server).args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Status, standard output and standard error of a command.
fn run(server: &str, words: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let mut child = sabir(server, words).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn prints(server: &str, words: &[&str], input: &[u8]) -> String {
    let (code, out, said) = run(server, words, input);
    assert_eq!(code, Some(0), "{server} {words:?}: {said}");
    out
}

/// A command that runs on, and what it prints.
fn start(server: &str, words: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = sabir(server, words).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

#[test]
fn lines_go_in_by_each_way_and_come_out_by_every_other() {
    let server = Server::start(&[]);
    let input: String = (0..200).map(|n| format!("line {n} ☃\n")).collect();
    let address = server.http;
    let ways = [
        format!("http://{address}"),
        format!("ws://{address}/stomp"),
        format!("ws://{address}/ws"),
        format!("stomp://{}", server.stomp),
    ];
    for (index, from) in ways.iter().enumerate() {
        for (other, to) in ways.iter().enumerate() {
            let queue = format!("/queue/lines.{index}.{other}");
            prints(from, &["pub", &queue, "--lines"], input.as_bytes());
            assert!(prints(to, &["sub", &queue, "-n", "200"], b"") == input, "{from} to {to}");
            // And all of it has been settled.
            assert_eq!(prints(to, &["sub", &queue, "--idle", "0.05"], b""), "", "{from} to {to}");
        }
    }
}

#[test]
fn properties_fields_and_octets_cross_from_http() {
    let server = Server::start(&[]);
    let http = format!("http://{}", server.http);
    let words = ["pub", "/queue/a b", "-H", "orderId:a b", "--content-type", "application/json", "{}"];
    prints(&http, &words, b"");
    let json = prints(&http, &["sub", "/queue/a b", "-n", "1", "--json"], b"");
    for part in ["\"orderId\":\"a b\"", "\"contentType\":\"application/json\"", "\"body\":\"{}\""] {
        assert!(json.contains(part), "{part} in {json}");
    }
    prints(&http, &["pub", "/queue/octets"], b"\xff\x00\xfe");
    let json = prints(&http, &["sub", "/queue/octets", "-n", "1", "--json"], b"");
    assert!(json.contains("\"body_base64\":\"/wD+\""), "{json}");
    let (code, _, said) = run(&http, &["sub", "/queue/none", "-n", "1", "--selector", "a ="], b"");
    assert_eq!(code, Some(1));
    assert!(said.contains("invalid-selector"), "{said}");
    let (code, _, said) = run(&http, &["sub", "/queue/none", "-n", "1", "--idle", "0.05"], b"");
    assert_eq!((code, said.as_str()), (Some(3), "sabir: 0 of 1 messages came\n"));
}

#[test]
fn a_topic_is_heard_over_http_while_it_is_spoken_to_over_websocket() {
    let server = Server::start(&[]);
    let (http, mqtt) = (format!("http://{}", server.http), format!("ws://{}/mqtt", server.http));
    // From long before the subscription holds to after it has got what it wants.
    for (from, topic) in [(&mqtt, "news/eu"), (&http, "/topic/news.us")] {
        let (mut talker, _out) = start(from, &["pub", topic, "hello", "-n", "100000", "--rate", "50"]);
        assert_eq!(prints(&http, &["sub", "/topic/news.>", "-n", "3"], b""), "hello\nhello\nhello\n");
        let _ = talker.kill();
        let _ = talker.wait();
    }
}

#[test]
fn a_question_over_http_or_websocket_is_answered() {
    let server = Server::start(&[]);
    let stomp = format!("ws://{}/stomp", server.http);
    for asked_over in [format!("http://{}", server.http), stomp.clone()] {
        let (question, mut answer) = start(&asked_over, &["request", "/queue/sums", "1 + 2", "--raw"]);
        let json = prints(&stomp, &["sub", "/queue/sums", "-n", "1", "--json"], b"");
        let part = |name: &str| {
            let rest = json.split_once(&format!("\"{name}\":\"")).expect("it is there").1;
            rest.split('"').next().unwrap().to_owned()
        };
        let correlation = format!("correlation-id:{}", part("correlation-id"));
        prints(&stomp, &["pub", &part("reply-to"), "3", "-H", &correlation], b"");
        let mut text = String::new();
        answer.read_line(&mut text).unwrap();
        assert_eq!(text, "3", "{asked_over}");
        assert!(question.wait_with_output().unwrap().status.success());
    }
    let http = format!("http://{}", server.http);
    let (code, _, said) = run(&http, &["request", "/queue/nobody", "?", "--timeout", "0.1"], b"");
    assert_eq!((code, said.as_str()), (Some(3), "sabir: nobody answered within 0.1 s\n"));
}

#[test]
fn the_load_generator_loses_nothing_over_http_and_websocket() {
    let server = Server::start(&[]);
    let address = server.http.to_string();
    let (stomp, mqtt) = (format!("ws://{address}/stomp"), format!("ws://{address}/mqtt"));
    let http = ["bench", "http", "--server", &address, "--json", "--messages", "300"];
    let frames =
        ["bench", "stomp", "--url", &stomp, "--destination", "/queue/b", "--messages", "500", "--json"];
    for words in [
        [&http[..], &["--connections", "3", "--window", "4"]].concat(),
        [&http[..], &["--batch", "50", "--persistent"]].concat(),
        [&frames[..], &["--ack", "client"]].concat(),
        [&frames[..], &["--persistent", "--receipts"]].concat(),
        vec!["bench", "mqtt", "--url", &mqtt, "--messages", "500", "--qos", "1", "--json"],
    ] {
        let report = prints("", &words, b"");
        assert!(report.contains("\"lost\":0,\"duplicated\":0,\"reordered\":0"), "{words:?}: {report}");
    }
    // All that the first two sent is there, each with its receipt.
    let queued = prints(&format!("http://{address}"), &["sub", "/queue/sabir.bench.http", "-n", "600"], b"");
    assert_eq!(queued.lines().count(), 600);
}

#[test]
fn a_path_that_is_no_websocket_is_one_sentence() {
    let server = Server::start(&[]);
    let (code, _, said) = run(&format!("ws://{}/nothing", server.http), &["pub", "/queue/a", "x"], b"");
    assert_eq!(code, Some(1));
    assert!(said.contains("does not open a WebSocket there: HTTP/1.1 404"), "{said}");
}

#[test]
fn a_large_body_is_printed_whole_before_it_is_settled() {
    let server = Server::start(&[("limits.blob_bytes_min", "16 KiB"), ("limits.frame_bytes_max", "64 KiB")]);
    let address = format!("http://{}", server.http);
    let body = "large ".repeat(100_000);
    prints(&address, &["pub", "/queue/large"], body.as_bytes());
    assert!(prints(&address, &["sub", "/queue/large", "-n", "1", "--raw"], b"") == body);
    assert_eq!(prints(&address, &["sub", "/queue/large", "--idle", "0.05"], b""), "");
}
