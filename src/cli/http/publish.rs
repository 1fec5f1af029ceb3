//! `sabir pub` over HTTP: a request for each message, several on the way at once, and a receipt for each.

use sabir_bench::http::Http;

use super::{Place, Target, failure, open, raw_headers, refused};
use crate::cli::Failure;
use crate::cli::publish::{Arguments, Sender};
use crate::cli::server::Server;

/// Requests on the way without an answer.
const WINDOW: u64 = 64;

pub(in crate::cli) struct HttpSender<'a> {
    http: Http,
    arguments: &'a Arguments,
    target: String,
    out: Vec<u8>,
    /// Requests that have been encoded and not answered.
    pending: u64,
}

impl<'a> HttpSender<'a> {
    pub(in crate::cli) fn open(server: &Server, arguments: &'a Arguments) -> Result<Self, Failure> {
        let places: Vec<Place> =
            arguments.destination.split(',').map(Place::read).collect::<Result<_, _>>()?;
        let mut target = match places.as_slice() {
            [place] => Target::new(&format!("{}/messages", place.path()), &arguments.server),
            several => {
                let mut target = Target::new("/v1/messages", &arguments.server);
                let uris: Vec<String> = several.iter().map(Place::uri).collect();
                target.add("destination", &uris.join(","));
                target
            }
        };
        target.add("raw", "true");
        if arguments.retain {
            target.add("retained", "true");
        }
        let http = open(server, &arguments.server)?;
        Ok(Self { http, arguments, target: target.text, out: Vec::new(), pending: 0 })
    }

    /// Waits until no more than `left` requests are unanswered.
    fn wait_for(&mut self, left: u64) -> Result<(), Failure> {
        while self.pending > left {
            let reply = self.http.receive().map_err(|error| match failure(error) {
                Failure::TimedOut(_) => Failure::TimedOut(format!("{} receipts did not come", self.pending)),
                other => other,
            })?;
            if reply.status != 201 {
                return Err(refused(&reply));
            }
            self.pending -= 1;
        }
        Ok(())
    }
}

impl Sender for HttpSender<'_> {
    fn send(&mut self, body: &[u8]) -> Result<(), Failure> {
        let Arguments { content_type, headers, .. } = self.arguments;
        let headers = raw_headers(content_type.as_deref(), headers, body)?;
        self.http.encode(&mut self.out, "POST", &self.target, &headers, body);
        self.pending += 1;
        if self.pending >= WINDOW {
            self.write(0)?;
            self.wait_for(WINDOW / 2)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: usize) -> Result<(), Failure> {
        if self.out.len() <= bytes {
            return Ok(());
        }
        let written = self.http.write(&self.out).map_err(failure);
        self.out.clear();
        written
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.write(0)?;
        self.wait_for(0)
    }
}
