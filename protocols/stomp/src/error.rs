//! How a refusal looks on the wire: the ERROR frame, and whether the connection lives on after it.

use std::borrow::Cow;

use sabir_model::chunks::Chunks;
use sabir_model::error::{Class, Code, Refusal};

use crate::encode::{put_decimal, put_escaped};
use crate::frame::Version;

/// Whether the connection goes on after refusing this frame.
///
/// STOMP 1.2 ("ERROR") closes. ActiveMQ never did for an acknowledgement of something unknown, and clients of 1.0 and
/// 1.1 count on that; in 1.2 a client may ask for it, and for refused sends too, with `x-continue-on-error:true`.
pub(crate) fn survives(command: &str, refusal: &Refusal, version: Version, opted_in: bool) -> bool {
    match command {
        "ACK" | "NACK" if refusal.code == Code::UnknownDelivery => opted_in || version < Version::V12,
        "SEND" | "ACK" | "NACK" => opted_in && matches!(refusal.class(), Class::Refused | Class::Unavailable),
        _ => false,
    }
}

/// Writes ERROR. `headers` are raw.
pub(crate) fn put_error(out: &mut Chunks, version: Version, refusal: &Refusal, headers: &[(&str, &str)]) {
    // Before the version is known, and in 1.0, there is no way to escape.
    let sentence: Cow<'_, str> = if refusal.sentence.contains(char::is_control) {
        refusal.sentence.replace(char::is_control, " ").into()
    } else {
        Cow::Borrowed(&refusal.sentence)
    };
    out.write(sentence.len() * 3 + 256, |out| {
        out.extend_from_slice(b"ERROR\nmessage:");
        put_escaped(out, &sentence, version);
        out.extend_from_slice(b"\ncode:");
        out.extend_from_slice(refusal.code.as_str().as_bytes());
        for (name, value) in headers {
            out.push(b'\n');
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            out.extend_from_slice(value.as_bytes());
        }
        // With the bare `text/plain` and a length, stompit 1.0.0 throws past its own handlers and ends its program.
        out.extend_from_slice(b"\ncontent-type:text/plain;charset=utf-8\ncontent-length:");
        put_decimal(out, sentence.len() as u64);
        out.extend_from_slice(b"\n\n");
        out.extend_from_slice(sentence.as_bytes());
        out.push(0);
    });
}
