//! Browsing: a look at what a queue holds, which takes nothing and ends by itself.

use std::collections::VecDeque;
use std::sync::Arc;

use sabir_model::delivery::Delivery;
use sabir_model::ids::{ConnectionId, Sequence, SubscriptionKey};
use sabir_model::message::Message;
use sabir_model::selector::Selector;

use crate::outbox::{Handed, Outbox};
use crate::queue::{Queue, QueueCore};
use crate::selection::MessageView;
use crate::work::Work;

/// Messages handed to a browser under one hold of the lock.
const BROWSE_MAX: usize = 500;

/// A look at a queue in progress.
#[derive(Debug)]
pub(crate) struct Browser {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) subscription: SubscriptionKey,
    pub(crate) left: VecDeque<(Message, u32, bool)>,
    pub(crate) granted: bool,
    /// Its outbox has had enough; it will say when it has room.
    pub(crate) waits: bool,
}

impl QueueCore {
    /// Starts a look at what is here now. Returns nothing: the browser ends by itself.
    pub(crate) fn browse(
        &mut self,
        outbox: &Arc<Outbox>,
        subscription: SubscriptionKey,
        selector: Option<&Selector>,
        queue: &Queue,
    ) {
        let mut seen: Vec<(Sequence, Message, u32, bool)> = self
            .in_flight
            .iter()
            .map(|held| {
                (held.sequence, held.entry.message.clone(), held.entry.attempts, held.entry.redelivered)
            })
            .collect();
        seen.extend(
            self.ready.iter().map(|(key, e)| (key.sequence, e.message.clone(), e.attempts, e.redelivered)),
        );
        seen.sort_unstable_by_key(|(sequence, ..)| *sequence);
        let own_name = queue.shows_own_name.then_some(&queue.destination);
        let left = seen
            .into_iter()
            .filter(|(_, message, attempts, redelivered)| {
                let view = MessageView::new(message, own_name).attempt(attempts + 1, *redelivered);
                selector.is_none_or(|selector| selector.matches(&view))
            })
            .map(|(_, message, attempts, redelivered)| (message, attempts, redelivered))
            .collect();
        let outbox = Arc::clone(outbox);
        self.browsers.push(Browser { outbox, subscription, left, granted: false, waits: false });
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
        for browser in &mut self.browsers {
            if !browser.granted || browser.waits {
                continue;
            }
            let mut shown = 0;
            while shown < BROWSE_MAX
                && let Some((message, attempts, redelivered)) = browser.left.front()
            {
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
            if browser.left.is_empty() {
                browser.outbox.browsed(browser.subscription);
            } else if shown == BROWSE_MAX {
                browser.waits = true;
                browser.outbox.resume_when_written(queue);
            }
            work.enlist(&browser.outbox);
        }
        self.browsers.retain(|browser| !browser.granted || !browser.left.is_empty());
    }
}
