//! ActiveMQ's REST calls, as its scripts make them (http-ws §1 and §8).

use super::web::Web;
use crate::crossing::parties::{send, stomp};
use crate::server::Server;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

#[test]
fn what_is_posted_is_consumed_with_its_properties() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let target = "/api/message/FOO/BAR?type=queue";
    let sent = web.send("POST", &format!("{target}&region=south&JMSPriority=7"), FORM, b"body=h%C3%A9llo");
    let sent = sent.expect(200);
    assert_eq!(sent.text(), "Message sent");
    let id = sent.header("messageID").unwrap().to_owned();
    let got = web.get(&format!("{target}&readTimeout=5000")).expect(200);
    assert_eq!(got.text(), "héllo");
    assert_eq!((got.header("id"), got.header("region")), (Some(&*id), Some("south")));
    assert_eq!(got.header("destination"), Some("queue://FOO.BAR"));
    assert!(got.header("content-type").unwrap().starts_with("text/plain"));
    web.get(&format!("{target}&readTimeout=50")).expect(204);
    web.send("DELETE", &format!("{target}&readTimeout=50"), "", b"").expect(204);
    server.stop();
}

#[test]
fn octets_arrive_and_the_limit_is_said() {
    let server =
        Server::start(&[("limits.body_bytes_max", "1000"), ("limits.body_bytes_before_login", "1000")]);
    let mut web = Web::new(server.http);
    let target = "/api/message?destination=queue://BIN";
    web.send("POST", target, "Content-Type: application/x-thing\r\n", b"\0\xff").expect(200);
    let got = web.get(target).expect(200);
    assert_eq!((got.header("content-type"), &*got.body), (Some("application/x-thing"), &b"\0\xff"[..]));
    let mut sender = stomp(server.stomp, "1.2");
    send(&mut sender, "/queue/BIN", "amq-msg-type:bytes\n", b"\x01\x02");
    let got = web.get(target).expect(200);
    assert_eq!(
        (got.header("content-type"), &*got.body),
        (Some("application/octet-stream"), &b"\x01\x02"[..])
    );
    for (length, status) in [(999, 200), (1000, 200)] {
        web.send("POST", target, "Content-Type: text/plain\r\n", &vec![b'x'; length]).expect(status);
    }
    Web::new(server.http).send("POST", target, "Content-Type: text/plain\r\n", &[b'x'; 1001]).problem(413);
    server.stop();
}

#[test]
fn with_ack_client_the_message_stays_until_it_is_settled() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let target = "/api/message/A?type=queue";
    web.send("POST", target, FORM, b"body=x").expect(200);
    let token = |web: &mut Web| {
        let got = web.get(&format!("{target}&ack=client&readTimeout=5000")).expect(200);
        (got.header("ack-token").unwrap().to_owned(), got.header("JMSRedelivered").is_some())
    };
    let (first, _) = token(&mut web);
    web.get(&format!("{target}&readTimeout=50")).expect(204);
    web.post(&format!("/api/nack/{first}"), b"").expect(204);
    let (second, redelivered) = token(&mut web);
    assert!(redelivered);
    let browsed = web.get(&format!("{target}&browse=true")).expect(200).json();
    assert_eq!(browsed["messages"].as_array().unwrap().len(), 1, "a look shows it all the same");
    web.send("DELETE", &format!("/api/ack/{second}"), "", b"").expect(204);
    web.send("DELETE", &format!("/api/ack/{second}"), "", b"").problem(404);
    web.get(&format!("{target}&readTimeout=50")).expect(204);
    server.stop();
}

#[test]
fn a_topics_consumer_lives_on_between_two_calls_of_a_client() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let target = "/api/message/T?type=topic";
    web.get(&format!("{target}&clientId=c&readTimeout=50")).expect(204);
    web.send("POST", target, FORM, b"body=between").expect(200);
    let got = web.get(&format!("{target}&clientId=c&readTimeout=5000")).expect(200);
    assert_eq!(got.text(), "between");
    web.send("POST", "/api/message/T?clientId=c&action=unsubscribe", FORM, b"").expect(200);
    web.send("POST", target, FORM, b"body=lost").expect(200);
    web.get(&format!("{target}&clientId=c&readTimeout=50")).expect(204);
    server.stop();
}

#[test]
fn a_look_takes_nothing() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    for text in ["1", "2", "3"] {
        web.send("POST", "/api/message/B?type=queue", FORM, format!("body={text}").as_bytes()).expect(200);
    }
    for _ in 0..2 {
        let browsed = web.get("/api/message/B?type=queue&browse=true&max=2").expect(200).json();
        assert_eq!(browsed["messages"].as_array().unwrap().len(), 2);
    }
    assert_eq!(web.get("/api/message/B?type=queue").expect(200).text(), "1");
    server.stop();
}
