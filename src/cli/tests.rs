//! The grammar of the command line, and the messaging commands against a server that says what a test wants it to.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use sabir_stomp::client::{Decoder, Version};

use super::*;

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn arguments_without_a_command_are_those_of_serve() {
    let cli = Cli::try_parse_from(["sabir", "--data-dir", "/x", "--set", "log.level=warn"]).unwrap();
    assert!(cli.command.is_none());
    assert_eq!(cli.config.load().unwrap().config.store.dir.to_str(), Some("/x"));
    assert!(Cli::try_parse_from(["sabir", "--data-dir", "/x", "sub", "/queue/a"]).is_err());
}

#[test]
fn spans_and_headers() {
    assert_eq!(seconds("0.5"), Ok(std::time::Duration::from_millis(500)));
    for bad in ["", "-1", "x", "inf", "NaN", "1e300"] {
        assert!(seconds(bad).is_err(), "{bad}");
    }
    assert_eq!(header("a:b:c"), Ok(("a".to_owned(), "b:c".to_owned())));
    assert_eq!(header("a:"), Ok(("a".to_owned(), String::new())));
    assert!(header("a").is_err() && header(":b").is_err());
}

#[test]
fn help_tells_keys_and_exit_codes() {
    let help = Cli::try_parse_from(["sabir", "--help"]).unwrap_err().to_string();
    assert!(help.contains("3  waited in vain"), "{help}");
    let help = Cli::try_parse_from(["sabir", "serve", "--help"]).unwrap_err().to_string();
    assert!(help.contains("store.durability=fsync"), "{help}");
}

/// A server for one connection: answers each frame with what `answer` makes of it, and ends when the client does.
/// Yields the frames it was sent, one line each: command, the headers a test may care about, body.
fn server(
    mut answer: impl FnMut(&str, &Received) -> String + Send + 'static,
) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("stomp://{}", listener.local_addr().unwrap());
    let frames = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut frames = Vec::new();
        let mut input = Vec::new();
        while let Some(received) = receive(&mut stream, &mut input) {
            let reply = match received.command.as_str() {
                "CONNECT" => "CONNECTED\nversion:1.2\n\n\0".to_owned(),
                "DISCONNECT" => format!("RECEIPT\nreceipt-id:{}\n\n\0", received.get("receipt")),
                command => answer(command, &received),
            };
            frames.push(received.line());
            if stream.write_all(reply.as_bytes()).is_err() || reply.starts_with("ERROR") {
                break;
            }
        }
        frames
    });
    (url, frames)
}

struct Received {
    command: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Received {
    fn get(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    fn line(&self) -> String {
        let mut line = self.command.clone();
        for (name, value) in &self.headers {
            line.push_str(&format!(" {name}={value}"));
        }
        format!("{line} {}", self.body.escape_ascii()).trim_end().to_owned()
    }
}

fn receive(stream: &mut TcpStream, input: &mut Vec<u8>) -> Option<Received> {
    let mut decoder = Decoder::new(Version::V12);
    loop {
        let decoded = decoder.next(input).unwrap();
        let received = decoded.frame.map(|frame| Received {
            command: frame.command().to_owned(),
            headers: frame.headers().map(|one| (one.name().into_owned(), one.value().into_owned())).collect(),
            body: frame.body().to_vec(),
        });
        let consumed = decoded.consumed;
        input.drain(..consumed);
        if received.is_some() {
            return received;
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => input.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    }
}

/// Runs a command line without going through the process's exit code.
pub(super) fn run(line: &[&str]) -> Result<(), Failure> {
    let words = ["sabir"].into_iter().chain(line.iter().copied());
    match Cli::try_parse_from(words).unwrap().command.unwrap() {
        Command::Pub(arguments) => publish::run(&arguments),
        Command::Sub(arguments) => subscribe::run(&arguments),
        Command::Request(arguments) => request::run(&arguments),
        other => panic!("{other:?} is not for these tests"),
    }
}

fn receipt(received: &Received) -> String {
    match received.get("receipt") {
        "" => String::new(),
        receipt => format!("RECEIPT\nreceipt-id:{receipt}\n\n\0"),
    }
}

#[test]
fn pub_sends_headers_and_body_and_leaves_when_all_is_done() {
    let (url, frames) = server(|_, received| receipt(received));
    run(&[
        "pub",
        "-s",
        &url,
        "/queue/a",
        "hello",
        "-H",
        "colour:re:d",
        "--persistent",
        "--receipt",
        "-n",
        "2",
    ])
    .unwrap();
    assert_eq!(
        frames.join().unwrap(),
        [
            "CONNECT accept-version=1.0,1.1,1.2 host=/",
            "SEND destination=/queue/a colour=re:d persistent=true receipt=r1 hello",
            "SEND destination=/queue/a colour=re:d persistent=true receipt=r2 hello",
            "DISCONNECT receipt=r3",
        ]
    );
}

#[test]
fn pub_keeps_thousands_of_receipts_apart() {
    let (url, frames) = server(|_, received| receipt(received));
    run(&["pub", "-s", &url, "/queue/a", "x", "--receipt", "-n", "5000"]).unwrap();
    assert_eq!(frames.join().unwrap().len(), 5002);
}

#[test]
fn pub_fails_with_the_servers_words() {
    let (url, frames) = server(|_, _| "ERROR\ncode:access-denied\nmessage:no\n\nYou may not.\0".to_owned());
    let failure = run(&["pub", "-s", &url, "/queue/a", "x"]).unwrap_err();
    assert_eq!(failure, Failure::Failed("the server says: You may not. [access-denied]".to_owned()));
    frames.join().unwrap();
}

#[test]
fn pub_waits_for_receipts_only_so_long() {
    let (url, frames) = server(|_, _| String::new());
    let failure = run(&["pub", "-s", &url, "/queue/a", "x", "--receipt", "--timeout", "1"]).unwrap_err();
    assert_eq!(failure, Failure::TimedOut("1 receipts did not come".to_owned()));
    frames.join().unwrap();
}

#[test]
fn a_password_goes_where_it_belongs() {
    let (url, frames) = server(|_, _| String::new());
    let url = url.replace("stomp://", "stomp://alice:se%3Acret@");
    run(&["pub", "-s", &url, "/queue/a", "x"]).unwrap();
    assert_eq!(
        frames.join().unwrap()[0],
        "CONNECT accept-version=1.0,1.1,1.2 host=/ login=alice passcode=se:cret"
    );
}

#[test]
fn nobody_there_is_one_sentence() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let Failure::Failed(sentence) = run(&["pub", "-s", &address.to_string(), "/queue/a", "x"]).unwrap_err()
    else {
        panic!("unreachable is a failure")
    };
    assert!(sentence.starts_with(&format!("{address} cannot be reached: ")), "{sentence}");
}

fn messages(received: &Received, count: usize) -> String {
    let message = |n| {
        format!("MESSAGE\nsubscription:{}\nmessage-id:m{n}\nack:a{n}\n\nbody {n}\0\n", received.get("id"))
    };
    (1..=count).map(message).collect::<String>() + &receipt(received)
}

#[test]
fn sub_takes_and_acknowledges_as_many_as_it_was_told() {
    let (url, frames) = server(|command, received| match command {
        "SUBSCRIBE" => messages(received, 5),
        _ => receipt(received),
    });
    run(&["sub", "-s", &url, "/queue/a", "-n", "3", "--selector", "a = 1", "--json"]).unwrap();
    assert_eq!(
        frames.join().unwrap()[1..],
        [
            "SUBSCRIBE id=sub destination=/queue/a ack=client-individual selector=a = 1 activemq.prefetchSize=3 receipt=r1",
            "ACK id=a1",
            "ACK id=a2",
            "ACK id=a3",
            "UNSUBSCRIBE id=sub",
            "DISCONNECT receipt=r2",
        ]
    );
}

#[test]
fn sub_leaves_when_nothing_comes_and_says_if_that_was_too_early() {
    for (count, ack, missing) in [(None, "client", false), (Some("9"), "auto", true)] {
        let (url, frames) = server(|command, received| match command {
            "SUBSCRIBE" => messages(received, 2),
            _ => receipt(received),
        });
        let mut line = vec!["sub", "-s", &url, "/topic/a", "--idle", "0.05", "--ack", ack];
        line.extend(count.iter().flat_map(|count| ["-n", count]));
        let done = run(&line);
        assert_eq!(done.is_err(), missing);
        if missing {
            assert_eq!(done, Err(Failure::TimedOut("2 of 9 messages came".to_owned())));
        }
        let frames = frames.join().unwrap();
        let acks = frames.iter().filter(|line| line.starts_with("ACK")).count();
        assert_eq!(acks > 0, ack == "client", "{frames:?}");
        assert!(ack != "client" || frames.contains(&"ACK id=a2".to_owned()), "{frames:?}");
    }
}

#[test]
fn sub_ends_with_the_queue_it_looks_at() {
    let (url, frames) = server(|command, received| match command {
        "SUBSCRIBE" => messages(received, 2) + "MESSAGE\nbrowser:end\nsubscription:sub\nmessage-id:0\n\n\0",
        _ => receipt(received),
    });
    run(&["sub", "-s", &url, "/queue/a", "--ack", "auto", "-H", "browser:true"]).unwrap();
    assert!(frames.join().unwrap()[1].contains(" browser=true "));
}

#[test]
fn durable_subscriptions_need_a_client_id() {
    let refused = |line: &[&str]| Cli::try_parse_from(["sabir"].iter().chain(line)).is_err();
    assert!(refused(&["sub", "/topic/a", "--durable", "s"]));
    let (url, frames) = server(|_, received| receipt(received));
    run(&["sub", "-s", &url, "/topic/a", "--durable", "s", "--client-id", "c", "--idle", "0.05"]).unwrap();
    let frames = frames.join().unwrap();
    assert!(frames[0].ends_with(" client-id=c"), "{frames:?}");
    assert!(frames[1].contains(" activemq.subscriptionName=s "), "{frames:?}");
}

#[test]
fn request_prints_the_answer_or_gives_up() {
    let (url, frames) = server(|command, received| match command {
        "SEND" => format!(
            "MESSAGE\nsubscription:replies\nmessage-id:1\ncorrelation-id:{}\n\nanswer\0",
            received.get("correlation-id")
        ),
        _ => receipt(received),
    });
    run(&["request", "-s", &url, "/queue/a", "question", "--json"]).unwrap();
    assert_eq!(
        frames.join().unwrap()[1..],
        [
            "SUBSCRIBE id=replies destination=/temp-queue/reply ack=auto",
            "SEND destination=/queue/a reply-to=/temp-queue/reply correlation-id=request-1 question",
            "DISCONNECT receipt=r1",
        ]
    );
    let (url, frames) = server(|_, received| receipt(received));
    let failure = run(&["request", "-s", &url, "/queue/a", "question", "--timeout", "1"]).unwrap_err();
    assert_eq!(failure, Failure::TimedOut("nobody answered within 1 s".to_owned()));
    frames.join().unwrap();
}

#[test]
fn what_is_no_stomp_is_said_so() {
    for (bytes, expected) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "closes the connection without a greeting; is it STOMP?"),
        (&*"x".repeat(1000), "the server does not speak STOMP: "),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = listener.local_addr().unwrap().to_string();
        let bytes = bytes.to_owned();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Read first: closing with unread bytes would reset the connection.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(bytes.as_bytes());
        });
        let Failure::Failed(sentence) = run(&["sub", "-s", &url, "/queue/a"]).unwrap_err() else {
            panic!("a foreign protocol is a failure")
        };
        assert!(sentence.contains(expected), "{sentence}");
        peer.join().unwrap();
    }
}

#[test]
fn a_large_message_comes_whole() {
    let (url, frames) = server(|command, received| match command {
        "SUBSCRIBE" => {
            let body = "x".repeat(3_000_000);
            format!("MESSAGE\nsubscription:sub\nmessage-id:1\nack:1\ncontent-length:3000000\n\n{body}\0")
                + &receipt(received)
        }
        _ => receipt(received),
    });
    let words = ["sabir", "sub", "-s", &url, "/queue/a"];
    let Some(Command::Sub(arguments)) = Cli::try_parse_from(words).unwrap().command else { panic!("sub") };
    let server = server::Server::of(&arguments.server).unwrap();
    let mut connection = connection::Connection::open(&server, &arguments.server, None).unwrap();
    sabir_stomp::client::subscribe(connection.out(), Version::V12, "sub", "/queue/a", "auto", &[]);
    connection.flush().unwrap();
    let message = connection.next(None).unwrap().unwrap();
    assert_eq!(message.body.len(), 3_000_000);
    connection.disconnect().unwrap();
    frames.join().unwrap();
}
