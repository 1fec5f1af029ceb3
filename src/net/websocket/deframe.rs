//! WebSocket frames (RFC 6455 §5) out of bytes.
//!
//! The stream is what matters: a message may hold part of a protocol's frame or several, so payload is passed on as it
//! arrives, unmasked in place in the reader's own buffer, and no message is ever assembled. Text is checked for UTF-8 as
//! it passes. What a compressed message holds is `deflate`'s to find out; here is only the bit that says it is one.

use std::ops::Range;

use super::utf8::Utf8;

/// Largest payload of one control frame (§5.5).
pub(super) const CONTROL_BYTES_MAX: usize = 125;
/// Longest frame head: two bytes, eight of length, four of mask.
const HEAD_BYTES_MAX: usize = 14;

/// The peer's normal farewell (§7.4.1).
pub(crate) const CLOSE_NORMAL: u16 = 1000;
/// The server goes away.
pub(crate) const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_PROTOCOL_ERROR: u16 = 1002;
const CLOSE_UNSUPPORTED: u16 = 1003;
const CLOSE_NOT_TEXT: u16 = 1007;
/// The peer broke the rules of the protocol inside.
pub(crate) const CLOSE_POLICY: u16 = 1008;
const CLOSE_TOO_BIG: u16 = 1009;

pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// Says that the frame is its message's last.
pub(super) const FIN: u8 = 0x80;
/// Says, on a message's first frame, that the message is compressed (RFC 7692 §6).
pub(super) const COMPRESSED: u8 = 0x40;

/// The peer broke the WebSocket protocol: close with this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadFrame {
    /// The close code for the peer.
    pub(crate) code: u16,
    /// What was wrong.
    pub(crate) reason: &'static str,
}

impl BadFrame {
    pub(crate) const TOO_BIG: Self =
        Self { code: CLOSE_TOO_BIG, reason: "the message is larger than the limit" };
    pub(crate) const GARBLED: Self =
        Self { code: CLOSE_NOT_TEXT, reason: "a compressed message cannot be read" };
    const NOT_TEXT: Self = Self { code: CLOSE_NOT_TEXT, reason: "a text message is not UTF-8" };
}

fn bad(reason: &'static str) -> BadFrame {
    BadFrame { code: CLOSE_PROTOCOL_ERROR, reason }
}

/// A control frame that came whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Answer with a pong of this payload.
    Ping(Vec<u8>),
    /// An answer to our ping.
    Pong,
    /// The peer leaves, with this code if it names one.
    Close(Option<u16>),
}

/// What the peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Largest message, in bytes, its fragments taken together.
    pub(crate) message_bytes_max: u64,
    /// Text messages are not accepted.
    pub(crate) binary_only: bool,
    /// Messages may be compressed: it was agreed on.
    pub(crate) deflate: bool,
}

/// What one step through the bytes of the wire has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The bytes are used up.
    Nothing,
    /// Payload of the message that is coming in: where it lies, unmasked.
    Data(Range<usize>),
    /// The message is whole.
    End,
    /// A frame between the messages' own.
    Control(Control),
}

/// Where the reader is between two reads.
#[derive(Clone, Debug)]
pub(crate) struct Deframer {
    rules: Rules,
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    /// Inside a frame's payload, or at its end.
    in_payload: bool,
    opcode: u8,
    fin: bool,
    /// A fragmented message is open.
    message_open: bool,
    /// The message that is open, or was last, is text.
    text: bool,
    compressed: bool,
    /// The peer has said close; whatever follows is ignored.
    closed: bool,
    /// Rotated so that its first byte is for the next payload byte.
    mask: [u8; 4],
    payload_left: u64,
    message_bytes: u64,
    utf8: Utf8,
    control: Vec<u8>,
}

impl Deframer {
    /// For client frames.
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            in_payload: false,
            opcode: 0,
            fin: false,
            message_open: false,
            text: false,
            compressed: false,
            closed: false,
            mask: [0; 4],
            payload_left: 0,
            message_bytes: 0,
            utf8: Utf8::default(),
            control: Vec::new(),
        }
    }

    pub(crate) fn rules(&self) -> Rules {
        self.rules
    }

    /// Whether the peer has said close.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the message that is coming in, or came last, is text.
    pub(crate) fn is_text(&self) -> bool {
        self.text
    }

    /// Whether it is compressed: then its text is not checked here.
    pub(crate) fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// Turns the wire bytes in `buf` into data bytes at its front and returns how many there are; those stand, also when
    /// a bad frame follows them. Control frames go to `controls` in their order. For connections without compression.
    pub(crate) fn feed(
        &mut self,
        buf: &mut [u8],
        controls: &mut Vec<Control>,
    ) -> (usize, Result<(), BadFrame>) {
        let (mut from, mut to) = (0, 0);
        loop {
            match self.step(buf, &mut from) {
                Ok(Step::Nothing) => return (to, Ok(())),
                Ok(Step::Data(range)) => {
                    let count = range.len();
                    if to != range.start {
                        buf.copy_within(range, to);
                    }
                    to += count;
                }
                Ok(Step::End) => {}
                Ok(Step::Control(control)) => controls.push(control),
                Err(bad) => return (to, Err(bad)),
            }
        }
    }

    /// Goes on through `wire` from `at`, which is moved to behind what has been looked at.
    ///
    /// # Errors
    /// A frame that must not be; there is no way to go on.
    pub(crate) fn step(&mut self, wire: &mut [u8], at: &mut usize) -> Result<Step, BadFrame> {
        loop {
            if self.closed {
                *at = wire.len();
                return Ok(Step::Nothing);
            }
            if self.in_payload && self.payload_left == 0 {
                if let Some(step) = self.end_frame()? {
                    return Ok(step);
                }
                continue;
            }
            let Some(available) = wire.len().checked_sub(*at).filter(|available| *available > 0) else {
                return Ok(Step::Nothing);
            };
            if !self.in_payload {
                *at += self.take_head(wire.get(*at..).unwrap_or_default())?;
                continue;
            }
            let count = usize::try_from(self.payload_left).map_or(available, |left| left.min(available));
            let range = *at..*at + count;
            let payload = wire.get_mut(range.clone()).unwrap_or_default();
            unmask(payload, &mut self.mask);
            *at += count;
            self.payload_left -= count as u64;
            if self.opcode >= CLOSE {
                self.control.extend_from_slice(payload);
                continue;
            }
            if self.text && !self.compressed && !self.utf8.take(payload) {
                return Err(BadFrame::NOT_TEXT);
            }
            return Ok(Step::Data(range));
        }
    }

    /// Checks bytes that a compressed message held.
    ///
    /// # Errors
    /// They are to be text, and are not.
    pub(crate) fn check(&mut self, bytes: &[u8]) -> Result<(), BadFrame> {
        if self.text && !self.utf8.take(bytes) { Err(BadFrame::NOT_TEXT) } else { Ok(()) }
    }

    /// Checks that a message, which is whole now, does not end inside of a character.
    ///
    /// # Errors
    /// It does.
    pub(crate) fn check_end(&mut self) -> Result<(), BadFrame> {
        if self.text && !self.utf8.end() { Err(BadFrame::NOT_TEXT) } else { Ok(()) }
    }

    /// Collects a frame's head from the front of `bytes`; returns how many it took.
    fn take_head(&mut self, bytes: &[u8]) -> Result<usize, BadFrame> {
        let mut taken = 0;
        for &byte in bytes {
            if let Some(slot) = self.head.get_mut(usize::from(self.head_len)) {
                *slot = byte;
            }
            self.head_len += 1;
            taken += 1;
            if self.head_len >= 2 && usize::from(self.head_len) == self.head_needed() {
                self.begin_frame()?;
                break;
            }
        }
        Ok(taken)
    }

    fn head_needed(&self) -> usize {
        let [_, second, ..] = self.head;
        let mask = if second & 0x80 != 0 { 4 } else { 0 };
        mask + match second & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn begin_frame(&mut self) -> Result<(), BadFrame> {
        let [first, second, a, b, c, d, e, f, g, h, ..] = self.head;
        self.fin = first & FIN != 0;
        self.opcode = first & 0x0f;
        let compressed = first & COMPRESSED != 0;
        if first & 0x30 != 0 || (compressed && !self.rules.deflate) {
            return Err(bad("a reserved bit is set that was not agreed on"));
        }
        if second & 0x80 == 0 {
            return Err(bad("a frame from a client must be masked"));
        }
        self.payload_left = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([a, b])),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            length => u64::from(length),
        };
        if self.payload_left > i64::MAX as u64 {
            return Err(bad("the top bit of a frame's length must be zero"));
        }
        let mask_at = self.head_needed() - 4;
        if let Some(mask) = self.head.get(mask_at..).and_then(|rest| rest.first_chunk()) {
            self.mask = *mask;
        }
        match self.opcode {
            CONTINUATION if !self.message_open => return Err(bad("a continuation without a message")),
            TEXT if self.rules.binary_only => {
                return Err(BadFrame {
                    code: CLOSE_UNSUPPORTED,
                    reason: "this protocol takes binary messages only",
                });
            }
            TEXT | BINARY if self.message_open => return Err(bad("a new message inside a fragmented one")),
            CONTINUATION if compressed => {
                return Err(bad("only the first frame of a message says that it is compressed"));
            }
            CONTINUATION => {}
            TEXT | BINARY => {
                self.message_open = true;
                self.message_bytes = 0;
                self.text = self.opcode == TEXT;
                self.compressed = compressed;
                self.utf8 = Utf8::default();
            }
            CLOSE | PING | PONG => {
                if compressed {
                    return Err(bad("a control frame is never compressed"));
                }
                if !self.fin {
                    return Err(bad("a control frame must not be fragmented"));
                }
                if self.payload_left > CONTROL_BYTES_MAX as u64 {
                    return Err(bad("a control frame holds at most 125 bytes"));
                }
            }
            _ => return Err(bad("an unknown kind of frame")),
        }
        if self.opcode < CLOSE {
            self.message_bytes = self.message_bytes.saturating_add(self.payload_left);
            if self.message_bytes > self.rules.message_bytes_max {
                return Err(BadFrame::TOO_BIG);
            }
        }
        self.head_len = 0;
        self.in_payload = true;
        Ok(())
    }

    fn end_frame(&mut self) -> Result<Option<Step>, BadFrame> {
        self.in_payload = false;
        if self.opcode < CLOSE {
            self.message_open = !self.fin;
            if !self.fin {
                return Ok(None);
            }
            if !self.compressed {
                self.check_end()?;
            }
            return Ok(Some(Step::End));
        }
        let payload = std::mem::take(&mut self.control);
        Ok(Some(Step::Control(match self.opcode {
            PING => Control::Ping(payload),
            PONG => Control::Pong,
            _ => {
                self.closed = true;
                Control::Close(close_code(&payload)?)
            }
        })))
    }
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, BadFrame> {
    match payload {
        [] => Ok(None),
        [_] => Err(bad("a close frame holds a code of two bytes or nothing")),
        [high, low, reason @ ..] => match u16::from_be_bytes([*high, *low]) {
            // §5.5.1: the reason is text.
            _ if std::str::from_utf8(reason).is_err() => Err(BadFrame::NOT_TEXT),
            // §7.4: 1004 to 1006 and 1015 are never sent; 3000 to 4999 are for libraries and applications.
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(Some(code)),
            _ => Err(bad("a close code that must not be sent")),
        },
    }
}

/// Unmasks `payload` and rotates `mask` for what follows.
fn unmask(payload: &mut [u8], mask: &mut [u8; 4]) {
    let [a, b, c, d] = *mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        if let Some(bytes) = word.first_chunk_mut::<8>() {
            *bytes = (u64::from_ne_bytes(*bytes) ^ wide).to_ne_bytes();
        }
    }
    let rest = words.into_remainder();
    for (byte, key) in rest.iter_mut().zip([a, b, c, d].into_iter().cycle()) {
        *byte ^= key;
    }
    // Whole words leave the mask as it is.
    mask.rotate_left(rest.len() % 4);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn rules(message_bytes_max: u64) -> Rules {
        Rules { message_bytes_max, binary_only: false, deflate: false }
    }

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut out = vec![first];
        match payload.len() {
            0..=125 => out.push(0x80 | payload.len() as u8),
            126..=65_535 => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            }
            _ => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    fn conversation() -> (Vec<u8>, Vec<u8>, Vec<Control>) {
        let long: Vec<u8> = (0..70_000u32).map(|n| (n % 251) as u8).collect();
        let medium: Vec<u8> = (0..300u32).map(|n| (n % 13) as u8).collect();
        let mut wire = frame(0x81, b"CONNECT\n\n\0");
        wire.extend(frame(0x01, b"SE"));
        wire.extend(frame(0x89, b"are you there?"));
        wire.extend(frame(0x00, b""));
        wire.extend(frame(0x80, b"ND\n\n"));
        wire.extend(frame(0x82, &medium));
        wire.extend(frame(0x8a, b""));
        wire.extend(frame(0x82, b""));
        wire.extend(frame(0x82, &long));
        wire.extend(frame(0x88, &[0x03, 0xe8, b'b', b'y', b'e']));
        wire.extend(b"whatever follows a close");
        let mut data = b"CONNECT\n\n\0SEND\n\n".to_vec();
        data.extend(medium);
        data.extend(long);
        let controls =
            vec![Control::Ping(b"are you there?".to_vec()), Control::Pong, Control::Close(Some(1000))];
        (wire, data, controls)
    }

    fn deframe(parts: &[&[u8]]) -> Result<(Vec<u8>, Vec<Control>), BadFrame> {
        let mut deframer = Deframer::new(rules(1 << 20));
        let (mut data, mut controls) = (Vec::new(), Vec::new());
        for part in parts {
            let mut buf = part.to_vec();
            let (count, result) = deframer.feed(&mut buf, &mut controls);
            data.extend_from_slice(&buf[..count]);
            result?;
        }
        Ok((data, controls))
    }

    #[test]
    fn a_split_at_every_byte_changes_nothing() {
        let (wire, data, controls) = conversation();
        // Every split through the small frames and the heads of the large ones, and some inside the large payload.
        let splits = (0..800).chain((800..wire.len()).step_by(997)).chain(wire.len() - 60..wire.len());
        for at in splits {
            let (left, right) = wire.split_at(at);
            let got = deframe(&[left, right]).unwrap();
            assert_eq!(got, (data.clone(), controls.clone()), "split at {at}");
        }
    }

    #[test]
    fn one_byte_at_a_time_changes_nothing() {
        let (wire, data, controls) = conversation();
        let parts: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(deframe(&parts).unwrap(), (data, controls));
    }

    #[test]
    fn what_the_protocol_forbids_is_refused_with_its_code() {
        let unmasked = [0x81, 0x01, b'x'].to_vec();
        let reserved = frame(0xc1, b"x");
        let unknown = frame(0x83, b"x");
        let stray = frame(0x80, b"x");
        let nested = [frame(0x01, b"a"), frame(0x81, b"b")].concat();
        let split_ping = frame(0x09, b"x");
        let long_ping = frame(0x89, &[0; 126]);
        let short_close = frame(0x88, &[3]);
        let bad_close = frame(0x88, &1005u16.to_be_bytes());
        let negative = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4].to_vec();
        for wire in [
            unmasked,
            reserved,
            unknown,
            stray,
            nested,
            split_ping,
            long_ping,
            short_close,
            bad_close,
            negative,
        ] {
            assert_eq!(deframe(&[&wire]).unwrap_err().code, CLOSE_PROTOCOL_ERROR, "{wire:x?}");
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_its_payload_is_read_fragments_together() {
        let mut deframer = Deframer::new(rules(10));
        let mut controls = Vec::new();
        let mut first = frame(0x02, b"123456");
        assert_eq!(deframer.feed(&mut first, &mut controls), (6, Ok(())));
        let mut head_only = frame(0x80, b"78901");
        head_only.truncate(6);
        assert_eq!(deframer.feed(&mut head_only, &mut controls).1.unwrap_err().code, CLOSE_TOO_BIG);
    }

    #[test]
    fn data_before_a_bad_frame_stands() {
        let mut wire = [frame(0x82, b"good"), frame(0xc1, b"bad")].concat();
        let (count, result) = Deframer::new(rules(100)).feed(&mut wire, &mut Vec::new());
        assert_eq!((&wire[..count], result.unwrap_err().code), (&b"good"[..], CLOSE_PROTOCOL_ERROR));
    }

    #[test]
    fn unmasking_in_pieces_is_unmasking_at_once() {
        let mask = [1, 2, 3, 4];
        let bytes: Vec<u8> = (0..100).collect();
        let mut whole = bytes.clone();
        unmask(&mut whole, &mut mask.clone());
        for at in 0..bytes.len() {
            let mut pieces = bytes.clone();
            let mut rotating = mask;
            let (left, right) = pieces.split_at_mut(at);
            unmask(left, &mut rotating);
            unmask(right, &mut rotating);
            assert_eq!(pieces, whole, "split at {at}");
        }
    }
}
