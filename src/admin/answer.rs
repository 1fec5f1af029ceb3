//! What the handlers of the management API share: who may ask, pages of lists, bodies, answers.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sabir_broker::Broker;
use sabir_broker::manage::{Filter, Listing, Page, Place};
use sabir_model::access::{Action, Principal, Resource};
use sabir_model::base64;
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::query::Params;
use crate::routes::Caller;

/// Largest body of a request to manage something; a message that is sent again may be larger.
const BODY_BYTES_MAX: usize = 4 << 20;
/// How long a body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// Entries on a page where nobody says.
pub(crate) const LIMIT_DEFAULT: u64 = 100;
/// Most entries on a page.
pub(crate) const LIMIT_MAX: u64 = 1000;

/// A request: who asks, and what its query says.
pub(crate) struct Ask {
    pub(crate) broker: Broker,
    pub(crate) principal: Principal,
    pub(crate) vhost: String,
    pub(crate) params: Params,
}

impl<S: Send + Sync> FromRequestParts<S> for Ask {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(Caller { broker, principal }) = parts.extensions.get::<Caller>().cloned() else {
            return Err(Problem::new(Code::Internal, "nobody has said who asks"));
        };
        let mut params = Params::read(parts.uri.query())?;
        let vhost = params.take("vhost").unwrap_or_else(|| "/".to_owned());
        Ok(Self { broker, principal, vhost, params })
    }
}

impl Ask {
    /// Whether the caller may manage the server.
    pub(crate) fn may_manage(&self) -> Result<(), Problem> {
        Ok(self.broker.check(&self.principal, Action::Manage, Resource::Server)?)
    }

    /// Whether the caller may do something to a queue by the name that management knows it by. Backlogs of subscriptions
    /// and sessions have no name that rules could speak of: they are the server's.
    pub(crate) fn may_on_queue(&self, action: Action, name: &str) -> Result<(), Problem> {
        if name.contains("://") {
            return self.may_manage();
        }
        let queue = Destination::from_dotted(Kind::Queue, false, name)?;
        self.may(action, &queue)
    }

    /// Whether the caller may do something to a destination.
    pub(crate) fn may(&self, action: Action, destination: &Destination) -> Result<(), Problem> {
        Ok(self.broker.check(&self.principal, action, Resource::Destination(destination.as_ref()))?)
    }

    /// Takes out what says which part of a list is wanted; nothing else may be left.
    pub(crate) fn listing<S: Copy>(&mut self, sorts: &[(&str, S)]) -> Result<Listing<S>, Problem> {
        let mut params = std::mem::take(&mut self.params);
        let limit = params.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
        let filter = Filter::new(&params.take("filter").unwrap_or_default());
        let after = params.take("after").map(|text| place(&text)).transpose()?;
        let wanted = if sorts.len() > 1 { params.take("sort") } else { None };
        let sort = match &wanted {
            None => sorts.first(),
            Some(wanted) => sorts.iter().find(|(word, _)| word == wanted),
        };
        let Some((_, sort)) = sort else {
            let words: Vec<&str> = sorts.iter().map(|(word, _)| *word).collect();
            return Err(Problem::invalid("sort", format!("sort must be one of {}", words.join(", "))));
        };
        params.finish()?;
        Ok(Listing { filter, after, limit: usize::try_from(limit).unwrap_or(1), sort: *sort })
    }

    /// Complains about parameters that nobody took, and about a virtual host that does not exist.
    pub(crate) fn finish(&mut self) -> Result<(), Problem> {
        std::mem::take(&mut self.params).finish()?;
        Ok(self.broker.check_virtual_host(&self.vhost)?)
    }
}

/// Does what looks at much in the core where no socket waits for it.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Problem::new(Code::Internal, "the answer could not be made")),
    }
}

/// A page as JSON.
pub(crate) fn page<T>(page: Page<T>, show: impl FnMut(T) -> Value) -> Response {
    let items: Vec<Value> = page.items.into_iter().map(show).collect();
    let next = page.next.as_ref().map(cursor);
    json(StatusCode::OK, &json!({ "items": items, "next": next, "total": page.total }))
}

/// A place in a list as text that needs no escapes in a query.
fn cursor(place: &Place) -> String {
    let mut out = Vec::new();
    base64::encode(format!("{}:{}", place.value, place.name).as_bytes(), &mut out);
    let text = String::from_utf8_lossy(&out);
    text.trim_end_matches('=').replace('+', "-").replace('/', "_")
}

fn place(text: &str) -> Result<Place, Problem> {
    let broken = || Problem::invalid("after", "after must be the \"next\" of an earlier answer");
    let mut padded = text.replace('-', "+").replace('_', "/");
    while !padded.len().is_multiple_of(4) {
        padded.push('=');
    }
    let bytes = base64::decode(padded.as_bytes()).ok_or_else(broken)?;
    let plain = String::from_utf8(bytes).map_err(|_| broken())?;
    let (value, name) = plain.split_once(':').ok_or_else(broken)?;
    Ok(Place { value: value.parse().map_err(|_| broken())?, name: name.to_owned() })
}

/// An answer in JSON, which nobody keeps.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response {
    raw_json(status, serde_json::to_vec(value).unwrap_or_default())
}

/// An answer that is JSON already.
pub(crate) fn raw_json(status: StatusCode, body: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body).into_response()
}

/// A body in JSON, not yet parsed. An empty one stands for `{}`.
pub(crate) struct JsonBody(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
        let essence = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let right = essence.is_none_or(|kind| kind == "application/json");
        let body: Body = request.into_body();
        let read = tokio::time::timeout(BODY_PATIENCE, axum::body::to_bytes(body, BODY_BYTES_MAX)).await;
        let read = read.map_err(|_| {
            let sentence = format!("the body did not arrive within {} ms", BODY_PATIENCE.as_millis());
            Problem::new(Code::TimedOut, sentence).with_status(StatusCode::REQUEST_TIMEOUT)
        })?;
        let bytes = read.map_err(|_| {
            let sentence = format!("the body is larger than {BODY_BYTES_MAX} bytes, or broke off");
            Problem::new(Code::TooLarge, sentence)
        })?;
        if !right && !bytes.is_empty() {
            let problem = Problem::invalid("content-type", "the body must be application/json");
            return Err(problem.with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        Ok(Self(bytes))
    }
}

impl JsonBody {
    /// What it says.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let bytes: &[u8] = if self.0.is_empty() { b"{}" } else { &self.0 };
        serde_json::from_slice(bytes).map_err(|error| Problem::json(&error))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place_and_needs_no_escapes() {
        for name in ["", "a", "orders.eu", "ü?/&=+ %", "a:b"] {
            let known = Place { value: 17, name: name.to_owned() };
            let text = cursor(&known);
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
            assert_eq!(place(&text).unwrap(), known);
        }
        for broken in ["!", "x", "bm9wZQ", ""] {
            assert_eq!(place(broken).unwrap_err().field.as_deref(), Some("after"), "{broken}");
        }
    }
}
