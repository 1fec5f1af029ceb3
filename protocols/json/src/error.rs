//! What can be wrong with a message written as JSON.

use std::fmt;

use sabir_model::error::{Code, Refusal};

/// A message that cannot be read, with the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeError {
    /// The stable reason.
    pub code: Code,
    /// One sentence.
    pub sentence: String,
    /// The key that is wrong.
    pub field: Option<String>,
    /// Line and column, both from 1, where JSON stops making sense.
    pub place: Option<(usize, usize)>,
}

impl EnvelopeError {
    /// About no key in particular.
    pub fn new(code: Code, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into(), field: None, place: None }
    }

    /// About one key.
    pub fn of(field: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(Code::InvalidBody, sentence) }
    }

    pub(crate) fn json(error: &serde_json::Error, field: Option<String>) -> Self {
        let place = (error.line() > 0).then(|| (error.line(), error.column()));
        Self { code: Code::InvalidBody, sentence: error.to_string(), field, place }
    }
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for EnvelopeError {}

impl From<Refusal> for EnvelopeError {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.sentence)
    }
}

impl From<EnvelopeError> for Refusal {
    fn from(error: EnvelopeError) -> Self {
        Self::new(error.code, error.sentence)
    }
}
