//! What a handler of messages starts from. Query parameters and path segments are read as those of the management API are.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
pub(super) use sabir_admin::query::{Name, Names, Params, decode};
use sabir_admin::{Caller, Problem};
use sabir_model::error::Code;

use super::Visit;
use super::party::Role;

/// What a handler starts from: the connection, who asks, and the parameters of the query.
pub(super) struct Call {
    pub(super) visit: Arc<Visit>,
    pub(super) caller: Caller,
    pub(super) params: Params,
    /// Path and query as they came.
    pub(super) target: Box<str>,
}

impl Call {
    /// In whose name the request acts, in the virtual host that it names.
    pub(super) fn role(&mut self, client_id: Option<&str>) -> Role {
        role(&self.caller, self.params.take("vhost"), client_id)
    }
}

/// In whose name a request acts, and where.
pub(super) fn role(caller: &Caller, virtual_host: Option<String>, client_id: Option<&str>) -> Role {
    Role {
        principal: caller.principal.clone(),
        virtual_host: virtual_host.unwrap_or_else(|| "/".to_owned()).into(),
        client_id: client_id.map(Into::into),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let known = (parts.extensions.get::<Arc<Visit>>(), parts.extensions.get::<Caller>());
        let (Some(visit), Some(caller)) = known else {
            return Err(Problem::new(Code::Internal, "the request came past the guard"));
        };
        let (visit, caller) = (Arc::clone(visit), caller.clone());
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).into();
        Ok(Self { visit, caller, params: Params::read(parts.uri.query())?, target })
    }
}
