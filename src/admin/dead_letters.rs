//! Dead letters over HTTP: where they are, and their way back.

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use sabir_broker::manage::{Deed, RATE_MAX, Redrive};
use sabir_model::access::Action;
use sabir_model::error::{Code, Refusal};
use serde_json::{Value, json};

use crate::answer::{Ask, JsonBody, aside, json, page};
use crate::messages::{Order, begin, drive};
use crate::problem::Problem;
use crate::query::Name;
use crate::routes::Routes;
use crate::show::age;

/// Adds the paths about dead letters.
pub(crate) fn add(routes: Routes) -> Routes {
    const GET: Method = Method::GET;
    routes.at("/v1/dead-letters", [(GET, get(list))]).at(
        "/v1/dead-letters/{queue}/redrive",
        [(GET, get(progress)), (Method::POST, post(redrive)), (Method::DELETE, delete(stop))],
    )
}

async fn list(mut ask: Ask) -> Result<Response, Problem> {
    let listing = ask.listing(&[("name", ())])?;
    ask.may_manage()?;
    let now = ask.broker.now().wall;
    let found = aside(move || ask.broker.list_dead_letters(&ask.vhost, &listing)).await?;
    Ok(page(
        found,
        |entry| json!({ "queue": entry.queue, "messages": entry.messages, "oldestMs": age(entry.oldest, now) }),
    ))
}

fn refusal(refusal: Option<&Refusal>) -> Value {
    match refusal {
        Some(refusal) => json!({ "code": refusal.code.as_str(), "detail": refusal.sentence }),
        None => Value::Null,
    }
}

fn show(queue: &str, redrive: &Redrive) -> Value {
    json!({
        "queue": queue,
        "state": redrive.state.word(),
        "rate": redrive.rate,
        "started": redrive.started.0,
        "ended": redrive.ended.map(|ended| ended.0),
        "sent": redrive.tally.done,
        "unsettled": redrive.tally.unsettled,
        "refused": redrive.tally.refused,
        "refusal": refusal(redrive.tally.refusal.as_ref()),
    })
}

async fn redrive(mut ask: Ask, Name(name): Name, body: JsonBody) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_on_queue(Action::Manage, &name)?;
    let mut order: Order = body.parse()?;
    let (chosen, max) = order.chosen()?;
    let rate = order.rate.take();
    order.finish("sending dead letters back")?;
    if let Some(rate) = rate {
        if !(1..=RATE_MAX).contains(&rate) {
            return Err(Problem::invalid("rate", format!("rate must be a number from 1 to {RATE_MAX}")));
        }
        let begun = ask.broker.start_redrive(&ask.vhost, &name, &ask.principal, chosen, max, rate)?;
        return Ok(json(StatusCode::ACCEPTED, &show(&name, &begun)));
    }
    let errand = begin(&ask, name, Deed::Redrive, chosen, max).await?;
    let tally = drive(&ask.broker, errand, "sent back").await?;
    let body = json!({
        "redriven": tally.done,
        "unsettled": tally.unsettled,
        "refused": tally.refused,
        "refusal": refusal(tally.refusal.as_ref()),
    });
    Ok(json(StatusCode::OK, &body))
}

async fn progress(mut ask: Ask, Name(name): Name) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_on_queue(Action::Manage, &name)?;
    match ask.broker.redrive(&ask.vhost, &name) {
        Some(redrive) => Ok(json(StatusCode::OK, &show(&name, &redrive))),
        None => {
            let sentence = format!("no messages of {name} have been sent back at a rate since the start");
            Err(Problem::new(Code::UnknownDelivery, sentence))
        }
    }
}

async fn stop(mut ask: Ask, Name(name): Name) -> Result<Response, Problem> {
    ask.finish()?;
    ask.may_on_queue(Action::Manage, &name)?;
    ask.broker.stop_redrive(&ask.vhost, &name)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
