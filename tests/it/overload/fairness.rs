//! A flood slows itself down, and nobody else.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;

use super::{STOMP_CONNECT_ON, Stop, flood, metric, most_resident, page, stomp};
use crate::client::send;
use crate::http::web::Web;
use crate::server::Server;

/// Sends and is answered so many times beside a flood, and a consumer gets and acknowledges each.
fn polite(server: &Server, destination: &str, headers: &str, sends: usize) {
    let mut sender = stomp(server);
    let mut consumer = stomp(server);
    consumer.write(
        format!("SUBSCRIBE\nid:1\ndestination:{destination}\nack:client-individual\nreceipt:s\n\n\0")
            .as_bytes(),
    );
    consumer.frame();
    for number in 0..sends {
        let body = format!("{number:08}{}", "y".repeat(1000));
        sender.write(&send(destination, &format!("receipt:{number}\n{headers}"), body.as_bytes()));
        let frame = sender.frame();
        assert_eq!(frame.command, "RECEIPT", "send {number}: {}", frame.text());
        let frame = consumer.frame();
        assert_eq!(&frame.body[..8], format!("{number:08}").as_bytes());
        let ack = frame.header("ack").unwrap();
        consumer.write(format!("ACK\nid:{ack}\nreceipt:a\n\n\0").as_bytes());
        let frame = consumer.frame();
        assert_eq!(frame.command, "RECEIPT", "acknowledgement {number}: {}", frame.text());
    }
}

#[test]
fn a_flood_of_one_queue_neither_holds_up_nor_refuses_those_who_send_to_others() {
    // All of it in memory: that is what there is too little of.
    let server = Server::start(&[
        ("limits.memory_bytes_max", "32 MiB"),
        ("limits.spilled_bytes_max", "0"),
        ("store.durability", "os"),
    ]);
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let in_memory = send("/queue/flood", "persistent:false\n", &[b'x'; 10_000]);
    // More than fits is under way at any time.
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..6 {
            scope.spawn(|| flood(server.stomp, STOMP_CONNECT_ON, &in_memory, &stop, &written));
        }
        // Full is what is never full for others.
        let mut web = Web::new(server.http);
        while metric(&web.get("/metrics").expect(200).text(), "sabir_memory_bytes") < 20 << 20 {}
        polite(&server, "/queue/polite", "persistent:false\n", 300);
        polite(&server, "/queue/kept", "persistent:true\n", 100);
    });
    let page = page(&server);
    let flooded = metric(&page, "sabir_queue_messages_ready{queue=\"queue://flood\"}");
    assert!((1500..3356).contains(&flooded), "{flooded} of what two thirds to all of the memory holds");
    assert!(metric(&page, "sabir_producers_paused_total") > 0, "{page}");
    assert!(most_resident(&server) < (32 << 20) + super::mixed::BESIDE, "{}", most_resident(&server));
    assert_eq!(metric(&page, "sabir_queue_messages_acknowledged_total{queue=\"queue://polite\"}"), 300);
}

#[test]
fn a_flood_for_the_log_waits_and_the_receipts_of_others_come() {
    // A disk that stands still has some let in each second, lest they take the broker for dead: it may do so for a while here.
    let server = Server::start(&[("store.pending_bytes_max", "32 MiB")]);
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let kept = send("/queue/flood", "persistent:true\n", &[b'x'; 30_000]);
    // A subscription to nothing is no excuse.
    let greeting =
        [STOMP_CONNECT_ON, b"SUBSCRIBE\nid:1\ndestination:/queue/quiet\nack:client\n\n\0"].concat();
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..24 {
            scope.spawn(|| flood(server.stomp, &greeting, &kept, &stop, &written));
        }
        let mut web = Web::new(server.http);
        while metric(&web.get("/metrics").expect(200).text(), "sabir_producers_paused_total{by=\"log\"}") == 0
        {
        }
        polite(&server, "/queue/kept", "persistent:true\n", 30);
    });
    let page = page(&server);
    assert_eq!(
        metric(&page, "sabir_messages_refused_total"),
        0,
        "nobody is refused, everybody waits: {page}"
    );
    assert!(metric(&page, "sabir_producers_paused_total") > 0);
}
