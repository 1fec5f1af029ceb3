//! A disk that is full in the midst of producers, consumers, transactions and exchanges of QoS 2.

use sabir_mqtt::client::{Connect, ConnectProperties};
use sabir_mqtt::{Reason, Version};

use super::{metric, page, stomp};
use crate::crossing::parties::{Mqtt, Publication, send, stomp_as, subscribe_as, try_send};
use crate::server::Server;

fn device() -> Connect<'static> {
    let lasting = ConnectProperties { session_expiry_s: Some(3600), ..ConnectProperties::default() };
    Connect { version: Version::V5, client_id: "device", properties: lasting, ..Connect::default() }
}

/// Commits a transaction of one send; a refused COMMIT ends its connection.
fn commit(server: &Server, number: usize, body: &[u8]) -> String {
    let mut client = stomp(server);
    client.write(format!("BEGIN\ntransaction:{number}\n\n\0").as_bytes());
    let headers = format!("persistent:true\ntransaction:{number}\n");
    client.write(&crate::client::send("/queue/tx", &headers, body));
    client.write(format!("COMMIT\ntransaction:{number}\nreceipt:c\n\n\0").as_bytes());
    client.frame().command
}

fn number(body: &[u8]) -> usize {
    std::str::from_utf8(&body[..6]).unwrap().parse().unwrap()
}

#[test]
fn a_full_disk_refuses_what_must_be_kept_and_everything_else_goes_on_until_there_is_room() {
    let server = Server::start(&[
        ("store.segment_bytes", "1 MiB"),
        ("store.journal_bytes_max", "4 MiB"),
        ("store.disk_bytes_max", "16 MiB"),
    ]);
    let mut away = Mqtt::open_as(server.mqtt, device());
    away.subscribe("meter/#");
    away.leave();
    let going_on = "x-continue-on-error:true\n";
    let mut producer = stomp_as(server.stomp, "1.2", going_on);
    let mut meter = Mqtt::open(server.mqtt, Version::V5);
    let filler = "d".repeat(20_000);
    let body = |number: usize| format!("{number:06}{filler}").into_bytes();
    let (mut kept, mut committed, mut metered) = (Vec::new(), Vec::new(), Vec::new());
    let mut tried = 0;
    let mut refused = [false; 3];
    while refused != [true; 3] {
        let body = body(tried);
        match try_send(&mut producer, "/queue/kept", "persistent:true\n", &body).command.as_str() {
            "RECEIPT" => kept.push(tried),
            _ => refused[0] = true,
        }
        match commit(&server, tried, &body).as_str() {
            "RECEIPT" => committed.push(tried),
            _ => refused[1] = true,
        }
        match meter.try_publish("meter/a", &Publication::new(&body).qos(2)) {
            Reason::QuotaExceeded => refused[2] = true,
            reason => {
                assert!(!reason.is_failure(), "{reason:?}");
                metered.push(tried);
            }
        }
        tried += 1;
        assert!(tried < 10_000);
    }
    let full = page(&server);
    assert_eq!(metric(&full, "sabir_store_disk_full"), 1);
    assert!(metric(&full, "sabir_store_disk_bytes") <= 16 << 20, "{full}");
    assert!(metric(&full, "sabir_messages_refused_total{code=\"storage-full\"}") >= 3, "{full}");
    // What need not be kept goes on.
    send(&mut producer, "/queue/brief", "persistent:false\n", b"x");

    // Consumers drain, and every acknowledgement is answered.
    for (queue, sent) in [("/queue/kept", &kept), ("/queue/tx", &committed)] {
        let mut consumer = stomp(&server);
        subscribe_as(&mut consumer, "1", queue, "ack:client-individual\n");
        let (mut got, mut answered) = (Vec::new(), 0);
        while answered < sent.len() {
            let frame = consumer.frame();
            if frame.command == "RECEIPT" {
                answered += 1;
                continue;
            }
            got.push(number(&frame.body));
            let ack = frame.header("ack").unwrap();
            consumer.write(format!("ACK\nid:{ack}\nreceipt:a\n\n\0").as_bytes());
        }
        assert_eq!(got, *sent, "{queue}");
    }
    let mut back = Mqtt::open_as(server.mqtt, device());
    for expected in &metered {
        assert_eq!(number(&back.take().message.body), *expected);
    }
    back.flush();

    // Sends come back by themselves.
    let again = body(999_999);
    while try_send(&mut producer, "/queue/kept", "persistent:true\n", &again).command != "RECEIPT" {}
    while commit(&server, tried, &again) != "RECEIPT" {
        tried += 1;
    }
    while meter.try_publish("meter/a", &Publication::new(&again).qos(2)).is_failure() {}
    assert_eq!(number(&back.take().message.body), 999_999, "and nothing else came twice or late");
    assert_eq!(metric(&page(&server), "sabir_store_disk_full"), 0);
    server.stop();
}
