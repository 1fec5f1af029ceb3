//! The budget of memory: who holds how much of it, and how much anybody may still take.
//!
//! Nobody has a fixed part. Whoever holds much may have a multiple of what is *spare*, which is all that is free but an eighth
//! of the whole. So one flood leaves a part for others, many leave less but never nothing, and what is small is refused for
//! the sake of nobody large: the eighth is for it. That is the dynamic threshold of switches whose ports share one memory.

use std::sync::atomic::{AtomicU64, Ordering};

use sabir_model::error::{Code, Refusal};

/// Of the whole, what is never spare: it is for those who hold little, and for what is on its way to being accounted for.
const KEPT_DIVISOR: u64 = 8;
/// Who holds no more than such a part of the whole holds little.
const LITTLE_DIVISOR: u64 = 256;
/// A queue that holds more than so many times what is spare has its producers wait: alone, from 58 % of the budget on.
const SOFT_FACTOR: u64 = 2;
/// One that would hold more than so many times what is spare refuses: alone, from 78 % on.
const HARD_FACTOR: u64 = 8;
/// What waits for one reader may be so much smaller than what is spare.
const OUTBOX_DIVISOR: u64 = 64;
/// What waits for one slow subscriber of a topic, likewise.
const WAITING_DIVISOR: u64 = 4;
/// However little is free, so much may wait for a reader; less is not accounted for either.
pub(crate) const OUTBOX_BYTES_FLOOR: usize = 16 << 10;
/// A partial frame of so much is nobody's concern.
const FRAME_BYTES_FLOOR: usize = 256 << 10;

/// Bytes in memory. Each is below zero for a moment: who settles a message may come here before who sent it.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) max: u64,
    /// Messages in queues, and last values.
    pub(crate) messages: AtomicU64,
    /// What waits to be written to sockets.
    pub(crate) outboxes: AtomicU64,
    /// Frames that have arrived in part.
    pub(crate) frames: AtomicU64,
    /// Sends that wait for their commit.
    pub(crate) transactions: AtomicU64,
}

/// Adds a change, which may be negative.
pub(crate) fn change(account: &AtomicU64, by: i64) {
    // Wraps on purpose: the sum must be right afterwards.
    account.fetch_add(by.cast_unsigned(), Ordering::Relaxed);
}

/// What an account holds.
#[inline]
pub(crate) fn held(account: &AtomicU64) -> u64 {
    u64::try_from(account.load(Ordering::Relaxed).cast_signed()).unwrap_or(0)
}

impl Budget {
    pub(crate) fn new(max: u64) -> Self {
        Self {
            max,
            messages: AtomicU64::new(0),
            outboxes: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
        }
    }

    /// Bytes of all that is held.
    #[inline]
    pub(crate) fn used(&self) -> u64 {
        held(&self.messages) + held(&self.outboxes) + held(&self.frames) + held(&self.transactions)
    }

    #[inline]
    pub(crate) fn free(&self) -> u64 {
        self.max.saturating_sub(self.used())
    }

    /// Of this, what is for those who hold much.
    #[inline]
    pub(crate) fn spare(&self) -> u64 {
        self.free().saturating_sub(self.max / KEPT_DIVISOR)
    }

    fn exceeds(&self, bytes: u64, factor: u64) -> bool {
        bytes > self.max / LITTLE_DIVISOR && bytes > self.spare().saturating_mul(factor)
    }

    /// Whether who holds so much should wait before it takes more.
    #[inline]
    pub(crate) fn is_much(&self, bytes: u64) -> bool {
        self.exceeds(bytes, SOFT_FACTOR)
    }

    /// Whether who was told to wait may go on: a fifth less than what made it wait.
    pub(crate) fn is_less_again(&self, bytes: u64) -> bool {
        !self.exceeds(bytes.saturating_mul(5) / 4, SOFT_FACTOR)
    }

    /// Whether it is more than any queue or transaction may have.
    #[inline]
    pub(crate) fn is_too_much(&self, bytes: u64) -> bool {
        self.exceeds(bytes, HARD_FACTOR)
    }

    /// Whether so much for one reader is too much although its own bounds allow it.
    #[inline]
    pub(crate) fn is_too_much_for_a_reader(&self, bytes: usize) -> bool {
        bytes > OUTBOX_BYTES_FLOOR && bytes as u64 > self.spare() / OUTBOX_DIVISOR
    }

    /// Whether so much for a subscriber of a topic that is slow is too much although its policy allows it: what waits for
    /// it is dropped rather than to have its publishers refused.
    pub(crate) fn is_too_much_for_a_subscriber(&self, bytes: u64) -> bool {
        bytes > self.spare() / WAITING_DIVISOR
    }

    /// Whether there is room for a frame to grow.
    pub(crate) fn has_room_for_frame(&self, before: usize, bytes: usize) -> bool {
        bytes <= FRAME_BYTES_FLOOR || bytes.saturating_sub(before) as u64 <= self.spare()
    }
}

/// What is said when nothing is left.
pub(crate) fn memory_full() -> Refusal {
    Refusal::new(
        Code::MemoryFull,
        "the broker's memory for messages is used up; send again once consumers have caught up",
    )
}

/// What is said to who has had its share.
pub(crate) fn share_full(whose: &str) -> Refusal {
    let sentence =
        format!("{whose} holds its share of the broker's memory; send again once consumers have caught up");
    Refusal::new(Code::MemoryFull, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills shares in turn, a hundredth of the budget at a time, until nobody may have more.
    fn fill(budget: &Budget, floods: usize, refused: impl Fn(&Budget, u64) -> bool) -> u64 {
        let mut own = vec![0u64; floods];
        loop {
            let before = budget.used();
            for bytes in &mut own {
                if !refused(budget, *bytes + 100) {
                    *bytes += 100;
                    change(&budget.messages, 100);
                }
            }
            if budget.used() == before {
                return before;
            }
        }
    }

    #[test]
    fn however_many_flood_something_is_left_for_who_holds_little() {
        for (floods, at_most) in [(1, 778_000), (10, 864_500), (100, 874_500)] {
            let budget = Budget::new(1_000_000);
            let used = fill(&budget, floods, Budget::is_too_much);
            assert!(used <= at_most && used > at_most / 100 * 97, "{floods} hold {used}");
            assert!(!budget.is_too_much(1000), "a small queue beside {floods} floods");
        }
    }

    #[test]
    fn who_waits_goes_on_a_fifth_below_the_mark() {
        // Of which 700 may be spare.
        let budget = Budget::new(800);
        change(&budget.messages, 470);
        assert!(budget.is_much(470) && !budget.is_less_again(470));
        change(&budget.messages, -30);
        assert!(!budget.is_much(440) && !budget.is_less_again(440), "not at once");
        change(&budget.messages, -40);
        assert!(budget.is_less_again(400));
    }

    #[test]
    fn an_account_may_be_below_nothing_for_a_moment() {
        let budget = Budget::new(100);
        change(&budget.outboxes, -30);
        assert_eq!((budget.used(), budget.free()), (0, 100));
        change(&budget.outboxes, 40);
        assert_eq!(budget.used(), 10);
    }
}
