//! How deliveries of a queue end: settled, brought back to their place, or buried as dead letters.

use std::sync::Arc;

use sabir_model::ids::{ConnectionId, DeliveryToken, Sequence};
use sabir_model::settlement::{SettleMode, Settlement};

use crate::bodies::is_unreadable;
use crate::credit::Waits;
use crate::inflight::InFlight;
use crate::manage::MANAGEMENT;
use crate::policy::Negative;
use crate::queue::{Queue, QueueCore, Role, SettleResult};
use crate::ready::{Entry, Failed};
use crate::work::{Dead, Work};

impl QueueCore {
    /// Removes a consumer. Its unsettled deliveries return to the head: counted as attempts where their bytes had
    /// reached the socket (`written`) or could not be read, uncounted otherwise; automatic ones that reached it are
    /// settled. What must be logged goes to `settled` and `attempts`.
    ///
    /// Bytes in an outbox cannot be called back. Where the connection stays open (`closing` false) they will be written:
    /// such deliveries count as having reached the consumer, and automatic ones stay until the socket has taken them.
    /// True if there are any of those: they must be reclaimed when the connection ends.
    #[expect(clippy::too_many_arguments, reason = "one caller; the lists are its own to log from")]
    pub(crate) fn detach(
        &mut self,
        queue: &Arc<Queue>,
        slot: u32,
        written: u64,
        closing: bool,
        work: &mut Work,
        settled: &mut Vec<Sequence>,
        attempts: &mut Vec<(Sequence, u32)>,
    ) -> bool {
        let Some(consumer) = self.consumers.get_mut(slot as usize).and_then(Option::take) else {
            return false;
        };
        let auto = consumer.settle == SettleMode::Auto;
        let left = !closing && auto && self.in_flight.disown(slot, written);
        self.selecting -= usize::from(consumer.selector.is_some());
        self.sharing -= usize::from(consumer.credit.shared);
        if let Some(at) = self.ring.iter().position(|other| *other == slot) {
            self.ring.remove(at);
        }
        self.turn = 0;
        for held in self.in_flight.remove_consumer(slot) {
            consumer.credit.give(work);
            let reached = !closing || held.ends_at <= written;
            self.let_go(queue, held, reached, auto, work, settled, attempts);
        }
        left
    }

    /// Takes back what automatic consumers of a connection that is ending have left to its socket.
    pub(crate) fn reclaim(
        &mut self,
        queue: &Arc<Queue>,
        connection: ConnectionId,
        written: u64,
        work: &mut Work,
        settled: &mut Vec<Sequence>,
        attempts: &mut Vec<(Sequence, u32)>,
    ) {
        for held in self.in_flight.remove_disowned(connection) {
            let reached = held.ends_at <= written;
            self.let_go(queue, held, reached, true, work, settled, attempts);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what is to be logged is collected by the caller, of two kinds"
    )]
    fn let_go(
        &mut self,
        queue: &Arc<Queue>,
        held: InFlight,
        reached: bool,
        auto: bool,
        work: &mut Work,
        settled: &mut Vec<Sequence>,
        attempts: &mut Vec<(Sequence, u32)>,
    ) {
        if reached && (auto || held.done) {
            // The socket took it, or will; whoever wrote it just has not come round to settling it yet.
            self.forget(&held.entry, work);
            self.acknowledged += 1;
            work.acknowledged += 1;
            settled.extend(held.entry.logged.then_some(held.sequence));
            return;
        }
        let failed = match reached {
            true => Some("left without settling it"),
            // It would be tried for ever.
            false => is_unreadable(&held.entry.message).then_some("its body cannot be read from the disk"),
        };
        if let Some(logged) = self.bring_back(queue, held, failed, work) {
            attempts.push(logged);
        }
    }

    /// Returns a delivery to its place, counted as a failed attempt if `failed` says how. Gives what to log.
    pub(crate) fn bring_back(
        &mut self,
        queue: &Arc<Queue>,
        held: InFlight,
        failed: Option<&'static str>,
        work: &mut Work,
    ) -> Option<(Sequence, u32)> {
        let InFlight { sequence, mut entry, connection, .. } = held;
        if !matches!(queue.role, Role::Backlog { .. }) {
            // Somebody else may get it next, who knows it by another name.
            entry.progress = 0;
        }
        let Some(how) = failed else {
            if entry.grant.is_none() && entry.is_in_log() && matches!(queue.role, Role::Backlog { .. }) {
                // Management had it from the log: what is granted for it is found when its turn comes.
                self.leave_to_log(sequence, &entry, work);
            } else {
                self.insert(queue, sequence, entry);
            }
            return None;
        };
        entry.failed(Failed { at: work.now.wall, connection, how });
        self.redelivered += 1;
        work.redelivered += 1;
        let limit = if queue.holds_dead_letters { 0 } else { queue.policy.delivery_limit };
        if limit > 0 && entry.attempts >= limit {
            self.bury(queue, sequence, entry, "delivery limit reached", work);
            return None;
        }
        let logged = entry.logged.then_some((sequence, entry.attempts));
        self.insert(queue, sequence, entry);
        logged
    }

    /// Takes a message out of the queue for good: it goes to the dead letters once this lock is released. Until then it
    /// is in no list, and in the log it is still here.
    pub(crate) fn bury(
        &mut self,
        queue: &Arc<Queue>,
        sequence: Sequence,
        entry: Entry,
        reason: &'static str,
        work: &mut Work,
    ) {
        self.forget(&entry, work);
        if entry.progress_logged {
            work.progress_over.push((queue.id, sequence));
        }
        self.dead_lettered += 1;
        work.dead.push(Dead { queue: Arc::clone(queue), sequence, entry, reason });
    }

    /// Checks that a token names an unsettled delivery of this connection.
    pub(crate) fn knows(&self, token: DeliveryToken, connection: ConnectionId) -> bool {
        self.in_flight.get(token.slot, token.generation).is_some_and(|held| held.connection == connection)
    }

    /// Settles one delivery.
    pub(crate) fn settle(
        &mut self,
        queue: &Arc<Queue>,
        token: DeliveryToken,
        connection: ConnectionId,
        settlement: Settlement,
        work: &mut Work,
    ) -> SettleResult {
        if !self.knows(token, connection) {
            return SettleResult::Unknown;
        }
        if let Settlement::Advanced(progress) = settlement {
            let Some(held) = self.in_flight.get_mut(token.slot, token.generation) else {
                return SettleResult::Unknown;
            };
            held.entry.progress = progress;
            held.entry.progress_logged |= held.entry.logged;
            return SettleResult::Advanced(held.entry.logged.then_some((held.sequence, progress)));
        }
        let Some(held) = self.in_flight.remove(token.slot, token.generation) else {
            return SettleResult::Unknown;
        };
        if let Some(consumer) = self.consumer_mut(held.consumer) {
            consumer.credit.give(work);
            if consumer.waits == Waits::ForWindow {
                consumer.waits = Waits::No;
            }
            consumer.credit.open_window(connection, work);
        }
        let settlement = match (settlement, queue.policy.negative) {
            (Settlement::Negative, Negative::Redeliver) => Settlement::Failed,
            (Settlement::Negative, Negative::DeadLetter) => Settlement::Rejected,
            (other, _) => other,
        };
        match settlement {
            Settlement::Accepted => {
                self.forget(&held.entry, work);
                // What management takes away, nobody has consumed.
                let consumed = u64::from(connection != MANAGEMENT);
                self.acknowledged += consumed;
                work.acknowledged += consumed;
                if held.entry.progress_logged {
                    work.progress_over.push((queue.id, held.sequence));
                }
                SettleResult::Done(held.entry.logged.then_some(held.sequence))
            }
            // Done with above.
            Settlement::Advanced(_) => SettleResult::Unknown,
            Settlement::Released => {
                self.bring_back(queue, held, None, work);
                SettleResult::Returned(None)
            }
            Settlement::Failed | Settlement::Negative => {
                let dead = work.dead.len();
                let logged = self.bring_back(queue, held, Some("negative acknowledgement"), work);
                if work.dead.len() > dead { SettleResult::Dead } else { SettleResult::Returned(logged) }
            }
            Settlement::Rejected => {
                let InFlight { sequence, mut entry, connection, .. } = held;
                entry.failed(Failed { at: work.now.wall, connection, how: "rejected" });
                self.bury(queue, sequence, entry, "rejected by the consumer", work);
                SettleResult::Dead
            }
        }
    }
}
