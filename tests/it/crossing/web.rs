//! What crosses to and from the web: a message of each kind of sender, and each kind of receiver sees all of it.

use sabir_mqtt::Version;
use serde_json::{Value, json};

use super::parties::{Mqtt, Publication, send, stomp, subscribe_as};
use crate::client::Client;
use crate::http::receiver::Receiver;
use crate::http::web::{Web, messages};
use crate::json::Json;
use crate::server::Server;

/// What every protocol has words for.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    body: String,
    content_type: String,
    correlation: String,
    reply_to: String,
    colour: String,
    /// Of receivers that show the broker's own.
    id: Option<String>,
}

impl Seen {
    fn in_envelope(message: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{message}")).to_owned();
        assert_eq!(message["destination"], "topic://grid.a", "{message}");
        assert!(message["timestamp"].as_u64().is_some(), "{message}");
        Self {
            body: text(&message["body"]),
            content_type: text(&message["contentType"]),
            correlation: text(&message["correlationId"]),
            reply_to: text(&message["replyTo"]),
            colour: text(&message["properties"]["colour"]),
            id: Some(text(&message["id"])),
        }
    }
}

/// One of each kind, on the same topic.
struct Receivers {
    mqtt: Mqtt,
    stomp: Client,
    json: Json,
    events: Web,
    left: String,
    lines: Web,
    puller: Web,
    webhook: Receiver,
}

impl Receivers {
    fn new(server: &Server) -> Self {
        let mut mqtt = Mqtt::open(server.mqtt, Version::V5);
        mqtt.subscribe("grid/#");
        let mut stomp = stomp(server.stomp, "1.2");
        subscribe_as(&mut stomp, "1", "/topic/grid.>", "");
        let mut json = Json::connect(server.http);
        json.done("subscribe", json!({ "id": "g", "destination": "topic://grid.*" }));
        let mut events = Web::new(server.http);
        events.write("GET", "/v1/topics/grid.*/stream", "", b"");
        assert_eq!(events.head().status, 200);
        let mut lines = Web::new(server.http);
        lines.write("GET", "/v1/topics/grid.a/stream", "Accept: application/x-ndjson\r\n", b"");
        assert_eq!(lines.head().status, 200);
        let mut puller = Web::new(server.http);
        let typed = "Content-Type: application/json\r\n";
        puller.send("PUT", "/v1/subscriptions/web/grid", typed, br#"{"topic":"grid.>"}"#).expect(201);
        let webhook = Receiver::willing();
        let definition = json!({ "source": "topic://grid.a", "url": webhook.url() }).to_string();
        puller.send("PUT", "/v1/webhooks/grid", typed, definition.as_bytes()).expect(201);
        Self { mqtt, stomp, json, events, left: String::new(), lines, puller, webhook }
    }

    /// What each of them got.
    fn take(&mut self) -> Vec<(&'static str, Seen)> {
        let arrival = self.mqtt.take();
        assert_eq!(arrival.topic, "grid/a");
        let message = &arrival.message;
        let mqtt = Seen {
            body: String::from_utf8(message.body.clone()).unwrap(),
            content_type: message.content_type.clone().unwrap(),
            correlation: String::from_utf8(message.data.clone().unwrap()).unwrap(),
            // Written as a topic of MQTT is.
            reply_to: format!("topic://{}", message.response.as_ref().unwrap().replace('/', ".")),
            colour: arrival.user("colour").join(","),
            id: None,
        };
        let frame = self.stomp.frame();
        let header =
            |name: &str| frame.header(name).unwrap_or_else(|| panic!("{name}: {}", frame.text())).to_owned();
        assert_eq!(header("destination"), "/topic/grid.a");
        let stomp = Seen {
            body: String::from_utf8(frame.body.clone()).unwrap(),
            content_type: header("content-type"),
            correlation: header("correlation-id"),
            reply_to: header("reply-to").replace("/topic/", "topic://"),
            colour: header("colour"),
            id: None,
        };
        let (_, event) = self.events.event("message", &mut self.left);
        let pulled = messages(self.puller.post("/v1/subscriptions/web/grid/pull?wait=20000", b"")).remove(0);
        self.puller.post(&format!("/v1/leases/{}/ack", pulled["lease"].as_str().unwrap()), b"").expect(204);
        let line: Value = serde_json::from_slice(&self.lines.chunk()).unwrap();
        let read = |text: &str| Seen::in_envelope(&serde_json::from_str(text).unwrap());
        vec![
            ("MQTT 5", mqtt),
            ("STOMP 1.2", stomp),
            ("sabir.json", Seen::in_envelope(&self.json.take()["message"])),
            ("Server-Sent Events", read(&event)),
            ("NDJSON", Seen::in_envelope(&line)),
            ("pull with lease", Seen::in_envelope(&pulled)),
            ("webhook", Seen::in_envelope(&self.webhook.hit().json())),
        ]
    }
}

/// Sends, and says under which id if it was told.
type Sender<'a> = Box<dyn FnMut() -> Option<String> + 'a>;

#[test]
fn what_one_sends_all_receive_whole_1_6() {
    let server = Server::start(&[("webhooks.allowed_targets", "127.0.0.0/8")]);
    let mut receivers = Receivers::new(&server);
    let envelope = json!({
        "body": "grüß Gott", "contentType": "text/plain", "correlationId": "c-1", "replyTo": "topic://answers.a",
        "properties": { "colour": "blue" },
    });
    let headers = "content-type:text/plain\ncorrelation-id:c-1\nreply-to:/topic/answers.a\ncolour:blue\n";
    let publication = Publication::new("grüß Gott".as_bytes())
        .qos(1)
        .format(true)
        .content_type("text/plain")
        .response("answers/a")
        .data(b"c-1")
        .user("colour", "blue");
    let mut json = Json::connect(server.http);
    let mut web = Web::new(server.http);
    let id = |reply: Value| reply["id"].as_str().map(str::to_owned);
    let mut senders: [(&str, Sender<'_>); 5] = [
        (
            "curl, JSON",
            Box::new(|| {
                id(web.post_json("/v1/topics/grid.a/messages", &envelope.to_string()).expect(201).json())
            }),
        ),
        (
            "curl, raw",
            Box::new(|| {
                let target = "/v1/topics/grid.a/messages?correlationId=c-1&replyTo=topic://answers.a";
                let headers = "Content-Type: text/plain\r\nX-Prop-colour: blue\r\n";
                id(Web::new(server.http)
                    .send("POST", target, headers, "grüß Gott".as_bytes())
                    .expect(201)
                    .json())
            }),
        ),
        (
            "sabir.json",
            Box::new(|| {
                let mut message = envelope.clone();
                message["destination"] = "topic://grid.a".into();
                id(json.done("send", json!({ "message": message })))
            }),
        ),
        (
            "STOMP 1.2",
            Box::new(|| {
                let mut client = stomp(server.stomp, "1.2");
                send(&mut client, "/topic/grid.a", headers, "grüß Gott".as_bytes());
                None
            }),
        ),
        (
            "MQTT 5",
            Box::new(|| {
                Mqtt::open(server.mqtt, Version::V5).publish("grid/a", &publication);
                None
            }),
        ),
    ];
    for (sender, send) in &mut senders {
        let told = send();
        let mut ids = Vec::new();
        for (receiver, mut seen) in receivers.take() {
            ids.extend(seen.id.take());
            let expected = Seen {
                body: "grüß Gott".to_owned(),
                content_type: "text/plain".to_owned(),
                correlation: "c-1".to_owned(),
                reply_to: "topic://answers.a".to_owned(),
                colour: "blue".to_owned(),
                id: None,
            };
            assert_eq!(seen, expected, "{sender} to {receiver}");
        }
        ids.extend(told);
        assert!(ids.len() >= 5 && ids.iter().all(|id| *id == ids[0]), "{sender}: one id for all: {ids:?}");
    }
    drop(senders);
    server.stop();
}
