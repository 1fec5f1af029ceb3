//! How far one sender is: what it has sent, what of it the broker has acknowledged, what of it has come everywhere.

/// One sender.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    /// How many messages it is to send.
    pub(crate) limit: u64,
    /// How often each is to arrive.
    copies: u32,
    /// Below this, everything has come everywhere.
    floor: u64,
    /// How often messages from `floor` on have come, by number; a power of two of them. Empty if nobody asks.
    come: Vec<u32>,
    /// When messages from the oldest unacknowledged on were sent, by number; a power of two of them. Empty if nobody asks.
    times: Vec<u64>,
}

/// What holds a sender back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nothing: messages leave at their instants.
    Pace,
    /// What has not come everywhere.
    Received,
    /// What has not been acknowledged.
    Acknowledged,
    /// Either.
    Both,
    /// There is nothing that comes back: the socket.
    Socket,
}

impl Hold {
    fn asks_receivers(self) -> bool {
        matches!(self, Self::Received | Self::Both)
    }

    fn asks_broker(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Both)
    }
}

fn slot(number: u64, table: usize) -> usize {
    (number & (table as u64).wrapping_sub(1)) as usize
}

impl Lane {
    /// A sender that sends nothing until it has a limit. `window` messages are under way at most, where `hold` bounds them.
    pub(crate) fn new(hold: Hold, window: u64, copies: u32) -> Self {
        let table = (window as usize + 1).next_power_of_two();
        Self {
            sent: 0,
            acknowledged: 0,
            limit: 0,
            copies,
            floor: 0,
            come: if hold.asks_receivers() { vec![0; table] } else { Vec::new() },
            times: if hold.asks_broker() { vec![0; table] } else { Vec::new() },
        }
    }

    /// One whose messages have been sent before.
    pub(crate) fn finished(sent: u64) -> Self {
        let mut lane = Self::new(Hold::Socket, 0, 1);
        (lane.sent, lane.limit, lane.acknowledged) = (sent, sent, sent);
        lane
    }

    pub(crate) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.sent)
    }

    /// Messages that may be sent now, with `window` under way at most.
    pub(crate) fn room(&self, hold: Hold, window: u64) -> u64 {
        let mut room = u64::MAX;
        if hold.asks_receivers() {
            room = window.saturating_sub(self.sent - self.floor);
        }
        if hold.asks_broker() {
            room = room.min(window.saturating_sub(self.sent - self.acknowledged));
        }
        room
    }

    /// Notes `count` messages that are written now.
    pub(crate) fn note_sent(&mut self, count: u64, now: u64) {
        let noted = if self.times.is_empty() { 0 } else { count };
        for number in self.sent..self.sent + noted {
            let place = slot(number, self.times.len());
            if let Some(time) = self.times.get_mut(place) {
                *time = now;
            }
        }
        self.sent += count;
    }

    /// When a message was sent, if that was noted.
    pub(crate) fn sent_at(&self, number: u64) -> Option<u64> {
        self.times.get(slot(number, self.times.len())).copied()
    }

    /// Notes a message that has come to one of those who are to have it.
    pub(crate) fn note_come(&mut self, number: u64) {
        let table = self.come.len();
        if table == 0 || number < self.floor || number >= self.floor + table as u64 {
            return;
        }
        if let Some(count) = self.come.get_mut(slot(number, table)) {
            *count += 1;
        }
        while self.floor < self.sent
            && let Some(count) = self.come.get_mut(slot(self.floor, table))
            && *count >= self.copies
        {
            *count = 0;
            self.floor += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_receiver_counts() {
        let mut lane = Lane::new(Hold::Received, 10, 2);
        lane.limit = 100;
        lane.note_sent(10, 5);
        for number in 0..10 {
            lane.note_come(number);
        }
        assert_eq!((lane.room(Hold::Received, 10), lane.left()), (0, 90));
        for number in [1, 0, 3] {
            lane.note_come(number);
        }
        assert_eq!(lane.room(Hold::Received, 10), 2);
        lane.note_come(2);
        assert_eq!(lane.room(Hold::Received, 10), 4);
        assert_eq!(lane.sent_at(3), None);
    }

    #[test]
    fn acknowledgements_and_arrivals_can_both_hold_back() {
        let mut lane = Lane::new(Hold::Both, 4, 1);
        lane.note_sent(4, 7);
        (0..4).for_each(|number| lane.note_come(number));
        assert_eq!((lane.room(Hold::Both, 4), lane.sent_at(3)), (0, Some(7)));
        lane.acknowledged += 3;
        assert_eq!(lane.room(Hold::Both, 4), 3);
        assert_eq!(lane.room(Hold::Socket, 4), u64::MAX);
    }
}
