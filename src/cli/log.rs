//! Where log lines go: standard error, for people on a terminal and as JSON elsewhere.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};

/// Sets up logging for the process. A second call changes nothing.
pub(super) fn init(log: &Log) {
    let terminal = io::stderr().is_terminal();
    let human = match log.format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(human && terminal);
    let layer = if human { layer.boxed() } else { layer.json().flatten_event(true).boxed() };
    let _ = tracing_subscriber::registry().with(layer.with_filter(log.level.targets())).try_init();
}
