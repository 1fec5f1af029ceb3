//! Names of destinations: what one protocol shows works when the other sends to it, and comes out as it went in
//! (cross-protocol §5.23, destinations §2).

use std::fmt::Write as _;

use sabir_mqtt::Version;

use crate::client::Client;
use crate::crossing::parties::{Mqtt, Publication, send, stomp, subscribe_as, try_send};
use crate::server::Server;

/// Name in MQTT, name in STOMP: the same destination, whoever speaks of it.
const SAME: &[(&str, &str)] = &[
    ("a", "/topic/a"),
    ("a/b", "/topic/a.b"),
    ("a/b/c/d/e/f/g/h", "/topic/a.b.c.d.e.f.g.h"),
    // A character that parts levels there is one of a level here.
    ("sensor/1.2/x", "/topic/sensor.1%2E2.x"),
    ("...", "/topic/%2E%2E%2E"),
    ("c%2Fd", "/topic/c/d"),
    ("%2B/%23", "/topic/+.#"),
    ("x%2By%23z/.", "/topic/x+y#z.%2E"),
    // Empty levels are levels.
    ("/", "/topic/."),
    ("/a", "/topic/.a"),
    ("a/", "/topic/a."),
    ("a//b", "/topic/a..b"),
    ("///", "/topic/..."),
    // What parts the members of a composite, and what else looks like syntax.
    ("a,b", "/topic/a%2Cb"),
    ("a,queue:/b", "/topic/a%2Cqueue:.b"),
    ("a?b=c", "/topic/a?b=c"),
    ("a?consumer.x=1", "/topic/a?consumer%2Ex=1"),
    ("a:b\\c", "/topic/a:b\\c"),
    ("a*/b>", "/topic/a*.b>"),
    // Characters of any kind, not normalised.
    ("a b/c  d", "/topic/a b.c  d"),
    ("سلام/ü/u\u{308}/😀", "/topic/سلام.ü.u\u{308}.😀"),
    ("A/a", "/topic/A.a"),
    // Percent signs that escape nothing.
    ("50%", "/topic/50%"),
    ("%25/%20/%2f", "/topic/%25.%20.%2f"),
    // And such as would, if they were not escaped themselves.
    ("%252F", "/topic/%2F"),
    ("a%25252Bb/%2523", "/topic/a%252Bb.%23"),
    // Queues.
    ("$queue/q", "/queue/q"),
    ("$queue/q/r", "/queue/q.r"),
    ("$queue/q.r", "/queue/q%2Er"),
    ("$queue//", "/queue/."),
    ("$queue/q%2Fr", "/queue/q/r"),
    ("$queue/q r,s", "/queue/q r%2Cs"),
];

fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace(':', "\\c")
}

struct Clients {
    stomp10: Client,
    stomp12: Client,
    mqtt3: Mqtt,
    mqtt5: Mqtt,
}

impl Clients {
    fn open(server: &Server) -> Self {
        Self {
            stomp10: stomp(server.stomp, "1.0"),
            stomp12: stomp(server.stomp, "1.2"),
            mqtt3: Mqtt::open(server.mqtt, Version::V311),
            mqtt5: Mqtt::open(server.mqtt, Version::V5),
        }
    }
}

/// What a receiver of some protocol is told of where a message was sent and where to reply.
fn told(receivers: &mut Clients) -> Vec<(&'static str, String, String)> {
    let mut told = Vec::new();
    for (who, client) in [("STOMP 1.0", &mut receivers.stomp10), ("STOMP 1.2", &mut receivers.stomp12)] {
        let frame = client.frame();
        let header = |name| frame.header(name).unwrap_or_default().to_owned();
        told.push((who, header("destination"), header("reply-to")));
    }
    let arrival = receivers.mqtt3.take();
    told.push(("MQTT 3.1.1", arrival.topic, String::new()));
    let arrival = receivers.mqtt5.take();
    told.push(("MQTT 5.0", arrival.topic, arrival.message.response.unwrap_or_default()));
    told
}

#[test]
fn names_are_the_same_there_and_back_5_23() {
    let server = Server::start(&[]);
    let mut report = String::new();
    for (topic, name) in SAME {
        // A queue gives each message to one of its consumers: to see where something arrived takes one at a time.
        if topic.starts_with("$queue/") {
            judge_queue(&server, topic, name, &mut report);
            continue;
        }
        let (mut senders, mut receivers) = (Clients::open(&server), Clients::open(&server));
        subscribe_as(&mut receivers.stomp10, "1", name, "");
        subscribe_as(&mut receivers.stomp12, "1", &escaped(name), "");
        receivers.mqtt3.subscribe(topic);
        receivers.mqtt5.subscribe(topic);
        let message = Publication::new(b"body").response(topic);
        for sender in ["STOMP 1.0", "STOMP 1.2", "MQTT 3.1.1", "MQTT 5.0"] {
            match sender {
                "STOMP 1.0" => send(&mut senders.stomp10, name, &format!("reply-to:{name}\n"), b"body"),
                "STOMP 1.2" => {
                    let name = escaped(name);
                    send(&mut senders.stomp12, &name, &format!("reply-to:{name}\n"), b"body");
                }
                "MQTT 3.1.1" => senders.mqtt3.publish(topic, &message),
                _ => senders.mqtt5.publish(topic, &message),
            }
            for (receiver, destination, reply) in told(&mut receivers) {
                let due = match receiver {
                    "STOMP 1.0" => (*name).to_owned(),
                    "STOMP 1.2" => escaped(name),
                    _ => (*topic).to_owned(),
                };
                let replies = sender != "MQTT 3.1.1" && receiver != "MQTT 3.1.1";
                let due_reply = if replies { due.as_str() } else { "" };
                if destination != due || reply != due_reply {
                    let _ = writeln!(
                        report,
                        "{sender} to {receiver}: sent to {topic} = {name}, seen {destination:?}, reply to {reply:?}"
                    );
                }
            }
        }
    }
    assert!(report.is_empty(), "\n{report}");
    server.stop();
}

fn judge_queue(server: &Server, topic: &str, name: &str, report: &mut String) {
    let mut senders = Clients::open(server);
    let message = Publication::new(b"body").response(topic);
    for version in [Version::V311, Version::V5] {
        let mut receiver = Mqtt::open(server.mqtt, version);
        receiver.subscribe(topic);
        send(&mut senders.stomp12, &escaped(name), "", b"body");
        let seen = receiver.take().topic;
        if seen != topic {
            let _ = writeln!(report, "STOMP to {}: {name} is seen as {seen}", version.as_str());
        }
        receiver.leave();
    }
    for version in ["1.0", "1.2"] {
        let mut receiver = stomp(server.stomp, version);
        let own = if version == "1.0" { name.to_owned() } else { escaped(name) };
        subscribe_as(&mut receiver, "1", &own, "");
        senders.mqtt5.publish(topic, &message);
        let frame = receiver.frame();
        let seen = (frame.header("destination"), frame.header("reply-to"));
        if seen != (Some(own.as_str()), Some(own.as_str())) {
            let _ = writeln!(report, "MQTT to STOMP {version}: {topic} is seen as {seen:?}");
        }
        receiver.write(b"DISCONNECT\nreceipt:d\n\n\0");
        assert_eq!(receiver.frame().command, "RECEIPT");
    }
}

/// What STOMP shows for a topic of MQTT's and cannot send to, with what becomes of an attempt. The forms of names are
/// those of the model, which has no escape for these; they are as rare as they are odd.
const ONE_WAY: &[(&str, &str, Result<&str, &str>)] = &[
    // An escape of STOMP's that is a name in MQTT.
    ("a%2Eb", "/topic/a%2Eb", Ok("a.b")),
    ("a%2Cb", "/topic/a%2Cb", Ok("a,b")),
    // Blanks at the ends, which ActiveMQ trims.
    (" a", "/topic/ a", Ok("a")),
    ("b/c ", "/topic/b.c ", Ok("b/c")),
    // A whole level that is a wildcard there.
    ("d/*", "/topic/d.*", Err("invalid-destination")),
    ("e/>", "/topic/e.>", Err("invalid-destination")),
];

#[test]
fn names_that_stomp_shows_and_cannot_say() {
    let server = Server::start(&[]);
    let mut watcher = stomp(server.stomp, "1.2");
    subscribe_as(&mut watcher, "1", "/topic/>", "");
    let mut all = Mqtt::open(server.mqtt, Version::V5);
    all.subscribe("#");
    let mut sender = Mqtt::open(server.mqtt, Version::V5);
    for (topic, shown, back) in ONE_WAY {
        sender.publish(topic, &Publication::new(b"there").qos(1));
        assert_eq!(all.take().topic, *topic);
        let frame = loop {
            let frame = watcher.frame();
            if frame.body == b"there" {
                break frame;
            }
        };
        assert_eq!(frame.header("destination"), Some(*shown), "{topic}");
        let mut client = stomp(server.stomp, "1.2");
        let answer = try_send(&mut client, shown, "", b"back");
        match back {
            Ok(where_) => {
                assert_eq!(answer.command, "RECEIPT", "{}", answer.text());
                assert_eq!(all.take().topic, *where_, "{topic}");
            }
            Err(code) => assert!(answer.text().contains(code), "{}", answer.text()),
        }
    }
    server.stop();
}

#[test]
fn wildcards_of_both_see_the_same_topics() {
    let server = Server::start(&[]);
    for (number, (filter, pattern, topic, matches)) in [
        ("w/+", "/topic/w.*", "w/x", true),
        ("w/+", "/topic/w.*", "w/", true),
        ("w/+", "/topic/w.*", "w", false),
        ("w/+/z", "/topic/w.*.z", "w/a.b/z", true),
        ("w/#", "/topic/w.>", "w", true),
        ("w/#", "/topic/w.>", "w/x/y", true),
        ("w/#", "/topic/w.>", "v/x", false),
        ("/+", "/topic/.*", "/x", true),
    ]
    .into_iter()
    .enumerate()
    {
        let mut clients = Clients::open(&server);
        // A topic of its own ends each of them.
        subscribe_as(&mut clients.stomp12, "1", pattern, "");
        subscribe_as(&mut clients.stomp12, "2", &format!("/topic/end.{number}"), "");
        clients.mqtt5.subscribe(filter);
        clients.mqtt5.subscribe(&format!("end/{number}"));
        let mut sender = Mqtt::open(server.mqtt, Version::V311);
        sender.publish(topic, &Publication::new(b"seen").qos(1));
        sender.publish(&format!("end/{number}"), &Publication::new(b"end").qos(1));
        let (frame, arrival) = (clients.stomp12.frame(), clients.mqtt5.take());
        assert_eq!(frame.body == b"seen", matches, "{pattern} {topic}");
        assert_eq!(arrival.message.body == b"seen", matches, "{filter} {topic}");
    }
    server.stop();
}

#[test]
fn several_destinations_of_one_send_reach_both_protocols() {
    let server = Server::start(&[]);
    let mut clients = Clients::open(&server);
    for client in [&mut clients.mqtt3, &mut clients.mqtt5] {
        client.subscribe("one");
        client.subscribe("two/b");
    }
    send(&mut clients.stomp12, "/topic/one,two.b", "", b"body");
    for client in [&mut clients.mqtt3, &mut clients.mqtt5] {
        assert_eq!([client.take().topic, client.take().topic], ["one", "two/b"]);
    }
    // To MQTT a comma is a letter.
    clients.mqtt3.publish("one,two/b", &Publication::new(b"body"));
    clients.mqtt3.publish("two/b", &Publication::new(b"body"));
    assert_eq!(clients.mqtt5.take().topic, "two/b");
    server.stop();
}
