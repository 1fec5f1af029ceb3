//! The protocols as the engine sees them: a [`Dialect`] opens connections and knows what destinations are called, a
//! [`Speaker`] is what a connection has to remember, a [`Letter`] a message that is ready but for its stamp.

pub(crate) mod http;
pub(crate) mod mqtt;
pub(crate) mod stomp;

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::link::{Link, Scratch};
use crate::stamp::Source;

/// Which of a measurement's destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// The one that everybody uses.
    Main,
    /// That of a pair.
    Pair(usize),
    /// Where somebody waits for answers.
    Reply(usize),
    /// One of very many, each in a level of its own.
    Leaf(usize),
}

impl Spot {
    /// Its name, from that of the main one.
    fn name(self, main: &str, separator: char) -> String {
        match self {
            Self::Main => main.to_owned(),
            Self::Pair(index) => format!("{main}{separator}{index}"),
            Self::Reply(index) => format!("{main}{separator}reply{separator}{index}"),
            Self::Leaf(index) => format!("{main}{separator}{index}{separator}leaf"),
        }
    }
}

/// What a connection is for. It is part of client ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Sender,
    Receiver,
    /// It only is there.
    Idle,
}

/// How to open a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) role: Role,
    /// Which one of its role.
    pub(crate) index: usize,
    /// Messages that it may have unacknowledged, as a sender.
    pub(crate) in_flight_max: u16,
    /// Where it comes from, if that matters.
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) patience: Duration,
}

/// Gets what a connection has read.
pub(crate) trait Sink {
    /// A message; `again` if it says that it may have come before.
    fn message(&mut self, body: &[u8], again: bool);
    /// The broker has taken `count` messages from number `first` on.
    fn acknowledged(&mut self, first: u64, count: u64);
}

/// A protocol and all that is settled about how to speak it.
#[derive(Clone, Debug)]
pub(crate) enum Dialect {
    Mqtt(mqtt::Options),
    Stomp(stomp::Options),
    Http(http::Options),
}

/// What one connection remembers.
pub(crate) enum Speaker {
    Mqtt(mqtt::Speaker),
    Stomp(stomp::Speaker),
    Http(http::Speaker),
}

/// A message to one destination, ready but for its stamp.
pub(crate) enum Letter {
    Mqtt(mqtt::Letter),
    Stomp(stomp::Letter),
    Http(http::Letter),
}

impl Dialect {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Mqtt(_) => "mqtt",
            Self::Stomp(_) => "stomp",
            Self::Http(_) => "http",
        }
    }

    /// Whether the receivers of a destination share its messages without being told to.
    pub(crate) fn shares(&self) -> bool {
        match self {
            Self::Mqtt(_) => false,
            Self::Stomp(options) => options.destination.starts_with("/queue/"),
            Self::Http(options) => options.destination.starts_with("/queue/"),
        }
    }

    /// Whether the broker acknowledges what it is sent.
    pub(crate) fn acknowledges(&self) -> bool {
        match self {
            Self::Mqtt(options) => options.qos != sabir_mqtt::Qos::AtMostOnce,
            Self::Stomp(options) => options.receipts,
            Self::Http(_) => true,
        }
    }

    /// Messages that go together, whatever the size of a write.
    pub(crate) fn unit(&self) -> u64 {
        match self {
            Self::Mqtt(_) => 1,
            Self::Stomp(options) => options.transaction.max(1).into(),
            Self::Http(options) => options.per_request.into(),
        }
    }

    /// Connects and is let in. Reads still block.
    pub(crate) fn open(&self, scratch: &mut Scratch, opening: &Opening) -> Result<(Link, Speaker), String> {
        match self {
            Self::Mqtt(options) => {
                let (link, speaker) = options.open(scratch, opening)?;
                Ok((link, Speaker::Mqtt(speaker)))
            }
            Self::Stomp(options) => {
                let (link, speaker) = options.open(scratch, opening)?;
                Ok((link, Speaker::Stomp(speaker)))
            }
            Self::Http(options) => Ok((options.open(opening)?, Speaker::Http(http::Speaker::default()))),
        }
    }

    /// Subscribes, sharing with others if `shared`, and waits for the answer.
    pub(crate) fn subscribe(
        &self,
        link: &mut Link,
        scratch: &mut Scratch,
        spot: Spot,
        shared: bool,
        patience: Duration,
    ) -> Result<(), String> {
        match self {
            Self::Mqtt(options) => options.subscribe(link, scratch, spot, shared, patience),
            Self::Stomp(options) => options.subscribe(link, scratch, spot, patience),
            Self::Http(_) => Err("nothing is received over HTTP here: let another protocol receive".into()),
        }
    }

    /// Asks for what waits there already, and does not wait for an answer: messages may come before it.
    pub(crate) fn resume(&self, link: &mut Link) -> Result<(), String> {
        match self {
            // The session knows what it is subscribed to.
            Self::Mqtt(_) => Ok(()),
            Self::Stomp(options) => options.subscribe_soon(link),
            Self::Http(_) => Err("nothing is received over HTTP here".into()),
        }
    }

    pub(crate) fn letter(&self, spot: Spot, source: Source) -> Result<Letter, String> {
        match self {
            Self::Mqtt(options) => options.letter(spot, source).map(Letter::Mqtt),
            Self::Stomp(options) => Ok(Letter::Stomp(options.letter(spot, source))),
            Self::Http(options) => options.letter(spot, source).map(Letter::Http),
        }
    }

    /// Makes the broker forget what outlives the connections of receivers.
    pub(crate) fn forget(&self, scratch: &mut Scratch, receivers: usize, patience: Duration) {
        if let Self::Mqtt(options) = self {
            options.forget(scratch, receivers, patience);
        }
    }
}

impl Speaker {
    /// Messages that may be sent before the broker acknowledges some.
    pub(crate) fn room(&self) -> u64 {
        match self {
            Self::Mqtt(speaker) => speaker.room(),
            Self::Stomp(_) | Self::Http(_) => u64::MAX,
        }
    }

    /// The same, if nothing has been sent.
    pub(crate) fn room_max(&self) -> u64 {
        match self {
            Self::Mqtt(speaker) => speaker.room_max(),
            Self::Stomp(_) | Self::Http(_) => u64::MAX,
        }
    }

    /// Appends `count` messages from number `first` on to what the link is to write; `time` says what is stamped on each.
    pub(crate) fn send(
        &mut self,
        link: &mut Link,
        letter: &mut Letter,
        first: u64,
        count: u64,
        time: impl Fn(u64) -> u64,
    ) -> Result<(), String> {
        match (self, letter) {
            (Self::Mqtt(speaker), Letter::Mqtt(letter)) => speaker.send(link, letter, first, count, time),
            (Self::Stomp(_), Letter::Stomp(letter)) => {
                letter.send(link, first, count, time);
                Ok(())
            }
            (Self::Http(speaker), Letter::Http(letter)) => {
                speaker.send(link, letter, first, count, time);
                Ok(())
            }
            _ => Err("a letter of one protocol on a connection of another".into()),
        }
    }

    /// Takes all that is whole from `input` and appends the answers to what the link is to write. Says how many bytes it
    /// has taken.
    pub(crate) fn receive(
        &mut self,
        link: &mut Link,
        input: &[u8],
        sink: &mut impl Sink,
    ) -> Result<usize, String> {
        match self {
            Self::Mqtt(speaker) => speaker.receive(link, input, sink),
            Self::Stomp(speaker) => speaker.receive(link, input, sink),
            Self::Http(speaker) => speaker.receive(input, sink),
        }
    }

    /// Appends a goodbye.
    pub(crate) fn leave(&self, link: &mut Link) {
        match self {
            Self::Mqtt(speaker) => speaker.leave(link),
            Self::Stomp(_) => stomp::leave(link),
            Self::Http(_) => {}
        }
    }
}
