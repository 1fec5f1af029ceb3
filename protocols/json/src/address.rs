//! Destinations as JSON writes them: `queue://A.B`, `topic://T`, `temp-queue://ID:…`, and several separated by commas.
//!
//! Names are the dotted ones of the model. A comma inside a name is written `%2C`, as the model writes a dot inside a level
//! `%2E`. There is no form without a prefix: whether something is a queue or a topic is never guessed.

use std::borrow::Cow;

use sabir_model::destination::{Destination, DestinationRef, Kind, Targets, split_qualified};
use sabir_model::error::{Code, Refusal};
use sabir_model::pattern::Pattern;

/// Most members of one composite.
const MEMBERS_MAX: usize = 256;

/// Kind, whether it is temporary, and name, where `text` says its kind.
fn split(text: &str) -> Option<(Kind, bool, Cow<'_, str>)> {
    let text = text.trim();
    let (kind, temporary, name) = split_qualified(text, Kind::Queue);
    if name.len() == text.len() {
        return None;
    }
    let name = if name.contains("%2C") || name.contains("%2c") {
        Cow::Owned(name.replace("%2C", ",").replace("%2c", ","))
    } else {
        Cow::Borrowed(name)
    };
    Some((kind, temporary, name))
}

/// What a subscription to `text` covers: names and wildcards, several separated by commas.
///
/// # Errors
/// A member says no kind or names nothing, or there are too many.
pub fn patterns(text: &str) -> Result<Vec<Pattern>, Refusal> {
    let mut found = Vec::new();
    for member in text.split(',').map(str::trim).filter(|member| !member.is_empty()) {
        let Some((kind, temporary, name)) = split(member) else {
            let sentence = format!("a destination starts with queue:// or topic://, not \"{member}\"");
            return Err(Refusal::new(Code::InvalidDestination, sentence));
        };
        let pattern = if temporary {
            Destination::from_dotted(kind, true, &name)?.into()
        } else {
            Pattern::from_dotted(kind, false, &name)?
        };
        if found.contains(&pattern) {
            continue;
        }
        if found.len() == MEMBERS_MAX {
            let sentence = format!("a composite destination has at most {MEMBERS_MAX} members");
            return Err(Refusal::new(Code::LimitReached, sentence));
        }
        found.push(pattern);
    }
    if found.is_empty() {
        return Err(Refusal::new(Code::InvalidDestination, "a destination name cannot be empty"));
    }
    Ok(found)
}

/// Where a message to `text` goes: one destination, or several separated by commas.
///
/// # Errors
/// Those of [`patterns`], and wildcards.
pub fn targets(text: &str) -> Result<Targets, Refusal> {
    let literal = |pattern: &Pattern| {
        pattern.as_literal().cloned().ok_or_else(|| {
            let sentence =
                format!("\"{pattern}\" is a wildcard; a message can only be sent to a destination");
            Refusal::new(Code::InvalidDestination, sentence)
        })
    };
    patterns(text)?.iter().map(literal).collect()
}

/// Where a reply goes, if `text` names a destination at all.
pub(crate) fn reply_to(text: &str) -> Option<Result<Destination, Refusal>> {
    let (kind, temporary, name) = split(text)?;
    Some(Destination::from_dotted(kind, temporary, &name))
}

/// A destination as it is shown, which [`targets`] reads back.
#[must_use]
pub fn shown(destination: DestinationRef<'_>) -> String {
    let text = destination.to_string();
    if text.contains(',') { text.replace(',', "%2C") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Option<Code> {
        targets(text).err().map(|refusal| refusal.code)
    }

    #[test]
    fn several_are_separated_by_commas_and_each_says_its_kind() {
        let found = targets("queue://a.b, topic://c,queue://a.b").expect("a composite");
        assert_eq!(found.as_slice(), [Destination::queue("a.b"), Destination::topic("c")]);
        for wrong in ["", ",", "orders", "/queue/a", "queue://", "queue://a,b", "topic://a.*", "queue://a\nb"]
        {
            assert_eq!(code(wrong), Some(Code::InvalidDestination), "{wrong:?}");
        }
        let many: Vec<String> = (0..257).map(|n| format!("queue://{n}")).collect();
        assert_eq!(code(&many.join(",")), Some(Code::LimitReached));
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for levels in ["a", "a\0b", "a.b\0c,d", "ID:1-2:3", ",", "\0"] {
            for (kind, temporary) in
                [(Kind::Queue, false), (Kind::Topic, false), (Kind::Queue, true), (Kind::Topic, true)]
            {
                let destination =
                    Destination::from_canonical(kind, temporary, levels).expect("these are names");
                let text = shown(destination.as_ref());
                assert_eq!(targets(&text).as_deref(), Ok(&[destination.clone()][..]), "{text}");
                assert_eq!(reply_to(&text), Some(Ok(destination)), "{text}");
            }
        }
    }

    #[test]
    fn a_reply_address_that_names_no_destination_is_text() {
        for text in ["", "mailto:someone", "https://example.org/x", "a://b"] {
            assert_eq!(reply_to(text), None, "{text}");
        }
    }
}
