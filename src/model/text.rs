//! Which octets are text, and how those that are not are shown where only text can be.

use crate::base64;

/// What stands before octets shown as text.
const PREFIX: &str = "base64:";

/// Whether a content type says that the body is text.
#[must_use]
pub fn is_text_type(content_type: &str) -> bool {
    let (essence, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let essence = essence.trim();
    let ends = |suffix: &str| {
        essence.len() >= suffix.len()
            && essence
                .as_bytes()
                .get(essence.len() - suffix.len()..)
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
    };
    let starts = essence.as_bytes().get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"text/"));
    starts
        || ["/json", "/xml", "/javascript", "/x-www-form-urlencoded", "+json", "+xml"].into_iter().any(ends)
        || parameters.to_ascii_lowercase().contains("charset=")
}

/// Whether octets can be shown as text: UTF-8 without control characters.
#[must_use]
pub fn is_clean(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control))
}

/// The octets that are shown as `text`, if it is how octets are shown. Text that would be taken for such is shown like
/// them, so that it comes back as it was; each look behind a prefix is at three quarters of the length.
#[must_use]
pub fn shown_octets(text: &str) -> Option<Vec<u8>> {
    let bytes = base64::decode(text.strip_prefix(PREFIX)?.as_bytes())?;
    let is_needed = match std::str::from_utf8(&bytes) {
        Ok(text) => !is_clean(&bytes) || shown_octets(text).is_some(),
        Err(_) => true,
    };
    is_needed.then_some(bytes)
}

/// Octets as text: as they are if they are clean, else in base64 after a prefix; [`shown_octets`] is the way back.
#[must_use]
pub fn show(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if is_clean(bytes) && shown_octets(text).is_none() => text.to_owned(),
        _ => {
            let mut out = PREFIX.as_bytes().to_vec();
            base64::encode(bytes, &mut out);
            String::from_utf8(out).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_shown_as_text_come_back() {
        for octets in [&b"plain"[..], b"\xff\x00", b"line\nend", b"base64:/wA=", b"base64:cGxhaW4=", b""] {
            let shown = show(octets);
            let back = shown_octets(&shown).unwrap_or_else(|| shown.clone().into_bytes());
            assert_eq!(back, octets, "{shown}");
        }
        assert_eq!(show(b"\xff\x00"), "base64:/wA=");
    }
}
