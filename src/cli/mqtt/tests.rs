//! The messaging commands against an MQTT server that says what a test wants it to.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use sabir_mqtt::client::MessageProperties;
use sabir_mqtt::packet::{Connack, Disconnect, PINGRESP, Progress, Publish, decode, frame, put_suback};
use sabir_mqtt::{PacketId, Qos};

use super::super::tests::run;
use super::*;

/// A server for one connection: answers each packet with what `answer` appends, and the usual ones by itself. Yields what
/// it was sent, one line each.
fn server(
    version: Version,
    answer: impl FnMut(&Packet<'_>, &mut Vec<u8>) + Send + 'static,
) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    let lines = std::thread::spawn(move || serve(&listener.accept().unwrap().0, version, answer));
    (url, lines)
}

fn serve(
    mut stream: &TcpStream,
    version: Version,
    mut answer: impl FnMut(&Packet<'_>, &mut Vec<u8>),
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut input = Vec::new();
    let mut known = None;
    loop {
        while let Progress::Whole(found) = frame(&input, known, usize::MAX).unwrap() {
            let packet = decode(&found, version).unwrap();
            packet.check_from_client().unwrap();
            known = Some(version);
            lines.push(line(&packet));
            let mut out = Vec::new();
            match packet {
                Packet::Pingreq => out.extend_from_slice(&PINGRESP),
                Packet::Disconnect(_) => return lines,
                packet => answer(&packet, &mut out),
            }
            let total = found.total;
            input.drain(..total);
            if stream.write_all(&out).is_err() || ends(&out) {
                // Closing with unread bytes would reset the connection.
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
                return lines;
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => input.extend_from_slice(&buffer[..read]),
            _ => return lines,
        }
    }
}

/// Whether these are a server's last words: a DISCONNECT or a CONNACK that refuses.
fn ends(out: &[u8]) -> bool {
    matches!(out, [0xe0, ..] | [0x20, _, _, 1..=255, ..])
}

fn line(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Connect(connect) => {
            let mut line = format!("CONNECT {}", connect.version.as_str());
            for (what, there) in [("clean", connect.clean_start), ("id", !connect.client_id.is_empty())] {
                line.push_str(if there { " " } else { " no-" });
                line.push_str(what);
            }
            if let Some(name) = connect.username {
                line.push_str(&format!(" {name}:{}", connect.password.unwrap_or_default().escape_ascii()));
            }
            if let Some(seconds) = connect.properties.session_expiry_s {
                line.push_str(&format!(" lasts={seconds}"));
            }
            if let Some(most) = connect.properties.receive_max {
                line.push_str(&format!(" most={most}"));
            }
            line
        }
        Packet::Publish(publish) => {
            let properties = &publish.properties;
            let mut line = format!("PUBLISH {} qos={}", publish.topic, publish.qos.level());
            line.push_str(if publish.retain { " retain" } else { "" });
            for (name, value) in
                [("type", properties.content_type), ("response-topic", properties.response_topic)]
            {
                line.extend(value.map(|value| format!(" {name}={value}")));
            }
            line.extend(properties.user.iter().map(|(name, value)| format!(" {name}={value}")));
            format!("{line} {}", publish.payload.escape_ascii())
        }
        Packet::Subscribe(subscribe) => {
            let wish = subscribe.subscriptions.iter().next().unwrap();
            let user: String =
                subscribe.user.iter().map(|(name, value)| format!(" {name}={value}")).collect();
            format!(
                "SUBSCRIBE {} qos={} {:?}{user}",
                wish.filter,
                wish.options.qos.level(),
                wish.options.retain_handling
            )
        }
        Packet::Ack(ack) => format!("{} {}", ack.kind.kind().as_str(), ack.id),
        other => other.kind().as_str().to_owned(),
    }
}

fn welcome(out: &mut Vec<u8>) {
    let mut connack = Connack::new(false, Reason::Success);
    connack.properties.assigned_client_id = Some("given");
    connack.properties.receive_max = Some(10);
    connack.encode(Version::V5, out).unwrap();
}

fn ack(kind: AckKind, id: PacketId, reason: Reason, out: &mut Vec<u8>) {
    put_ack(kind, id, reason, Version::V5, out);
}

/// Lets everybody in, grants everything, acknowledges everything; a SUBSCRIBE gets `count` messages of its QoS.
fn kind(count: u16) -> impl FnMut(&Packet<'_>, &mut Vec<u8>) + Send + 'static {
    move |packet, out| match packet {
        Packet::Connect(_) => welcome(out),
        Packet::Subscribe(subscribe) => {
            let qos = subscribe.subscriptions.iter().next().unwrap().options.qos;
            put_suback(subscribe.id, &[qos.level()], Version::V5, out);
            for n in 1..=count {
                let id = (qos != Qos::AtMostOnce).then(|| PacketId::new(n).unwrap());
                client::publish(out, Version::V5, "a/b", qos, id, format!("body {n}").as_bytes()).unwrap();
            }
        }
        Packet::Publish(Publish { qos: Qos::AtLeastOnce, id: Some(id), .. }) => {
            ack(AckKind::Puback, *id, Reason::Success, out);
        }
        packet => {
            client::answer(out, Version::V5, packet);
        }
    }
}

#[test]
fn pub_sends_properties_and_body_and_leaves_when_all_is_done() {
    let (url, lines) = server(Version::V5, kind(0));
    let url = url.replace("mqtt://", "mqtt://alice:se%3Acret@");
    run(&[
        "pub",
        "-s",
        &url,
        "a/b",
        "hello",
        "-H",
        "colour:re:d",
        "--content-type",
        "text/plain",
        "--retain",
    ])
    .unwrap();
    assert_eq!(
        lines.join().unwrap(),
        [
            "CONNECT 5.0 clean no-id alice:se:cret",
            "PUBLISH a/b qos=0 retain type=text/plain colour=re:d hello",
            "PINGREQ",
            "DISCONNECT",
        ]
    );
}

#[test]
fn pub_waits_for_every_acknowledgement_and_keeps_to_the_servers_window() {
    for (qos, step) in [("1", "PUBACK"), ("2", "PUBREL")] {
        let mut open = 0;
        let mut usual = kind(0);
        let (url, lines) = server(Version::V5, move |packet, out| {
            open += usize::from(matches!(packet, Packet::Publish(_)));
            assert!(open <= 10, "more on the way than the server allows");
            usual(packet, out);
            open -= usize::from(out.starts_with(&[0x40]) || out.starts_with(&[0x70]));
        });
        run(&["pub", "-s", &url, "a/b", "x", "--qos", qos, "-n", "2000"]).unwrap();
        let lines = lines.join().unwrap();
        assert_eq!(lines.iter().filter(|line| line.starts_with("PUBLISH")).count(), 2000);
        let released = lines.iter().filter(|line| line.starts_with(step)).count();
        assert_eq!(released, if qos == "2" { 2000 } else { 0 });
    }
}

#[test]
fn old_versions_are_spoken_when_asked_for() {
    for (option, query) in [(Some("3.1.1"), ""), (None, "?version=3.1.1")] {
        let (url, lines) = server(Version::V311, |packet, out| {
            if let Packet::Connect(_) = packet {
                Connack::new(false, Reason::Success).encode(Version::V311, out).unwrap();
            }
        });
        let url = url + query;
        let mut words = vec!["pub", "-s", &url, "a/b", "x"];
        words.extend(option.iter().flat_map(|version| ["--mqtt-version", version]));
        run(&words).unwrap();
        assert_eq!(lines.join().unwrap()[0], "CONNECT 3.1.1 clean id");
    }
    let usage = |words: &[&str]| match run(words) {
        Err(Failure::Usage(sentence)) => sentence,
        other => panic!("{other:?}"),
    };
    let url = "mqtt://127.0.0.1:1?version=3.1.1";
    assert_eq!(usage(&["pub", "-s", url, "a", "x", "-H", "a:b"]), "--header is for STOMP and MQTT 5 only");
    assert_eq!(
        usage(&["request", "-s", url, "a", "x"]),
        "MQTT 3.1.1 has no response topics: a request takes MQTT 5 or STOMP"
    );
    assert_eq!(usage(&["sub", "-s", url, "a", "--prefetch", "3"]), "--prefetch is for STOMP and MQTT 5 only");
}

#[test]
fn an_option_of_the_other_protocol_is_refused_and_not_ignored() {
    for (server, words) in [
        ("mqtt://127.0.0.1:1", &["pub", "a", "x", "--persistent"][..]),
        ("mqtt://127.0.0.1:1", &["pub", "a", "x", "--receipt"]),
        ("mqtt://127.0.0.1:1", &["pub", "a", "x", "--virtual-host", "v"]),
        ("mqtt://127.0.0.1:1", &["sub", "a", "--ack", "auto"]),
        ("mqtt://127.0.0.1:1", &["sub", "a", "--selector", "a = 1"]),
        ("mqtt://127.0.0.1:1", &["sub", "a", "--durable", "a", "--client-id", "c"]),
        ("stomp://127.0.0.1:1", &["pub", "/queue/a", "x", "--qos", "1"]),
        ("stomp://127.0.0.1:1", &["pub", "/queue/a", "x", "--retain"]),
        ("stomp://127.0.0.1:1", &["pub", "/queue/a", "x", "--mqtt-version", "5"]),
        ("stomp://127.0.0.1:1", &["sub", "/queue/a", "--session-expiry", "1", "--client-id", "c"]),
        ("stomp://127.0.0.1:1", &["request", "/queue/a", "x", "--response-topic", "t"]),
    ] {
        let words: Vec<&str> = words.iter().copied().chain(["-s", server]).collect();
        let Err(Failure::Usage(sentence)) = run(&words) else { panic!("{words:?}") };
        let protocol = if server.starts_with("mqtt") { "MQTT" } else { "STOMP" };
        assert!(sentence.ends_with(&format!(" has no meaning over {protocol}")), "{sentence}");
    }
    for topic in ["", "a/+", "#"] {
        let failure = run(&["pub", "-s", "mqtt://127.0.0.1:1", topic, "x"]).unwrap_err();
        assert!(matches!(failure, Failure::Usage(_)), "{topic:?}: {failure}");
    }
}

#[test]
fn what_the_server_refuses_is_told_with_its_words_and_the_name_of_the_reason() {
    let failure = |answer: fn(&Packet<'_>, &mut Vec<u8>)| {
        let (url, lines) = server(Version::V5, answer);
        let failure = run(&["pub", "-s", &url, "a/b", "x", "--qos", "1"]).unwrap_err();
        lines.join().unwrap();
        let Failure::Failed(sentence) = failure else { panic!("{failure:?}") };
        sentence
    };
    assert_eq!(
        failure(|_, out| {
            let mut connack = Connack::new(false, Reason::NotAuthorized);
            connack.properties.diagnostics.reason_string = Some("Go away.");
            connack.encode(Version::V5, out).unwrap();
        }),
        "the server says: Go away. [not-authorized]"
    );
    assert_eq!(
        failure(|packet, out| match packet {
            Packet::Publish(publish) => {
                ack(AckKind::Puback, publish.id.unwrap(), Reason::QuotaExceeded, out);
            }
            _ => welcome(out),
        }),
        "the server refuses a message [quota-exceeded]"
    );
    assert_eq!(
        failure(|packet, out| match packet {
            Packet::Publish(_) => {
                let mut user = client::UserPropertiesBuffer::new();
                user.push("code", "shutting-down");
                let mut disconnect = Disconnect::new(Reason::ServerShuttingDown);
                disconnect.diagnostics = Diagnostics { reason_string: Some("Good night."), user: user.get() };
                disconnect.encode(Version::V5, out).unwrap();
            }
            _ => welcome(out),
        }),
        "the server says: Good night. [shutting-down]"
    );
    assert_eq!(
        failure(|_, out| {
            let mut connack = Connack::new(false, Reason::Success);
            connack.properties.qos_max = Some(Qos::AtMostOnce);
            connack.encode(Version::V5, out).unwrap();
        }),
        "the server does not take messages of QoS 1 [qos-not-supported]"
    );
}

#[test]
fn pub_waits_for_acknowledgements_only_so_long() {
    let (url, lines) = server(Version::V5, |packet, out| {
        if let Packet::Connect(_) = packet {
            welcome(out);
        }
    });
    let failure = run(&["pub", "-s", &url, "a/b", "x", "--qos", "1", "--timeout", "1"]).unwrap_err();
    assert_eq!(failure, Failure::TimedOut("1 messages were not acknowledged".to_owned()));
    lines.join().unwrap();
}

#[test]
fn sub_takes_and_acknowledges_as_many_as_it_was_told() {
    let (url, lines) = server(Version::V5, kind(5));
    run(&["sub", "-s", &url, "a/+", "-n", "3", "-H", "a:1", "--json"]).unwrap();
    assert_eq!(
        lines.join().unwrap(),
        [
            "CONNECT 5.0 clean no-id most=3",
            "SUBSCRIBE a/+ qos=1 Always a=1",
            "PUBACK 1",
            "PUBACK 2",
            "PUBACK 3",
            "PINGREQ",
            "DISCONNECT",
        ]
    );
}

#[test]
fn sub_leaves_only_when_what_came_exactly_once_is_released() {
    let (url, lines) = server(Version::V5, kind(2));
    run(&["sub", "-s", &url, "a/b", "--qos", "2", "-n", "2"]).unwrap();
    let lines = lines.join().unwrap();
    let place = |line: &str| lines.iter().position(|known| known == line).unwrap();
    assert!(place("PUBCOMP 1") < place("PINGREQ") && place("PUBCOMP 2") < place("PINGREQ"), "{lines:?}");
}

#[test]
fn sub_takes_up_a_session_and_leaves_when_nothing_comes() {
    for (expiry, expected) in
        [("60", "CONNECT 5.0 no-clean id lasts=60 most=9"), ("0", "CONNECT 5.0 no-clean id most=9")]
    {
        let (url, lines) = server(Version::V5, kind(2));
        let line = [
            "sub",
            "-s",
            &url,
            "a/b",
            "--client-id",
            "c",
            "--session-expiry",
            expiry,
            "--idle",
            "0.05",
            "-n",
            "9",
        ];
        let failure = run(&line).unwrap_err();
        assert_eq!(failure, Failure::TimedOut("2 of 9 messages came".to_owned()));
        let lines = lines.join().unwrap();
        assert_eq!(lines[..2], [expected, "SUBSCRIBE a/b qos=1 IfNew"]);
        assert!(!lines.iter().any(|line| line.starts_with("UNSUBSCRIBE")), "{lines:?}");
    }
}

#[test]
fn a_refused_subscription_is_a_failure() {
    let (url, lines) = server(Version::V5, |packet, out| match packet {
        Packet::Subscribe(subscribe) => put_suback(subscribe.id, &[0x87], Version::V5, out),
        _ => welcome(out),
    });
    let failure = run(&["sub", "-s", &url, "a/b"]).unwrap_err();
    assert_eq!(failure, Failure::Failed("the server refuses the subscription [not-authorized]".to_owned()));
    lines.join().unwrap();
}

#[test]
fn request_prints_the_answer_or_gives_up() {
    let reply = |data: Option<&'static [u8]>| {
        let mut usual = kind(0);
        move |packet: &Packet<'_>, out: &mut Vec<u8>| {
            if let Packet::Publish(publish) = packet {
                let properties = MessageProperties {
                    correlation_data: data.or(publish.properties.correlation_data),
                    ..MessageProperties::default()
                };
                let topic = publish.properties.response_topic.unwrap();
                let answer = Publish { topic, properties, payload: b"answer", ..Publish::default() };
                answer.encode(Version::V5, out).unwrap();
            }
            let mut more = Vec::new();
            usual(packet, &mut more);
            out.extend_from_slice(&more);
        }
    };
    let (url, lines) = server(Version::V5, reply(None));
    run(&["request", "-s", &url, "a/b", "question", "--json"]).unwrap();
    assert_eq!(
        lines.join().unwrap()[1..],
        [
            "SUBSCRIBE replies/given qos=1 Always",
            "PUBLISH a/b qos=1 response-topic=replies/given question",
            "PINGREQ",
            "DISCONNECT",
        ]
    );
    // What answers somebody else is no answer.
    let (url, lines) = server(Version::V5, reply(Some(b"another")));
    let line = ["request", "-s", &url, "a/b", "question", "--response-topic", "r", "--timeout", "1"];
    assert_eq!(run(&line), Err(Failure::TimedOut("nobody answered within 1 s".to_owned())));
    lines.join().unwrap();
}

#[test]
fn what_is_no_mqtt_is_said_so() {
    for (bytes, expected) in [
        (&b""[..], "closes the connection without a greeting; is it MQTT 5.0?"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the server does not speak MQTT 5.0: "),
        // How a server of old refuses a version: there are no properties.
        (b"\x20\x02\0\x01", "the server does not speak MQTT 5.0: "),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("mqtt://{}", listener.local_addr().unwrap());
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Read first: closing with unread bytes would reset the connection.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(bytes);
        });
        let Failure::Failed(sentence) = run(&["sub", "-s", &url, "a"]).unwrap_err() else {
            panic!("a foreign protocol is a failure")
        };
        assert!(sentence.contains(expected), "{sentence}");
        peer.join().unwrap();
    }
}

#[test]
fn a_message_is_printed_with_all_that_is_known_of_it() {
    let mut user = client::UserPropertiesBuffer::new();
    user.push("colour", "red");
    user.push("colour", "blue");
    let properties = MessageProperties {
        payload_is_text: Some(true),
        expiry_s: Some(7),
        content_type: Some("text/plain"),
        response_topic: Some("r"),
        correlation_data: Some(b"\xff"),
        user: user.get(),
    };
    let publish = Publish { topic: "a", retain: true, properties, payload: b"x", ..Publish::default() };
    let headers = message(&publish).headers;
    let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        headers.join(" "),
        "topic=a qos=0 retain=true payload-format-indicator=1 message-expiry-interval=7 content-type=text/plain \
         response-topic=r correlation-data_base64=/w== colour=red colour=blue"
    );
}

#[test]
fn a_server_that_insists_on_signs_of_life_gets_them() {
    let mut pinged = false;
    let (url, lines) = server(Version::V5, move |packet, out| match packet {
        Packet::Connect(_) => {
            let mut connack = Connack::new(false, Reason::Success);
            connack.properties.server_keep_alive_s = Some(1);
            connack.encode(Version::V5, out).unwrap();
        }
        packet => {
            if !std::mem::replace(&mut pinged, true) {
                kind(0)(packet, out);
            }
        }
    });
    run(&["sub", "-s", &url, "a", "--idle", "0.8"]).unwrap();
    let lines = lines.join().unwrap();
    assert!(lines.iter().filter(|line| *line == "PINGREQ").count() > 1, "{lines:?}");
}
