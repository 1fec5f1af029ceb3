//! `sabir pub` over MQTT.

use std::collections::HashSet;

use sabir_mqtt::client::{MessageProperties, UserPropertiesBuffer};
use sabir_mqtt::packet::Publish;
use sabir_mqtt::{PacketId, Qos, Version};

use super::{Connection, Event, Introduction, check_properties, check_topic};
use crate::cli::Failure;
use crate::cli::publish::{Arguments, Sender};
use crate::cli::server::Server;

/// Messages on the way without an acknowledgement.
const WINDOW: usize = 1000;

/// That the version can do what is asked.
pub(in crate::cli) fn check(arguments: &Arguments, version: Version) -> Result<(), Failure> {
    check_topic(&arguments.destination)?;
    let (headers, kind) = (!arguments.headers.is_empty(), arguments.content_type.is_some());
    check_properties(version, &[("--header", headers), ("--content-type", kind)])
}

/// User properties for a packet.
pub(super) fn user_properties(headers: &[(String, String)]) -> Result<UserPropertiesBuffer, Failure> {
    let mut user = UserPropertiesBuffer::new();
    for (name, value) in headers {
        if !user.push(name, value) {
            return Err(Failure::Usage(format!("the header {name} is longer than MQTT can say")));
        }
    }
    Ok(user)
}

pub(in crate::cli) struct MqttSender<'a> {
    connection: Connection,
    arguments: &'a Arguments,
    user: UserPropertiesBuffer,
    qos: Qos,
    window: usize,
    /// Messages that are not acknowledged.
    pending: HashSet<PacketId>,
}

impl<'a> MqttSender<'a> {
    pub(in crate::cli) fn open(
        server: &Server,
        version: Version,
        arguments: &'a Arguments,
    ) -> Result<Self, Failure> {
        let introduction =
            Introduction { client_id: arguments.client_id.as_deref(), ..Introduction::default() };
        let user = user_properties(&arguments.headers)?;
        let connection = Connection::open(server, version, &arguments.server, &introduction)?;
        let qos = arguments.qos.unwrap_or_default();
        connection.check_terms(qos, arguments.retain)?;
        let window = WINDOW.min(connection.receive_max.into());
        Ok(Self { connection, arguments, user, qos, window, pending: HashSet::new() })
    }

    /// Waits until no more than `left` messages are unacknowledged.
    fn wait_for(&mut self, left: usize) -> Result<(), Failure> {
        while self.pending.len() > left {
            let deadline = self.connection.deadline();
            match self.connection.next(Some(deadline))? {
                Some(Event::Arrived(id)) => {
                    self.pending.remove(&id);
                }
                Some(_) => {}
                None => {
                    let missing = self.pending.len();
                    return Err(Failure::TimedOut(format!("{missing} messages were not acknowledged")));
                }
            }
        }
        Ok(())
    }

    /// An id that no message on the way has.
    fn id(&mut self) -> PacketId {
        loop {
            let id = self.connection.ids.take();
            if self.pending.insert(id) {
                return id;
            }
        }
    }
}

impl Sender for MqttSender<'_> {
    fn send(&mut self, body: &[u8]) -> Result<(), Failure> {
        let id = (self.qos != Qos::AtMostOnce).then(|| self.id());
        let publish = Publish {
            qos: self.qos,
            retain: self.arguments.retain,
            topic: &self.arguments.destination,
            id,
            properties: MessageProperties {
                content_type: self.arguments.content_type.as_deref(),
                user: self.user.get(),
                ..MessageProperties::default()
            },
            payload: body,
            ..Publish::default()
        };
        self.connection.publish(&publish)?;
        if self.pending.len() >= self.window {
            self.connection.flush()?;
            self.wait_for(self.window / 2)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: usize) -> Result<(), Failure> {
        if self.connection.link.out().len() > bytes { self.connection.flush() } else { Ok(()) }
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.connection.flush()?;
        self.wait_for(0)?;
        self.connection.disconnect()
    }
}
