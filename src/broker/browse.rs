//! Browsing: a look at what a queue holds, which takes nothing and ends by itself.
//!
//! A browser goes through the numbers that were there when it came, a part at a time: what is consumed before it gets there,
//! it does not see.

use std::collections::VecDeque;
use std::sync::Arc;

use sabir_model::delivery::Delivery;
use sabir_model::ids::{ConnectionId, Sequence, SubscriptionKey};
use sabir_model::message::Message;
use sabir_model::selector::Selector;

use crate::broker::Shared;
use crate::manage::{Looked, MessageEntry, look};
use crate::outbox::{Handed, Outbox};
use crate::pager::Job;
use crate::queue::{Queue, QueueCore};
use crate::work::Work;

/// Messages handed to a browser under one hold of the lock.
const BROWSE_MAX: usize = 500;
/// Messages looked at in one part.
const PART_MESSAGES: usize = 256;

/// A look at a queue in progress.
#[derive(Debug)]
pub(crate) struct Browser {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) subscription: SubscriptionKey,
    selector: Option<Arc<Selector>>,
    /// The last number that was looked at; nothing once that was all.
    at: Option<u64>,
    /// The first number that came too late.
    until: u64,
    left: VecDeque<(Message, u32, bool)>,
    /// The next part is on its way.
    filling: bool,
    pub(crate) granted: bool,
    /// Its outbox has had enough; it will say when it has room.
    pub(crate) waits: bool,
}

impl Browser {
    fn is_over(&self) -> bool {
        self.left.is_empty() && self.at.is_none()
    }

    fn take_part(&mut self, part: Looked) {
        self.at = part.next;
        let wanted = part.entries.into_iter().filter(|entry| entry.is_wanted(self.selector.as_deref()));
        self.left.extend(
            wanted
                .map(|MessageEntry { message, attempts, redelivered, .. }| (message, attempts, redelivered)),
        );
    }
}

/// Looks at the next part for a browser, in the log as well.
pub(crate) fn fill(
    shared: &Shared,
    queue: &Arc<Queue>,
    connection: ConnectionId,
    subscription: SubscriptionKey,
    work: &mut Work,
) {
    let is_it =
        |browser: &Browser| browser.outbox.connection() == connection && browser.subscription == subscription;
    let place = {
        let core = queue.lock().core;
        core.browsers.iter().find(|browser| is_it(browser)).and_then(|one| Some((one.at?, one.until)))
    };
    let Some((at, until)) = place else { return };
    let part = look(shared, queue, at, until, PART_MESSAGES);
    let mut held = queue.lock();
    if let Some(browser) = held.core.browsers.iter_mut().find(|browser| is_it(browser)) {
        browser.filling = false;
        if part.failed {
            return shared.pager.look_again(queue);
        }
        browser.take_part(part);
    }
    held.core.dispatch(queue, work);
}

impl QueueCore {
    /// Starts a look at what is here now. Returns nothing: the browser ends by itself.
    pub(crate) fn browse(
        &mut self,
        outbox: &Arc<Outbox>,
        subscription: SubscriptionKey,
        selector: Option<Arc<Selector>>,
    ) {
        self.browsers.push(Browser {
            outbox: Arc::clone(outbox),
            subscription,
            selector,
            at: Some(0),
            until: self.next,
            left: VecDeque::new(),
            filling: false,
            granted: false,
            waits: false,
        });
    }

    pub(crate) fn grant_browser(&mut self, connection: ConnectionId, subscription: SubscriptionKey) {
        for browser in &mut self.browsers {
            if browser.outbox.connection() == connection && browser.subscription == subscription {
                browser.granted = true;
            }
        }
    }

    pub(crate) fn detach_browser(&mut self, connection: ConnectionId, subscription: SubscriptionKey) {
        self.browsers.retain(|browser| {
            browser.outbox.connection() != connection || browser.subscription != subscription
        });
    }

    pub(crate) fn pump_browsers(&mut self, queue: &Arc<Queue>, work: &mut Work) {
        if self.browsers.is_empty() {
            return;
        }
        let mut browsers = std::mem::take(&mut self.browsers);
        for browser in browsers.iter_mut().filter(|browser| browser.granted) {
            self.pump(queue, browser, work);
        }
        browsers.retain(|browser| !browser.granted || !browser.is_over());
        self.browsers = browsers;
    }

    fn pump(&mut self, queue: &Arc<Queue>, browser: &mut Browser, work: &mut Work) {
        let mut shown = 0;
        while !browser.waits && !browser.filling {
            let Some((message, attempts, redelivered)) = browser.left.front() else {
                let Some(at) = browser.at else {
                    browser.outbox.browsed(browser.subscription);
                    break;
                };
                let paged = self.ready.paged.arrived_after(Sequence(at), 1);
                if paged.first().is_some_and(|first| first.0 < browser.until) {
                    browser.filling = true;
                    let (connection, subscription) = (browser.outbox.connection(), browser.subscription);
                    work.jobs.push(Job::Browse { queue: Arc::clone(queue), connection, subscription });
                    break;
                }
                let entries = self.look(queue, at, browser.until, PART_MESSAGES);
                let next = entries.last().map(|entry| entry.sequence);
                let next = next.filter(|_| entries.len() == PART_MESSAGES);
                browser.take_part(Looked { entries, next, failed: false });
                continue;
            };
            if shown == BROWSE_MAX {
                browser.waits = true;
                browser.outbox.resume_when_written(queue);
                break;
            }
            let delivery = Delivery {
                message,
                subscription: browser.subscription,
                queue: queue.shows_own_name.then_some(&queue.destination),
                token: None,
                attempt: attempts + 1,
                redelivered: *redelivered,
                browsed: true,
                grant: None,
                sequence: None,
                progress: 0,
            };
            match browser.outbox.deliver(work.now, &delivery, false, queue) {
                Handed::Sent { .. } | Handed::Undeliverable(_) => {}
                Handed::NoRoom => {
                    browser.waits = true;
                    break;
                }
                Handed::NoCredit => break,
            }
            browser.left.pop_front();
            shown += 1;
        }
        work.enlist(&browser.outbox);
    }
}
