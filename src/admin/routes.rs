//! A router that remembers what it was told, so that a test can compare it with `openapi.yaml`.

use axum::Router;
use axum::http::Method;
use axum::routing::MethodRouter;
use sabir_broker::Broker;
use sabir_model::access::Principal;

/// Who makes a request, and of which broker; in every request's extensions.
#[derive(Clone)]
pub struct Caller {
    /// The broker.
    pub broker: Broker,
    /// Who asks, proved.
    pub principal: Principal,
}

/// Routes with the list of them.
#[derive(Default)]
pub struct Routes {
    router: Router,
    listed: Vec<(&'static str, Method)>,
}

impl Routes {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a path and its methods.
    #[must_use]
    pub fn at<const N: usize>(mut self, path: &'static str, methods: [(Method, MethodRouter); N]) -> Self {
        let mut route = MethodRouter::new();
        for (method, handler) in methods {
            self.listed.push((path, method));
            route = route.merge(handler);
        }
        self.router = self.router.route(path, route);
        self
    }

    /// With those of another list; a path may be in both, with different methods.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.listed.extend(other.listed);
        self.router = self.router.merge(other.router);
        self
    }

    /// Every path with every method, as they were added.
    #[must_use]
    pub fn listed(&self) -> &[(&'static str, Method)] {
        &self.listed
    }

    /// The router.
    pub fn into_router(self) -> Router {
        self.router
    }
}
