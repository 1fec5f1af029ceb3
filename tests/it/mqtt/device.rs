//! A client of any version that says and hears packets in words.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use sabir_mqtt::Version;

use super::words::{lines_of, packet_of, version_of};
use crate::client::tcp;
use crate::server::Server;

/// What [`Device::hear`] gives when the server has closed.
pub(crate) const END: &str = "END";

/// A client's end of one connection.
pub(crate) struct Device {
    stream: TcpStream,
    /// Bytes read beyond the last packet.
    early: Vec<u8>,
    /// Packets that came while another one was waited for.
    held: VecDeque<String>,
    version: Version,
}

impl Device {
    /// One that has said nothing yet.
    pub(crate) fn silent(address: SocketAddr, version: &str) -> Self {
        Self { stream: tcp(address), early: Vec::new(), held: VecDeque::new(), version: version_of(version) }
    }

    /// One that has said CONNECT, in words as `v5; id=a; clean`, and what it has heard.
    pub(crate) fn introduced(server: &Server, words: &str) -> (Self, String) {
        let version = words.split(';').next().unwrap();
        let mut device = Self::silent(server.mqtt, version);
        device.say(&format!("CONNECT {words}"));
        let answer = device.hear();
        (device, answer)
    }

    /// One that is let in.
    pub(crate) fn open(server: &Server, words: &str) -> Self {
        let (device, answer) = Self::introduced(server, words);
        assert!(answer.starts_with("CONNACK success"), "{words}: {answer}");
        device
    }

    /// One that is let in and finds its session.
    pub(crate) fn resumed(server: &Server, words: &str) -> Self {
        let (device, answer) = Self::introduced(server, words);
        assert!(answer.starts_with("CONNACK success; present"), "{words}: {answer}");
        device
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        // The server may have closed already, after the first of them.
        let _ = self.stream.write_all(bytes);
    }

    pub(crate) fn say(&mut self, words: &str) {
        self.raw(&packet_of(words, self.version));
    }

    /// Several packets in one write.
    pub(crate) fn say_all(&mut self, packets: &[&str]) {
        let bytes: Vec<u8> = packets.iter().flat_map(|words| packet_of(words, self.version)).collect();
        self.raw(&bytes);
    }

    /// The bytes of the next packet; none when the server has closed in good order.
    pub(crate) fn hear_raw(&mut self) -> Vec<u8> {
        loop {
            if let Some(length) = packet_length(&self.early) {
                return self.early.drain(..length).collect();
            }
            let mut buffer = [0; 64 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    assert!(self.early.is_empty(), "the stream ends inside of {:02x?}", self.early);
                    return Vec::new();
                }
                Ok(count) => self.early.extend_from_slice(&buffer[..count]),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next packet in words, or [`END`].
    pub(crate) fn hear(&mut self) -> String {
        if let Some(held) = self.held.pop_front() {
            return held;
        }
        let bytes = self.hear_raw();
        match lines_of(&bytes, self.version).first() {
            Some(line) => line.trim_start_matches("S ").to_owned(),
            None => END.to_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, words: &str) {
        assert_eq!(self.hear(), words);
    }

    /// The next packets are these, in any order: nothing orders an answer and a delivery.
    #[track_caller]
    pub(crate) fn expect_all(&mut self, packets: &[&str]) {
        let mut heard: Vec<String> = packets.iter().map(|_| self.hear()).collect();
        let mut expected = packets.to_vec();
        heard.sort_unstable();
        expected.sort_unstable();
        assert_eq!(heard, expected);
    }

    /// The next packet begins with these words; the rest is told.
    #[track_caller]
    pub(crate) fn expect_start(&mut self, words: &str) -> String {
        let heard = self.hear();
        assert!(heard.starts_with(words), "{heard} instead of {words}");
        heard
    }

    /// The connection ends, after DISCONNECT with this reason where the version has one.
    #[track_caller]
    pub(crate) fn expect_end(&mut self, reason: &str) {
        if self.version == Version::V5 {
            self.expect_start(&format!("DISCONNECT {reason}"));
        }
        self.expect(END);
    }

    /// Nothing has come, up to the answer to a question asked now.
    #[track_caller]
    pub(crate) fn expect_quiet(&mut self) {
        self.say("PINGREQ");
        self.expect("PINGRESP");
    }

    /// Subscribes to `a|1` and the like, granted as asked for.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filters: &[&str]) {
        let list: String = filters.iter().map(|filter| format!("; f={filter}")).collect();
        self.say(&format!("SUBSCRIBE 65000{list}"));
        let answer = self.await_answer("SUBACK 65000 ");
        assert!(answer.ends_with(']') && !answer.contains("[8") && !answer.contains(", 8"), "{answer}");
    }

    /// Publishes with QoS 1, in words as `a; retain > body`, and waits for the acknowledgement.
    #[track_caller]
    pub(crate) fn publish(&mut self, words: &str) {
        let (head, body) = words.split_once(" > ").unwrap_or((words, ""));
        self.say(&format!("PUBLISH {head}; qos=1; id=65000 > {body}"));
        assert_eq!(self.await_answer("PUBACK 65000"), "PUBACK 65000");
    }

    /// Waits for an answer; what comes before it is heard later.
    #[track_caller]
    fn await_answer(&mut self, words: &str) -> String {
        let mut before = VecDeque::new();
        loop {
            let heard = self.hear();
            if heard.starts_with(words) {
                self.held = before;
                return heard;
            }
            assert_ne!(heard, END, "instead of {words}");
            before.push_back(heard);
        }
    }

    /// Vanishes without a word.
    pub(crate) fn vanish(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Leaves politely and waits until the server has taken notice.
    #[track_caller]
    pub(crate) fn leave(mut self) {
        self.say("DISCONNECT");
        self.expect(END);
    }
}

/// How long the packet at the front is, if it is whole.
fn packet_length(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (place, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let total = 2 + place + length;
            return (bytes.len() >= total).then_some(total);
        }
    }
    None
}

/// CONNECT by hand: flags, keep alive and what follows.
pub(crate) fn connect_bytes(level: u8, flags: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 0];
    if level == 5 {
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend_from_slice(properties);
    }
    body.extend_from_slice(payload);
    packet(0x10, &body)
}

/// A packet by hand.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let byte = u8::try_from(rest % 128).unwrap();
        rest /= 128;
        out.push(if rest > 0 { byte | 0x80 } else { byte });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// Waits a second and a half by the server's own clock: the keep alive of a client that says nothing more.
pub(crate) fn pass(server: &Server) {
    let mut silent = Device::open(server, "v4; clean; keep=1");
    silent.expect(END);
}
