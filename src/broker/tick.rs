//! What time does: messages and sessions end, unused queues go, and the memory in use is watched.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sabir_model::ids::Sequence;
use sabir_model::session::Now;
use sabir_store::Level;

use crate::broker::{Broker, Shared};
use crate::queue::{Queue, Role};
use crate::registry::VirtualHost;
use crate::spill::spill;
use crate::will::send_will;
use crate::work::{Work, finish};

/// Ticks between two sweeps for expired messages and unused queues: one second at the usual tick of 100 ms.
const TICKS_PER_SWEEP: u64 = 10;

impl Broker {
    /// What time does: called about every 100 ms.
    pub fn tick(&self, now: Now) {
        let shared = &self.shared;
        let ticks = shared.ticks.fetch_add(1, Ordering::AcqRel) + 1;
        shared.tick_pressure();
        self.tick_redrives(now);
        if !ticks.is_multiple_of(TICKS_PER_SWEEP) {
            return;
        }
        let mut work = Work::new(now);
        self.watch_memory(&mut work);
        for host in &shared.hosts {
            sweep_sessions(shared, host, &mut work);
            sweep_retained(shared, host, &mut work);
        }
        let queues: Vec<(Arc<Queue>, Arc<VirtualHost>)> = {
            let by_id = shared.by_id.read();
            let due = |queue: &Queue| {
                queue.next_expiry.load(Ordering::Acquire) <= now.wall.0 || queue.policy.gc_after.is_some()
            };
            by_id.values().filter(|(q, _)| due(q)).map(|(q, h)| (Arc::clone(q), Arc::clone(h))).collect()
        };
        for (queue, host) in queues {
            let unused = {
                let mut held = queue.lock();
                held.core.expire(&queue, &mut work);
                let idle = now.instant.since(held.core.last_used);
                let unused = matches!(queue.role, Role::Plain)
                    && queue.policy.gc_after.is_some_and(|after| idle >= after)
                    && held.core.is_unused();
                if unused {
                    // Decided under the lock: nobody can send to it or consume from it any more.
                    queue.deleted.store(true, Ordering::Release);
                }
                unused
            };
            if unused {
                host.delete_queue(shared, &queue, &mut work);
            }
        }
        while finish(shared, &mut work) {}
    }

    /// Follows the memory in use: when it runs low, queues page out more of what they hold.
    fn watch_memory(&self, work: &mut Work) {
        let shared = &self.shared;
        if shared.window.is_narrow() {
            let queues: Vec<Arc<Queue>> =
                shared.by_id.read().values().map(|(queue, _)| Arc::clone(queue)).collect();
            for queue in queues.iter().filter(|queue| queue.pages()) {
                queue.lock().core.make_window(queue, 0, None, work);
                spill(shared, queue, work);
            }
            shared.account(work);
        }
        shared.pager.tick(shared, work);
    }
}

/// Ends client sessions whose time is over, and sends wills that are due.
fn sweep_sessions(shared: &Shared, host: &VirtualHost, work: &mut Work) {
    loop {
        let due = host.schedule.lock().next_due(work.now.wall);
        let Some(client_id) = due else { return };
        let session = host.sessions.lock().get(&client_id).map(Arc::clone);
        let Some(session) = session else { continue };
        // It may be neither: of what was to be looked at before the client came back, nobody has told the schedule.
        let (ends, will) = {
            let mut state = session.state();
            let (ends, will) = state.come_due(work.now.wall);
            if will.is_some() && !ends {
                state.log(shared, host, &session, Level::Os);
            }
            (ends, will)
        };
        if ends {
            crate::stats::add(&shared.counters.sessions_expired, 1);
            session.end(shared, host, work);
        }
        if let Some(will) = will {
            send_will(shared, host, &will, work);
        }
    }
}

/// Forgets last values whose time is over.
fn sweep_retained(shared: &Shared, host: &VirtualHost, work: &mut Work) {
    let mut over: Vec<Sequence> = Vec::new();
    let mut memory = 0;
    host.retained.lock().expire(work.now.wall, |changed| {
        memory += changed.memory;
        over.extend(changed.old);
    });
    work.memory += memory;
    if !over.is_empty() {
        let queue = host.retained_queue(shared);
        work.expired_logged.extend(over.into_iter().map(|sequence| (queue, sequence)));
    }
}
