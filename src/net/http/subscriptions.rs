//! Durable subscriptions over HTTP: made before anybody pulls from them, and deleted when nobody will any more.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use sabir_admin::Problem;
use sabir_model::access::{Action, Resource};
use sabir_model::command::{Command, Outcome};
use sabir_model::destination::Kind;
use sabir_model::error::Code;
use sabir_model::pattern::Pattern;
use sabir_model::session::Host;
use serde::Deserialize;

use super::consume::durable_source;
use super::leases::Source;
use super::params::{Call, Names};
use super::party::{Inbox, Party, kept, leased};
use super::read_body;

/// What a durable subscription is to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// A topic, or a pattern of topics.
    topic: String,
    #[serde(default)]
    selector: Option<String>,
}

/// `PUT /v1/subscriptions/{client}/{name}`: makes it, or changes what it is to; then its backlog begins anew.
pub(super) async fn declare(
    mut call: Call,
    Names(client, name): Names,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let role = call.role(Some(&client));
    let Call { visit, params, .. } = call;
    params.finish()?;
    let body = read_body(&visit, &headers, body).await?;
    let wanted: Wanted = serde_json::from_slice(&body).map_err(|error| Problem::json(&error))?;
    let pattern = Pattern::parse_qualified(&wanted.topic, Kind::Topic)?;
    if pattern.kind() != Kind::Topic || client.is_empty() || name.is_empty() {
        let sentence = "a durable subscription is to a topic, and has a client id and a name";
        return Err(Problem {
            field: Some("topic".into()),
            ..Problem::new(Code::InvalidDestination, sentence)
        });
    }
    let existed = visit.shared.broker.durable(&role.virtual_host, &client, &name);
    let mut party = Party::open(&visit.shared, &visit.peer, &role, Arc::new(Inbox::default()))?;
    let mut request = leased(std::slice::from_ref(&pattern), wanted.selector.as_deref());
    request.durable = Some(&name);
    let promise = party.subscribe(request)?;
    // It stays when its consumer goes.
    drop(party);
    kept(&visit.shared.broker, promise).await;
    let status = if existed.is_some() { StatusCode::NO_CONTENT } else { StatusCode::CREATED };
    Ok(status.into_response())
}

/// `DELETE /v1/subscriptions/{client}/{name}`: forgets it and what waits in it.
pub(super) async fn forget(mut call: Call, Names(client, name): Names) -> Result<Response, Problem> {
    let role = call.role(Some(&client));
    let Call { visit, caller, params, .. } = call;
    params.finish()?;
    let Source { role, pattern, .. } = durable_source(&visit, role, &client, &name)?;
    // Who may consume from the topic may also stop.
    let topics = match pattern.as_literal() {
        Some(topic) => Resource::Destination(topic.as_ref()),
        None => Resource::Pattern(&pattern),
    };
    visit.shared.broker.check(&caller.principal, Action::Consume, topics)?;
    let mut party = Party::open(&visit.shared, &visit.peer, &role, Arc::new(Inbox::default()))?;
    let outcome = party.connection.ask(Command::ForgetDurable { name: &name, client_id: Some(&client) });
    party.end_batch();
    match outcome {
        Outcome::Accepted(promise) => {
            kept(&visit.shared.broker, promise).await;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Outcome::Refused(refusal) => Err(refusal.into()),
        Outcome::Later => unreachable!("forgetting is answered at once"),
    }
}
