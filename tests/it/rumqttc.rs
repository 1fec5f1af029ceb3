//! rumqttc, a client that nobody here wrote, in MQTT 3.1.1 and 5: its blocking clients over real sockets.

use std::collections::VecDeque;

use rumqttc::Outgoing;
use rumqttc::mqttbytes::v4 as packets_of_4;
use rumqttc::v5::mqttbytes::v5 as packets_of_5;

use crate::server::{PATIENCE, Server};

/// Requests that may wait until the client's event loop takes them; more than any test sends at once.
const REQUESTS: usize = 500;
/// The library's own limit is 10 KiB.
const PACKET_BYTES_MAX: u32 = 4 << 20;

fn will_of_4(text: &str, qos: rumqttc::QoS) -> packets_of_4::LastWill {
    packets_of_4::LastWill::new("wills", text, qos, false)
}

fn will_of_5(text: &str, qos: rumqttc::v5::mqttbytes::QoS) -> packets_of_5::LastWill {
    packets_of_5::LastWill::new("wills", text, qos, false, None)
}

fn keep_of_4(options: &mut rumqttc::MqttOptions, keep: bool) {
    let most = PACKET_BYTES_MAX as usize;
    options.set_clean_session(!keep).set_max_packet_size(most, most);
}

fn keep_of_5(options: &mut rumqttc::v5::MqttOptions, keep: bool) {
    options.set_clean_start(!keep).set_max_packet_size(Some(PACKET_BYTES_MAX));
    options.set_session_expiry_interval(keep.then_some(600));
}

/// The same tests for both versions: the library has them in two modules whose types only look alike.
macro_rules! tests_of {
    ($version:ident, $client:path, $connection:path, $event:path, $options:path, $qos:path, $packets:ident, $will:ident, $keep:ident) => {
        mod $version {
            use super::*;
            use $client as Client;
            use $connection as Connection;
            use $event as Event;
            use $options as Options;
            use $packets::{Packet, Publish};
            use $qos as QoS;

            /// A connection; dropping it closes the socket without a DISCONNECT.
            struct Peer {
                client: Client,
                connection: Connection,
                arrived: VecDeque<Publish>,
                session_present: bool,
            }

            fn options(server: &Server, id: &str) -> Options {
                let mut options = Options::new(id, server.mqtt.ip().to_string(), server.mqtt.port());
                $keep(&mut options, false);
                options
            }

            fn kept(server: &Server, id: &str) -> Options {
                let mut options = options(server, id);
                $keep(&mut options, true);
                options
            }

            impl Peer {
                fn open(options: Options) -> Self {
                    let (client, connection) = Client::new(options, REQUESTS);
                    let arrived = VecDeque::new();
                    let mut peer = Self { client, connection, arrived, session_present: false };
                    loop {
                        if let Event::Incoming(Packet::ConnAck(answer)) = peer.event() {
                            peer.session_present = answer.session_present;
                            return peer;
                        }
                    }
                }

                fn event(&mut self) -> Event {
                    self.connection.recv_timeout(PATIENCE).unwrap().unwrap()
                }

                /// Runs the event loop until what is asked for has happened; keeps what arrives meanwhile.
                fn until(&mut self, mut done: impl FnMut(&Event) -> bool) {
                    loop {
                        let event = self.event();
                        let done = done(&event);
                        if let Event::Incoming(Packet::Publish(publish)) = event {
                            self.arrived.push_back(publish);
                        }
                        if done {
                            return;
                        }
                    }
                }

                fn take(&mut self) -> Publish {
                    while self.arrived.is_empty() {
                        self.until(|event| matches!(event, Event::Incoming(Packet::Publish(_))));
                    }
                    self.arrived.pop_front().unwrap()
                }

                fn text(&mut self) -> String {
                    String::from_utf8(self.take().payload.to_vec()).unwrap()
                }

                fn subscribe(&mut self, filter: &str, qos: QoS) {
                    self.client.subscribe(filter, qos).unwrap();
                    self.until(|event| matches!(event, Event::Incoming(Packet::SubAck(_))));
                }

                /// Publishes and returns when all of it is acknowledged, or sent if nobody acknowledges.
                fn send(&mut self, topic: &str, qos: QoS, retain: bool, payloads: &[Vec<u8>]) {
                    for payload in payloads {
                        self.client.publish(topic, qos, retain, payload.clone()).unwrap();
                    }
                    let mut left = payloads.len();
                    self.until(|event| {
                        let ended = match event {
                            Event::Outgoing(Outgoing::Publish(_)) => qos == QoS::AtMostOnce,
                            Event::Incoming(Packet::PubAck(_)) => qos == QoS::AtLeastOnce,
                            Event::Incoming(Packet::PubComp(_)) => qos == QoS::ExactlyOnce,
                            _ => false,
                        };
                        left -= usize::from(ended);
                        left == 0
                    });
                }

                fn leave(mut self) {
                    self.client.disconnect().unwrap();
                    self.until(|event| matches!(event, Event::Outgoing(Outgoing::Disconnect)));
                }
            }

            const EVERY_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

            fn texts(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
                range.map(|n| n.to_string().into_bytes()).collect()
            }

            #[test]
            fn messages_arrive_in_order_at_every_qos() {
                let server = Server::start(&[]);
                let mut receiver = Peer::open(options(&server, "receiver"));
                let mut sender = Peer::open(options(&server, "sender"));
                assert!(!sender.session_present);
                for qos in EVERY_QOS {
                    let topic = format!("order/{}", qos as u8);
                    receiver.subscribe(&topic, qos);
                    sender.send(&topic, qos, false, &texts(0..300));
                    for n in 0..300u32 {
                        let publish = receiver.take();
                        assert_eq!(publish.payload.to_vec(), n.to_string().into_bytes());
                        assert_eq!((publish.qos, publish.retain, publish.dup), (qos, false, false));
                    }
                }
                receiver.leave();
                sender.leave();
                server.stop();
            }

            #[test]
            fn payloads_of_every_size_come_back_as_they_were() {
                let server = Server::start(&[]);
                let mut peer = Peer::open(options(&server, "peer"));
                for qos in EVERY_QOS {
                    let topic = format!("sizes/{}", qos as u8);
                    peer.subscribe(&topic, qos);
                    for size in [0, 1, 127, 128, 16_383, 16_384, 65_536, 1 << 20] {
                        let payload: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
                        peer.send(&topic, qos, false, std::slice::from_ref(&payload));
                        assert!(peer.take().payload == payload, "{size} bytes");
                    }
                }
            }

            #[test]
            fn a_retained_message_is_replaced_and_cleared() {
                let server = Server::start(&[]);
                let mut sender = Peer::open(options(&server, "sender"));
                sender.send("kept/a", QoS::AtLeastOnce, true, &[b"old".to_vec(), b"new".to_vec()]);
                sender.send("kept/b/c", QoS::ExactlyOnce, true, &[b"deep".to_vec()]);
                let mut early = Peer::open(options(&server, "early"));
                early.subscribe("kept/#", QoS::ExactlyOnce);
                let mut got =
                    [early.take(), early.take()].map(|publish| (publish.payload.to_vec(), publish.retain));
                got.sort();
                assert_eq!(got, [(b"deep".to_vec(), true), (b"new".to_vec(), true)]);
                sender.send("kept/a", QoS::AtLeastOnce, true, &[vec![]]);
                let cleared = early.take();
                assert_eq!((cleared.payload.to_vec(), cleared.retain), (vec![], false));
                let mut late = Peer::open(options(&server, "late"));
                late.subscribe("kept/a", QoS::AtLeastOnce);
                sender.send("kept/a", QoS::AtLeastOnce, false, &[b"live".to_vec()]);
                assert_eq!(late.text(), "live");
            }

            #[test]
            fn a_will_is_sent_for_a_lost_connection_and_not_after_a_disconnect() {
                let server = Server::start(&[]);
                let mut watcher = Peer::open(options(&server, "watcher"));
                watcher.subscribe("wills", QoS::ExactlyOnce);
                for qos in EVERY_QOS {
                    let with_will = |id: &str, text: &str| {
                        let mut options = options(&server, id);
                        options.set_last_will($will(text, qos));
                        Peer::open(options)
                    };
                    drop(with_will("dropped", "dropped"));
                    let publish = watcher.take();
                    assert_eq!((publish.payload.to_vec(), publish.qos), (b"dropped".to_vec(), qos));
                    // Another one each time: whoever comes again may be let in before its farewell is read.
                    with_will(&format!("leaving {}", qos as u8), "never").leave();
                    watcher.send("wills", qos, false, &[b"sentinel".to_vec()]);
                    assert_eq!(watcher.text(), "sentinel");
                }
            }

            #[test]
            fn a_session_keeps_what_comes_while_its_client_is_away() {
                let server = Server::start(&[]);
                let mut sender = Peer::open(options(&server, "sender"));
                let mut receiver = Peer::open(kept(&server, "receiver"));
                assert!(!receiver.session_present);
                receiver.subscribe("away/#", QoS::ExactlyOnce);
                receiver.leave();
                sender.send("away/1", QoS::AtLeastOnce, false, &texts(0..200));
                sender.send("away/2", QoS::ExactlyOnce, false, &texts(200..400));
                let mut receiver = Peer::open(kept(&server, "receiver"));
                assert!(receiver.session_present);
                for n in 0..400u32 {
                    assert_eq!(receiver.text(), n.to_string());
                }
                drop(receiver);
                // A clean start ends it.
                let receiver = Peer::open(options(&server, "receiver"));
                assert!(!receiver.session_present);
                receiver.leave();
                let receiver = Peer::open(kept(&server, "receiver"));
                assert!(!receiver.session_present);
            }

            #[test]
            fn members_of_a_group_share_and_a_group_keeps_what_comes_while_all_are_away() {
                let server = Server::start(&[]);
                let mut sender = Peer::open(options(&server, "sender"));
                let mut members = ["one", "two"].map(|id| Peer::open(kept(&server, id)));
                for member in &mut members {
                    member.subscribe("$share/group/shared/#", QoS::AtLeastOnce);
                }
                sender.send("shared/a", QoS::AtLeastOnce, false, &texts(0..100));
                // A message to each by name ends what the group had for it.
                let mut got: Vec<Vec<u32>> = Vec::new();
                for (name, member) in ["one", "two"].iter().zip(&mut members) {
                    member.subscribe(&format!("end/{name}"), QoS::AtLeastOnce);
                    sender.send(&format!("end/{name}"), QoS::AtLeastOnce, false, &[b"end".to_vec()]);
                    let texts = std::iter::from_fn(|| Some(member.text()).filter(|text| text != "end"));
                    got.push(texts.map(|text| text.parse().unwrap()).collect());
                }
                assert!(got.iter().all(|one| !one.is_empty() && one.is_sorted()), "{got:?}");
                let mut all = got.concat();
                all.sort_unstable();
                assert_eq!(all, Vec::from_iter(0..100));
                for member in members {
                    member.leave();
                }
                sender.send("shared/b", QoS::AtLeastOnce, false, &texts(100..120));
                let mut back = Peer::open(kept(&server, "one"));
                let mut late: Vec<u32> = (100..120).map(|_| back.text().parse().unwrap()).collect();
                late.sort_unstable();
                assert_eq!(late, Vec::from_iter(100..120));
                server.stop();
            }

            #[test]
            fn a_session_survives_the_server() {
                let dir = tempfile::tempdir().unwrap();
                let server = Server::start_in(dir.path(), &[]);
                let mut receiver = Peer::open(kept(&server, "receiver"));
                receiver.subscribe("survives", QoS::ExactlyOnce);
                receiver.leave();
                let mut sender = Peer::open(options(&server, "sender"));
                sender.send("survives", QoS::ExactlyOnce, true, &texts(0..50));
                drop(server); // kill -9
                let server = Server::start_in(dir.path(), &[]);
                let mut receiver = Peer::open(kept(&server, "receiver"));
                assert!(receiver.session_present);
                for n in 0..50u32 {
                    assert_eq!(receiver.text(), n.to_string());
                }
                let mut late = Peer::open(options(&server, "late"));
                late.subscribe("survives", QoS::AtLeastOnce);
                let publish = late.take();
                assert_eq!((publish.payload.to_vec(), publish.retain), (b"49".to_vec(), true));
            }
        }
    };
}

tests_of!(
    v4,
    rumqttc::Client,
    rumqttc::Connection,
    rumqttc::Event,
    rumqttc::MqttOptions,
    rumqttc::QoS,
    packets_of_4,
    will_of_4,
    keep_of_4
);

tests_of!(
    v5,
    rumqttc::v5::Client,
    rumqttc::v5::Connection,
    rumqttc::v5::Event,
    rumqttc::v5::MqttOptions,
    rumqttc::v5::mqttbytes::QoS,
    packets_of_5,
    will_of_5,
    keep_of_5
);

#[test]
fn properties_of_mqtt_5_arrive_as_they_were_sent() {
    use packets_of_5::{Packet, PublishProperties, SubscribeProperties};
    use rumqttc::Outgoing;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::{Client, Connection, Event, MqttOptions};

    // A connection with nothing to do still pings, so waiting ends by the number of events.
    fn until(connection: &mut Connection, wanted: impl Fn(&Event) -> bool) -> Event {
        (0..20)
            .map(|_| connection.recv_timeout(PATIENCE).unwrap().unwrap())
            .find(|event| wanted(event))
            .expect("what is waited for comes")
    }
    let is = |wanted: fn(&Packet) -> bool| move |event: &Event| matches!(event, Event::Incoming(packet) if wanted(packet));

    let server = Server::start(&[]);
    let options = |id: &str| MqttOptions::new(id, server.mqtt.ip().to_string(), server.mqtt.port());
    let (reader, mut readers) = Client::new(options("reader"), REQUESTS);
    let subscribed = SubscribeProperties { id: Some(7), user_properties: vec![] };
    reader.subscribe_with_properties("properties/#", QoS::ExactlyOnce, subscribed).unwrap();
    until(&mut readers, is(|packet| matches!(packet, Packet::SubAck(_))));
    let (sender, mut senders) = Client::new(options("sender"), REQUESTS);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let sent = PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(60),
        response_topic: Some("answers/here".to_owned()),
        correlation_data: Some(vec![0, 255, 1].into()),
        user_properties: vec![pair("a", "1"), pair("b", "x"), pair("a", "2")],
        content_type: Some("text/plain".to_owned()),
        ..PublishProperties::default()
    };
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        sender.publish_with_properties("properties/a", qos, false, "héllo", sent.clone()).unwrap();
        if qos == QoS::AtLeastOnce {
            until(&mut senders, is(|packet| matches!(packet, Packet::PubAck(_))));
        } else if qos == QoS::ExactlyOnce {
            until(&mut senders, is(|packet| matches!(packet, Packet::PubComp(_))));
        } else {
            // Nothing answers it: it has left when the library says so.
            until(&mut senders, |event| matches!(event, Event::Outgoing(Outgoing::Publish(_))));
        }
        let Event::Incoming(Packet::Publish(got)) =
            until(&mut readers, is(|packet| matches!(packet, Packet::Publish(_))))
        else {
            unreachable!("asked for");
        };
        assert_eq!((got.qos, &*got.payload), (qos, "héllo".as_bytes()));
        let properties = got.properties.unwrap();
        let expiry = properties.message_expiry_interval.unwrap();
        assert!((50..=60).contains(&expiry), "{expiry}");
        let expected = PublishProperties {
            message_expiry_interval: Some(expiry),
            subscription_identifiers: vec![7],
            ..sent.clone()
        };
        assert_eq!(properties, expected, "{qos:?}");
    }
    server.stop();
}
