//! Management: what there is in a broker, and changing it. For an API over the core; nothing here is on a message's way.
//!
//! Whoever asks has been authorized by the caller. Lists hold with a hundred thousand entries: what a map holds is copied
//! under its lock, each entry is then looked at by itself, and of a sorted list only the page asked for is kept.

mod changes;
mod connections;
mod listing;
mod overview;
mod queues;
mod routing;
mod subscriptions;
mod topics;

pub use changes::{Deletion, QueueMade};
pub use connections::{ConnectionDetail, ConnectionEntry, ConnectionSort, SubscriptionEntry};
pub use listing::{Filter, Listing, Page, Place};
pub use overview::{Overview, VirtualHostEntry};
pub use queues::{ConsumerEntry, QueueDetail, QueueEntry, QueueKind, QueueSort};
pub use routing::{Edge, EdgeKind, Node, NodeKind, Picture};
pub use subscriptions::DurableEntry;
pub use topics::{TopicDetail, TopicEntry};
