//! Everything at once: floods of every protocol, subscribers that do not read, frames that never end, wild reconnects, and
//! in the midst of it those who keep to the rules.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use sabir_mqtt::client::{self, Connect, ConnectProperties};
use sabir_mqtt::packet::Publish;
use sabir_mqtt::{PacketId, Qos, Version};

use super::{STOMP_CONNECT, STOMP_CONNECT_ON, Stop, flood, metric, most_resident, page, stomp, until};
use crate::client::{Client, send, tcp};
use crate::crossing::parties::{Mqtt, Publication, subscribe_as};
use crate::http::web::Web;
use crate::server::Server;

/// What a broker has in memory beside what it is told to bound: code, threads with their buffers, what is being encoded and
/// written, the index of the log, some 64 KiB for each connection, and what the allocator keeps of what was freed.
pub(super) const BESIDE: u64 = 96 << 20;

const CONNECTIONS_MAX: usize = 150;
const POLICIES: &str = "[[policy]]\ndestination = \"queue://flood.>\"\nbytes_max = \"8 MiB\"\n\n\
    [[policy]]\ndestination = \"topic://flood.>\"\npending_max = 100000\n";

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }
}

fn mqtt_connect() -> Vec<u8> {
    let mut out = Vec::new();
    let connect = Connect { version: Version::V311, clean_start: true, ..Connect::default() };
    client::connect(&mut out, &connect).unwrap();
    out
}

fn mqtt_publish(topic: &str, qos: u8, bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let payload = vec![b'm'; bytes];
    let qos = Qos::from_level(qos).unwrap();
    let id = (qos != Qos::AtMostOnce).then(|| PacketId::new(7).unwrap());
    let publish = Publish { qos, topic, id, payload: &payload, ..Publish::default() };
    publish.encode(Version::V311, &mut out).unwrap();
    out
}

fn post(target: &str, bytes: usize) -> Vec<u8> {
    let mut request =
        format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\n\r\n").into_bytes();
    request.resize(request.len() + bytes, b'h');
    request
}

fn json_send(bytes: usize) -> Vec<u8> {
    let body = "j".repeat(bytes);
    format!("{{\"op\":\"send\",\"destination\":\"queue://flood.json\",\"persistent\":false,\"body\":\"{body}\"}}\n")
        .into_bytes()
}

/// Begins a frame that never ends.
fn endless(address: SocketAddr) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let head = "SEND\ndestination:/queue/flood.giant\ncontent-length:90000000\n\n";
    let _ = stream.write_all(STOMP_CONNECT).and_then(|()| stream.write_all(head.as_bytes()));
    let piece = vec![b'g'; 1 << 20];
    for _ in 0..40 {
        if stream.write_all(&piece).is_err() {
            return;
        }
    }
}

/// Comes, subscribes, sends in a transaction that it leaves open, and goes without a word.
fn churn(address: SocketAddr) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut frames = STOMP_CONNECT.to_vec();
    frames.extend_from_slice(
        b"SUBSCRIBE\nid:1\ndestination:/queue/flood.churn\nack:client\n\n\0BEGIN\ntransaction:t\n\n\0",
    );
    frames.extend(send("/queue/flood.churn", "transaction:t\n", &[b'c'; 20_000]));
    frames.extend(send("/queue/flood.churn", "persistent:true\n", &[b'c'; 2000]));
    let _ = stream.write_all(&frames);
    let _ = stream.read(&mut [0; 1000]);
}

/// Takes and acknowledges what there is of the floods; comes back when it is thrown out.
fn consume(address: SocketAddr, stop: &AtomicBool) {
    until(stop, || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut client = Client::new(stream);
        let subscribe = "SUBSCRIBE\nid:1\ndestination:/queue/flood.>\nack:client-individual\nactivemq.prefetchSize:50\n\n\0";
        if client.try_write(STOMP_CONNECT).and_then(|()| client.try_write(subscribe.as_bytes())).is_err() {
            return;
        }
        while !stop.load(Ordering::Acquire) {
            match client.try_frame() {
                Ok(Some(frame)) if frame.command == "MESSAGE" => {
                    let ack = frame.header("ack").unwrap().to_owned();
                    if client.try_write(format!("ACK\nid:{ack}\n\n\0").as_bytes()).is_err() {
                        return;
                    }
                }
                Ok(Some(frame)) if frame.command == "CONNECTED" => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    });
}

/// A place that is free in the end, however many come.
fn connect(address: SocketAddr) -> Client {
    loop {
        let mut client = Client::new(tcp(address));
        if client.try_write(STOMP_CONNECT).is_ok()
            && matches!(client.try_frame(), Ok(Some(frame)) if frame.command == "CONNECTED")
        {
            return client;
        }
    }
}

/// Sends what must not be lost, and has half of it taken meanwhile.
fn keep_to_the_rules(address: SocketAddr, sends: usize) {
    let (mut sender, mut consumer) = (connect(address), connect(address));
    for number in 0..sends {
        for (headers, queue) in [("persistent:true\n", "/queue/kept"), ("persistent:false\n", "/queue/brief")]
        {
            let body = format!("{number:06}{}", "p".repeat(1000));
            sender.write(&send(queue, &format!("{headers}receipt:r\n"), body.as_bytes()));
            let frame = sender.frame();
            assert_eq!(frame.command, "RECEIPT", "{queue} {number}: {}", frame.text());
        }
        if number == 0 {
            subscribe_as(&mut consumer, "1", "/queue/brief", "ack:client-individual\n");
        }
        let frame = consumer.frame();
        assert_eq!(&frame.body[..6], format!("{number:06}").as_bytes());
        let ack = frame.header("ack").unwrap();
        consumer.write(format!("ACK\nid:{ack}\nreceipt:a\n\n\0").as_bytes());
        assert_eq!(consumer.frame().command, "RECEIPT");
    }
}

fn meter() -> Connect<'static> {
    let lasting = ConnectProperties { session_expiry_s: Some(3600), ..ConnectProperties::default() };
    Connect { version: Version::V5, client_id: "meter", properties: lasting, ..Connect::default() }
}

/// Takes everything out of all queues of the floods, and what has become a dead letter in them.
fn drain(server: &Server) {
    let stream = tcp(server.stomp);
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut client = Client::new(stream);
    client.write(STOMP_CONNECT);
    for (id, queue) in ["flood.>", "ActiveMQ.DLQ"].into_iter().enumerate() {
        client.write(format!("SUBSCRIBE\nid:{id}\ndestination:/queue/{queue}\nack:auto\n\n\0").as_bytes());
    }
    loop {
        match client.try_frame() {
            Ok(Some(frame)) => assert!(frame.command != "ERROR", "{}", frame.text()),
            Ok(None) => panic!("the broker has closed the connection"),
            // It is quiet.
            Err(_) => {
                let page = page(server);
                if metric(&page, "sabir_messages_ready") + metric(&page, "sabir_messages_unsettled") == 0 {
                    return;
                }
            }
        }
    }
}

fn round(seed: u64, sends: usize) {
    let mut dice = Dice(seed);
    let memory = (16 + dice.throw(32) as u64) << 20;
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("sabir.toml");
    std::fs::write(&config, POLICIES).unwrap();
    let server = Server::start_in(
        dir.path(),
        &[
            ("--config", config.to_str().unwrap()),
            ("limits.memory_bytes_max", &memory.to_string()),
            ("limits.queue_memory_bytes_max", "256 KiB"),
            ("limits.spilled_bytes_max", "8 MiB"),
            ("limits.connections_max", &CONNECTIONS_MAX.to_string()),
            ("limits.connect_timeout_ms", "1000"),
            ("limits.outbox_bytes_soft", "128 KiB"),
            ("limits.outbox_bytes_hard", "1 MiB"),
            ("limits.write_stall_ms", "3000"),
            // Last values stay in memory.
            ("mqtt.sys_interval_ms", "0"),
            ("store.segment_bytes", "4 MiB"),
            ("store.journal_bytes_max", "64 MiB"),
            ("store.disk_bytes_max", "256 MiB"),
        ],
    );
    let mut device = Mqtt::open_as(server.mqtt, meter());
    device.subscribe("meter/#");
    device.leave();
    let size = |dice: &mut Dice| [100, 1000, 20_000][dice.throw(3)];
    let stomp_frame = |queue: &str, headers: &str, bytes| send(queue, headers, &vec![b's'; bytes]);
    let http = b"";
    let floods: Vec<(_, Vec<u8>, Vec<u8>)> = vec![
        (
            server.stomp,
            STOMP_CONNECT_ON.into(),
            stomp_frame("/queue/flood.a", "persistent:false\n", size(&mut dice)),
        ),
        (
            server.stomp,
            STOMP_CONNECT.into(),
            stomp_frame("/queue/flood.b", "persistent:false\n", size(&mut dice)),
        ),
        (
            server.stomp,
            STOMP_CONNECT_ON.into(),
            stomp_frame("/queue/flood.c", "persistent:true\n", size(&mut dice)),
        ),
        (server.any, STOMP_CONNECT.into(), stomp_frame("/topic/flood.t", "", size(&mut dice))),
        (server.mqtt, mqtt_connect(), mqtt_publish("flood/t", 0, size(&mut dice))),
        (server.mqtt, mqtt_connect(), mqtt_publish("flood/t", 1, size(&mut dice))),
        (server.mqtt, mqtt_connect(), mqtt_publish("flood/t", 2, size(&mut dice))),
        (server.http, http.into(), post("/v1/queues/flood.http/messages", size(&mut dice))),
        (server.any, b"{\"op\":\"connect\"}\n".to_vec(), json_send(size(&mut dice))),
    ];
    let (stomp_at, any_at, mqtt_at) = (server.stomp, server.any, server.mqtt);
    let (stop, written, cycles) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut stalled: Vec<Client> = (0..2)
        .map(|number| {
            let mut client = stomp(&server);
            let ack = if number == 0 { "ack:auto\n" } else { "ack:client\n" };
            subscribe_as(&mut client, "1", "/topic/flood.>", ack);
            client
        })
        .collect();
    let mut devices: Vec<Mqtt> = (0..2).map(|_| Mqtt::open(server.mqtt, Version::V5)).collect();
    devices.iter_mut().for_each(|device| device.subscribe("flood/#"));
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for (address, greeting, bytes) in &floods {
            let (stop, written) = (&stop, &written);
            scope.spawn(move || flood(*address, greeting, bytes, stop, written));
        }
        scope.spawn(|| consume(stomp_at, &stop));
        for _ in 0..3 {
            scope.spawn(|| {
                until(&stop, || {
                    endless(stomp_at);
                    cycles.fetch_add(1, Ordering::Relaxed);
                });
            });
            scope.spawn(|| {
                until(&stop, || {
                    churn(any_at);
                    cycles.fetch_add(1, Ordering::Relaxed);
                });
            });
            // Says nothing.
            scope.spawn(|| until(&stop, || drop(tcp(mqtt_at).read(&mut [0; 1]))));
        }
        let meter = scope.spawn(|| {
            let mut sender = Mqtt::open(mqtt_at, Version::V5);
            for number in 0..sends {
                let body = format!("{number:06}");
                sender.publish("meter/a", &Publication::new(body.as_bytes()).qos(2));
            }
        });
        keep_to_the_rules(stomp_at, sends);
        meter.join().unwrap();
    });
    let during = page(&server);
    assert!(metric(&during, "sabir_memory_bytes") < memory, "{during}");
    let most = most_resident(&server);
    eprintln!(
        "seed {seed}: memory {} of {} MiB, {} MiB resident at most; {} bursts written, {} cycles; {}",
        metric(&during, "sabir_memory_bytes") >> 20,
        memory >> 20,
        most >> 20,
        written.load(Ordering::Relaxed),
        cycles.load(Ordering::Relaxed),
        during
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter(|line| ["refused_total", "paused", "cut_off", "dropped", "slow"]
                .iter()
                .any(|part| line.contains(part)))
            .filter(|line| !line.starts_with("sabir_queue_") && !line.ends_with(" 0"))
            .collect::<Vec<_>>()
            .join(", "),
    );
    assert!(most < memory + BESIDE, "{} MiB", most >> 20);
    assert!(
        metric(&during, "sabir_messages_refused_total") > 0
            && metric(&during, "sabir_messages_dropped_total") > 0
            && metric(&during, "sabir_messages_spilled_total") > 0
    );
    assert!(metric(&during, "sabir_store_disk_bytes") <= 256 << 20);

    // What was promised is there, once.
    let mut consumer = stomp(&server);
    subscribe_as(&mut consumer, "1", "/queue/kept", "ack:client-individual\n");
    for number in 0..sends {
        let frame = consumer.frame();
        assert_eq!(&frame.body[..6], format!("{number:06}").as_bytes());
        let ack = frame.header("ack").unwrap();
        consumer.write(format!("ACK\nid:{ack}\n\n\0").as_bytes());
    }
    let mut device = Mqtt::open_as(server.mqtt, meter());
    for number in 0..sends {
        assert_eq!(device.take().message.body, format!("{number:06}").as_bytes());
    }
    // Each handover has two steps, and both are in the log.
    while metric(&page(&server), "sabir_queue_messages_unsettled{queue=\"session://meter\"}") > 0 {
        device.flush();
    }
    device.leave();
    drop((stalled.drain(..), consumer));
    drop(devices);
    drain(&server);

    // And nothing else is left.
    let mut web = Web::new(server.http);
    for turn in 0.. {
        let page = web.get("/metrics").expect(200).text();
        let left = |name| metric(&page, name);
        let of_messages = left("sabir_messages_ready") + left("sabir_messages_unsettled");
        let of_connections = left("sabir_connections") + left("sabir_sockets") - 1;
        let of_pressure = left("sabir_producers_paused") + left("sabir_connections_slow");
        if of_messages + of_connections + of_pressure + left("sabir_memory_bytes") == 0 {
            break;
        }
        assert!(turn < 20_000, "{page}");
    }
    server.stop();
}

#[test]
fn a_broker_keeps_its_budgets_and_its_promises_under_everything_at_once() {
    round(1, 20);
    // For as long as somebody has time: `SABIR_OVERLOAD_SECONDS=600`.
    let seconds =
        std::env::var("SABIR_OVERLOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    #[expect(clippy::disallowed_methods, reason = "bounds how long the test goes on, not what it finds")]
    let began = std::time::Instant::now();
    let mut seed = 2;
    while began.elapsed() < Duration::from_secs(seconds) {
        round(seed, 200);
        seed += 1;
    }
}
