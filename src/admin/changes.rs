//! The handlers of the management API that change something. Each answers once its change is on disk.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sabir_broker::manage::Deletion;
use sabir_model::access::{Action, Resource};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::Code;
use sabir_model::pattern::Pattern;
use serde::Deserialize;
use serde_json::json;

use crate::answer::{Ask, JsonBody, aside, json};
use crate::kept;
use crate::management::connection_id;
use crate::problem::Problem;
use crate::query::{Name, Names};
use crate::show;

/// `PUT /v1/queues/{name}`: makes it if it is not there, and keeps it although nobody uses it.
pub(crate) async fn declare_queue(mut ask: Ask, Name(name): Name) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may(Action::Manage, &Destination::from_dotted(Kind::Queue, false, &name)?)?;
    let (broker, now) = (ask.broker.clone(), ask.broker.now().wall);
    let (made, detail) = aside(move || {
        let made = ask.broker.declare_queue(&ask.vhost, &name)?;
        Ok((made, ask.broker.queue_detail(&ask.vhost, &name)?))
    })
    .await?;
    kept(&broker, Some(made.promise)).await;
    let status = if made.new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &show::queue_detail(&detail, now)))
}

/// `DELETE /v1/queues/{name}`.
pub(crate) async fn delete_queue(mut ask: Ask, Name(name): Name) -> Result<Response, Problem> {
    let deletion = Deletion {
        if_empty: ask.params.flag("ifEmpty")?.unwrap_or(false),
        if_unused: ask.params.flag("ifUnused")?.unwrap_or(false),
    };
    ask.finish()?;
    ask.may_on_queue(Action::Manage, &name)?;
    let broker = ask.broker.clone();
    let promise = aside(move || ask.broker.remove_queue(&ask.vhost, &name, deletion)).await?;
    kept(&broker, Some(promise)).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/queues/{name}/purge`.
pub(crate) async fn purge_queue(mut ask: Ask, Name(name): Name) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_on_queue(Action::Manage, &name)?;
    let broker = ask.broker.clone();
    let (removed, promise) = aside(move || ask.broker.purge_queue(&ask.vhost, &name)).await?;
    kept(&broker, Some(promise)).await;
    Ok(json(StatusCode::OK, &json!({ "removed": removed })))
}

/// `POST /v1/queues/{name}/pause`.
pub(crate) async fn pause_queue(ask: Ask, Name(name): Name) -> Result<Response, Problem> {
    set_paused(ask, name, true).await
}

/// `POST /v1/queues/{name}/resume`.
pub(crate) async fn resume_queue(ask: Ask, Name(name): Name) -> Result<Response, Problem> {
    set_paused(ask, name, false).await
}

async fn set_paused(mut ask: Ask, name: String, paused: bool) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_on_queue(Action::Manage, &name)?;
    let broker = ask.broker.clone();
    let promise = aside(move || ask.broker.pause_queue(&ask.vhost, &name, paused)).await?;
    kept(&broker, Some(promise)).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE /v1/topics/{name}/retained`.
pub(crate) async fn clear_retained(mut ask: Ask, Name(name): Name) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may(Action::Manage, &Destination::from_dotted(Kind::Topic, false, &name)?)?;
    let promise = ask.broker.clear_retained(&ask.vhost, &name)?;
    kept(&ask.broker, Some(promise)).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE /v1/connections/{id}`.
pub(crate) async fn close_connection(mut ask: Ask, Name(id): Name) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_manage()?;
    ask.broker.close_connection(connection_id(&id)?)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What a durable subscription is to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// A topic, or a pattern of topics.
    topic: String,
    #[serde(default)]
    selector: Option<String>,
}

/// Whoever may consume from its topics, or manage the server, may make and delete a durable subscription.
fn may_subscribe(ask: &Ask, pattern: &Pattern) -> Result<(), Problem> {
    let topics = match pattern.as_literal() {
        Some(topic) => Resource::Destination(topic.as_ref()),
        None => Resource::Pattern(pattern),
    };
    match ask.may_manage() {
        Ok(()) => Ok(()),
        Err(_) => Ok(ask.broker.check(&ask.principal, Action::Consume, topics)?),
    }
}

/// `PUT /v1/subscriptions/{client}/{name}`: makes it, or changes what it is to; then its backlog begins anew.
pub(crate) async fn declare_subscription(
    mut ask: Ask,
    Names(client, name): Names,
    body: JsonBody,
) -> Result<Response, Problem> {
    ask.finish()?;
    let wanted: Wanted = body.parse()?;
    let wrong_topic = |problem: Problem| Problem { field: Some("topic".into()), ..problem };
    let pattern = Pattern::parse_qualified(&wanted.topic, Kind::Topic)
        .map_err(|refusal| wrong_topic(refusal.into()))?;
    if pattern.kind() != Kind::Topic {
        let sentence = "a durable subscription is to a topic, or to a pattern of topics";
        return Err(wrong_topic(Problem::new(Code::InvalidDestination, sentence)));
    }
    may_subscribe(&ask, &pattern)?;
    let broker = ask.broker.clone();
    let made = aside(move || {
        let selector = wanted.selector.as_deref();
        ask.broker.declare_durable(&ask.vhost, (&client, &name), &pattern, selector)
    })
    .await?;
    kept(&broker, made.promise).await;
    let status = if made.new { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok(status.into_response())
}

/// `DELETE /v1/subscriptions/{client}/{name}`: forgets it and what waits in it.
pub(crate) async fn forget_subscription(
    mut ask: Ask,
    Names(client, name): Names,
) -> Result<Response, Problem> {
    ask.finish()?;
    if let Some((pattern, _)) = ask.broker.durable(&ask.vhost, &client, &name) {
        may_subscribe(&ask, &pattern)?;
    }
    let broker = ask.broker.clone();
    let promise = aside(move || ask.broker.forget_durable(&ask.vhost, &client, &name)).await?;
    kept(&broker, Some(promise)).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}
