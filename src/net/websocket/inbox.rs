//! The way in where payload cannot be handed on in the buffer that it came in: a compressed message may hold more than
//! the reader has room for, and who wants whole messages must be told where one ends.

use std::ops::Range;

use super::deflate::Inflater;
use super::deframe::{BadFrame, Control, Deframer, Step};

/// Why [`Inbox::pull`] stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// Everything that was there has been handed on.
    More,
    /// There is no room for more.
    Full,
    /// A message ends here.
    End,
}

/// Bytes of the wire that have not been handed on. Between messages it holds nothing.
#[derive(Debug)]
pub(crate) struct Inbox {
    wire: Vec<u8>,
    /// How far the deframer is in it.
    at: usize,
    /// Payload that has not been handed on.
    data: Range<usize>,
    inflater: Option<Inflater>,
    /// Bytes that the message at hand has inflated to.
    inflated: u64,
    /// The compressed message at hand is whole, and its last bytes are coming out.
    ending: bool,
    tells_ends: bool,
}

impl Inbox {
    /// One that stops at the end of each message, if `tells_ends`.
    pub(crate) fn new(tells_ends: bool) -> Self {
        Self { wire: Vec::new(), at: 0, data: 0..0, inflater: None, inflated: 0, ending: false, tells_ends }
    }

    /// Whether nothing is kept.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.wire.capacity() == 0 && self.inflater.is_none()
    }

    /// Takes bytes of the wire, when those before have been used up.
    pub(crate) fn fill(&mut self, wire: &[u8]) {
        self.wire = wire.to_vec();
        self.at = 0;
        self.data = 0..0;
    }

    /// Hands payload on into the front of `out`: how much, and why no more. What was handed on stands, also before an error.
    pub(crate) fn pull(
        &mut self,
        deframer: &mut Deframer,
        out: &mut [u8],
        controls: &mut Vec<Control>,
    ) -> (usize, Result<Pulled, BadFrame>) {
        let mut put = 0;
        let result = self.walk(deframer, out, &mut put, controls);
        (put, result)
    }

    fn walk(
        &mut self,
        deframer: &mut Deframer,
        out: &mut [u8],
        put: &mut usize,
        controls: &mut Vec<Control>,
    ) -> Result<Pulled, BadFrame> {
        loop {
            let room = out.get_mut(*put..).unwrap_or_default();
            if room.is_empty() {
                return Ok(Pulled::Full);
            }
            if self.ending || (!self.data.is_empty() && deframer.is_compressed()) {
                let count = self.inflate(room)?;
                let whole = self.ending && count < room.len();
                self.inflated += count as u64;
                if self.inflated > deframer.rules().message_bytes_max {
                    return Err(BadFrame::TOO_BIG);
                }
                deframer.check(room.get(..count).unwrap_or_default())?;
                *put += count;
                if whole {
                    self.ending = false;
                    self.inflater = None;
                    self.inflated = 0;
                    deframer.check_end()?;
                    if self.tells_ends {
                        return Ok(Pulled::End);
                    }
                }
                continue;
            }
            if !self.data.is_empty() {
                let count = room.len().min(self.data.len());
                let from = self.wire.get(self.data.start..self.data.start + count).unwrap_or_default();
                room.get_mut(..count).unwrap_or_default().copy_from_slice(from);
                self.data.start += count;
                *put += count;
                continue;
            }
            match deframer.step(&mut self.wire, &mut self.at)? {
                Step::Nothing => {
                    self.wire = Vec::new();
                    self.at = 0;
                    return Ok(Pulled::More);
                }
                Step::Data(range) => self.data = range,
                Step::End if deframer.is_compressed() => self.ending = true,
                Step::End if self.tells_ends => return Ok(Pulled::End),
                Step::End => {}
                Step::Control(control) => controls.push(control),
            }
        }
    }

    /// Inflates payload, or the end of the message, into `out`: how much.
    fn inflate(&mut self, out: &mut [u8]) -> Result<usize, BadFrame> {
        let inflater = self.inflater.get_or_insert_with(Inflater::new);
        if self.ending {
            return inflater.finish(out).map_err(|_| BadFrame::GARBLED);
        }
        let input = self.wire.get(self.data.clone()).unwrap_or_default();
        let (taken, put) = inflater.inflate(input, out).map_err(|_| BadFrame::GARBLED)?;
        self.data.start += taken;
        Ok(put)
    }
}
