//! Messages sent by HTTP request, many at once on one connection, each request answered with its receipt.

use std::collections::VecDeque;

use super::{Opening, Sink, Spot};
use crate::http::put_percent_encoded;
use crate::link::{Link, Place};
use crate::stamp::Source;

/// How HTTP is spoken.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) place: Place,
    /// With `/queue/` or `/topic/`.
    pub(crate) destination: String,
    pub(crate) persistent: bool,
    /// Messages in one request, as lines of JSON if there are several.
    pub(crate) per_request: u16,
    pub(crate) login: Option<String>,
    pub(crate) passcode: Option<String>,
}

impl Options {
    pub(super) fn open(&self, opening: &Opening) -> Result<Link, String> {
        Link::open(&self.place, opening.source, "", true)
    }

    pub(super) fn letter(&self, spot: Spot, source: Source) -> Result<Letter, String> {
        let target = target(&spot.name(&self.destination, '.'), self.persistent)?;
        let kind = if self.per_request == 1 { "text/plain" } else { "application/x-ndjson" };
        let mut head =
            format!("POST {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: {kind}\r\n", self.place.authority());
        if let Some(login) = &self.login {
            let mut code = Vec::new();
            let passcode = self.passcode.as_deref().unwrap_or_default();
            sabir_model::base64::encode(format!("{login}:{passcode}").as_bytes(), &mut code);
            head.push_str(&format!("Authorization: Basic {}\r\n", String::from_utf8_lossy(&code)));
        }
        head.push_str("Content-Length: ");
        let body = source.body();
        Ok(Letter { head: head.into_bytes(), body, source, per_request: self.per_request.into() })
    }
}

fn target(destination: &str, persistent: bool) -> Result<String, String> {
    let (collection, name) = match (destination.strip_prefix("/queue/"), destination.strip_prefix("/topic/"))
    {
        (Some(name), _) => ("queues", name),
        (_, Some(name)) => ("topics", name),
        _ => return Err(format!("{destination} is neither /queue/NAME nor /topic/NAME")),
    };
    let mut target = format!("/v1/{collection}/");
    put_percent_encoded(name, &mut target);
    target.push_str(&format!("/messages?persistent={persistent}"));
    Ok(target)
}

/// A request that is ready but for its length and its stamps.
pub(crate) struct Letter {
    /// Up to the number of `Content-Length`.
    head: Vec<u8>,
    body: Vec<u8>,
    source: Source,
    per_request: u64,
}

const LINE: (&[u8], &[u8]) = (b"{\"body\":\"", b"\"}\n");

/// The state of one connection: what each answer that is to come is for.
#[derive(Default)]
pub(crate) struct Speaker {
    asked: VecDeque<(u64, u64)>,
}

impl Speaker {
    pub(super) fn send(
        &mut self,
        link: &mut Link,
        letter: &mut Letter,
        first: u64,
        count: u64,
        time: impl Fn(u64) -> u64,
    ) {
        let end = first + count;
        let mut number = first;
        while number < end {
            let part = letter.per_request.min(end - number);
            let line = if letter.per_request == 1 { 0 } else { LINE.0.len() + LINE.1.len() };
            let length = part as usize * (letter.body.len() + line);
            link.out.extend_from_slice(&letter.head);
            link.out.extend_from_slice(format!("{length}\r\n\r\n").as_bytes());
            for each in number..number + part {
                letter.source.stamp(&mut letter.body, each, time(each));
                if letter.per_request == 1 {
                    link.out.extend_from_slice(&letter.body);
                } else {
                    for piece in [LINE.0, &letter.body, LINE.1] {
                        link.out.extend_from_slice(piece);
                    }
                }
            }
            self.asked.push_back((number, part));
            number += part;
        }
    }

    pub(super) fn receive(&mut self, input: &[u8], sink: &mut impl Sink) -> Result<usize, String> {
        let mut taken = 0;
        while let Some(answer) = answer(input.get(taken..).unwrap_or_default())? {
            taken += answer.bytes;
            if answer.status != 201 {
                return Err(format!("the broker answers {}", answer.status));
            }
            let (first, count) = self.asked.pop_front().ok_or("the broker answers what was not asked")?;
            sink.acknowledged(first, count);
        }
        Ok(taken)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    bytes: usize,
}

/// The answer at the front of the input, if it is whole.
fn answer(input: &[u8]) -> Result<Option<Answer>, String> {
    let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(input.get(..end).unwrap_or_default());
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or("what the broker sends is no HTTP")?;
    let mut length = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| "what the broker sends is no HTTP")?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("the broker answers in chunks, which is not understood here".into());
        }
    }
    let bytes = end + 4 + length;
    Ok((input.len() >= bytes).then_some(Answer { status, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_path() {
        let path = |destination| target(destination, false);
        assert_eq!(path("/queue/a.b/c").as_deref(), Ok("/v1/queues/a.b%2Fc/messages?persistent=false"));
        assert_eq!(path("/topic/t").as_deref(), Ok("/v1/topics/t/messages?persistent=false"));
        assert!(path("t").is_err());
    }

    #[test]
    fn answers_are_read_one_after_another_when_they_are_whole() {
        let two = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 503 Busy\r\n\r\n";
        for cut in 0..two.len() {
            let found = answer(&two[..cut]);
            assert_eq!(found, Ok((cut >= 45).then_some(Answer { status: 201, bytes: 45 })), "{cut}");
        }
        assert_eq!(answer(&two[45..]), Ok(Some(Answer { status: 503, bytes: two.len() - 45 })));
        assert!(answer(b"hello\r\n\r\n").is_err());
        assert!(answer(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
