//! Waiting until what the broker has promised has come true.

use std::sync::Arc;

use sabir_broker::Broker;
use sabir_model::command::Promise;
use sabir_store::Wake;
use tokio::sync::Notify;

struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Waits until what the promise says has come true.
pub async fn kept(broker: &Broker, promise: Option<Promise>) {
    let Some(promise) = promise else { return };
    while !broker.is_kept(promise) {
        let bell = Arc::new(Bell(Notify::new()));
        broker.wake_when_kept(promise, Arc::clone(&bell) as Arc<dyn Wake>);
        bell.0.notified().await;
    }
}
