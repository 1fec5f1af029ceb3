//! Groups that share a subscription: a queue bound to the pattern, whose consumers are the members that are connected.
//!
//! A group lives as long as any member's session does, and keeps messages while all members are away.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::Refusal;
use sabir_model::pattern::Pattern;
use sabir_store::Level;

use crate::bindings::SessionBinding;
use crate::broker::Shared;
use crate::pattern_trie::Handle;
use crate::queue::{Queue, Role};
use crate::recovery::{TABLE_QUEUES, bind, durable_policy, encode_queue};
use crate::registry::VirtualHost;

/// The groups of one virtual host, by pattern and name.
#[derive(Default)]
pub(crate) struct Shares {
    groups: HashMap<Pattern, Vec<Group>, RandomState>,
}

struct Group {
    name: Box<str>,
    queue: Arc<Queue>,
    handle: Handle,
    members: usize,
}

impl Shares {
    fn find(&self, pattern: &Pattern, name: &str) -> Option<&Group> {
        self.groups.get(pattern)?.iter().find(|group| *group.name == *name)
    }

    /// The queue of the group that a member's subscription names.
    pub(crate) fn queue_of(&self, member: &SessionBinding) -> Option<Arc<Queue>> {
        let group = self.find(&member.pattern, member.group.as_deref()?)?;
        Some(Arc::clone(&group.queue))
    }

    /// Takes a group in that the log knew; its members follow.
    pub(crate) fn adopt(&mut self, host: &VirtualHost, name: &str, pattern: &Pattern, queue: Arc<Queue>) {
        let handle = bind(host, pattern, &queue, None, None);
        let group = Group { name: name.into(), queue, handle, members: 0 };
        self.groups.entry(pattern.clone()).or_default().push(group);
    }

    /// Adds a member, unless its subscription (`new` false) is in the group already. Makes the group if there is none.
    pub(crate) fn join(
        &mut self,
        shared: &Shared,
        host: &VirtualHost,
        member: &SessionBinding,
        new: bool,
    ) -> Result<Arc<Queue>, Refusal> {
        let name = member.group.as_deref().unwrap_or_default();
        if self.find(&member.pattern, name).is_none() {
            let canonical = format!("group:{name}:{}", member.pattern.canonical());
            let destination = Destination::from_canonical(Kind::Queue, true, &canonical)?;
            let role = Role::Group { name: name.into(), pattern: member.pattern.clone() };
            let policy = durable_policy(shared, &member.pattern);
            let queue = host.make_queue(shared, destination, role, Some(policy))?;
            self.adopt(host, name, &member.pattern, queue);
        }
        let groups = self.groups.get_mut(&member.pattern);
        let group = groups.into_iter().flatten().find(|group| *group.name == *name);
        let group = group.expect("the group is there: found or made above");
        group.members += usize::from(new);
        if member.session.lasting && !group.queue.lasting.swap(true, Ordering::AcqRel) {
            // From now on a member may come back to what the group has kept.
            let mut log = shared.store.begin();
            log.set(TABLE_QUEUES, &group.queue.id.0.to_le_bytes(), &encode_queue(&host.name, &group.queue));
            log.finish(Level::Os);
        }
        Ok(Arc::clone(&group.queue))
    }

    /// Removes a member. Returns the group's queue if that was the last one: nobody is left to delete it for.
    pub(crate) fn leave(&mut self, host: &VirtualHost, member: &SessionBinding) -> Option<Arc<Queue>> {
        let name = member.group.as_deref()?;
        let groups = self.groups.get_mut(&member.pattern)?;
        let at = groups.iter().position(|group| *group.name == *name)?;
        let group = groups.get_mut(at)?;
        group.members = group.members.saturating_sub(1);
        if group.members > 0 {
            return None;
        }
        let group = groups.swap_remove(at);
        if groups.is_empty() {
            self.groups.remove(&member.pattern);
        }
        host.topics.write().remove(group.handle);
        host.touch(&member.pattern);
        Some(group.queue)
    }

    /// Groups without members, taken out: what the log kept of sessions that are gone.
    pub(crate) fn take_empty(&mut self, host: &VirtualHost) -> Vec<Arc<Queue>> {
        let mut empty = Vec::new();
        self.groups.retain(|pattern, groups| {
            groups.retain(|group| {
                if group.members == 0 {
                    host.topics.write().remove(group.handle);
                    host.touch(pattern);
                    empty.push(Arc::clone(&group.queue));
                }
                group.members > 0
            });
            !groups.is_empty()
        });
        empty
    }

    /// Groups there are.
    pub(crate) fn len(&self) -> usize {
        self.groups.values().map(Vec::len).sum()
    }
}
