//! Who sends to whom, in the same words for every protocol.

use std::fmt;
use std::str::FromStr;

/// Most connections of one side.
const SIDE_MAX: u16 = 16_000;

/// What `--topology` can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One sender, one receiver.
    OneToOne,
    /// So many times one to one, each with a destination of its own.
    Pairs(u16),
    /// So many senders, one receiver.
    FanIn(u16),
    /// One sender, so many receivers that each get everything.
    FanOut(u16),
    /// Senders, and receivers that share what is sent.
    Competing(u16, u16),
    /// So many askers, each with one question under way, and one who answers.
    RequestReply(u16),
}

impl FromStr for Topology {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, number) = text.split_once(':').unwrap_or((text, ""));
        let count = |text: &str| match text.parse::<u16>() {
            Ok(count @ 1..=SIDE_MAX) => Ok(count),
            _ => Err(format!("{text:?} is no number from 1 to {SIDE_MAX}")),
        };
        match word {
            "one-to-one" if number.is_empty() => Ok(Self::OneToOne),
            "pairs" => count(number).map(Self::Pairs),
            "fan-in" => count(number).map(Self::FanIn),
            "fan-out" => count(number).map(Self::FanOut),
            "competing" => {
                let (senders, receivers) = number.split_once('x').ok_or("must be competing:PxC")?;
                Ok(Self::Competing(count(senders)?, count(receivers)?))
            }
            "request-reply" => count(number).map(Self::RequestReply),
            _ => {
                Err("must be one-to-one, pairs:N, fan-in:N, fan-out:N, competing:PxC or request-reply:N"
                    .into())
            }
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneToOne => f.write_str("one-to-one"),
            Self::Pairs(n) => write!(f, "pairs:{n}"),
            Self::FanIn(n) => write!(f, "fan-in:{n}"),
            Self::FanOut(n) => write!(f, "fan-out:{n}"),
            Self::Competing(senders, receivers) => write!(f, "competing:{senders}x{receivers}"),
            Self::RequestReply(n) => write!(f, "request-reply:{n}"),
        }
    }
}

/// Who sends to whom, as the engine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Every receiver gets every message.
    Each {
        /// Who sends.
        senders: u16,
        /// Who receives, or nobody.
        receivers: u16,
    },
    /// The receivers share the messages.
    Share {
        /// Who sends.
        senders: u16,
        /// Who receives.
        receivers: u16,
    },
    /// Sender and receiver with a destination of their own.
    Pairs(u16),
    /// Askers, and one who answers.
    Request(u16),
}

impl Topology {
    /// `shares` says whether a destination's receivers share its messages, as a queue's do.
    pub(crate) fn shape(self, shares: bool) -> Result<Shape, String> {
        let plain = |senders, receivers| match shares {
            true => Shape::Share { senders, receivers },
            false => Shape::Each { senders, receivers },
        };
        match self {
            Self::OneToOne => Ok(plain(1, 1)),
            Self::Pairs(n) => Ok(Shape::Pairs(n)),
            Self::FanIn(n) => Ok(plain(n, 1)),
            Self::FanOut(_) if shares => {
                Err("receivers of a queue share its messages: fan-out needs a topic".into())
            }
            Self::FanOut(n) => Ok(Shape::Each { senders: 1, receivers: n }),
            Self::Competing(senders, receivers) => Ok(Shape::Share { senders, receivers }),
            Self::RequestReply(n) => Ok(Shape::Request(n)),
        }
    }
}

impl Shape {
    pub(crate) fn senders(self) -> usize {
        match self {
            Self::Each { senders, .. } | Self::Share { senders, .. } => senders.into(),
            Self::Pairs(count) | Self::Request(count) => count.into(),
        }
    }

    /// Connections that receive, but for those that also ask.
    pub(crate) fn receivers(self) -> usize {
        match self {
            Self::Each { receivers, .. } | Self::Share { receivers, .. } => receivers.into(),
            Self::Pairs(count) => count.into(),
            Self::Request(_) => 1,
        }
    }

    /// How often each message is to arrive.
    pub(crate) fn copies(self) -> u32 {
        match self {
            Self::Each { receivers, .. } => receivers.into(),
            Self::Share { receivers, .. } => receivers.min(1).into(),
            Self::Pairs(_) | Self::Request(_) => 1,
        }
    }

    /// In the words of [`Topology`], for whoever said it by other options.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Each { senders: 1, receivers: 1 } | Self::Share { senders: 1, receivers: 1 } => {
                Topology::OneToOne.to_string()
            }
            Self::Each { senders, receivers: 0 } | Self::Share { senders, receivers: 0 } => {
                format!("send-only:{senders}")
            }
            Self::Each { senders, receivers: 1 } | Self::Share { senders, receivers: 1 } => {
                Topology::FanIn(senders).to_string()
            }
            Self::Each { senders: 1, receivers } => Topology::FanOut(receivers).to_string(),
            Self::Each { senders, receivers } => format!("each:{senders}x{receivers}"),
            Self::Share { senders, receivers } => Topology::Competing(senders, receivers).to_string(),
            Self::Pairs(count) => Topology::Pairs(count).to_string(),
            Self::Request(count) => Topology::RequestReply(count).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for text in ["one-to-one", "pairs:10", "fan-in:50", "fan-out:100", "competing:4x3", "request-reply:7"]
        {
            assert_eq!(text.parse::<Topology>().map(|read| read.to_string()).as_deref(), Ok(text));
        }
        for bad in ["", "pairs", "pairs:0", "pairs:x", "fan-in:99999", "competing:4", "one-to-one:2", "ring"]
        {
            assert!(bad.parse::<Topology>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_queue_shares_and_a_topic_does_not() {
        assert_eq!(Topology::FanIn(3).shape(true), Ok(Shape::Share { senders: 3, receivers: 1 }));
        assert_eq!(Topology::FanOut(3).shape(false), Ok(Shape::Each { senders: 1, receivers: 3 }));
        assert!(Topology::FanOut(3).shape(true).is_err());
        let shape = Topology::Competing(2, 5).shape(false).map(|shape| (shape.copies(), shape.name()));
        assert_eq!(shape, Ok((1, "competing:2x5".to_owned())));
    }
}
