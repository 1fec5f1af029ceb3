//! A blocking STOMP connection for the command line: one frame at a time, with deadlines.
#![expect(clippy::disallowed_methods, reason = "a client of the broker: its deadlines are its own")]

use std::time::{Duration, Instant};

use sabir_stomp::client::{self, Connect, Decoder, Version};

use super::link::{CLOSED, Link, broken};
use super::server::Server;
use super::{Failure, ServerArgs};

/// A frame of the server, copied out of the buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) command: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    /// The server's own words in an ERROR.
    fn complaint(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        let sentence = body.lines().find(|line| !line.trim().is_empty()).or_else(|| self.get("message"));
        let sentence = sentence.unwrap_or("an error without words").trim().to_owned();
        match self.get("code") {
            Some(code) if !sentence.contains(code) => format!("the server says: {sentence} [{code}]"),
            _ => format!("the server says: {sentence}"),
        }
    }
}

/// A connection that has been greeted.
pub(super) struct Connection {
    link: Link,
    decoder: Decoder,
    pub(super) version: Version,
    pub(super) timeout: Duration,
    receipts: u64,
}

impl Connection {
    /// Connects and introduces itself.
    pub(super) fn open(server: &Server, args: &ServerArgs, client_id: Option<&str>) -> Result<Self, Failure> {
        for (what, text) in [("client id", client_id), ("virtual host", Some(args.virtual_host.as_str()))] {
            if text.is_some_and(|text| text.contains(['\n', '\r', '\0'])) {
                return Err(Failure::Usage(format!("a {what} cannot hold a line end")));
            }
        }
        let mut connection = Self {
            link: Link::open(server, args.timeout, "v12.stomp", false)?,
            decoder: Decoder::default(),
            version: Version::V12,
            timeout: args.timeout,
            receipts: 0,
        };
        let connect = Connect {
            host: Some(&args.virtual_host),
            login: server.login.as_deref(),
            passcode: server.passcode.as_deref(),
            client_id,
            ..Connect::default()
        };
        client::connect(connection.out(), &connect);
        connection.flush()?;
        let greeting = connection.next(Some(connection.deadline())).map_err(|failure| match failure {
            Failure::Failed(sentence) if sentence == CLOSED => Failure::Failed(format!(
                "{} closes the connection without a greeting; is it STOMP?",
                server.place
            )),
            other => other,
        });
        match greeting? {
            Some(greeting) if greeting.command == "CONNECTED" => {
                let version = greeting.get("version").unwrap_or("1.0");
                connection.version = Version::parse(version)
                    .ok_or_else(|| Failure::Failed(format!("the server speaks STOMP {version}")))?;
                connection.decoder.set_version(connection.version);
                Ok(connection)
            }
            Some(other) => Err(Failure::Failed(format!("the server greets with {}", other.command))),
            None => Err(Failure::TimedOut(format!("{} does not greet", server.place))),
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// The buffer of frames to be written.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        self.link.out()
    }

    /// A receipt's name that is used once.
    pub(super) fn receipt(&mut self) -> String {
        self.receipts += 1;
        format!("r{}", self.receipts)
    }

    /// Writes what is in the buffer. If the server has closed, what it said last is the reason.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        let Some(error) = self.link.write()? else { return Ok(()) };
        loop {
            match self.next(Some(Instant::now() + Duration::from_secs(1))) {
                Ok(Some(_)) => {}
                Ok(None) => return Err(broken(&error)),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Whether a whole frame lies in the buffer, so that [`Connection::next`] will not wait.
    pub(super) fn has_next(&mut self) -> Result<bool, Failure> {
        let decoded = self.decoder.next(self.link.input());
        decoded.map(|decoded| decoded.frame.is_some()).map_err(|refusal| garbled(&refusal))
    }

    /// The next frame, or nothing until the deadline. An ERROR and the end of the connection are failures.
    pub(super) fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Message>, Failure> {
        loop {
            let decoded = self.decoder.next(self.link.input()).map_err(|refusal| garbled(&refusal))?;
            let message = decoded.frame.map(|frame| Message {
                command: frame.command().to_owned(),
                headers: frame
                    .headers()
                    .map(|header| (header.name().into_owned(), header.value().into_owned()))
                    .collect(),
                body: frame.body().to_vec(),
            });
            let consumed = decoded.consumed;
            self.link.consume(consumed);
            match message {
                Some(message) if message.command == "ERROR" => {
                    return Err(Failure::Failed(message.complaint()));
                }
                Some(message) => return Ok(Some(message)),
                None => {
                    if !self.link.fill(deadline)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Says goodbye and waits until the server has done everything it was asked before; other frames are dropped.
    pub(super) fn disconnect(mut self) -> Result<(), Failure> {
        let receipt = self.receipt();
        client::disconnect(self.link.out(), self.version, Some(&receipt));
        self.flush()?;
        let deadline = self.deadline();
        while let Some(message) = self.next(Some(deadline))? {
            if message.command == "RECEIPT" && message.get("receipt-id") == Some(&receipt) {
                return Ok(());
            }
        }
        Err(Failure::TimedOut("the server does not confirm that it did everything".to_owned()))
    }
}

fn garbled(refusal: &sabir_model::error::Refusal) -> Failure {
    Failure::Failed(format!("the server does not speak STOMP: {}", refusal.sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_in_the_servers_words() {
        let mut error = Message {
            command: "ERROR".into(),
            body: b"\nNo such queue.\nmore".to_vec(),
            ..Message::default()
        };
        assert_eq!(error.complaint(), "the server says: No such queue.");
        error.headers.push(("code".into(), "unknown-destination".into()));
        assert_eq!(error.complaint(), "the server says: No such queue. [unknown-destination]");
        error.body.clear();
        error.headers.push(("message".into(), "gone".into()));
        assert_eq!(error.complaint(), "the server says: gone [unknown-destination]");
    }
}
