//! MQTT over WebSocket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::words::packet_of;
use crate::client::tcp;
use crate::server::Server;
use crate::websocket::frame;

const BINARY: u8 = 0x82;
const TEXT: u8 = 0x81;

fn handshake(address: SocketAddr, offers: &str) -> (TcpStream, String) {
    let mut stream = tcp(address);
    let request = format!(
        "GET /mqtt HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {offers}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
        head.extend_from_slice(&byte);
    }
    (stream, String::from_utf8(head).unwrap().to_lowercase())
}

/// One frame of the server: its first byte and its payload.
fn read(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert!(head[1] <= 125, "a short frame");
    let mut payload = vec![0; usize::from(head[1])];
    stream.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

fn connect() -> Vec<u8> {
    packet_of("CONNECT v4; id=a; clean", sabir_mqtt::Version::V311)
}

#[test]
fn the_sub_protocol_is_mqtt_mqtt5_6_0_0_4() {
    let server = Server::start(&[]);
    for (offers, answer) in [("mqtt", "mqtt"), ("soap, mqtt", "mqtt"), ("mqttv3.1", "mqttv3.1")] {
        let (_, head) = handshake(server.http, offers);
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains(&format!("sec-websocket-protocol: {answer}\r\n")), "{head}");
    }
    let (_, head) = handshake(server.http, "v12.stomp");
    assert!(head.starts_with("http/1.1 400 "), "{head}");
}

#[test]
fn packets_come_in_binary_frames_however_cut_mqtt5_6_0_0_2() {
    let server = Server::start(&[]);
    let (mut stream, _) = handshake(server.http, "mqtt");
    // A byte per frame, then several packets in one.
    for byte in connect() {
        stream.write_all(&frame(BINARY, &[byte])).unwrap();
    }
    assert_eq!(read(&mut stream), (BINARY, vec![0x20, 2, 0, 0]));
    stream.write_all(&frame(BINARY, &[0xc0, 0, 0xc0, 0, 0xc0])).unwrap();
    stream.write_all(&frame(BINARY, &[0])).unwrap();
    let mut pongs = Vec::new();
    while pongs.len() < 6 {
        let (kind, payload) = read(&mut stream);
        assert_eq!(kind, BINARY);
        pongs.extend(payload);
    }
    assert_eq!(pongs, [0xd0, 0, 0xd0, 0, 0xd0, 0]);
}

#[test]
fn a_text_frame_ends_the_connection_mqtt5_6_0_0_1() {
    let server = Server::start(&[]);
    let (mut stream, _) = handshake(server.http, "mqtt");
    stream.write_all(&frame(BINARY, &connect())).unwrap();
    assert_eq!(read(&mut stream).0, BINARY);
    stream.write_all(&frame(TEXT, &[0xc0, 0])).unwrap();
    let (kind, _) = read(&mut stream);
    assert_eq!(kind, 0x88, "a close");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
}
