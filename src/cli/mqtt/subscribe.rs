//! `sabir sub` over MQTT.
#![expect(clippy::disallowed_methods, reason = "a client of the broker: its deadlines are its own")]

use std::collections::HashSet;
use std::time::Instant;

use sabir_mqtt::client::{AckKind, SubscribeOptions};
use sabir_mqtt::packet::{RetainHandling, Subscribe, Subscription, Subscriptions, UserProperties};
use sabir_mqtt::{PacketId, Qos, Version};

use super::publish::user_properties;
use super::{Connection, Event, Introduction, Receipt, check_properties, unwritable};
use crate::cli::output::{self, Form};
use crate::cli::server::Server;
use crate::cli::subscribe::{Arguments, BATCH_BYTES};
use crate::cli::{Failure, connection::Message};

/// Most deliveries on the way that a count asks for.
const FEW_MAX: u64 = 1000;

pub(in crate::cli) fn take(server: &Server, version: Version, arguments: &Arguments) -> Result<(), Failure> {
    let prefetch = arguments.prefetch.is_some();
    check_properties(version, &[("--prefetch", prefetch), ("--header", !arguments.headers.is_empty())])?;
    // No more on the way than will be printed: the rest stays in the session.
    let few = arguments.count.map(|count| count.clamp(1, FEW_MAX));
    let receive_max = arguments.prefetch.map(u64::from).or(few);
    let introduction = Introduction {
        client_id: arguments.client_id.as_deref(),
        session_expiry_s: arguments.session_expiry,
        receive_max: receive_max.map(|most| u16::try_from(most.max(1)).unwrap_or(u16::MAX)),
    };
    let mut connection = Connection::open(server, version, &arguments.server, &introduction)?;
    subscribe(arguments, &mut connection)?;
    let mut confirmed = false;
    let mut printer = Printer::new(arguments.form());
    let wanted = arguments.count.unwrap_or(u64::MAX);
    let mut received = 0;
    let mut heard = Instant::now();
    while received < wanted {
        if printer.printed.len() >= BATCH_BYTES || !connection.has_next()? {
            printer.settle(&mut connection)?;
        }
        let deadline =
            if confirmed { arguments.idle.map(|idle| heard + idle) } else { Some(connection.deadline()) };
        match connection.next(deadline)? {
            Some(Event::Message(message, receipt)) => {
                received += 1;
                heard = Instant::now();
                printer.add(&message, receipt);
            }
            Some(Event::Released(id)) => printer.release(id),
            Some(Event::Subscribed) => {
                confirmed = true;
                heard = Instant::now();
            }
            Some(Event::Welcome(_) | Event::Arrived(_) | Event::Pong) => {}
            None if !confirmed => {
                return Err(Failure::TimedOut("the server does not confirm the subscription".to_owned()));
            }
            None => break,
        }
    }
    printer.settle(&mut connection)?;
    printer.wait(&mut connection)?;
    connection.disconnect()?;
    arguments.verdict(received)
}

/// Asks for messages.
fn subscribe(arguments: &Arguments, connection: &mut Connection) -> Result<(), Failure> {
    let options = SubscribeOptions {
        // What was kept has been printed by whoever began the session.
        retain_handling: match arguments.session_expiry {
            Some(_) => RetainHandling::IfNew,
            None => RetainHandling::Always,
        },
        ..SubscribeOptions::qos(arguments.qos.unwrap_or(Qos::AtLeastOnce))
    };
    let wishes = [Subscription { filter: &arguments.destination, options }];
    let user = user_properties(&arguments.headers)?;
    let user = if arguments.headers.is_empty() { UserProperties::NONE } else { user.get() };
    let id = connection.ids.take();
    let subscriptions = Subscriptions::new(&wishes);
    let packet = Subscribe { id, subscription_id: None, user, subscriptions };
    packet.encode(connection.version, connection.link.out()).map_err(unwritable)?;
    connection.flush()
}

/// Printed messages that have not yet left, and their acknowledgements, which wait until they have.
struct Printer {
    form: Form,
    printed: Vec<u8>,
    unacknowledged: Vec<Receipt>,
    /// Messages of QoS 2 that the server has not released.
    unreleased: HashSet<PacketId>,
}

impl Printer {
    fn new(form: Form) -> Self {
        Self { form, printed: Vec::new(), unacknowledged: Vec::new(), unreleased: HashSet::new() }
    }

    fn add(&mut self, message: &Message, receipt: Option<Receipt>) {
        self.form.print(message, &mut self.printed);
        self.unacknowledged.extend(receipt);
    }

    fn release(&mut self, id: PacketId) {
        self.unreleased.remove(&id);
    }

    fn settle(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        if !self.printed.is_empty() {
            output::write(&self.printed)?;
            self.printed.clear();
        }
        for receipt in self.unacknowledged.drain(..) {
            if receipt.kind == AckKind::Pubrec {
                self.unreleased.insert(receipt.id);
            }
            connection.acknowledge(receipt);
        }
        if connection.link.out().is_empty() { Ok(()) } else { connection.flush() }
    }

    /// Waits until the server knows of everything that came exactly once; what comes meanwhile stays with the server.
    fn wait(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        let deadline = connection.deadline();
        while !self.unreleased.is_empty() {
            match connection.next(Some(deadline))? {
                Some(Event::Released(id)) => self.release(id),
                Some(_) => {}
                None => {
                    let missing = self.unreleased.len();
                    return Err(Failure::TimedOut(format!("{missing} messages were not released")));
                }
            }
        }
        Ok(())
    }
}
