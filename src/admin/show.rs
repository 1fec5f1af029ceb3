//! What management knows, as JSON.

use sabir_broker::manage::{
    ConnectionDetail, ConnectionEntry, DurableEntry, Picture, QueueDetail, QueueEntry, TopicDetail,
    TopicEntry,
};
use sabir_broker::{DeadLetters, Expired, Negative, Policies, Policy, Rules, SlowConsumer};
use sabir_model::clock::Timestamp;
use serde_json::{Map, Value, json};

/// The members of an object, to be added to.
fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// Milliseconds since a time; a message may claim to be from the future.
pub(crate) fn age(of: Option<Timestamp>, now: Timestamp) -> Option<u64> {
    of.map(|time| now.0.saturating_sub(time.0))
}

pub(crate) fn queue(entry: &QueueEntry, now: Timestamp) -> Value {
    let stats = &entry.stats;
    json!({
        "name": entry.name,
        "destination": entry.destination.as_ref().map(ToString::to_string),
        "kind": entry.kind.word(),
        "durability": stats.durability.to_string(),
        "ready": stats.ready,
        "unsettled": stats.unsettled,
        "bytes": stats.bytes,
        "paged": stats.paged,
        "consumers": stats.consumers,
        "enqueued": stats.enqueued,
        "delivered": stats.delivered,
        "acknowledged": stats.acknowledged,
        "redelivered": stats.redelivered,
        "expired": stats.expired,
        "deadLettered": stats.dead_lettered,
        "oldestMs": age(stats.oldest, now),
        "paused": stats.paused,
        "declared": entry.declared,
    })
}

pub(crate) fn queue_detail(detail: &QueueDetail, now: Timestamp) -> Value {
    let mut members = members(queue(&detail.entry, now));
    let consumers = detail.consumers.iter().map(|consumer| {
        json!({
            "connection": consumer.connection.0.to_string(),
            "subscription": consumer.subscription,
            "credit": consumer.credit,
            "inFlight": consumer.in_flight,
            "selector": consumer.selector,
            "priority": consumer.priority,
        })
    });
    members.insert("consumersList".into(), consumers.collect());
    members.insert("policy".into(), policy(&detail.policy));
    members.insert("bindings".into(), json!(detail.bindings));
    Value::Object(members)
}

pub(crate) fn topic(entry: &TopicEntry) -> Value {
    json!({
        "name": entry.name,
        "destination": entry.destination.to_string(),
        "subscribers": entry.subscribers,
        "published": entry.published,
        "retained": entry.retained,
        "virtual": entry.is_virtual,
    })
}

pub(crate) fn topic_detail(detail: &TopicDetail) -> Value {
    let mut members = members(topic(&detail.entry));
    let connections = detail.connections.iter().map(|id| json!({ "connection": id.0.to_string() }));
    let sessions = detail.sessions.iter().map(|id| json!({ "client": id }));
    members.insert("subscribersList".into(), connections.chain(sessions).collect());
    let bound = detail.queues.iter().map(|name| json!({ "queue": name }));
    members.insert("boundQueues".into(), bound.collect());
    Value::Object(members)
}

pub(crate) fn durable(entry: &DurableEntry) -> Value {
    json!({
        "client": entry.client_id,
        "name": entry.name,
        "pattern": entry.pattern.to_string(),
        "selector": entry.selector,
        "queue": entry.queue,
        "connected": entry.connected,
        "ready": entry.ready,
    })
}

pub(crate) fn connection(entry: &ConnectionEntry) -> Value {
    let protocol = if entry.protocol.is_empty() { "HTTP" } else { entry.protocol };
    json!({
        "id": entry.id.0.to_string(),
        "protocol": protocol,
        "peer": entry.peer,
        "listener": entry.listener,
        "user": entry.user,
        "clientId": entry.client_id,
        "since": entry.since.0,
        "subscriptions": entry.subscriptions,
        "published": entry.published,
        "delivered": entry.delivered,
        "outboxBytes": entry.outbox_bytes,
        "unsettled": entry.unsettled,
    })
}

pub(crate) fn connection_detail(detail: &ConnectionDetail) -> Value {
    let mut members = members(connection(&detail.entry));
    let subscriptions = detail.subscriptions.iter().map(|one| {
        json!({
            "destination": one.destination,
            "selector": one.selector,
            "credit": one.credit,
            "inFlight": one.in_flight,
        })
    });
    members.insert("subscriptionsList".into(), subscriptions.collect());
    Value::Object(members)
}

pub(crate) fn picture(picture: &Picture) -> Value {
    let nodes = picture.nodes.iter();
    let nodes = nodes.map(|node| json!({ "id": node.id, "kind": node.kind.word(), "label": node.label }));
    let edges = picture.edges.iter().map(|edge| {
        json!({
            "from": edge.from,
            "to": edge.to,
            "kind": edge.kind.word(),
            "messages": edge.messages,
        })
    });
    json!({
        "nodes": nodes.collect::<Value>(),
        "edges": edges.collect::<Value>(),
        "truncated": picture.truncated,
    })
}

fn limit(most: u64) -> Option<u64> {
    (most != u64::MAX).then_some(most)
}

pub(crate) fn policy(policy: &Policy) -> Value {
    let dead_letters = match &policy.dead_letters {
        DeadLetters::Shared(destination) => json!({ "queue": destination.to_string() }),
        DeadLetters::Individual { prefix, suffix } => json!({ "prefix": prefix, "suffix": suffix }),
        DeadLetters::Discard => Value::Null,
    };
    let milliseconds = |span: Option<std::time::Duration>| {
        span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    };
    json!({
        "durability": policy.durability.to_string(),
        "messagesMax": limit(policy.messages_max),
        "bytesMax": limit(policy.bytes_max),
        "deliveryLimit": policy.delivery_limit,
        "negative": match policy.negative {
            Negative::Redeliver => "redeliver",
            Negative::DeadLetter => "dead-letter",
        },
        "deadLetters": dead_letters,
        "expired": match policy.expired {
            Expired::Drop => "drop",
            Expired::DeadLetter => "dead-letter",
        },
        "prioritized": policy.prioritized,
        "slowConsumer": match policy.slow_consumer {
            SlowConsumer::DropOldest => "drop-oldest",
            SlowConsumer::DropNewest => "drop-newest",
            SlowConsumer::Disconnect => "disconnect",
        },
        "pendingMax": policy.pending_max,
        "prefetch": policy.prefetch,
        "gcAfterMs": milliseconds(policy.gc_after),
        "ttlMaxMs": milliseconds(policy.ttl_max),
    })
}

/// The entries as configured, then what holds for everything else: that has no pattern.
pub(crate) fn policies(policies: &Policies) -> Value {
    let entries = policies.entries().map(|(pattern, policy)| (Some(pattern.to_string()), policy));
    let all = entries.chain([(None, policies.default_policy())]);
    let items: Vec<Value> = all
        .map(|(pattern, entry)| {
            let mut members = members(policy(entry));
            members.insert("pattern".into(), json!(pattern));
            Value::Object(members)
        })
        .collect();
    let total = items.len();
    json!({ "items": items, "next": null, "total": total })
}

pub(crate) fn rules(rules: &Rules) -> Value {
    let composites = rules.composites.iter().map(|rule| {
        let forwards = rule.forward_to.iter().map(|forward| {
            json!({
                "destination": forward.destination.to_string(),
                "selector": forward.selector.as_ref().map(|selector| selector.source()),
            })
        });
        json!({
            "name": rule.name.to_string(),
            "forwardTo": forwards.collect::<Value>(),
            "forwardOnly": rule.forward_only,
            "sendWhenNotMatched": rule.send_when_not_matched,
        })
    });
    let topics = rules.virtual_topics.iter().map(|rule| {
        json!({
            "name": rule.name.to_string(),
            "prefix": rule.prefix,
            "postfix": rule.postfix,
            "selectorAware": rule.selector_aware,
        })
    });
    let mirrored = rules.mirrored_queues.as_ref();
    json!({
        "composites": composites.collect::<Value>(),
        "virtualTopics": topics.collect::<Value>(),
        "mirroredQueues": mirrored.map(|rule| json!({ "prefix": rule.prefix, "postfix": rule.postfix })),
    })
}
