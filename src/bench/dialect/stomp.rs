//! STOMP 1.2, as a client speaks it.

use std::io::Write as _;
use std::time::Duration;

use sabir_stomp::client::{self, Connect, Decoder, Frame, Version};

use super::{Opening, Sink, Spot};
use crate::link::{Link, Place, Scratch};
use crate::stamp::Source;

/// How deliveries are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AckMode {
    /// Not at all.
    Auto,
    /// All up to one.
    Client,
    /// Each.
    ClientIndividual,
}

impl AckMode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Client => "client",
            Self::ClientIndividual => "client-individual",
        }
    }
}

/// How STOMP is spoken.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) place: Place,
    pub(crate) destination: String,
    pub(crate) persistent: bool,
    pub(crate) receipts: bool,
    pub(crate) ack: AckMode,
    /// Deliveries a consumer may have unacknowledged.
    pub(crate) prefetch: u32,
    /// Messages in a transaction; none in none.
    pub(crate) transaction: u16,
    pub(crate) login: Option<String>,
    pub(crate) passcode: Option<String>,
}

impl Options {
    pub(super) fn open(&self, scratch: &mut Scratch, opening: &Opening) -> Result<(Link, Speaker), String> {
        let mut link = Link::open(&self.place, opening.source, "v12.stomp", false)?;
        expect(&mut link, scratch, &self.greeting(), "CONNECTED", opening.patience)?;
        Ok((link, Speaker { decoder: Decoder::new(Version::V12), ack: self.ack, last: Vec::new() }))
    }

    /// A CONNECT.
    pub(crate) fn greeting(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let connect = Connect {
            versions: &[Version::V12],
            host: Some("/"),
            login: self.login.as_deref(),
            passcode: self.passcode.as_deref(),
            ..Connect::default()
        };
        client::connect(&mut bytes, &connect);
        bytes
    }

    pub(super) fn subscribe(
        &self,
        link: &mut Link,
        scratch: &mut Scratch,
        spot: Spot,
        patience: Duration,
    ) -> Result<(), String> {
        self.subscribe_to(link, scratch, &[spot.name(&self.destination, '.')], 0, patience)
    }

    /// Subscribes to some destinations, with ids from `first` on, and waits for a receipt of the last.
    pub(crate) fn subscribe_to(
        &self,
        link: &mut Link,
        scratch: &mut Scratch,
        destinations: &[String],
        first: usize,
        patience: Duration,
    ) -> Result<(), String> {
        let mut bytes = Vec::new();
        for (place, destination) in destinations.iter().enumerate() {
            let is_last = place + 1 == destinations.len();
            self.put_subscribe(&mut bytes, destination, first + place, is_last);
        }
        expect(link, scratch, &bytes, "RECEIPT", patience)
    }

    /// Subscribes without waiting for anything.
    pub(super) fn subscribe_soon(&self, link: &mut Link) -> Result<(), String> {
        let start = link.out.len();
        self.put_subscribe(&mut link.out, &self.destination, 0, false);
        link.seal(start);
        if link.flush()? { Ok(()) } else { Err("the broker does not read".into()) }
    }

    fn put_subscribe(&self, out: &mut Vec<u8>, destination: &str, id: usize, with_receipt: bool) {
        let (prefetch, id) = (self.prefetch.to_string(), id.to_string());
        // Both families' headers for the same wish, so that one generator fits every broker.
        let headers = [
            ("destination", destination),
            ("id", id.as_str()),
            ("ack", self.ack.as_str()),
            ("activemq.prefetchSize", prefetch.as_str()),
            ("prefetch-count", prefetch.as_str()),
        ];
        let receipt = with_receipt.then_some(("receipt", "subscribed"));
        client::frame(out, Version::V12, "SUBSCRIBE", headers.into_iter().chain(receipt), None);
    }

    pub(super) fn letter(&self, spot: Spot, source: Source) -> Letter {
        Letter::new(self, &spot.name(&self.destination, '.'), source)
    }
}

/// Writes frames and reads until there is one of this command.
pub(crate) fn expect(
    link: &mut Link,
    scratch: &mut Scratch,
    bytes: &[u8],
    command: &str,
    patience: Duration,
) -> Result<(), String> {
    let mut decoder = Decoder::new(Version::V12);
    link.ask(scratch, bytes, command, patience, |input| {
        let mut taken = 0;
        loop {
            let decoded = decoder
                .next(input.get(taken..).unwrap_or_default())
                .map_err(|refusal| refusal.to_string())?;
            let Some(frame) = decoded.frame else { return Ok((taken, false)) };
            if frame.command() == command {
                return Ok((taken + decoded.consumed, true));
            }
            if frame.command() == "ERROR" {
                return Err(complaint(&frame));
            }
            // What is in the way is no receipt: it is not counted, and whoever counts finds it missing.
            taken += decoded.consumed;
        }
    })
}

fn complaint(frame: &Frame<'_>) -> String {
    let head = frame.get("message").unwrap_or_default();
    let body = String::from_utf8_lossy(frame.body());
    format!("the broker says: {head} {}", body.trim())
}

/// Says goodbye.
pub(super) fn leave(link: &mut Link) {
    let start = link.out.len();
    client::disconnect(&mut link.out, Version::V12, None);
    link.seal(start);
    // What becomes of it does not matter any more.
    let _ = link.flush();
}

/// The state of one connection.
pub(crate) struct Speaker {
    decoder: Decoder,
    ack: AckMode,
    /// The acknowledgement of the last message, which is that of all before.
    last: Vec<u8>,
}

impl Speaker {
    pub(super) fn receive(
        &mut self,
        link: &mut Link,
        input: &[u8],
        sink: &mut impl Sink,
    ) -> Result<usize, String> {
        let mut taken = 0;
        loop {
            let rest = input.get(taken..).unwrap_or_default();
            let decoded = self.decoder.next(rest).map_err(|refusal| refusal.to_string())?;
            taken += decoded.consumed;
            let Some(frame) = decoded.frame else { break };
            match frame.command() {
                "MESSAGE" => {
                    sink.message(frame.body(), frame.raw("redelivered") == Some("true"));
                    match self.ack {
                        AckMode::Auto => {}
                        AckMode::Client => {
                            self.last.clear();
                            client::ack(&mut self.last, Version::V12, &frame, &[]);
                        }
                        AckMode::ClientIndividual => {
                            let start = link.out.len();
                            client::ack(&mut link.out, Version::V12, &frame, &[]);
                            link.seal(start);
                        }
                    }
                }
                "RECEIPT" => {
                    if let Some((first, count)) = frame.raw("receipt-id").and_then(receipt) {
                        sink.acknowledged(first, count);
                    }
                }
                "ERROR" => return Err(complaint(&frame)),
                _ => {}
            }
        }
        if !self.last.is_empty() {
            let start = link.out.len();
            link.out.append(&mut self.last);
            link.seal(start);
        }
        Ok(taken)
    }
}

/// `FIRST` or `FIRST-COUNT`.
fn receipt(id: &str) -> Option<(u64, u64)> {
    match id.split_once('-') {
        None => Some((id.parse().ok()?, 1)),
        Some((first, count)) => Some((first.parse().ok()?, count.parse().ok()?)),
    }
}

/// A SEND in which only stamp, receipt and transaction change.
pub(crate) struct Letter {
    head: Vec<u8>,
    /// From the line end before the content-length to the end of the frame.
    tail: Vec<u8>,
    body_at: usize,
    receipts: bool,
    transaction: u64,
    source: Source,
}

impl Letter {
    fn new(options: &Options, destination: &str, source: Source) -> Self {
        let mut head = format!("SEND\ndestination:{destination}").into_bytes();
        if options.persistent {
            head.extend_from_slice(b"\npersistent:true");
        }
        let body = source.body();
        let mut tail = format!("\ncontent-length:{}\n\n", body.len()).into_bytes();
        let body_at = tail.len();
        tail.extend_from_slice(&body);
        tail.push(0);
        let transaction = options.transaction.into();
        Self { head, tail, body_at, receipts: options.receipts, transaction, source }
    }

    pub(super) fn send(&mut self, link: &mut Link, first: u64, count: u64, time: impl Fn(u64) -> u64) {
        let end = first + count;
        if self.transaction == 0 {
            for number in first..end {
                self.append(link, number, time(number), None);
            }
            return;
        }
        let mut number = first;
        while number < end {
            let part = self.transaction.min(end - number);
            let start = link.out.len();
            let _ = write!(link.out, "BEGIN\ntransaction:{number}\n\n\0");
            link.seal(start);
            for each in number..number + part {
                self.append(link, each, time(each), Some(number));
            }
            let start = link.out.len();
            let _ = write!(link.out, "COMMIT\ntransaction:{number}\n");
            if self.receipts {
                let _ = writeln!(link.out, "receipt:{number}-{part}");
            }
            link.out.extend_from_slice(b"\n\0");
            link.seal(start);
            number += part;
        }
    }

    fn append(&mut self, link: &mut Link, number: u64, time_ns: u64, transaction: Option<u64>) {
        let start = link.out.len();
        link.out.extend_from_slice(&self.head);
        match transaction {
            Some(transaction) => {
                let _ = write!(link.out, "\ntransaction:{transaction}");
            }
            None if self.receipts => {
                let _ = write!(link.out, "\nreceipt:{number}");
            }
            None => {}
        }
        if let Some(body) = self.tail.get_mut(self.body_at..) {
            self.source.stamp(body, number, time_ns);
        }
        link.out.extend_from_slice(&self.tail);
        // A message for each frame, as browsers send them.
        link.seal(start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_names_what_it_is_for() {
        assert_eq!(receipt("17"), Some((17, 1)));
        assert_eq!(receipt("17-20"), Some((17, 20)));
        assert_eq!(receipt("subscribed"), None);
    }
}
