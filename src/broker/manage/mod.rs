//! Management: what there is in a broker, and changing it. For an API over the core; nothing here is on a message's way.
//!
//! Whoever asks has been authorized by the caller. Lists hold with a hundred thousand entries: what a map holds is copied
//! under its lock, each entry is then looked at by itself, and of a sorted list only the page asked for is kept.

mod changes;
mod connections;
mod dead_letters;
mod listing;
mod messages;
mod overview;
mod queues;
mod routing;
mod subscriptions;
mod topics;

pub use changes::{Deletion, QueueMade};
pub use connections::{ConnectionDetail, ConnectionEntry, ConnectionSort, SubscriptionEntry};
pub(crate) use dead_letters::Redrives;
pub use dead_letters::{DeadLetterQueue, RATE_MAX, Redrive, RedriveState};
pub use listing::{Filter, Listing, Page, Place};
pub use messages::{
    Chosen, Death, Deed, Edited, Errand, MessageEntry, MessageListing, MessagePage, Resent, Step, Tally, Text,
};
pub(crate) use messages::{Looked, MANAGEMENT, look};
pub use overview::{Overview, VirtualHostEntry};
pub use queues::{ConsumerEntry, QueueDetail, QueueEntry, QueueKind, QueueSort};
pub use routing::{Edge, EdgeKind, Node, NodeKind, Picture};
pub use subscriptions::DurableEntry;
pub use topics::{TopicDetail, TopicEntry};
