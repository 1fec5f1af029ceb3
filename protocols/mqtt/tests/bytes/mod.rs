//! What the tests that speak in bytes share.

use sabir_mqtt::{DecodeError, Packet, Progress, Reason, Version, decode, frame};

/// A packet with this first byte and body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    while rest > 127 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend_from_slice(body);
    out
}

pub(crate) fn read(bytes: &[u8], version: Option<Version>) -> Result<Packet<'_>, DecodeError> {
    match frame(bytes, version, usize::MAX)? {
        Progress::Whole(frame) => {
            assert_eq!(frame.total, bytes.len());
            decode(&frame, version.unwrap_or_default())
        }
        Progress::NeedMore { total } => panic!("more is needed: {total:?}: {}", bytes.escape_ascii()),
    }
}

/// That the bytes mean the packet, and the packet is written as these bytes.
#[track_caller]
pub(crate) fn means(version: Version, first: u8, body: &[u8], expected: Packet<'_>) {
    let bytes = packet(first, body);
    assert_eq!(read(&bytes, Some(version)), Ok(expected), "{}", bytes.escape_ascii());
    let mut out = Vec::new();
    expected.encode(version, &mut out).unwrap();
    assert_eq!(out.escape_ascii().to_string(), bytes.escape_ascii().to_string());
}

#[track_caller]
pub(crate) fn refused(version: Version, first: u8, body: &[u8], reason: Reason) {
    let bytes = packet(first, body);
    let found = read(&bytes, Some(version));
    assert_eq!(found.map_err(|error| error.reason), Err(reason), "{version:?} {}", bytes.escape_ascii());
}

#[track_caller]
pub(crate) fn accepted(version: Version, first: u8, body: &[u8]) {
    let bytes = packet(first, body);
    let found = read(&bytes, Some(version));
    assert!(found.is_ok(), "{version:?} {}: {found:?}", bytes.escape_ascii());
}

/// A PUBLISH of version 5 with QoS 0 and these properties.
pub(crate) fn publish5(properties: &[u8]) -> Vec<u8> {
    let mut body = b"\0\x01t".to_vec();
    body.push(properties.len() as u8);
    body.extend_from_slice(properties);
    body
}
