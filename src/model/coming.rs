//! A large body on its way in, whatever protocol brings it: it is handed to the host piece by piece, and then it is waited
//! for until it is in its place. What nobody wants is read and thrown away. What comes before and behind it is the
//! protocol's business.

use crate::session::{Flow, Host, Input, Room};
use crate::stored::Utf8Check;

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The host takes it as it comes.
    Coming,
    /// All of it has come, and it is not in its place yet.
    Storing,
    /// Nobody wants it.
    Refused,
}

/// A body that is coming. A session that has one parks while it [`waits`](ComingBody::waits).
#[derive(Debug)]
pub struct ComingBody {
    left: usize,
    text: Utf8Check,
    stage: Stage,
    /// No more of it may come for the moment.
    full: bool,
}

impl ComingBody {
    /// One of `length` bytes; without a length it goes on until it [`ends_after`](ComingBody::ends_after) so many. If it is
    /// `wanted`, the host has agreed to take it ([`Host::begin_body`]).
    #[must_use]
    pub fn new(length: Option<usize>, wanted: bool) -> Self {
        let stage = if wanted { Stage::Coming } else { Stage::Refused };
        Self { left: length.unwrap_or(usize::MAX), text: Utf8Check::default(), stage, full: false }
    }

    /// So many bytes are still to come.
    pub fn ends_after(&mut self, bytes: usize) {
        self.left = bytes;
    }

    /// Whether the host must say something before the session goes on.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.full || self.stage == Stage::Storing
    }

    /// What the session answers while more is to come.
    #[must_use]
    pub fn flow(&self) -> Flow {
        if self.full { Flow::Parked } else { Flow::More }
    }

    /// Takes what has come of it. True if that was the rest.
    pub fn receive(&mut self, input: &mut Input<'_>, host: &mut dyn Host) -> bool {
        let rest = input.rest();
        let piece = rest.get(..self.left).unwrap_or(rest);
        if !piece.is_empty() {
            self.left -= piece.len();
            if self.stage == Stage::Coming {
                self.text.take(piece);
                self.full = host.put_body(piece) == Room::None;
            }
            input.consume(piece.len());
        }
        self.left == 0
    }

    /// What was to follow it has come, too: the host puts it in its place, and says so by
    /// [`Event::BodyStored`](crate::event::Event::BodyStored).
    pub fn end(&mut self, host: &mut dyn Host) -> Flow {
        self.stage = Stage::Storing;
        self.full = false;
        host.end_body();
        Flow::Parked
    }

    /// There is room for more ([`Event::BodyRoom`](crate::event::Event::BodyRoom)).
    pub fn go_on(&mut self) {
        self.full = false;
    }

    /// The host cannot keep it; what is still to come is thrown away.
    pub fn refuse(&mut self) {
        self.stage = Stage::Refused;
        self.full = false;
    }

    /// Whether nobody wants it.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.stage == Stage::Refused
    }

    /// Whether all of it has come.
    #[must_use]
    pub fn is_storing(&self) -> bool {
        self.stage == Stage::Storing
    }

    /// Whether what has come is UTF-8.
    #[must_use]
    pub fn is_text(&self) -> bool {
        self.text.is_text()
    }
}
