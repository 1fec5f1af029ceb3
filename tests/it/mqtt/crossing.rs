//! What a STOMP client sends, an MQTT client gets, and the other way round.

use super::device::Device;
use crate::client::{Client, tcp};
use crate::server::Server;

#[test]
fn a_stomp_message_becomes_publish_cross_protocol_1() {
    let server = Server::start(&[]);
    let mut five = Device::open(&server, "v5; id=a; clean");
    let mut four = Device::open(&server, "v4; id=b; clean");
    for device in [&mut five, &mut four] {
        device.subscribe(&["news/#|1"]);
    }
    let mut stomp = Client::connect(tcp(server.stomp));
    stomp.send("/topic/news.eu", b"not persistent");
    five.expect_start("PUBLISH news/eu");
    four.expect("PUBLISH news/eu > not persistent");
    let headers = "persistent:true\nreceipt:p\ncolour:red\ncorrelation-id:c\nreply-to:/topic/answers.here\n\
                   content-type:text/plain\npriority:7\n";
    stomp.write(&crate::client::send("/topic/news.eu", headers, b"persistent"));
    assert_eq!(stomp.frame().command, "RECEIPT");
    let heard = five.expect_start("PUBLISH news/eu; qos=1; id=1; ");
    for part in [
        "; format=1",
        "; type=text/plain",
        "; reply=answers/here",
        "; corr=c",
        "; u:colour=red",
        " > persistent",
    ] {
        assert!(heard.contains(part), "no “{part}” in {heard}");
    }
    four.expect("PUBLISH news/eu; qos=1; id=1 > persistent");
}

#[test]
fn publish_becomes_a_stomp_message_cross_protocol_1() {
    let server = Server::start(&[]);
    let mut stomp = Client::connect(tcp(server.stomp));
    stomp.subscribe("/topic/news.>");
    let mut five = Device::open(&server, "v5; id=a; clean");
    five.publish(
        "news/eu; type=text/plain; reply=answers/here; corr=c; u:colour=red; expiry=100; retain > body",
    );
    let frame = stomp.frame();
    assert_eq!((frame.command.as_str(), &frame.body[..]), ("MESSAGE", &b"body"[..]));
    for (name, value) in [
        ("destination", "/topic/news.eu"),
        ("persistent", "true"),
        ("content-type", "text/plain"),
        ("reply-to", "/topic/answers.here"),
        ("correlation-id", "c"),
        ("colour", "red"),
        ("ActiveMQ.Retain", "true"),
    ] {
        assert_eq!(frame.header(name), Some(value), "{}", frame.text());
    }
    assert_ne!(frame.header("expires"), Some("0"), "{}", frame.text());
}

#[test]
fn queues_and_virtual_topics_are_the_same_for_both_cross_protocol_2() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; clean");
    let mut stomp = Client::connect(tcp(server.stomp));
    stomp.subscribe("/queue/Consumer.one.VirtualTopic.orders");
    device.publish("VirtualTopic/orders > to the group");
    assert_eq!(stomp.frame().body, b"to the group");
    device.publish("$queue/jobs/eu > to the queue");
    stomp.subscribe("/queue/jobs.eu");
    let frame = stomp.frame();
    assert_eq!(frame.header("destination"), Some("/queue/jobs.eu"), "{}", frame.text());
    device.say("SUBSCRIBE 1; f=$queue/replies|1");
    device.expect("SUBACK 1 [01]");
    stomp.send("/queue/replies", b"not persistent");
    device.expect_start("PUBLISH $queue/replies");
}
