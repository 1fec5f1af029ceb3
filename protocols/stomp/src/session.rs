//! The reading half (being built).
use std::sync::Arc;

use sabir_model::chunks::Chunks;
use sabir_model::clock::Instant;
use sabir_model::error::Violation;
use sabir_model::event::Event;
use sabir_model::limits::Limits;
use sabir_model::session::{Activity, Flow, Host, Input, Now, Session};

/// STOMP's ingress state for one connection.
#[derive(Debug)]
pub struct StompSession {
    limits: Arc<Limits>,
    server_name: &'static str,
    deadline: Instant,
}

impl StompSession {
    pub(crate) fn new(limits: Arc<Limits>, server_name: &'static str, now: Instant) -> Self {
        let deadline = now.after(std::time::Duration::from_millis(limits.connect_timeout_ms));
        Self { limits, server_name, deadline }
    }
}

impl Session for StompSession {
    fn receive(
        &mut self,
        _now: Now,
        input: &mut Input<'_>,
        _host: &mut dyn Host,
        _out: &mut Chunks,
    ) -> Result<Flow, Violation> {
        let _ = (&self.limits, self.server_name);
        input.consume(input.rest().len());
        Ok(Flow::Close)
    }

    fn notify(&mut self, _: Now, _: Event, _: &mut dyn Host, _: &mut Chunks) -> Result<Flow, Violation> {
        Ok(Flow::Close)
    }

    fn timeout(&mut self, _: Now, _: Activity, _: &mut Chunks) -> Result<Flow, Violation> {
        Ok(Flow::Close)
    }

    fn next_timeout(&self, _: Activity) -> Option<Instant> {
        Some(self.deadline)
    }
}
