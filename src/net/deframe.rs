//! WebSocket frames (RFC 6455 §5) to a byte stream and back.
//!
//! The stream is what matters: a message may hold part of a protocol's frame or several, so payload is passed on as it
//! arrives, unmasked in place in the reader's own buffer, and no message is ever assembled. Text is not checked for
//! UTF-8, because the bytes go to a decoder that has its own opinion. Extensions are not negotiated.

/// Largest payload of one control frame (§5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// Longest frame head: two bytes, eight of length, four of mask.
const HEAD_BYTES_MAX: usize = 14;

/// The peer's normal farewell (§7.4.1).
pub(crate) const CLOSE_NORMAL: u16 = 1000;
/// The server goes away.
pub(crate) const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_PROTOCOL_ERROR: u16 = 1002;
/// The peer broke the rules of the protocol inside.
pub(crate) const CLOSE_POLICY: u16 = 1008;
const CLOSE_UNSUPPORTED: u16 = 1003;
const CLOSE_TOO_BIG: u16 = 1009;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The peer broke the WebSocket protocol: close with this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadFrame {
    /// The close code for the peer.
    pub(crate) code: u16,
    /// What was wrong.
    pub(crate) reason: &'static str,
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

/// Where the reader is between two reads.
#[derive(Debug)]
pub(crate) struct Deframer {
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    /// Inside a frame's payload.
    in_payload: bool,
    opcode: u8,
    fin: bool,
    /// A fragmented message is open.
    message_open: bool,
    /// The peer has said close; whatever follows is ignored.
    closed: bool,
    /// Rotated so that its first byte is for the next payload byte.
    mask: [u8; 4],
    payload_left: u64,
    message_bytes: u64,
    message_bytes_max: u64,
    /// Text messages are not accepted.
    binary_only: bool,
    control: Vec<u8>,
}

impl Deframer {
    /// For client frames, with messages of at most `message_bytes_max` bytes.
    pub(crate) fn new(message_bytes_max: u64, binary_only: bool) -> Self {
        Self {
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            in_payload: false,
            opcode: 0,
            fin: false,
            message_open: false,
            closed: false,
            mask: [0; 4],
            payload_left: 0,
            message_bytes: 0,
            message_bytes_max,
            binary_only,
            control: Vec::new(),
        }
    }

    /// Whether the peer has said close.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Turns the wire bytes in `buf` into data bytes at its front and returns how many there are; those stand, also when
    /// a bad frame follows them. Control frames go to `controls` in their order.
    pub(crate) fn feed(
        &mut self,
        buf: &mut [u8],
        controls: &mut Vec<Control>,
    ) -> (usize, Result<(), BadFrame>) {
        let mut data = 0;
        let result = self.walk(buf, &mut data, controls);
        (data, result)
    }

    fn walk(&mut self, buf: &mut [u8], to: &mut usize, controls: &mut Vec<Control>) -> Result<(), BadFrame> {
        let mut from = 0;
        while from < buf.len() && !self.closed {
            if !self.in_payload {
                from += self.take_head(buf.get(from..).unwrap_or_default())?;
                if self.in_payload && self.payload_left == 0 {
                    self.end_frame(controls)?;
                }
                continue;
            }
            let available = buf.len() - from;
            let count = usize::try_from(self.payload_left).map_or(available, |left| left.min(available));
            let payload = buf.get_mut(from..from + count).unwrap_or_default();
            unmask(payload, &mut self.mask);
            if self.opcode >= CLOSE {
                self.control.extend_from_slice(payload);
            } else {
                if *to != from {
                    buf.copy_within(from..from + count, *to);
                }
                *to += count;
            }
            from += count;
            self.payload_left -= count as u64;
            if self.payload_left == 0 {
                self.end_frame(controls)?;
            }
        }
        Ok(())
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
        self.fin = first & 0x80 != 0;
        self.opcode = first & 0x0f;
        if first & 0x70 != 0 {
            return Err(bad("a reserved bit is set, but no extension was agreed on"));
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
            TEXT if self.binary_only => {
                return Err(BadFrame {
                    code: CLOSE_UNSUPPORTED,
                    reason: "this protocol takes binary messages only",
                });
            }
            TEXT | BINARY if self.message_open => return Err(bad("a new message inside a fragmented one")),
            CONTINUATION => {}
            TEXT | BINARY => {
                self.message_open = true;
                self.message_bytes = 0;
            }
            CLOSE | PING | PONG => {
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
            if self.message_bytes > self.message_bytes_max {
                return Err(BadFrame { code: CLOSE_TOO_BIG, reason: "the message is larger than the limit" });
            }
        }
        self.head_len = 0;
        self.in_payload = true;
        Ok(())
    }

    fn end_frame(&mut self, controls: &mut Vec<Control>) -> Result<(), BadFrame> {
        self.in_payload = false;
        if self.opcode < CLOSE {
            self.message_open = !self.fin;
            return Ok(());
        }
        let payload = std::mem::take(&mut self.control);
        controls.push(match self.opcode {
            PING => Control::Ping(payload),
            PONG => Control::Pong,
            _ => {
                self.closed = true;
                Control::Close(close_code(&payload)?)
            }
        });
        Ok(())
    }
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, BadFrame> {
    match payload {
        [] => Ok(None),
        [_] => Err(bad("a close frame holds a code of two bytes or nothing")),
        [high, low, ..] => match u16::from_be_bytes([*high, *low]) {
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

/// Bytes in front of the payload that [`seal`] needs.
pub(crate) const SEAL_BYTES: usize = 4;
/// Largest payload that [`seal`] takes.
pub(crate) const SEALED_BYTES_MAX: usize = 65_535;

/// Writes the head of an unmasked data frame into the end of the [`SEAL_BYTES`] in front of a payload, and returns
/// where the frame starts.
pub(crate) fn seal(frame: &mut [u8], text: bool) -> usize {
    let length = frame.len().saturating_sub(SEAL_BYTES).min(SEALED_BYTES_MAX);
    let first = 0x80 | if text { TEXT } else { BINARY };
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let (head, start) =
        if length <= CONTROL_BYTES_MAX { ([0, 0, first, low], 2) } else { ([first, 126, high, low], 0) };
    if let Some(place) = frame.first_chunk_mut::<SEAL_BYTES>() {
        *place = head;
    }
    start
}

/// Appends a ping.
pub(crate) fn ping(out: &mut Vec<u8>) {
    control(PING, &[], out);
}

/// Appends the answer to a ping.
pub(crate) fn pong(payload: &[u8], out: &mut Vec<u8>) {
    control(PONG, payload, out);
}

/// Appends a farewell.
pub(crate) fn close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.get(..reason.len().min(100)).unwrap_or_default().as_bytes());
    control(CLOSE, &payload, out);
}

fn control(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    let payload = payload.get(..payload.len().min(CONTROL_BYTES_MAX)).unwrap_or_default();
    out.extend_from_slice(&[0x80 | opcode, u8::try_from(payload.len()).unwrap_or(0)]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

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
        let mut deframer = Deframer::new(1 << 20, false);
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
        let mut deframer = Deframer::new(10, false);
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
        let (count, result) = Deframer::new(100, false).feed(&mut wire, &mut Vec::new());
        assert_eq!((&wire[..count], result.unwrap_err().code), (&b"good"[..], CLOSE_PROTOCOL_ERROR));
    }

    #[test]
    fn a_sealed_frame_has_the_shortest_head() {
        for (length, start) in [(0usize, 2), (125, 2), (126, 0), (65_535, 0)] {
            let mut frame = vec![b'x'; SEAL_BYTES + length];
            assert_eq!(seal(&mut frame, true), start, "{length}");
            let head = &frame[start..SEAL_BYTES];
            let expected: Vec<u8> = if length < 126 {
                vec![0x81, length as u8]
            } else {
                [&[0x81, 126][..], &(length as u16).to_be_bytes()].concat()
            };
            assert_eq!(head, expected);
        }
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
