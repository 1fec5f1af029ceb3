//! Which numbers inside a run (`runs.rs`) are settled: one bit each.
//!
//! Numbers handed in lie between the run's first and last one. The first is alive, so looking back for a live
//! one ends there.

/// Settled numbers inside a run, one bit each.
#[derive(Clone, Debug)]
pub(crate) struct Holes {
    /// The number of the first bit.
    pub(crate) base: u64,
    /// How many bits are set between the run's first and last number.
    pub(crate) dead: u64,
    /// Numbers behind the last word are alive.
    words: Vec<u64>,
}

impl Holes {
    pub(crate) fn new(base: u64) -> Self {
        Self { base, dead: 0, words: Vec::new() }
    }

    pub(crate) fn from_bits(base: u64, bits: &[u8], span: u64) -> Option<Self> {
        if bits.len() as u64 != span.div_ceil(8) {
            return None;
        }
        let words = bits
            .chunks(8)
            .map(|piece| piece.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte)));
        let mut holes = Self { base, dead: 0, words: words.collect() };
        holes.truncate(base + (span - 1));
        holes.dead = holes.count(base, base + (span - 1));
        Some(holes)
    }

    /// The bits of `span` numbers from `first` on, in whole bytes.
    pub(crate) fn bits(&self, first: u64, span: u64) -> Option<Vec<u8>> {
        let (skipped, shift) = ((first - self.base) / 64, (first - self.base) % 64);
        let mut bits = Vec::new();
        for i in 0..span.div_ceil(64) {
            let (low, high) = (self.word(skipped + i), self.word(skipped + i + 1));
            let word = if shift == 0 { low } else { low >> shift | high << (64 - shift) };
            bits.extend_from_slice(&word.to_le_bytes());
        }
        bits.truncate(usize::try_from(span.div_ceil(8)).ok()?);
        Some(bits)
    }

    fn word(&self, i: u64) -> u64 {
        usize::try_from(i).ok().and_then(|i| self.words.get(i)).copied().unwrap_or(0)
    }

    pub(crate) fn is_dead(&self, number: u64) -> bool {
        let at = number.wrapping_sub(self.base);
        self.word(at / 64) >> (at % 64) & 1 == 1
    }

    /// The bits of word `i` that stand for `low..=high`, counted from the base.
    fn mask(i: u64, low: u64, high: u64) -> u64 {
        let (first, last) = (i * 64, i * 64 + 63);
        if high < first || low > last {
            return 0;
        }
        let from = low.max(first) - first;
        let to = high.min(last) - first;
        (u64::MAX << from) & (u64::MAX >> (63 - to))
    }

    pub(crate) fn bore(&mut self, low: u64, high: u64) {
        let (low, high) = (low - self.base, high - self.base);
        let needed = usize::try_from(high / 64 + 1).unwrap_or(usize::MAX);
        if self.words.len() < needed {
            self.words.resize(needed, 0);
        }
        for i in low / 64..=high / 64 {
            let mask = Self::mask(i, low, high);
            if let Some(word) = usize::try_from(i).ok().and_then(|i| self.words.get_mut(i)) {
                self.dead += u64::from((mask & !*word).count_ones());
                *word |= mask;
            }
        }
    }

    pub(crate) fn count(&self, low: u64, high: u64) -> u64 {
        let (low, high) = (low - self.base, high.wrapping_sub(self.base));
        if self.words.is_empty() || high < low {
            return 0;
        }
        let last = (high / 64).min(self.words.len() as u64 - 1);
        let counted = (low / 64..=last).map(|i| (self.word(i) & Self::mask(i, low, high)).count_ones());
        counted.map(u64::from).sum()
    }

    /// Makes everything behind `to` alive again, for whoever is appended there.
    pub(crate) fn truncate(&mut self, to: u64) {
        let to = to - self.base;
        let kept = usize::try_from(to / 64 + 1).unwrap_or(usize::MAX);
        if self.words.len() >= kept {
            self.words.truncate(kept);
            if let Some(word) = self.words.last_mut() {
                *word &= u64::MAX >> (63 - to % 64);
            }
        }
    }

    /// The first number at or behind `from` whose bit, after `flip`, is set.
    fn next(&self, from: u64, flip: u64) -> Option<u64> {
        let at = from - self.base;
        let mut i = at / 64;
        let mut word = (self.word(i) ^ flip) & (u64::MAX << (at % 64));
        while word == 0 {
            i += 1;
            if i >= self.words.len() as u64 && flip == 0 {
                return None;
            }
            word = self.word(i) ^ flip;
        }
        Some(self.base + i * 64 + u64::from(word.trailing_zeros()))
    }

    pub(crate) fn next_live(&self, from: u64) -> u64 {
        self.next(from, u64::MAX).unwrap_or(from)
    }

    pub(crate) fn next_dead(&self, from: u64) -> Option<u64> {
        self.next(from, 0)
    }

    /// The last live number up to `from`. There is one: the run's first.
    pub(crate) fn last_live(&self, from: u64) -> u64 {
        let at = from - self.base;
        let mut i = at / 64;
        let mut word = !self.word(i) & (u64::MAX >> (63 - at % 64));
        while word == 0 && i > 0 {
            i -= 1;
            word = !self.word(i);
        }
        self.base + i * 64 + u64::from(63u32.saturating_sub(word.leading_zeros()))
    }
}
