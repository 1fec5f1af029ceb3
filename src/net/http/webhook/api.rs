//! The requests that define, show, pause and delete webhooks.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use sabir_admin::{Caller, Problem, Routes};
use sabir_broker::NoteTable;
use sabir_model::access::{Action, Resource};
use sabir_model::error::Code;
use sabir_model::pattern::Pattern;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::definition::{Definition, Owner, Plan};
use super::worker::{Order, Status};
use super::{Hook, Key, Take, Worker, forget_topic, subscribe_once, unknown};
use crate::net::Shared;
use crate::net::http::params::{Call, Name};
use crate::net::http::party::kept;
use crate::net::http::{json as reply, read_body};

/// Longest name of a webhook.
const NAME_BYTES_MAX: usize = 255;
/// Largest definition.
const DEFINITION_BYTES_MAX: usize = 64 * 1024;
/// Items of a page, where the request does not say, and at most.
const PAGE: u64 = 100;
const PAGE_MAX: u64 = 1000;

/// The paths of webhooks.
pub(in crate::net::http) fn add(routes: Routes) -> Routes {
    routes
        .at("/v1/webhooks", [(Method::GET, get(list))])
        .at(
            "/v1/webhooks/{name}",
            [(Method::PUT, put(define)), (Method::GET, get(show)), (Method::DELETE, delete(remove))],
        )
        .at("/v1/webhooks/{name}/pause", [(Method::POST, post(pause))])
        .at("/v1/webhooks/{name}/resume", [(Method::POST, post(resume))])
}

fn key(call: &mut Call, name: String) -> Key {
    let virtual_host = call.params.take("vhost").unwrap_or_else(|| "/".to_owned());
    Key { virtual_host: virtual_host.into(), name: name.into() }
}

/// Whether somebody may manage what a webhook takes from; one on a subscription that is gone is the server's.
fn check(shared: &Shared, caller: &Caller, key: &Key, definition: &Definition) -> Result<(), Problem> {
    let pattern = definition.pattern().ok().flatten();
    let take = pattern_of(shared, key, definition, pattern);
    let resource = match take.as_ref().map(|pattern| (pattern, pattern.as_literal())) {
        Some((_, Some(destination))) => Resource::Destination(destination.as_ref()),
        Some((pattern, None)) => Resource::Pattern(pattern),
        None => Resource::Server,
    };
    shared.broker.check(&caller.principal, Action::Manage, resource).map_err(Problem::from)
}

fn pattern_of(
    shared: &Shared,
    key: &Key,
    definition: &Definition,
    pattern: Option<Pattern>,
) -> Option<Pattern> {
    pattern.or_else(|| match &definition.source {
        super::Wanted::Subscription(one) => {
            shared.broker.durable(&key.virtual_host, &one.client, &one.name).map(|(pattern, _)| pattern)
        }
        super::Wanted::Destination(_) => None,
    })
}

fn shown(key: &Key, definition: &Definition, status: &Status) -> Value {
    let state = match (definition.paused, status.next_attempt, status.running) {
        (true, ..) => "paused",
        (false, Some(_), 0) => "backing-off",
        (false, ..) => "active",
    };
    let mut shown = definition.shown();
    if let Value::Object(members) = &mut shown {
        let more = json!({
            "name": key.name,
            "state": state,
            "delivered": status.delivered,
            "failed": status.failed,
            "deadLettered": status.dead_lettered,
            "running": status.running,
            "held": status.held,
            "lastStatus": status.last_status,
            "lastError": status.last_error,
            "lastErrorAt": status.last_error_at.map(|at| at.0),
            "lastDeliveredAt": status.last_delivered_at.map(|at| at.0),
            "nextAttempt": status.next_attempt.map(|at| at.0),
        });
        if let Value::Object(more) = more {
            members.extend(more);
        }
    }
    shown
}

/// `GET /v1/webhooks/{name}`.
async fn show(mut call: Call, Name(name): Name) -> Result<Response, Problem> {
    let key = key(&mut call, name);
    let Call { visit, caller, params, .. } = call;
    params.finish()?;
    let shared = &visit.shared;
    let found = {
        let book = shared.http.webhooks.book.lock();
        book.hooks.get(&key).map(|hook| (hook.definition.clone(), hook.status.lock().clone()))
    };
    let (definition, status) = found.ok_or_else(|| unknown(&key.name))?;
    check(shared, &caller, &key, &definition)?;
    Ok(reply(StatusCode::OK, shown(&key, &definition, &status).to_string().into_bytes()))
}

/// `GET /v1/webhooks`: those that the caller may manage.
async fn list(mut call: Call) -> Result<Response, Problem> {
    let host = call.params.take("vhost").unwrap_or_else(|| "/".to_owned());
    let limit = call.params.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let after = call.params.take("after");
    let filter = call.params.take("filter");
    let Call { visit, caller, params, .. } = call;
    params.finish()?;
    let shared = &visit.shared;
    let all: Vec<(Key, Definition)> = {
        let book = shared.http.webhooks.book.lock();
        let wanted = |key: &&Key| {
            *key.virtual_host == *host && filter.as_deref().is_none_or(|filter| is_like(&key.name, filter))
        };
        let found = book.hooks.iter().filter(|(key, _)| wanted(key));
        found.map(|(key, hook)| (key.clone(), hook.definition.clone())).collect()
    };
    let mine: Vec<(Key, Definition)> =
        all.into_iter().filter(|(key, definition)| check(shared, &caller, key, definition).is_ok()).collect();
    let total = mine.len();
    let mut rest =
        mine.into_iter().filter(|(key, _)| after.as_deref().is_none_or(|after| *key.name > *after));
    let page: Vec<(Key, Definition)> = rest.by_ref().take(limit).collect();
    let next = page.last().filter(|_| rest.next().is_some()).map(|(key, _)| key.name.to_string());
    let items: Vec<Value> = {
        let book = shared.http.webhooks.book.lock();
        let status =
            |key: &Key| book.hooks.get(key).map(|hook| hook.status.lock().clone()).unwrap_or_default();
        page.iter().map(|(key, definition)| shown(key, definition, &status(key))).collect()
    };
    let body = json!({ "items": items, "next": next, "total": total });
    Ok(reply(StatusCode::OK, body.to_string().into_bytes()))
}

/// Whether a name has the parts of a filter, between its `*`, in their order; capitals are small letters here.
fn is_like(name: &str, filter: &str) -> bool {
    let name = name.to_lowercase();
    let mut rest = name.as_str();
    for part in filter.to_lowercase().split('*') {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}

/// `PUT /v1/webhooks/{name}`: makes it, or makes it anew; then it starts over, with its counts at zero.
async fn define(
    mut call: Call,
    Name(name): Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let key = key(&mut call, name);
    let Call { visit, caller, params, .. } = call;
    params.finish()?;
    if key.name.is_empty() || key.name.len() > NAME_BYTES_MAX || key.name.contains(char::is_control) {
        let sentence =
            format!("a webhook's name has 1 to {NAME_BYTES_MAX} bytes, none of them a control character");
        return Err(Problem::invalid("name", sentence));
    }
    let body = read_body(&visit, &headers, body).await?;
    if body.len() > DEFINITION_BYTES_MAX {
        let sentence = format!("a definition has at most {DEFINITION_BYTES_MAX} bytes");
        return Err(Problem::new(Code::TooLarge, sentence));
    }
    let shared = &visit.shared;
    let hooks = &shared.http.webhooks;
    let owner = Owner::of(&caller.principal);
    // Names are looked up before anybody has to wait for it.
    let before = before(shared, &key);
    if let Some(before) = &before {
        check(shared, &caller, &key, before)?;
    }
    let definition = Definition::read(&body, owner.clone(), before.as_ref())?;
    let plan = definition.plan()?;
    check(shared, &caller, &key, &definition)?;
    check_target(shared, &plan, definition.timeout).await?;

    let alone = hooks.changing.lock().await;
    let before = self::before(shared, &key);
    if let Some(before) = &before {
        check(shared, &caller, &key, before)?;
    }
    let definition = Definition::read(&body, owner, before.as_ref())?;
    check_room(shared, &key, &definition)?;
    let take = Take::of(&key, &definition, plan.pattern);
    match &take {
        // Its own durable subscription has one consumer at a time: after the old worker has ended.
        Take::Own(_) if take.is_topic() => {}
        Take::Own(_) => drop(subscribe_once(shared, &key, &take)?),
        // Somebody else's may be in use just now; that it is there is what matters.
        Take::Others(role, _) => {
            let source = take.source(shared)?;
            let topics = source.pattern.as_literal().map(|topic| Resource::Destination(topic.as_ref()));
            let topics = topics.unwrap_or(Resource::Pattern(&source.pattern));
            shared.broker.check(&role.principal, Action::Consume, topics)?;
        }
    }
    stop(shared, &key).await;
    if take.is_topic()
        && let Err(refusal) = subscribe_once(shared, &key, &take)
    {
        if let Some(before) = before {
            hooks.insert(shared, key, before, Arc::default(), None);
        }
        return Err(refusal.into());
    }
    let promise = shared.broker.keep_note(NoteTable::Webhooks, &key.encode(), &definition.encode());
    if let Some(before) = before.as_ref().filter(|_| !take.is_topic()) {
        forget_topic(shared, &key, before);
    }
    let status = Arc::default();
    hooks.insert(shared, key.clone(), definition.clone(), Arc::clone(&status), None);
    drop(alone);
    kept(&shared.broker, Some(promise)).await;
    let made = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let status = status.lock().clone();
    Ok(reply(made, shown(&key, &definition, &status).to_string().into_bytes()))
}

fn before(shared: &Shared, key: &Key) -> Option<Definition> {
    shared.http.webhooks.book.lock().hooks.get(key).map(|hook| hook.definition.clone())
}

/// Whether the URL may be called now.
async fn check_target(shared: &Shared, plan: &Plan, timeout_ms: u64) -> Result<(), Problem> {
    let common = &shared.http.webhooks.common;
    let turn = Arc::new(Semaphore::new(1));
    let resolving = common.targets.resolve(&plan.url.host, plan.url.port, &turn);
    let resolved = tokio::time::timeout(Duration::from_millis(timeout_ms), resolving).await;
    let resolved =
        resolved.unwrap_or_else(|_| Err(format!("the host {} was not found in time", plan.url.host)));
    let checked = match resolved {
        Ok(_) if plan.url.secure => common.tls.ready().map(drop),
        Ok(_) => Ok(()),
        Err(why) => Err(why),
    };
    checked.map_err(|why| Problem { field: Some("url".into()), ..Problem::new(Code::InvalidBody, why) })
}

/// Whether there is room for it, beside all others.
fn check_room(shared: &Shared, key: &Key, definition: &Definition) -> Result<(), Problem> {
    let hooks = &shared.http.webhooks;
    let book = hooks.book.lock();
    if book.closed {
        return Err(Problem::new(Code::ShuttingDown, "the broker is shutting down"));
    }
    let others = || book.hooks.iter().filter(|(other, _)| *other != key);
    if others().count() >= hooks.count_max {
        let sentence =
            format!("there are {} webhooks, the most there may be (webhooks.count_max)", hooks.count_max);
        return Err(Problem::new(Code::LimitReached, sentence));
    }
    let used: usize = others().map(|(_, hook)| hook.definition.concurrency as usize).sum();
    if used + definition.concurrency as usize > hooks.concurrency_max {
        let sentence = format!(
            "the other webhooks may send {used} requests at a time; together there may be {} (webhooks.concurrency_max)",
            hooks.concurrency_max
        );
        return Err(Problem {
            field: Some("concurrency".into()),
            ..Problem::new(Code::LimitReached, sentence)
        });
    }
    Ok(())
}

/// Ends a webhook's worker at once, and waits until it has given back what it held.
async fn stop(shared: &Shared, key: &Key) {
    let worker = shared.http.webhooks.book.lock().hooks.get_mut(key).and_then(|hook| hook.worker.take());
    if let Some(Worker { orders, task }) = worker {
        orders.send_replace(Order::Cut);
        drop(task.await);
    }
}

/// `DELETE /v1/webhooks/{name}`.
async fn remove(mut call: Call, Name(name): Name) -> Result<Response, Problem> {
    let key = key(&mut call, name);
    let Call { visit, caller, params, .. } = call;
    params.finish()?;
    let shared = &visit.shared;
    let hooks = &shared.http.webhooks;
    let alone = hooks.changing.lock().await;
    let definition = before(shared, &key).ok_or_else(|| unknown(&key.name))?;
    check(shared, &caller, &key, &definition)?;
    stop(shared, &key).await;
    hooks.book.lock().hooks.remove(&key);
    let promise = shared.broker.drop_note(NoteTable::Webhooks, &key.encode());
    forget_topic(shared, &key, &definition);
    drop(alone);
    kept(&shared.broker, Some(promise)).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/webhooks/{name}/pause`: begins no more requests; those under way are finished, everything else goes back.
async fn pause(call: Call, name: Name) -> Result<Response, Problem> {
    switch(call, name, true).await
}

/// `POST /v1/webhooks/{name}/resume`.
async fn resume(call: Call, name: Name) -> Result<Response, Problem> {
    switch(call, name, false).await
}

async fn switch(mut call: Call, Name(name): Name, paused: bool) -> Result<Response, Problem> {
    let key = key(&mut call, name);
    let Call { visit, caller, params, .. } = call;
    params.finish()?;
    let shared = &visit.shared;
    let hooks = &shared.http.webhooks;
    let alone = hooks.changing.lock().await;
    let definition = before(shared, &key).ok_or_else(|| unknown(&key.name))?;
    check(shared, &caller, &key, &definition)?;
    let mut promise = None;
    if definition.paused != paused {
        let definition = Definition { paused, ..definition };
        promise = Some(shared.broker.keep_note(NoteTable::Webhooks, &key.encode(), &definition.encode()));
        let mut book = hooks.book.lock();
        let closed = book.closed;
        let Some(Hook { definition: known, worker, status, version, .. }) = book.hooks.get_mut(&key) else {
            return Err(unknown(&key.name));
        };
        known.paused = paused;
        let before = worker.take();
        if paused {
            if let Some(before) = &before {
                before.orders.send_replace(Order::Finish);
            }
            *worker = before;
        } else if !closed {
            *worker = hooks.start(shared, &key, &definition, status, *version, before);
        }
    }
    drop(alone);
    kept(&shared.broker, promise).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn a_filter_is_a_part_of_the_name_with_gaps() {
        for (filter, fits) in
            [("", true), ("ORD", true), ("o*s", true), ("*eu*", true), ("eu*orders", false), ("x", false)]
        {
            assert_eq!(is_like("orders-EU", filter), fits, "{filter}");
        }
    }
}
