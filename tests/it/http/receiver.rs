//! A receiver of webhooks: an HTTP server that shows what comes and answers as a test says.
#![expect(clippy::disallowed_methods, reason = "what has come is kept until the test looks at it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver as Queue, Sender, channel};

use serde_json::Value;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::server::PATIENCE;

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Hit {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or_else(|| panic!("no {name} in {:?}", self.headers), |(_, value)| value)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The body of the message in it.
    pub(crate) fn text(&self) -> String {
        self.json()["body"].as_str().unwrap().to_owned()
    }
}

/// An answer: status and further header lines. [`CLOSES`] among them ends the connection without having said so.
pub(crate) type Answer = (u16, &'static str);
pub(crate) const CLOSES: &str = "X-Closes: 1\r\n";
type Answers = Arc<dyn Fn(&Hit) -> Answer + Send + Sync>;

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    hits: Queue<Hit>,
    connections: Arc<AtomicUsize>,
}

impl Receiver {
    /// One that answers every request as `answers` says; that may block.
    pub(crate) fn start(answers: impl Fn(&Hit) -> Answer + Send + Sync + 'static) -> Self {
        Self::over(None, Arc::new(answers))
    }

    /// One that takes everything over TLS, as `localhost`.
    pub(crate) fn secure() -> Self {
        let fixture = |name: &str| format!("{}/tests/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"));
        let chain = vec![CertificateDer::from_pem_file(fixture("localhost.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(fixture("localhost.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(chain, key).unwrap();
        Self::over(Some(Arc::new(config)), Arc::new(|_| (204, "")))
    }

    fn over(tls: Option<Arc<ServerConfig>>, answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, hits) = channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::SeqCst);
                let (answers, sender) = (Arc::clone(&answers), sender.clone());
                let tls = tls.clone();
                std::thread::spawn(move || match tls {
                    None => serve(stream, &answers, &sender),
                    Some(config) => {
                        let session = ServerConnection::new(config).unwrap();
                        serve(StreamOwned::new(session, stream), &answers, &sender);
                    }
                });
            }
        });
        Self { address, hits, connections }
    }

    /// One that takes everything.
    pub(crate) fn willing() -> Self {
        Self::start(|_| (204, ""))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?x=1", self.address)
    }

    /// The next request.
    #[track_caller]
    pub(crate) fn hit(&self) -> Hit {
        self.hits.recv_timeout(PATIENCE).expect("a request")
    }

    /// Whether nothing has come that was not looked at.
    pub(crate) fn is_quiet(&self) -> bool {
        self.hits.try_recv().is_err()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(stream: impl Read + Write, answers: &Answers, hits: &Sender<Hit>) {
    let mut reader = BufReader::new(stream);
    while let Some(hit) = read(&mut reader) {
        // Before the answer, so that whoever sees an effect of the answer finds the request.
        if hits.send(hit.clone()).is_err() {
            return;
        }
        let (status, headers) = answers(&hit);
        let length = if status == 204 { "" } else { "Content-Length: 2\r\n" };
        let body = if status == 204 { "" } else { "ok" };
        let answer = format!("HTTP/1.1 {status} Said\r\n{headers}{length}\r\n{body}");
        let writer = reader.get_mut();
        if writer.write_all(answer.as_bytes()).and_then(|()| writer.flush()).is_err() || headers == CLOSES {
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
