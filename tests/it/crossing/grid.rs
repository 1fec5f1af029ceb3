//! One row per message: what is sent by whom, and what every receiver must see of it.
//!
//! A row lists what *travels*; what every MESSAGE has (destination, ids, lengths, defaults) is checked for all rows alike
//! and left out of the lists. Bodies must be identical octets everywhere. MQTT 3.1.1 must see what MQTT 5 sees without
//! its properties.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use sabir_mqtt::Version;

use crate::client::{Client, Frame};
use crate::crossing::parties::{self, Arrival, Mqtt, Publication, now_ms, stomp, subscribe_as};
use crate::server::Server;

enum Sent {
    /// A SEND: its headers as they stand on the wire.
    Stomp {
        version: &'static str,
        headers: String,
        body: Vec<u8>,
        sized: bool,
        lives_ms: Option<u64>,
    },
    Mqtt {
        version: Version,
        message: Publication,
    },
}

/// One message and what is to be seen of it.
pub(super) struct Row {
    name: &'static str,
    sent: Sent,
    stomp12: Vec<String>,
    stomp10: Option<Vec<String>>,
    mqtt5: Vec<String>,
    /// Why the row says something else than the contract.
    differs: Option<&'static str>,
}

fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

impl Row {
    fn new(name: &'static str, sent: Sent) -> Self {
        Self { name, sent, stomp12: Vec::new(), stomp10: None, mqtt5: Vec::new(), differs: None }
    }

    /// Sent by STOMP 1.2 with these header lines.
    pub(super) fn stomp12(name: &'static str, headers: &str) -> Self {
        Self::stomp(name, "1.2", headers)
    }

    /// Sent by STOMP 1.0 with these header lines.
    pub(super) fn stomp10(name: &'static str, headers: &str) -> Self {
        Self::stomp(name, "1.0", headers)
    }

    fn stomp(name: &'static str, version: &'static str, headers: &str) -> Self {
        let headers = headers.to_owned();
        Self::new(name, Sent::Stomp { version, headers, body: b"body".to_vec(), sized: true, lives_ms: None })
    }

    /// Sent by MQTT 5.
    pub(super) fn mqtt5(name: &'static str, message: Publication) -> Self {
        Self::new(name, Sent::Mqtt { version: Version::V5, message })
    }

    /// Sent by MQTT 3.1.1.
    pub(super) fn mqtt3(name: &'static str, message: Publication) -> Self {
        Self::new(name, Sent::Mqtt { version: Version::V311, message })
    }

    /// The body of a SEND.
    pub(super) fn body(mut self, with: &[u8]) -> Self {
        match &mut self.sent {
            Sent::Stomp { body, .. } => *body = with.to_vec(),
            Sent::Mqtt { message, .. } => message.body = with.to_vec(),
        }
        self
    }

    /// A SEND without `content-length`, which would make its body bytes.
    pub(super) fn without_length(mut self) -> Self {
        if let Sent::Stomp { sized, .. } = &mut self.sent {
            *sized = false;
        }
        self
    }

    /// A SEND with `expires` so much later than now.
    pub(super) fn lives(mut self, ms: u64) -> Self {
        if let Sent::Stomp { lives_ms, .. } = &mut self.sent {
            *lives_ms = Some(ms);
        }
        self
    }

    /// What STOMP sees: header lines as they stand on the wire, the same in both versions.
    pub(super) fn stomp_sees(self, lines: &[&str]) -> Self {
        Self { stomp12: owned(lines), ..self }
    }

    /// What STOMP 1.0 sees, where it is not what 1.2 sees.
    pub(super) fn stomp10_sees(self, lines: &[&str]) -> Self {
        Self { stomp10: Some(owned(lines)), ..self }
    }

    /// What MQTT 5 sees.
    pub(super) fn mqtt_sees(self, lines: &[&str]) -> Self {
        Self { mqtt5: owned(lines), ..self }
    }

    /// The row says what is done; the contract says something else, for this reason.
    pub(super) fn differs(self, why: &'static str) -> Self {
        Self { differs: Some(why), ..self }
    }

    fn payload(&self) -> &[u8] {
        match &self.sent {
            Sent::Stomp { body, .. } => body,
            Sent::Mqtt { message, .. } => &message.body,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Topic,
    /// The queue of a group of a virtual topic.
    Group,
    /// A shared subscription.
    Share,
    /// A queue that is sent to by its name.
    Queue,
}

enum Party {
    Stomp(&'static str, Client),
    Mqtt(Version, Mqtt),
}

struct Receiver {
    place: Place,
    party: Party,
}

impl Receiver {
    fn title(&self) -> String {
        let place = match self.place {
            Place::Topic => "a topic",
            Place::Group => "a group's queue",
            Place::Share => "a share",
            Place::Queue => "a queue",
        };
        match &self.party {
            Party::Stomp(version, _) => format!("STOMP {version} at {place}"),
            Party::Mqtt(version, _) => format!("MQTT {} at {place}", version.as_str()),
        }
    }

    /// The name of its place for a row, in dotted form.
    fn dotted(&self, index: usize, row: usize) -> String {
        match self.place {
            Place::Topic | Place::Share => format!("VirtualTopic.grid.{row}"),
            Place::Group => format!("Consumer.r{index}.VirtualTopic.grid.{row}"),
            Place::Queue => format!("plain.r{index}.{row}"),
        }
    }

    fn is_queue(&self) -> bool {
        matches!(self.place, Place::Group | Place::Queue)
    }

    fn stomp_name(&self, index: usize, row: usize) -> String {
        let prefix = if self.is_queue() { "/queue/" } else { "/topic/" };
        format!("{prefix}{}", self.dotted(index, row))
    }

    fn mqtt_name(&self, index: usize, row: usize) -> String {
        let prefix = if self.is_queue() { "$queue/" } else { "" };
        format!("{prefix}{}", self.dotted(index, row).replace('.', "/"))
    }

    fn subscribe(&mut self, index: usize, row: usize) {
        let (stomp_name, mqtt_name) = (self.stomp_name(index, row), self.mqtt_name(index, row));
        match &mut self.party {
            Party::Stomp(_, client) => subscribe_as(client, &format!("s{row}"), &stomp_name, ""),
            Party::Mqtt(_, client) if self.place == Place::Share => {
                client.subscribe(&format!("$share/group/{mqtt_name}"));
            }
            Party::Mqtt(_, client) => client.subscribe(&mqtt_name),
        }
    }

    /// What it sees of a row that was sent between the first of `sent` and now.
    fn see(&mut self, index: usize, number: usize, row: &Row, sent: &Window) -> Vec<String> {
        let (stomp_name, mqtt_name) = (self.stomp_name(index, number), self.mqtt_name(index, number));
        let place = self.place;
        match &mut self.party {
            Party::Stomp(version, client) => {
                let frame = client.frame();
                let original = (place == Place::Group).then(|| format!("/topic/VirtualTopic.grid.{number}"));
                let mut seen = Usual { version, destination: stomp_name, original, number }.cut(&frame, sent);
                judge_body(&frame.body, row, &mut seen);
                seen
            }
            Party::Mqtt(version, client) => {
                let arrival = client.take();
                let mut seen = Vec::new();
                if arrival.topic != mqtt_name {
                    seen.push(format!("topic {}", arrival.topic));
                }
                seen.extend(arrival.lines());
                judge_expiry(&arrival, *version, sent, &mut seen);
                judge_body(&arrival.message.body, row, &mut seen);
                seen
            }
        }
    }

    fn must_see(&self, row: &Row) -> Vec<String> {
        match &self.party {
            Party::Stomp("1.0", _) => row.stomp10.as_ref().unwrap_or(&row.stomp12).clone(),
            Party::Stomp(..) => row.stomp12.clone(),
            Party::Mqtt(version, _) => {
                let travels =
                    |line: &&String| *version == Version::V5 || line.starts_with("qos ") || *line == "retain";
                let mut lines: Vec<String> = row.mqtt5.iter().filter(travels).cloned().collect();
                // Whoever shares is given QoS 1 at most.
                if self.place != Place::Topic
                    && let Some(qos) = lines.iter_mut().find(|line| *line == "qos 2")
                {
                    "qos 1".clone_into(qos);
                }
                lines
            }
        }
    }
}

fn judge_body(body: &[u8], row: &Row, seen: &mut Vec<String>) {
    let sent = row.payload();
    if body != sent {
        let start = &body[..body.len().min(80)];
        seen.push(format!("body {}… ({} bytes for {})", start.escape_ascii(), body.len(), sent.len()));
    }
}

/// How far the broker's clock, which reads the time at its start and counts from there, may be from ours.
pub(super) const CLOCKS_APART_MS: u64 = 1000;

/// When a message was sent, and when it is over.
struct Window {
    start: u64,
    /// The instants its end may lie at; `None` if it has none.
    ends: Option<RangeInclusive<u64>>,
    /// The seconds that are left when nothing has been waited for.
    seconds_max: u64,
    timestamp: Option<u64>,
}

fn judge_expiry(arrival: &Arrival, version: Version, sent: &Window, seen: &mut Vec<String>) {
    let right = match (arrival.message.expiry_s, &sent.ends) {
        (None, None) => true,
        (None, Some(_)) => version != Version::V5,
        (Some(_), None) => false,
        (Some(expiry), Some(ends)) => {
            let left = ends
                .start()
                .saturating_sub(now_ms() + CLOCKS_APART_MS)
                .div_ceil(1000)
                .clamp(1, u32::MAX.into());
            (left..=sent.seconds_max).contains(&u64::from(expiry))
        }
    };
    if !right {
        seen.push(format!("expiry {:?}", arrival.message.expiry_s));
    }
}

/// The headers that every MESSAGE has.
struct Usual<'a> {
    version: &'a str,
    destination: String,
    original: Option<String>,
    number: usize,
}

impl Usual<'_> {
    /// The header lines of a frame without those that are as they always must be; what is wrong with these stays.
    fn cut(&self, frame: &Frame, sent: &Window) -> Vec<String> {
        let mut lines = Vec::new();
        if frame.command != "MESSAGE" {
            return vec![frame.text()];
        }
        let now = now_ms();
        let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
        let mut missing = vec!["destination", "subscription", "message-id", "timestamp", "content-length"];
        missing.extend(["expires", "priority"]);
        missing.extend(self.original.as_ref().map(|_| "original-destination"));
        missing.extend((self.version == "1.2").then_some("delivery-count"));
        for (name, value) in &frame.headers {
            let usual = match name.as_str() {
                "destination" => *value == self.destination,
                "original-destination" => Some(value) == self.original.as_ref(),
                "subscription" => *value == format!("s{}", self.number),
                "message-id" => value.starts_with("ID:") || value.starts_with("ID\\c"),
                "content-length" => number(value) == frame.body.len() as u64,
                "priority" => value == "4",
                "delivery-count" => value == "1",
                "timestamp" => match sent.timestamp {
                    Some(timestamp) => number(value) == timestamp,
                    None => (sent.start - CLOCKS_APART_MS..=now + CLOCKS_APART_MS).contains(&number(value)),
                },
                "expires" => match &sent.ends {
                    None => value == "0",
                    Some(ends) => ends.contains(&number(value)),
                },
                _ => false,
            };
            missing.retain(|due| due != name);
            if !usual {
                lines.push(format!("{name}:{value}"));
            }
        }
        lines.extend(missing.iter().map(|name| format!("(no {name})")));
        lines
    }
}

struct Hall {
    receivers: Vec<Receiver>,
    stomp10: Client,
    stomp12: Client,
    mqtt3: Mqtt,
    mqtt5: Mqtt,
}

impl Hall {
    fn open(server: &Server) -> Self {
        let stomp_at =
            |place, version| Receiver { place, party: Party::Stomp(version, stomp(server.stomp, version)) };
        let mqtt_at = |place, version| Receiver {
            place,
            party: Party::Mqtt(version, Mqtt::open(server.mqtt, version)),
        };
        Self {
            receivers: vec![
                stomp_at(Place::Topic, "1.0"),
                stomp_at(Place::Topic, "1.2"),
                stomp_at(Place::Group, "1.0"),
                stomp_at(Place::Group, "1.2"),
                stomp_at(Place::Queue, "1.2"),
                mqtt_at(Place::Topic, Version::V311),
                mqtt_at(Place::Topic, Version::V5),
                mqtt_at(Place::Share, Version::V5),
                mqtt_at(Place::Group, Version::V311),
                mqtt_at(Place::Group, Version::V5),
                mqtt_at(Place::Queue, Version::V5),
            ],
            stomp10: stomp(server.stomp, "1.0"),
            stomp12: stomp(server.stomp, "1.2"),
            mqtt3: Mqtt::open(server.mqtt, Version::V311),
            mqtt5: Mqtt::open(server.mqtt, Version::V5),
        }
    }

    /// Sends a row to the topic and to each queue by name.
    fn send(&mut self, number: usize, row: &Row) -> Window {
        let start = now_ms();
        let queues = self.receivers.iter().enumerate().filter(|(_, to)| to.place == Place::Queue);
        let queues: Vec<String> = queues.map(|(index, to)| to.dotted(index, number)).collect();
        match &row.sent {
            Sent::Stomp { version, headers, body, sized, lives_ms } => {
                let client = if *version == "1.0" { &mut self.stomp10 } else { &mut self.stomp12 };
                let expires = lives_ms.map(|ms| start + ms);
                let mut headers = headers.clone();
                if *sized {
                    let _ = writeln!(headers, "content-length:{}", body.len());
                }
                if let Some(expires) = expires {
                    let _ = writeln!(headers, "expires:{expires}");
                }
                parties::send(client, &format!("/topic/VirtualTopic.grid.{number}"), &headers, body);
                for queue in queues {
                    parties::send(client, &format!("/queue/{queue}"), &headers, body);
                }
                let timestamp = headers.lines().find_map(|line| line.strip_prefix("timestamp:"));
                Window {
                    start,
                    ends: expires.map(|at| at..=at),
                    seconds_max: lives_ms.unwrap_or(0).div_ceil(1000).min(u32::MAX.into()),
                    timestamp: timestamp.map(|text| text.parse().unwrap()),
                }
            }
            Sent::Mqtt { version, message } => {
                let client = if *version == Version::V5 { &mut self.mqtt5 } else { &mut self.mqtt3 };
                client.publish(&format!("VirtualTopic/grid/{number}"), message);
                for queue in queues {
                    client.publish(&format!("$queue/{}", queue.replace('.', "/")), message);
                }
                client.flush();
                let ms = message.expiry_s.map(|seconds| u64::from(seconds) * 1000);
                let (early, late) = (start - CLOCKS_APART_MS, now_ms() + CLOCKS_APART_MS);
                Window {
                    start,
                    ends: ms.map(|ms| early + ms..=late + ms),
                    seconds_max: message.expiry_s.unwrap_or(0).into(),
                    timestamp: None,
                }
            }
        }
    }

    fn play(&mut self, number: usize, row: &Row, report: &mut String) {
        for (index, receiver) in self.receivers.iter_mut().enumerate() {
            receiver.subscribe(index, number);
        }
        let sent = self.send(number, row);
        for (index, receiver) in self.receivers.iter_mut().enumerate() {
            let (must, sees) = (receiver.must_see(row), receiver.see(index, number, row, &sent));
            if must != sees {
                let _ = writeln!(report, "“{}”, {}:", row.name, receiver.title());
                put_difference(&must, &sees, report);
                if let Some(why) = row.differs {
                    let _ = writeln!(report, "    (a known difference: {why})");
                }
            }
        }
    }
}

/// Lines that are due and missing with a minus, lines that are there and not due with a plus.
fn put_difference(must: &[String], sees: &[String], report: &mut String) {
    let head = must.iter().zip(sees).take_while(|(must, sees)| must == sees).count();
    let (must, sees) = (&must[head..], &sees[head..]);
    let tail = must.iter().rev().zip(sees.iter().rev()).take_while(|(must, sees)| must == sees).count();
    for line in &must[..must.len() - tail] {
        let _ = writeln!(report, "    - {line}");
    }
    for line in &sees[..sees.len() - tail] {
        let _ = writeln!(report, "    + {line}");
    }
}

/// Plays all rows and tells every difference.
pub(super) fn play(rows: &[Row]) {
    let server = Server::start(&[]);
    let mut hall = Hall::open(&server);
    let mut report = String::new();
    for (number, row) in rows.iter().enumerate() {
        hall.play(number, row, &mut report);
    }
    assert!(report.is_empty(), "what is due (-) and what is seen (+) differ:\n{report}");
    server.stop();
}
