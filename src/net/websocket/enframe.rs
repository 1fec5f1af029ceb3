//! The WebSocket frames that a server writes (RFC 6455 §5): unmasked, with the shortest head.

use super::deframe::{BINARY, CLOSE, COMPRESSED, CONTINUATION, CONTROL_BYTES_MAX, FIN, PING, PONG, TEXT};

/// What a frame of ours says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// It begins a message: text or binary. Otherwise it goes on with one.
    pub(crate) begins: Option<Payload>,
    /// It ends its message.
    pub(crate) ends: bool,
    /// Its message is compressed; said by the first frame only.
    pub(crate) compressed: bool,
}

/// What a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Text,
    Binary,
}

impl Payload {
    /// Text if it is.
    pub(crate) fn text_if(text: bool) -> Self {
        if text { Self::Text } else { Self::Binary }
    }
}

impl Frame {
    /// A message in one frame.
    pub(crate) fn whole(payload: Payload) -> Self {
        Self { begins: Some(payload), ends: true, compressed: false }
    }

    fn first_byte(self) -> u8 {
        let opcode = match self.begins {
            None => CONTINUATION,
            Some(Payload::Text) => TEXT,
            Some(Payload::Binary) => BINARY,
        };
        let fin = if self.ends { FIN } else { 0 };
        let compressed = if self.compressed { COMPRESSED } else { 0 };
        opcode | fin | compressed
    }
}

/// Bytes in front of the payload that [`seal`] needs.
pub(crate) const SEAL_BYTES: usize = 4;
/// Largest payload that [`seal`] takes.
pub(crate) const SEALED_BYTES_MAX: usize = 65_535;

/// Writes the head of an unmasked data frame into the end of the [`SEAL_BYTES`] in front of a payload, and returns
/// where the frame starts.
pub(crate) fn seal(frame: &mut [u8], kind: Frame) -> usize {
    let length = frame.len().saturating_sub(SEAL_BYTES).min(SEALED_BYTES_MAX);
    let first = kind.first_byte();
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let (head, start) =
        if length <= CONTROL_BYTES_MAX { ([0, 0, first, low], 2) } else { ([first, 126, high, low], 0) };
    if let Some(place) = frame.first_chunk_mut::<SEAL_BYTES>() {
        *place = head;
    }
    start
}

/// Appends an unmasked data frame of any length.
pub(crate) fn put(kind: Frame, payload: &[u8], out: &mut Vec<u8>) {
    out.push(kind.first_byte());
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..=125), _) => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
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
    use super::*;

    #[test]
    fn a_sealed_frame_has_the_shortest_head() {
        for (length, start) in [(0usize, 2), (125, 2), (126, 0), (65_535, 0)] {
            let mut frame = vec![b'x'; SEAL_BYTES + length];
            assert_eq!(seal(&mut frame, Frame::whole(Payload::Text)), start, "{length}");
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
    fn a_frame_of_any_length_has_the_head_that_its_length_needs() {
        for (length, head) in [
            (0usize, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            put(Frame::whole(Payload::Text), &vec![b'x'; length], &mut out);
            assert_eq!(out.get(..head.len()), Some(head), "{length}");
            assert_eq!(out.len(), head.len() + length);
        }
    }

    #[test]
    fn only_the_first_frame_names_the_kind_and_only_the_last_is_final() {
        let mut out = Vec::new();
        let first = Frame { begins: Some(Payload::Binary), ends: false, compressed: true };
        put(first, b"", &mut out);
        put(Frame { begins: None, ends: false, compressed: false }, b"", &mut out);
        put(Frame { begins: None, ends: true, compressed: false }, b"", &mut out);
        assert_eq!(out, [0x42, 0, 0x00, 0, 0x80, 0]);
    }
}
