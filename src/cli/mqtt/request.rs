//! `sabir request` over MQTT 5: with a response topic and correlation data.

use sabir_mqtt::client::{self, MessageProperties};
use sabir_mqtt::packet::Publish;
use sabir_mqtt::{Qos, Version};

use super::publish::user_properties;
use super::{Connection, Event, Introduction, check_topic, unwritable};
use crate::cli::Failure;
use crate::cli::output;
use crate::cli::request::Arguments;
use crate::cli::server::Server;

/// That the version can do what is asked.
pub(in crate::cli) fn check(arguments: &Arguments, version: Version) -> Result<(), Failure> {
    check_topic(&arguments.destination)?;
    if let Some(topic) = &arguments.response_topic {
        check_topic(topic)?;
    }
    if version.has_properties() {
        return Ok(());
    }
    let sentence = format!("{} has no response topics: a request takes MQTT 5 or STOMP", version.protocol());
    Err(Failure::Usage(sentence))
}

pub(in crate::cli) fn ask(
    server: &Server,
    version: Version,
    arguments: &Arguments,
    body: &[u8],
) -> Result<(), Failure> {
    let user = user_properties(&arguments.headers)?;
    let introduction = Introduction { client_id: arguments.client_id.as_deref(), ..Introduction::default() };
    let mut connection = Connection::open(server, version, &arguments.server, &introduction)?;
    let qos = arguments.qos.unwrap_or(Qos::AtLeastOnce);
    connection.check_terms(qos, false)?;
    // No two clients have the same id at a time: nobody else uses the topic, and the id will do as correlation too.
    let correlation = connection.client_id.clone();
    let own = format!("replies/{correlation}");
    let response_topic = arguments.response_topic.as_deref().unwrap_or(&own);
    let id = connection.ids.take();
    client::subscribe(connection.link.out(), version, id, &[(response_topic, qos)]).map_err(unwritable)?;
    let deadline = connection.deadline();
    // The question goes out when the answer is sure to come in.
    loop {
        match connection.next(Some(deadline))? {
            Some(Event::Subscribed) => break,
            Some(_) => {}
            None => {
                return Err(Failure::TimedOut("the server does not confirm the subscription".to_owned()));
            }
        }
    }
    let id = connection.ids.take();
    connection.publish(&Publish {
        qos,
        topic: &arguments.destination,
        id: (qos != Qos::AtMostOnce).then_some(id),
        properties: MessageProperties {
            content_type: arguments.content_type.as_deref(),
            response_topic: Some(response_topic),
            correlation_data: Some(correlation.as_bytes()),
            user: user.get(),
            ..MessageProperties::default()
        },
        payload: body,
        ..Publish::default()
    })?;
    while let Some(event) = connection.next(Some(deadline))? {
        let Event::Message(message, receipt) = event else { continue };
        let is_answer = match message.get("correlation-data") {
            Some(text) => text == correlation,
            // A topic of ours alone gets answers only, also from those who forget the correlation data.
            None => arguments.response_topic.is_none(),
        };
        if is_answer {
            let mut printed = Vec::new();
            arguments.form().print(&message, &mut printed);
            output::write(&printed)?;
        }
        if let Some(receipt) = receipt {
            connection.acknowledge(receipt);
        }
        if is_answer {
            return connection.disconnect();
        }
    }
    Err(arguments.in_vain())
}
