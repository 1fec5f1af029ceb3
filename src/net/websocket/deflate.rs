//! Compressed WebSocket messages: permessage-deflate (RFC 7692).
//!
//! Agreed on without context takeover in both directions: each message is compressed by itself. So a connection keeps
//! nothing between messages, a thread compresses for all of its connections in one place, and an inflater lives from the
//! first byte of a message to its last. What a message inflates to is bounded by whoever reads it.

use std::cell::RefCell;

use miniz_oxide::DataFormat;
use miniz_oxide::deflate::CompressionLevel;
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, TDEFLStatus, compress};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, TINFL_LZ_DICT_SIZE, decompress};

/// Below this a message is not worth the trouble.
pub(crate) const WORTHWHILE_BYTES_MIN: usize = 128;
/// What ends a flush, and is left out on the wire (§7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
const WINDOW_BITS_MIN: u8 = 8;
const WINDOW_BITS_MAX: u8 = 15;

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Our matches reach back less than 2 to this power.
    window_bits: u8,
    /// The peer asked for that and is told so.
    says_window_bits: bool,
}

impl Agreement {
    /// The value of `Sec-WebSocket-Extensions` in our answer.
    pub(crate) fn answer(self) -> String {
        let mut answer =
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned();
        if self.says_window_bits {
            answer.push_str(&format!("; server_max_window_bits={}", self.window_bits));
        }
        answer
    }
}

/// Chooses from the values of `Sec-WebSocket-Extensions`: the first offer that can be kept.
pub(crate) fn negotiate<'a>(offers: impl Iterator<Item = &'a str>) -> Option<Agreement> {
    offers.flat_map(|value| value.split(',')).find_map(accept)
}

/// An offer that can be kept, in which every parameter is known, valid and there once (§5.1, §7.1).
fn accept(offer: &str) -> Option<Agreement> {
    let mut parts = offer.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let mut agreement = Agreement { window_bits: WINDOW_BITS_MAX, says_window_bits: false };
    let mut seen: Vec<&str> = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (part, None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
            // The peer may compress with any window: ours is the largest there is.
            ("client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(value)) => drop(window_bits(value)?),
            ("server_max_window_bits", Some(value)) => {
                agreement = Agreement { window_bits: window_bits(value)?, says_window_bits: true };
            }
            _ => return None,
        }
    }
    Some(agreement)
}

fn window_bits(text: &str) -> Option<u8> {
    let bits: u8 = text.parse().ok()?;
    let plain = !text.starts_with(['0', '+']);
    (plain && (WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&bits)).then_some(bits)
}

thread_local! {
    /// A few hundred KiB, made with the first message that is worth it.
    static COMPRESSOR: RefCell<Option<Box<CompressorOxide>>> = const { RefCell::new(None) };
}

/// Compresses a message; nothing, if that would not make it smaller.
pub(crate) fn deflate(message: &[u8], agreement: Agreement) -> Option<Vec<u8>> {
    COMPRESSOR.with(|place| {
        let mut compressor = place.take().unwrap_or_else(|| {
            Box::new(CompressorOxide::with_format_and_level(DataFormat::Raw, CompressionLevel::BestSpeed))
        });
        compressor.reset();
        let result = deflate_with(&mut compressor, message, agreement);
        place.replace(Some(compressor));
        result
    })
}

fn deflate_with(compressor: &mut CompressorOxide, message: &[u8], agreement: Agreement) -> Option<Vec<u8>> {
    // Room for a result that is worth it, and for the tail; what does not fit is given up.
    let mut out = vec![0; message.len() + TAIL.len()];
    let mut filled = 0;
    // The dictionary is emptied after each window of a peer that wants a smaller one than ours.
    for block in message.chunks(1 << agreement.window_bits) {
        let mut rest = block;
        loop {
            let room = out.get_mut(filled..).unwrap_or_default();
            let most = room.len();
            let (status, taken, written) = compress(compressor, rest, room, TDEFLFlush::Full);
            rest = rest.get(taken..).unwrap_or_default();
            filled += written;
            if status != TDEFLStatus::Okay || written == most {
                return None;
            }
            if rest.is_empty() {
                break;
            }
        }
    }
    out.truncate(filled);
    let length = out.strip_suffix(&TAIL)?.len();
    out.truncate(length);
    (length < message.len()).then_some(out)
}

/// The bytes are no compressed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Garbled;

/// Inflates one message.
pub(crate) struct Inflater {
    state: Box<DecompressorOxide>,
    /// The last of what came out, round and round: what is to come may repeat it. Made for each message, so that nothing
    /// of another connection can show.
    window: Vec<u8>,
    /// Where the next byte goes.
    at: usize,
    /// Bytes before `at` that have not been handed on.
    waiting: usize,
    /// What of the tail has been taken.
    tail: usize,
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Inflater {
    pub(crate) fn new() -> Self {
        Self { state: Box::default(), window: vec![0; TINFL_LZ_DICT_SIZE], at: 0, waiting: 0, tail: 0 }
    }

    /// Inflates from `input` into `out`: how much was taken of the one and put into the other. With room left in `out`, all
    /// of `input` has been taken.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn inflate(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Garbled> {
        let (mut taken, mut put) = (0, 0);
        loop {
            put += self.hand_on(out.get_mut(put..).unwrap_or_default());
            if put == out.len() {
                return Ok((taken, put));
            }
            let rest = input.get(taken..).unwrap_or_default();
            let (status, count, produced) =
                decompress(&mut self.state, rest, &mut self.window, self.at, TINFL_FLAG_HAS_MORE_INPUT);
            taken += count;
            self.at = (self.at + produced) % TINFL_LZ_DICT_SIZE;
            self.waiting = produced;
            match status {
                TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => {}
                // A final block. The peer may go on behind it (§7.2.3.5).
                TINFLStatus::Done => {
                    self.state.init();
                    continue;
                }
                _ => return Err(Garbled),
            }
            if produced == 0 && (taken == input.len() || count == 0) {
                return if taken == input.len() { Ok((taken, put)) } else { Err(Garbled) };
            }
        }
    }

    /// Inflates the end of the message: how much was put into `out`. With room left in it, that is all.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn finish(&mut self, out: &mut [u8]) -> Result<usize, Garbled> {
        let rest = TAIL.get(self.tail..).unwrap_or_default();
        let (taken, put) = self.inflate(rest, out)?;
        self.tail += taken;
        Ok(put)
    }

    fn hand_on(&mut self, out: &mut [u8]) -> usize {
        let mut handed = 0;
        while self.waiting > 0 && handed < out.len() {
            let start = (self.at + TINFL_LZ_DICT_SIZE - self.waiting) % TINFL_LZ_DICT_SIZE;
            let count = self.waiting.min(TINFL_LZ_DICT_SIZE - start).min(out.len() - handed);
            if let (Some(to), Some(from)) =
                (out.get_mut(handed..handed + count), self.window.get(start..start + count))
            {
                to.copy_from_slice(from);
            }
            handed += count;
            self.waiting -= count;
        }
        handed
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn agreed(offer: &str) -> Option<String> {
        negotiate(std::iter::once(offer)).map(Agreement::answer)
    }

    /// Inflates with input and output cut into pieces of these lengths.
    fn inflate(bytes: &[u8], piece: usize, room: usize) -> Result<Vec<u8>, Garbled> {
        let mut inflater = Inflater::new();
        let mut all = Vec::new();
        let mut out = vec![0; room];
        for mut rest in bytes.chunks(piece) {
            loop {
                let (taken, put) = inflater.inflate(rest, &mut out)?;
                all.extend_from_slice(&out[..put]);
                rest = &rest[taken..];
                if put < room {
                    assert!(rest.is_empty());
                    break;
                }
            }
        }
        loop {
            let put = inflater.finish(&mut out)?;
            all.extend_from_slice(&out[..put]);
            if put < room {
                return Ok(all);
            }
        }
    }

    #[test]
    fn offers_are_kept_or_passed_over() {
        let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=9 ; client_no_context_takeover",
            "x-webkit-deflate-frame, permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_max_window_bits=7, permessage-deflate",
        ] {
            assert_eq!(agreed(offer).as_deref(), Some(plain), "{offer}");
        }
        let small = agreed("permessage-deflate; server_max_window_bits=\"9\"").unwrap();
        assert_eq!(small, format!("{plain}; server_max_window_bits=9"));
        for offer in [
            "",
            "permessage-bzip2",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; level=9",
        ] {
            assert_eq!(agreed(offer), None, "{offer}");
        }
    }

    fn noise(seed: &mut u32, length: usize) -> Vec<u8> {
        let mut next = || {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (*seed >> 24) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|n| b"destination:/queue/a, price: "[(n * n / 7 + n) % 29]).collect()
    }

    #[test]
    fn what_is_deflated_inflates_to_itself_however_it_is_cut() {
        for length in [1, 200, 5000, 32_768, 32_769, 100_000] {
            let message = text(length);
            for bits in [8, 9, 12, 15] {
                let agreement = Agreement { window_bits: bits, says_window_bits: true };
                let Some(deflated) = deflate(&message, agreement) else {
                    assert_eq!(length, 1);
                    continue;
                };
                for (piece, room) in [(usize::MAX, 1 << 20), (1, 1 << 20), (usize::MAX, 1), (7, 100)] {
                    let inflated = inflate(&deflated, piece, room).unwrap();
                    assert!(inflated == message, "{length} bytes, {bits} bits, {piece} by {room}");
                }
            }
        }
    }

    #[test]
    fn a_small_window_is_kept_to() {
        // The second half repeats the first, which lies further back than the window reaches.
        let noise = noise(&mut 1, 300);
        let message = [noise.as_slice(), &vec![b'x'; 212], &noise].concat();
        let with =
            |window_bits| deflate(&message, Agreement { window_bits, says_window_bits: true }).unwrap().len();
        assert!(with(8) > with(15) + 200, "{} {}", with(8), with(15));
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        assert_eq!(
            deflate(&noise(&mut 1, 4000), negotiate(std::iter::once("permessage-deflate")).unwrap()),
            None
        );
    }

    #[test]
    fn the_standards_own_examples_inflate() {
        // RFC 7692 §7.2.3.1, .3 (no compression), .4 (a final block), .5 (two blocks).
        for wire in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            for piece in [1, 100] {
                assert_eq!(inflate(wire, piece, 3).unwrap(), b"Hello", "{wire:x?}");
            }
        }
        assert_eq!(inflate(&[0], 1, 10).unwrap(), b"");
    }

    #[test]
    fn noise_is_garbled_and_never_more() {
        assert_eq!(inflate(&[0x07, 0xff, 0xff, 0xff], 4, 100), Err(Garbled));
        let mut seed = 1u32;
        for _ in 0..2000 {
            let _ = inflate(&noise(&mut seed, 40), 9, 50);
        }
    }
}
