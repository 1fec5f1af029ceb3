//! Letting a connection go: in good order, by way of its farewell, or because its peer has vanished.

use std::sync::Arc;

use sabir_model::destination::{Destination, Kind};
use sabir_model::pattern::Pattern;
use sabir_store::Level;

use crate::connection::Connection;
use crate::stats::add;
use crate::work::{finish, log_settled};

impl Connection {
    /// Leaves in good order, or (`clean` false) as one whose peer has vanished.
    pub fn close(mut self, clean: bool) {
        self.shut(clean);
    }

    pub(crate) fn shut(&mut self, clean: bool) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.work.set_now(self.shared.now());
        if clean {
            self.run_acks(false);
        }
        self.release();
        self.note_pressure();
        self.leave_line();
        self.work.get().pressed = None;
        // The frame that it was in the middle of is gone.
        let _ = self.hold_frame(0);
        // Held to the end: a peer that sees its stream end may act at once on everything being gone.
        let closed = self.outbox.close();
        let written = closed.written;
        self.leave_session();
        self.end_subscriptions(written);
        self.reclaim(written);
        self.drop_transactions();
        self.retire_tallies();
        let temporaries = self.aside.get_mut().map(|aside| std::mem::take(&mut aside.temporaries));
        for (destination, _) in temporaries.unwrap_or_default() {
            self.delete_temporary(&destination);
        }
        self.shared.connections.lock().remove(&self.id);
        let mut rounds = 0;
        while finish(&self.shared, self.work.get()) && rounds < 1000 {
            rounds += 1;
        }
    }

    /// Takes back what subscriptions that ended earlier had left to the socket.
    fn reclaim(&mut self, written: u64) {
        let left = self.aside.get_mut().map(|aside| std::mem::take(&mut aside.left));
        for queue in left.unwrap_or_default() {
            let (mut settled, mut attempts) = (Vec::new(), Vec::new());
            let mut held = queue.lock();
            held.core.reclaim(&queue, self.id, written, self.work.get(), &mut settled, &mut attempts);
            log_settled(&self.shared, queue.id, &mut settled, &attempts, Level::Os);
            held.core.dispatch(&queue, self.work.get());
        }
    }

    /// Whoever reads the receipt of its leaving may come back at once, and must find its client id and its durable
    /// subscriptions free. While deliveries still wait for the socket it has to be patient, for they may yet reach it.
    pub(crate) fn give_up_names(&mut self) {
        self.release();
        finish(&self.shared, self.work.get());
        if self.outbox.is_idle() {
            self.end_subscriptions(self.outbox.written());
        }
    }

    fn end_subscriptions(&mut self, written: u64) {
        self.subscribed = 0;
        let subscriptions = std::mem::take(&mut *self.mailbox.subscriptions.lock());
        for subscription in subscriptions.into_values() {
            self.end_subscription(subscription, written, false);
        }
        self.mailbox.owner.lock().client_id = None;
        if let Some(client_id) = self.client_id.take() {
            let mut known = self.host.client_ids.lock();
            if known.get(&client_id) == Some(&self.id) {
                known.remove(&client_id);
            }
        }
    }

    pub(crate) fn drop_transactions(&mut self) {
        let Some(aside) = self.aside.get_mut() else { return };
        add(&self.shared.counters.transactions_aborted, aside.transactions.len() as u64);
        for (_, transaction) in aside.transactions.drain() {
            transaction.give_back(&self.shared.budget);
        }
    }

    fn delete_temporary(&mut self, destination: &Destination) {
        match destination.kind() {
            Kind::Queue => {
                if let Some(queue) = self.host.find_queue(destination) {
                    let (host, shared) = (Arc::clone(&self.host), Arc::clone(&self.shared));
                    host.delete_queue(&shared, &queue, self.work.get());
                }
            }
            Kind::Topic => {
                self.host.temporary_topics.write().remove(destination);
                // Whoever has sent there remembers the way.
                self.host.touch(&Pattern::from(destination.clone()));
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shut(false);
    }
}
