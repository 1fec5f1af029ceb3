//! Subscribers that do not read, beside others that do.

use serde_json::Value;

use sabir_mqtt::Version;

use super::{metric, most_resident, page, stomp};
use crate::client::{Client, send};
use crate::crossing::parties::{Mqtt, subscribe_as};
use crate::http::web::Web;
use crate::server::Server;
use crate::websocket::Socket;

const MESSAGES: usize = 4000;
/// Messages that are sent at a time.
const STEP: usize = 40;
const BYTES: usize = 10_000;

fn subscriber(mut client: Client, headers: &str) -> Client {
    subscribe_as(&mut client, "1", "/topic/feed", headers);
    client
}

fn over_websocket(server: &Server) -> Client {
    Client::connect(Socket::open(server.http))
}

fn mqtt(server: &Server) -> Mqtt {
    let mut client = Mqtt::open(server.mqtt, Version::V5);
    client.subscribe("feed");
    client
}

fn events(server: &Server) -> Web {
    let mut reader = Web::new(server.http);
    reader.write("GET", "/v1/topics/feed/stream", "", b"");
    reader.head().expect(200);
    reader
}

#[test]
fn those_who_do_not_read_are_cut_off_and_those_who_do_get_everything_in_bounded_memory() {
    let server = Server::start(&[
        ("limits.memory_bytes_max", "16 MiB"),
        ("limits.outbox_bytes_soft", "256 KiB"),
        ("limits.outbox_bytes_hard", "1 MiB"),
        ("limits.write_stall_ms", "2000"),
    ]);
    // None of these is ever read from again.
    let quiet = "ack:client-individual\n";
    let lazy: Vec<Client> = (0..3).map(|_| subscriber(stomp(&server), "ack:auto\n")).collect();
    let hoarders: Vec<Client> = (0..3).map(|_| subscriber(stomp(&server), quiet)).collect();
    let pages: Vec<Client> = (0..3).map(|_| subscriber(over_websocket(&server), "ack:auto\n")).collect();
    let devices: Vec<Mqtt> = (0..3).map(|_| mqtt(&server)).collect();
    let streams: Vec<Web> = (0..3).map(|_| events(&server)).collect();

    let mut sender = stomp(&server);
    let mut readers =
        [subscriber(stomp(&server), "ack:auto\n"), subscriber(over_websocket(&server), "ack:auto\n")];
    let mut device = mqtt(&server);
    let filler = vec![b'x'; BYTES];
    let mut slow_most = 0;
    for first in (0..MESSAGES).step_by(STEP) {
        let mut frames = Vec::new();
        for number in first..first + STEP {
            let mut body = format!("{number:06}").into_bytes();
            body.extend_from_slice(&filler);
            frames.extend(send(
                "/topic/feed",
                if number == first + STEP - 1 { "receipt:r\n" } else { "" },
                &body,
            ));
        }
        sender.write(&frames);
        assert_eq!(sender.frame().command, "RECEIPT");
        for number in first..first + STEP {
            let expected = format!("{number:06}");
            for reader in &mut readers {
                assert_eq!(&reader.frame().body[..6], expected.as_bytes());
            }
            assert_eq!(&device.take().message.body[..6], expected.as_bytes());
        }
        if first % 400 == 0 {
            let page = page(&server);
            slow_most = slow_most.max(metric(&page, "sabir_connections_slow"));
            assert!(metric(&page, "sabir_memory_bytes") < 16 << 20, "{page}");
            // Who it is can be looked up.
            let list = Web::new(server.http).get("/v1/connections?limit=100").expect(200).json();
            let waits = |one: &&Value| one["outboxBytes"].as_u64().unwrap() > 20_000;
            let waiting = list["items"].as_array().unwrap().iter().filter(waits).count();
            assert!(
                first == 0 || waiting >= 1 || metric(&page, "sabir_connections_cut_off_total") > 0,
                "{list}"
            );
        }
    }
    assert!(slow_most >= 6, "{slow_most}");
    assert!(most_resident(&server) < 2 * (16 << 20) + super::mixed::BESIDE, "{}", most_resident(&server));
    // They are cut off when they have not read for so long.
    let page = loop {
        let page = page(&server);
        if metric(&page, "sabir_connections_slow") == 0 && metric(&page, "sabir_memory_outbox_bytes") == 0 {
            break page;
        }
    };
    assert!(metric(&page, "sabir_connections_cut_off_total") >= 9, "{page}");
    assert!(metric(&page, "sabir_messages_dropped_total") > 0);
    drop((lazy, hoarders, pages, devices, streams));
}
