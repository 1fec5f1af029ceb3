//! What management has said of a queue and a restart must not forget: table 40, by queue.

use sabir_model::ids::QueueId;
use sabir_store::Appender;

use crate::queue::QueueCore;

/// Marks of queues, by their ids.
pub(crate) const TABLE_MARKS: u8 = 40;

const DECLARED: u8 = 1;
const PAUSED: u8 = 2;

/// What a queue is marked with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Kept although nobody uses it.
    pub(crate) declared: bool,
    /// Nothing is handed out.
    pub(crate) paused: bool,
}

impl Marks {
    /// Those of a queue.
    pub(crate) fn of(core: &QueueCore) -> Self {
        Self { declared: core.declared, paused: core.paused }
    }

    /// Gives them to a queue that comes back.
    pub(crate) fn give(self, core: &mut QueueCore) {
        core.declared = self.declared;
        core.paused = self.paused;
    }

    /// Whether there are any.
    pub(crate) fn are_some(self) -> bool {
        self != Self::default()
    }

    /// Writes them into the log, in the place of those before.
    pub(crate) fn log(self, group: &mut Appender<'_>, queue: QueueId) {
        let key = queue.0.to_le_bytes();
        if self.are_some() {
            let flags = u8::from(self.declared) * DECLARED + u8::from(self.paused) * PAUSED;
            group.set(TABLE_MARKS, &key, &[flags]);
        } else {
            group.remove(TABLE_MARKS, &key);
        }
    }

    /// What the log says. Flags of a later version are none of ours.
    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Option<(QueueId, Self)> {
        let id = QueueId(u64::from_le_bytes(key.try_into().ok()?));
        let flags = *value.first()?;
        Some((id, Self { declared: flags & DECLARED != 0, paused: flags & PAUSED != 0 }))
    }
}
