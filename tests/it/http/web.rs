//! An HTTP client of raw bytes: what a test sends is what it says, and a reply is what came.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::client::tcp;

/// A reply.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The reply, if its status is this.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }

    /// The code and the field of a problem document.
    #[track_caller]
    pub(crate) fn problem(self, status: u16) -> (String, Option<String>) {
        let reply = self.expect(status);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{}", reply.text());
        let document = reply.json();
        assert_eq!(document["status"], status, "{document}");
        let field = document["field"].as_str().map(str::to_owned);
        (document["code"].as_str().unwrap().to_owned(), field)
    }
}

/// One connection that is kept.
pub(crate) struct Web {
    stream: TcpStream,
    early: Vec<u8>,
    address: SocketAddr,
}

impl Web {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { stream: tcp(address), early: Vec::new(), address }
    }

    /// Sends a request without waiting for anything.
    pub(crate) fn write(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) {
        let length = if body.is_empty() && matches!(method, "GET" | "DELETE") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let mut request =
            format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n{headers}{length}\r\n", self.address)
                .into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            let byte = self.bytes(1);
            if byte == b"\n" {
                return String::from_utf8(line).unwrap().trim_end().to_owned();
            }
            line.extend_from_slice(&byte);
        }
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.early.len() < count {
            let mut buffer = [0; 8192];
            let read = self.stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the connection ended early");
            self.early.extend_from_slice(&buffer[..read]);
        }
        self.early.drain(..count).collect()
    }

    /// The head of the next reply.
    pub(crate) fn head(&mut self) -> Reply {
        let status = self.line();
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return Reply { status, headers, body: Vec::new() };
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The next reply.
    pub(crate) fn reply(&mut self) -> Reply {
        let mut reply = self.head();
        if let Some(length) = reply.header("content-length") {
            let length = length.parse().unwrap();
            reply.body = self.bytes(length);
        }
        reply
    }

    pub(crate) fn send(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> Reply {
        self.write(method, target, headers, body);
        self.reply()
    }

    pub(crate) fn get(&mut self, target: &str) -> Reply {
        self.send("GET", target, "", b"")
    }

    pub(crate) fn post(&mut self, target: &str, body: &[u8]) -> Reply {
        self.send("POST", target, "", body)
    }

    pub(crate) fn post_json(&mut self, target: &str, body: &str) -> Reply {
        self.send("POST", target, "Content-Type: application/json\r\n", body.as_bytes())
    }

    /// The next piece of a body that is sent in chunks; empty at its end.
    pub(crate) fn chunk(&mut self) -> Vec<u8> {
        let length = usize::from_str_radix(&self.line(), 16).unwrap();
        let bytes = self.bytes(length);
        self.line();
        bytes
    }

    /// Reads a stream of events until one of this name: its id and data.
    pub(crate) fn event(&mut self, wanted: &str, left: &mut String) -> (String, String) {
        loop {
            if let Some((event, rest)) = left.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                *left = rest;
                let field = |name: &str| {
                    let lines: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix(name)).collect();
                    lines.join("\n")
                };
                if field("event: ") == wanted {
                    return (field("id: "), field("data: "));
                }
                continue;
            }
            let chunk = self.chunk();
            assert!(!chunk.is_empty(), "the stream ended before an event {wanted}");
            left.push_str(&String::from_utf8(chunk).unwrap());
        }
    }
}

/// Pulls: what the reply's list holds.
#[track_caller]
pub(crate) fn messages(reply: Reply) -> Vec<Value> {
    reply.expect(200).json()["messages"].as_array().unwrap().clone()
}
