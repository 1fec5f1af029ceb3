//! Errors over HTTP: problem documents (RFC 9457) with the stable codes of `docs/errors.md`.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sabir_model::error::{Code, Refusal};
use serde::Serialize;

/// Seconds after which a refusal for lack of room is worth another try.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A refusal as an HTTP client sees it.
#[derive(Debug)]
pub struct Problem {
    /// Status of the reply.
    pub status: StatusCode,
    /// Stable reason.
    pub code: Code,
    /// One sentence.
    pub detail: String,
    /// The parameter, header or JSON field that is wrong.
    pub field: Option<String>,
    /// Where JSON stops making sense: line and column, from 1.
    pub place: Option<(usize, usize)>,
    /// A header of the reply, as some statuses demand one.
    pub header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// The document.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
}

impl Problem {
    /// With the status that the code usually has.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let status = status_of(code);
        let retry =
            matches!(status.as_u16(), 429 | 503).then(|| Box::new((header::RETRY_AFTER, RETRY_AFTER)));
        Self { status, code, detail: detail.into(), field: None, place: None, header: retry }
    }

    /// A part of the request that cannot be read or is not known.
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(Code::InvalidHeader, detail) }
    }

    /// A body that is not the JSON it should be, with the place.
    #[must_use]
    pub fn json(error: &serde_json::Error) -> Self {
        let place = (error.line() > 0).then(|| (error.line(), error.column()));
        let sentence = error.to_string();
        // The only place where serde tells of a key is its sentence.
        let named = sentence.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
        let field = named.map(|(name, _)| name.to_owned());
        Self { place, field, ..Self::new(Code::InvalidBody, sentence) }
    }

    /// With another status.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

/// The status that a code has unless there is a better one.
fn status_of(code: Code) -> StatusCode {
    match code {
        Code::AuthenticationFailed => StatusCode::UNAUTHORIZED,
        Code::AccessDenied => StatusCode::FORBIDDEN,
        Code::UnknownDestination
        | Code::UnknownSubscription
        | Code::UnknownDelivery
        | Code::UnknownTransaction => StatusCode::NOT_FOUND,
        Code::ClientIdInUse
        | Code::TakenOver
        | Code::SubscriptionInUse
        | Code::DuplicateSubscription
        | Code::Conflict
        | Code::DuplicateTransaction => StatusCode::CONFLICT,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::TooManyAttempts | Code::LimitReached => StatusCode::TOO_MANY_REQUESTS,
        Code::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Code::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        Code::DestinationFull | Code::MemoryFull | Code::ShuttingDown | Code::SlowConsumer => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.sentence)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: format!("urn:sabir:error:{}", self.code),
            title: self.code.meaning().trim(),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code.as_str(),
            field: self.field.as_deref(),
            line: self.place.map(|(line, _)| line),
            column: self.place.map(|(_, column)| column),
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let headers = [
            (header::CONTENT_TYPE, "application/problem+json"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        let mut response = (self.status, headers, body).into_response();
        if let Some(header) = self.header {
            let (name, value) = *header;
            response.headers_mut().insert(name, value);
        }
        response
    }
}
