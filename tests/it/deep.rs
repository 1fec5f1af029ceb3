//! Queues deeper than what they may have in memory: every protocol reaches what lies on the disk, and a killed broker
//! comes back with all of it.

use rustix::process::Signal;
use sabir_mqtt::Version;
use sabir_mqtt::client::{Connect, ConnectProperties};

use crate::crossing::parties::{Mqtt, Publication, stomp, stomp_as, subscribe_as};
use crate::http::web::{Web, messages};
use crate::server::Server;

/// So little that nearly everything is on the disk.
const NARROW: (&str, &str) = ("limits.queue_memory_bytes_max", "64 KiB");
const MESSAGES: usize = 6000;

/// Fills a destination with numbered messages of about a kilobyte.
fn fill(server: &Server, destination: &str, count: usize) {
    fill_from(server, destination, 0, count);
}

fn fill_from(server: &Server, destination: &str, from: usize, to: usize) {
    let mut sender = stomp(server.stomp, "1.2");
    let body = "x".repeat(1000);
    for first in (from..to).step_by(500) {
        let mut frames = String::new();
        let end = to.min(first + 500);
        for number in first..end {
            let receipt = if number + 1 == end { "receipt:r\n" } else { "" };
            let third = number % 3;
            frames.push_str(&format!(
                "SEND\ndestination:{destination}\npersistent:true\nthird:{third}\n{receipt}\n{number:06} {body}\0"
            ));
        }
        sender.write(frames.as_bytes());
        let frame = sender.frame();
        assert_eq!(frame.command, "RECEIPT", "{}", frame.text());
    }
}

fn number(body: &[u8]) -> usize {
    std::str::from_utf8(&body[..6]).unwrap().parse().unwrap()
}

fn metric(web: &mut Web, name: &str) -> u64 {
    let page = web.get("/metrics").expect(200).text();
    let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

#[test]
fn every_protocol_gets_its_share_of_a_deep_queue_and_memory_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[NARROW]);
    fill(&server, "/queue/deep", MESSAGES);
    let mut web = Web::new(server.http);
    assert_eq!(metric(&mut web, "sabir_queue_messages_ready{"), MESSAGES as u64);
    assert!(metric(&mut web, "sabir_queue_messages_paged{") > 5800);
    assert!(metric(&mut web, "sabir_memory_bytes ") < 200_000);

    // Looked at from the far end, and by a browser that wants a few of all of them.
    let last = web.get(&format!("/v1/queues/deep/messages?after={}", MESSAGES - 1)).expect(200).json();
    let shown = last["items"][0]["body"].as_str().unwrap().to_owned();
    assert_eq!(number(shown.as_bytes()), MESSAGES - 1);
    let mut browser = stomp(server.stomp, "1.2");
    let wanted = "selector:third = 1 AND JMSPriority = 4\nbrowser:true\nack:auto\n";
    subscribe_as(&mut browser, "b", "/queue/deep", wanted);
    for expected in (1..MESSAGES).step_by(3) {
        assert_eq!(number(&browser.frame().body), expected);
    }

    // A hundred by HTTP, some over MQTT, and the rest over STOMP after the broker was killed.
    for round in 0..10 {
        let got = messages(web.post("/v1/queues/deep/pull?max=10", b""));
        for message in &got {
            web.post(&format!("/v1/leases/{}/ack", message["lease"].as_str().unwrap()), b"").expect(204);
        }
        let got: Vec<usize> =
            got.iter().map(|message| number(message["body"].as_str().unwrap().as_bytes())).collect();
        assert_eq!(got, (round * 10..round * 10 + 10).collect::<Vec<_>>());
    }
    let mut device = Mqtt::open(server.mqtt, Version::V5);
    let first = device.subscribe_and_take("$queue/deep");
    assert_eq!(number(&first.message.body), 100);
    for expected in 101..200 {
        assert_eq!(number(&device.take().message.body), expected);
    }
    server.signal(Signal::KILL);
    server.wait();

    let server = Server::start_in(dir.path(), &[NARROW]);
    let mut consumer = stomp(server.stomp, "1.2");
    subscribe_as(&mut consumer, "1", "/queue/deep", "ack:client-individual\nactivemq.prefetchSize:100\n");
    let mut expected = None;
    loop {
        let frame = consumer.frame();
        let got = number(&frame.body);
        // What was taken last may come again; nothing is missing, and nothing comes twice now.
        assert!(expected.is_none_or(|expected| got == expected), "{got} instead of {expected:?}");
        assert!(expected.is_some() || got <= 200, "{got}");
        expected = Some(got + 1);
        let id = frame.header("ack").unwrap();
        consumer.write(format!("ACK\nid:{id}\n\n\0").as_bytes());
        if got == MESSAGES - 1 {
            break;
        }
    }
    let mut web = Web::new(server.http);
    web.await_metric("sabir_messages_ready 0");
    assert!(metric(&mut web, "sabir_memory_bytes ") < 100_000);
    assert_eq!(metric(&mut web, "sabir_messages_unreadable_total"), 0);
    server.stop();
}

#[test]
fn what_waits_for_those_who_are_away_waits_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[NARROW]);
    let connect = || Connect {
        version: Version::V5,
        client_id: "away",
        properties: ConnectProperties { session_expiry_s: Some(3600), ..ConnectProperties::default() },
        ..Connect::default()
    };
    let mut device = Mqtt::open_as(server.mqtt, connect());
    device.subscribe("news/#");
    device.leave();
    let durable = |server: &Server| {
        let mut client = stomp_as(server.stomp, "1.2", "client-id:reader\n");
        let headers =
            "ack:auto\nactivemq.prefetchSize:50\nactivemq.subscriptionName:all\nselector:third = 0\n";
        subscribe_as(&mut client, "1", "/topic/news.>", headers);
        client
    };
    let mut client = durable(&server);
    client.write(b"DISCONNECT\nreceipt:d\n\n\0");
    client.frame();
    fill(&server, "/topic/news.today", 3000);
    Mqtt::open(server.mqtt, Version::V5).publish("news/later", &Publication::new(b"003000 x").qos(2));
    let mut web = Web::new(server.http);
    assert!(metric(&mut web, "sabir_memory_bytes ") < 300_000);
    server.signal(Signal::KILL);
    server.wait();

    let server = Server::start_in(dir.path(), &[NARROW]);
    let mut device = Mqtt::open_as(server.mqtt, connect());
    for expected in 0..=3000 {
        let arrival = device.take();
        assert_eq!(number(&arrival.message.body), expected);
        assert_eq!(arrival.message.qos, if expected == 3000 { 2 } else { 1 });
    }
    let mut client = durable(&server);
    for expected in (0..3000).step_by(3) {
        assert_eq!(number(&client.frame().body), expected);
    }
    server.stop();
}

/// A log so small that what is here is deep.
const SMALL_LOG: [(&str, &str); 2] = [("store.segment_bytes", "1 MiB"), ("store.journal_bytes_max", "2 MiB")];

/// Takes a queue's messages from `first` on, up to before `end`. The first may have been taken before.
fn drain(server: &Server, destination: &str, first: usize, end: usize) {
    let mut consumer = stomp(server.stomp, "1.2");
    let prefetch = "ack:client-individual\nactivemq.prefetchSize:1\n";
    subscribe_as(&mut consumer, "1", destination, prefetch);
    for expected in first..end {
        let frame = consumer.frame();
        assert_eq!(number(&frame.body), expected, "{destination}");
        let id = frame.header("ack").unwrap();
        let receipt = if expected + 1 == end { "receipt:a\n" } else { "" };
        consumer.write(format!("ACK\nid:{id}\n{receipt}\n\0").as_bytes());
    }
    // The next one may have been on its way already.
    while consumer.frame().command != "RECEIPT" {}
}

#[test]
fn queues_filled_in_turn_are_paged_apart_and_drained_in_order_through_restarts() {
    const QUEUES: usize = 5;
    let dir = tempfile::tempdir().unwrap();
    let settings = [NARROW, SMALL_LOG[0], SMALL_LOG[1]];
    let server = Server::start_in(dir.path(), &settings);
    let name = |queue: usize| format!("/queue/deep.{queue}");
    for from in (0..1500).step_by(50) {
        for queue in 0..QUEUES {
            fill_from(&server, &name(queue), from, from + 50);
        }
    }
    let mut web = Web::new(server.http);
    while metric(&mut web, "sabir_store_pages ") < QUEUES as u64 {}
    assert!(metric(&mut web, "sabir_store_paged_bytes_total ") > 1 << 20);
    for queue in 0..QUEUES {
        drain(&server, &name(queue), 0, 700);
    }
    server.signal(Signal::KILL);
    server.wait();

    let server = Server::start_in(dir.path(), &settings);
    for queue in 0..QUEUES {
        drain(&server, &name(queue), 700, 1500);
    }
    let mut web = Web::new(server.http);
    web.await_metric("sabir_messages_ready 0");
    assert_eq!(metric(&mut web, "sabir_messages_unreadable_total"), 0);
    assert_eq!(metric(&mut web, "sabir_store_damaged"), 0);
    server.stop();
}

/// `bytes_max` of a policy is what a queue may take of the disk: what is held counts, wherever it is.
#[test]
fn the_bytes_of_a_policy_bound_what_a_deep_queue_takes_of_the_disk() {
    const HELD: u64 = 4 << 20;
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("sabir.toml");
    let policy = format!("[[policy]]\ndestination = \"queue://bounded\"\nbytes_max = {HELD}\n");
    std::fs::write(&config, policy).unwrap();
    let settings = [NARROW, SMALL_LOG[0], SMALL_LOG[1], ("--config", config.to_str().unwrap())];
    let (mut sent, mut taken) = (0, 0);
    let body = "x".repeat(1000);
    for round in 0..4 {
        let server = Server::start_in(dir.path(), &settings);
        let mut sender = stomp(server.stomp, "1.2");
        loop {
            let frame =
                format!("SEND\ndestination:/queue/bounded\npersistent:true\nreceipt:r\n\n{sent:06} {body}\0");
            sender.write(frame.as_bytes());
            let answer = sender.frame();
            if answer.command != "RECEIPT" {
                assert!(answer.text().contains("destination-full"), "{}", answer.text());
                break;
            }
            sent += 1;
        }
        let mut web = Web::new(server.http);
        let held = metric(&mut web, "sabir_queue_bytes{");
        // After a start the size of each message is known on average only.
        assert!(held.abs_diff(HELD) < 8192, "round {round}: {held}");
        // The queue, half of it again before its pages are written anew, the journal, and segments made ahead.
        let disk = metric(&mut web, "sabir_store_disk_bytes ");
        assert!(disk < HELD * 3 / 2 + (2 << 20) + (6 << 20), "round {round}: {disk}");
        drain(&server, "/queue/bounded", taken, taken + 3000);
        taken += 3000;
        server.stop();
    }
    assert!(sent > 12_000, "{sent}");
}
