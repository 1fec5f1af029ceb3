//! Every message names its sender and number; what arrives is checked against that.

/// Bytes at the front of each body that identify the message.
pub(crate) const STAMP_BYTES: usize = 21;

/// Writes `pppp ssssssssssssssss` over the front of a body.
pub(crate) fn stamp(body: &mut [u8], producer: u16, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit =
        |value: u64, place: u32| DIGITS.get((value >> (4 * place) & 15) as usize).copied().unwrap_or(b'0');
    for (index, slot) in body.iter_mut().take(STAMP_BYTES).enumerate() {
        *slot = match index {
            0..4 => digit(u64::from(producer), 3 - index as u32),
            4 => b' ',
            _ => digit(number, 20 - index as u32),
        };
    }
}

/// Reads a stamp.
pub(crate) fn read_stamp(body: &[u8]) -> Option<(u16, u64)> {
    let text = std::str::from_utf8(body.get(..STAMP_BYTES)?).ok()?;
    let (producer, number) = text.split_once(' ')?;
    Some((u16::from_str_radix(producer, 16).ok()?, u64::from_str_radix(number, 16).ok()?))
}

/// What one consumer saw of one producer.
#[derive(Clone, Debug, Default)]
struct Seen {
    highest: Option<u64>,
    count: u64,
}

/// What one consumer saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    producers: Vec<Seen>,
    /// Messages received, redelivered ones included.
    pub(crate) received: u64,
    /// Messages that came after a later one of the same producer.
    pub(crate) out_of_order: u64,
    /// Messages marked as redelivered.
    pub(crate) redelivered: u64,
    /// Messages without a stamp of ours.
    pub(crate) foreign: u64,
}

impl Tally {
    /// Notes one message.
    pub(crate) fn note(&mut self, body: &[u8], redelivered: bool) {
        let Some((producer, number)) = read_stamp(body) else {
            self.foreign += 1;
            return;
        };
        self.received += 1;
        self.redelivered += u64::from(redelivered);
        let index = usize::from(producer);
        if self.producers.len() <= index {
            self.producers.resize(index + 1, Seen::default());
        }
        if let Some(seen) = self.producers.get_mut(index) {
            if seen.highest.is_some_and(|highest| number <= highest) {
                self.out_of_order += 1;
            } else {
                seen.highest = Some(number);
            }
            seen.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_round_trip_and_disorder_is_seen() {
        let mut tally = Tally::default();
        let mut body = [0; 30];
        for number in [0, 1, 3, 2, 3] {
            stamp(&mut body, 7, number);
            assert_eq!(read_stamp(&body), Some((7, number)));
            tally.note(&body, false);
        }
        tally.note(b"hello", false);
        assert_eq!((tally.received, tally.out_of_order, tally.foreign), (5, 2, 1));
    }
}
