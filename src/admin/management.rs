//! The management API: its paths, and those of its handlers that only look.

use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use sabir_broker::manage::{ConnectionSort, QueueSort};
use sabir_model::access::Action;
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::Code;
use sabir_model::ids::ConnectionId;
use serde_json::{Value, json};

use crate::answer::{Ask, aside, json, page};
use crate::changes;
use crate::problem::Problem;
use crate::process::Usage;
use crate::query::{Name, Names};
use crate::routes::Routes;
use crate::show;

/// Destinations and rules drawn where nobody says.
const PICTURE_DEFAULT: u64 = 50;
/// Most destinations and rules drawn.
const PICTURE_MAX: u64 = 1000;

/// Every path of the management API.
#[must_use]
pub fn management() -> Routes {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PUT: Method = Method::PUT;
    const DELETE: Method = Method::DELETE;
    Routes::new()
        .at("/v1/overview", [(GET, get(overview))])
        .at("/v1/vhosts", [(GET, get(vhosts))])
        .at("/v1/rules", [(GET, get(rules))])
        .at("/v1/policies", [(GET, get(policies))])
        .at("/v1/routing", [(GET, get(routing))])
        .at("/v1/queues", [(GET, get(queues))])
        .at(
            "/v1/queues/{name}",
            [(GET, get(queue)), (PUT, put(changes::declare_queue)), (DELETE, delete(changes::delete_queue))],
        )
        .at("/v1/queues/{name}/purge", [(POST, post(changes::purge_queue))])
        .at("/v1/queues/{name}/pause", [(POST, post(changes::pause_queue))])
        .at("/v1/queues/{name}/resume", [(POST, post(changes::resume_queue))])
        .at("/v1/topics", [(GET, get(topics))])
        .at("/v1/topics/{name}", [(GET, get(topic))])
        .at("/v1/topics/{name}/retained", [(DELETE, delete(changes::clear_retained))])
        .at("/v1/subscriptions", [(GET, get(subscriptions))])
        .at(
            "/v1/subscriptions/{client}/{name}",
            [
                (GET, get(subscription)),
                (PUT, put(changes::declare_subscription)),
                (DELETE, delete(changes::forget_subscription)),
            ],
        )
        .at("/v1/connections", [(GET, get(connections))])
        .at("/v1/connections/{id}", [(GET, get(connection)), (DELETE, delete(changes::close_connection))])
}

async fn overview(mut ask: Ask) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_manage()?;
    let broker = ask.broker.clone();
    let overview = aside(move || Ok(broker.overview())).await?;
    let stats = &overview.stats;
    let now = ask.broker.now();
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "time": now.wall.0,
        "uptimeMs": now.instant.0 / 1000,
        "connections": stats.connections,
        "connectionsByProtocol": overview.connections_by_protocol,
        "queues": overview.queues,
        "topics": overview.topics,
        "sessions": stats.sessions,
        "subscriptions": stats.topic_subscriptions,
        "ready": overview.ready,
        "unsettled": overview.unsettled,
        "published": stats.published,
        "delivered": stats.dispatched,
        "acknowledged": stats.acknowledged,
        "redelivered": stats.redelivered,
        "expired": stats.expired,
        "deadLettered": stats.dead_lettered,
        "discarded": stats.discarded,
        "refused": stats.refused,
        "memoryBytes": stats.memory_bytes,
        "memoryBytesMax": stats.memory_bytes_max,
        "storeBytes": stats.store.disk_bytes,
        "storeBytesMax": stats.disk_bytes_max,
        "residentBytes": Usage::read().map(|usage| usage.resident_bytes),
    });
    Ok(json(StatusCode::OK, &body))
}

async fn vhosts(mut ask: Ask) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_manage()?;
    let broker = ask.broker.clone();
    let hosts = aside(move || Ok(broker.virtual_hosts())).await?;
    let items: Vec<Value> = hosts
        .iter()
        .map(|host| json!({ "name": host.name, "queues": host.queues, "topics": host.topics }))
        .collect();
    Ok(json(StatusCode::OK, &json!({ "items": items, "next": null, "total": hosts.len() })))
}

async fn rules(mut ask: Ask) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_manage()?;
    Ok(json(StatusCode::OK, &show::rules(ask.broker.rules())))
}

async fn policies(mut ask: Ask) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_manage()?;
    Ok(json(StatusCode::OK, &show::policies(ask.broker.policies())))
}

async fn routing(mut ask: Ask) -> Result<Response, Problem> {
    let limit = ask.params.number("limit", 1, PICTURE_MAX)?.unwrap_or(PICTURE_DEFAULT);
    ask.finish()?;
    ask.may_manage()?;
    let limit = usize::try_from(limit).unwrap_or(1);
    let picture = aside(move || ask.broker.routing(&ask.vhost, limit)).await?;
    Ok(json(StatusCode::OK, &show::picture(&picture)))
}

async fn queues(mut ask: Ask) -> Result<Response, Problem> {
    let listing = ask.listing(&[
        ("name", QueueSort::Name),
        ("-ready", QueueSort::Ready),
        ("-consumers", QueueSort::Consumers),
        ("-unsettled", QueueSort::Unsettled),
    ])?;
    ask.may_manage()?;
    let now = ask.broker.now().wall;
    let found = aside(move || ask.broker.list_queues(&ask.vhost, &listing)).await?;
    Ok(page(found, |entry| show::queue(&entry, now)))
}

async fn queue(mut ask: Ask, Name(name): Name) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_on_queue(Action::Manage, &name)?;
    let now = ask.broker.now().wall;
    let detail = aside(move || ask.broker.queue_detail(&ask.vhost, &name)).await?;
    Ok(json(StatusCode::OK, &show::queue_detail(&detail, now)))
}

async fn topics(mut ask: Ask) -> Result<Response, Problem> {
    let listing = ask.listing(&[("name", ())])?;
    ask.may_manage()?;
    let found = aside(move || ask.broker.list_topics(&ask.vhost, &listing)).await?;
    Ok(page(found, |entry| show::topic(&entry)))
}

async fn topic(mut ask: Ask, Name(name): Name) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may(Action::Manage, &Destination::from_dotted(Kind::Topic, false, &name)?)?;
    let detail = aside(move || ask.broker.topic_detail(&ask.vhost, &name)).await?;
    Ok(json(StatusCode::OK, &show::topic_detail(&detail)))
}

async fn subscriptions(mut ask: Ask) -> Result<Response, Problem> {
    let listing = ask.listing(&[("name", ())])?;
    ask.may_manage()?;
    let found = aside(move || ask.broker.list_durables(&ask.vhost, &listing)).await?;
    Ok(page(found, |entry| show::durable(&entry)))
}

async fn subscription(mut ask: Ask, Names(client, name): Names) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_manage()?;
    let entry = aside(move || ask.broker.durable_entry(&ask.vhost, &client, &name)).await?;
    Ok(json(StatusCode::OK, &show::durable(&entry)))
}

async fn connections(mut ask: Ask) -> Result<Response, Problem> {
    let listing = ask.listing(&[
        ("since", ConnectionSort::Age),
        ("-published", ConnectionSort::Published),
        ("-delivered", ConnectionSort::Delivered),
    ])?;
    ask.may_manage()?;
    let found = aside(move || ask.broker.list_connections(&ask.vhost, &listing)).await?;
    Ok(page(found, |entry| show::connection(&entry)))
}

/// The number of a connection.
pub(crate) fn connection_id(text: &str) -> Result<ConnectionId, Problem> {
    let sentence = format!("there is no connection {text:?}");
    text.parse().map(ConnectionId).map_err(|_| Problem::new(Code::UnknownDestination, sentence))
}

async fn connection(mut ask: Ask, Name(id): Name) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_manage()?;
    let id = connection_id(&id)?;
    let detail = aside(move || ask.broker.connection_detail(id)).await?;
    Ok(json(StatusCode::OK, &show::connection_detail(&detail)))
}
