//! What only a whole server shows of destinations: names apart, names that come back, promises that are told.

use std::io::{Read, Write};

use crate::client::{Client, Frame, send, tcp};
use crate::server::Server;

/// A client in a virtual host.
fn client_in(server: &Server, host: &str) -> Client {
    let mut client = Client::new(tcp(server.stomp));
    client.write(format!("CONNECT\naccept-version:1.2\nhost:{host}\n\n\0").as_bytes());
    assert_eq!(client.frame().command, "CONNECTED");
    client
}

fn keep(client: &mut Client, destination: &str, body: &str) -> Frame {
    client.write(&send(destination, "persistent:true\nreceipt:r\n", body.as_bytes()));
    let frame = client.frame();
    assert_eq!(frame.command, "RECEIPT", "{}", frame.text());
    frame
}

fn take(client: &mut Client, destination: &str) -> String {
    client.subscribe(destination);
    String::from_utf8(client.frame().body).unwrap()
}

fn metrics(server: &Server) -> String {
    let mut stream = tcp(server.http);
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[test]
fn virtual_hosts_are_namespaces_apart_also_after_a_restart_without_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[("server.virtual_hosts", "shop,warehouse")]);
    for host in ["/", "shop", "warehouse"] {
        keep(&mut client_in(&server, host), "/queue/orders", host);
    }
    let page = metrics(&server);
    for labels in ["{queue=\"queue://orders\"}", "{queue=\"queue://orders\",host=\"shop\"}"] {
        assert!(page.contains(&format!("sabir_queue_messages_ready{labels} 1")), "{page}");
    }
    assert_eq!(take(&mut client_in(&server, "warehouse"), "/queue/orders"), "warehouse");
    server.stop();

    let server = Server::start_in(dir.path(), &[]);
    assert_eq!(take(&mut client_in(&server, "shop"), "/queue/orders"), "shop");
    // Most clients send the machine they connect to.
    assert_eq!(take(&mut client_in(&server, "localhost"), "/queue/orders"), "/");
    server.stop();
}

#[test]
fn a_group_of_all_virtual_topics_comes_back_under_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let mut client = Client::connect(tcp(server.stomp));
    client.subscribe("/queue/Consumer.billing%2Eeu.VirtualTopic.>");
    drop(client);
    // Whatever has a receipt comes after what was asked before it.
    keep(&mut Client::connect(tcp(server.stomp)), "/queue/other", "x");
    server.stop();

    let server = Server::start_in(dir.path(), &[]);
    let mut client = Client::connect(tcp(server.stomp));
    keep(&mut client, "/topic/VirtualTopic.orders", "for the group");
    assert_eq!(take(&mut client, "/queue/Consumer.billing%2Eeu.VirtualTopic.orders"), "for the group");
    server.stop();
}

/// Subscribes durably without hearing oneself.
fn watch(server: &Server) -> Client {
    let mut client = Client::new(tcp(server.stomp));
    client.write(b"CONNECT\naccept-version:1.2\nhost:/\nclient-id:watcher\n\n\0");
    assert_eq!(client.frame().command, "CONNECTED");
    client.write(
        b"SUBSCRIBE\nid:1\ndestination:/topic/talk\nactivemq.subscriptionName:all\nactivemq.noLocal:true\nreceipt:s\n\n\0",
    );
    assert_eq!(client.frame().command, "RECEIPT");
    client
}

#[test]
fn a_durable_subscription_leaves_out_what_its_present_connection_says() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let server = Server::start_in(dir.path(), &[]);
        for _ in 0..20 {
            let mut watcher = watch(&server);
            keep(&mut watcher, "/topic/talk", "mine");
            keep(&mut Client::connect(tcp(server.stomp)), "/topic/talk", "another's");
            assert_eq!(watcher.frame().body, b"another's");
            // Whoever has the receipt of its leaving may come back at once: its names are free.
            watcher.write(b"DISCONNECT\nreceipt:d\n\n\0");
            assert_eq!(watcher.frame().command, "RECEIPT");
        }
        server.stop();
    }
}

#[test]
fn a_receipt_and_the_metrics_tell_what_a_destination_promises() {
    for (level, told) in
        [("fsync", None), ("interval(50)", Some("os")), ("os", Some("os")), ("memory", Some("memory"))]
    {
        let server = Server::start(&[("store.durability", level)]);
        let mut client = Client::connect(tcp(server.stomp));
        let receipt = keep(&mut client, "/queue/orders", "x");
        assert_eq!(receipt.header("durability"), told, "{level}");
        let row = format!("sabir_queue_info{{queue=\"queue://orders\",durability=\"{level}\"}} 1");
        assert!(metrics(&server).contains(&row), "{row}");
        client.write(&send("/queue/orders", "receipt:r\n", b"x"));
        assert_eq!(client.frame().header("durability"), None, "nothing was asked for");
        server.stop();
    }
}

#[test]
fn a_consumer_of_several_targets_gets_them_in_the_order_they_were_written() {
    let server = Server::start(&[]);
    let mut client = Client::connect(tcp(server.stomp));
    // Made in another order than they are sent to.
    client.subscribe("/queue/b,/queue/c,/queue/a");
    client.write(&send("/queue/a,/queue/b,/queue/c", "", b"x"));
    let seen: Vec<String> =
        (0..3).map(|_| client.frame().header("destination").unwrap().to_owned()).collect();
    assert_eq!(seen, ["/queue/a", "/queue/b", "/queue/c"]);
    server.stop();
}
