//! A receiver of webhooks: an HTTP server that shows what comes and answers as a test says.
#![expect(clippy::disallowed_methods, reason = "what has come is kept until the test looks at it")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver as Queue, Sender, channel};

use serde_json::Value;

use crate::server::PATIENCE;

/// A request that came.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) target: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Hit {
    #[track_caller]
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or_else(|| panic!("no {name} in {:?}", self.headers), |(_, value)| value)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The body of the message in it.
    pub(super) fn text(&self) -> String {
        self.json()["body"].as_str().unwrap().to_owned()
    }
}

/// An answer: status and further header lines.
pub(super) type Answer = (u16, &'static str);
type Answers = Arc<dyn Fn(&Hit) -> Answer + Send + Sync>;

pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    hits: Queue<Hit>,
    connections: Arc<AtomicUsize>,
}

impl Receiver {
    /// One that answers every request as `answers` says; that may block.
    pub(super) fn start(answers: impl Fn(&Hit) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, hits) = channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let (answers, counted): (Answers, _) = (Arc::new(answers), Arc::clone(&connections));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::SeqCst);
                let (answers, sender) = (Arc::clone(&answers), sender.clone());
                std::thread::spawn(move || serve(stream, &answers, &sender));
            }
        });
        Self { address, hits, connections }
    }

    /// One that takes everything.
    pub(super) fn willing() -> Self {
        Self::start(|_| (204, ""))
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook?x=1", self.address)
    }

    /// The next request.
    #[track_caller]
    pub(super) fn hit(&self) -> Hit {
        self.hits.recv_timeout(PATIENCE).expect("a request")
    }

    /// Whether nothing has come that was not looked at.
    pub(super) fn is_quiet(&self) -> bool {
        self.hits.try_recv().is_err()
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, answers: &Answers, hits: &Sender<Hit>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(hit) = read(&mut reader) {
        // Before the answer, so that whoever sees an effect of the answer finds the request.
        if hits.send(hit.clone()).is_err() {
            return;
        }
        let (status, headers) = answers(&hit);
        let length = if status == 204 { "" } else { "Content-Length: 2\r\n" };
        let body = if status == 204 { "" } else { "ok" };
        let answer = format!("HTTP/1.1 {status} Said\r\n{headers}{length}\r\n{body}");
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Hit> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let target = line.split(' ').nth(1)?.to_owned();
    assert!(line.starts_with("POST "), "{line}");
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut hit = Hit { target, headers, body: Vec::new() };
    hit.body = vec![0; hit.header("content-length").parse().unwrap()];
    reader.read_exact(&mut hit.body).ok()?;
    Some(hit)
}
