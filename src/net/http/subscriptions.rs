//! Durable subscriptions over HTTP: made before anybody pulls from them, and deleted when nobody will any more.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use sabir_admin::{Caller, Problem};
use sabir_model::command::{Command, Outcome};
use sabir_model::destination::Kind;
use sabir_model::error::{Code, Refusal};
use sabir_model::pattern::Pattern;
use sabir_model::session::Host;
use serde::Deserialize;

use super::consume::role;
use super::params::{Names, Params};
use super::party::{Inbox, Party, kept, leased};
use super::{Visit, read_body};

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
    Extension(visit): Extension<Arc<Visit>>,
    Extension(caller): Extension<Caller>,
    Names(client, name): Names,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let role = role(&caller, params.take("vhost"), Some(&client));
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
    let promise = party.subscribe(&request)?;
    // It stays when its consumer goes.
    drop(party);
    kept(&visit.shared.broker, promise).await;
    let status = if existed.is_some() { StatusCode::NO_CONTENT } else { StatusCode::CREATED };
    Ok(status.into_response())
}

/// `DELETE /v1/subscriptions/{client}/{name}`: forgets it and what waits in it.
pub(super) async fn forget(
    Extension(visit): Extension<Arc<Visit>>,
    Extension(caller): Extension<Caller>,
    Names(client, name): Names,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let role = role(&caller, params.take("vhost"), Some(&client));
    params.finish()?;
    let Some((pattern, _)) = visit.shared.broker.durable(&role.virtual_host, &client, &name) else {
        let sentence = format!("\"{client}\" has no durable subscription \"{name}\"");
        return Err(Refusal::new(Code::UnknownSubscription, sentence).into());
    };
    // Who may consume from the topic may also stop.
    visit.shared.broker.check(
        &caller.principal,
        sabir_model::access::Action::Consume,
        match pattern.as_literal() {
            Some(topic) => sabir_model::access::Resource::Destination(topic.as_ref()),
            None => sabir_model::access::Resource::Pattern(&pattern),
        },
    )?;
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
