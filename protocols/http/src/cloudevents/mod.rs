//! CloudEvents 1.0: the JSON format, alone and in batches, and the binary mode of the HTTP binding.
//!
//! An event's attributes are properties `cloudEvents_NAME`, as the AMQP binding of CloudEvents writes them for JMS, so
//! that selectors and clients of every protocol can see them; `datacontenttype` is the message's content type. The
//! message also takes `id` as the sender's id and `type` as its type. On the way out the attributes come back, also from
//! messages that MQTT 5 clients (attributes without a prefix) or AMQP clients (`cloudEvents:NAME`) have sent; a message
//! that is no event becomes one whose source is its destination.

mod read;
mod time;
mod write;

pub(crate) use read::{batch, binary, structured};
pub use write::write;

/// What stands before an attribute's name in a property's.
pub const PREFIX: &str = "cloudEvents_";

/// Most attributes of an event.
const ATTRIBUTES_MAX: usize = 256;

/// The one version there is.
const VERSION: &str = "1.0";

/// Names of attributes are lower-case letters and digits (CloudEvents §3.1.1).
fn is_attribute_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Whether a content type says JSON (JSON format §3.1.1).
fn is_json_type(content_type: &str) -> bool {
    let essence = crate::incoming::essence(content_type).to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}
