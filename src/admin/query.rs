//! The parts of a request that people write: query parameters and path segments, read strictly. What is not known is an
//! error that names it, for a misspelt parameter that is ignored costs an afternoon.

use std::time::Duration;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::problem::Problem;

/// The one name in a path, decoded.
pub struct Name(pub String);

/// The two names in a path, decoded.
pub struct Names(pub String, pub String);

fn unreadable() -> Problem {
    Problem::invalid("path", "the path's percent-encoding is broken, or not of UTF-8")
}

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_| unreadable())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Names {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        path.map(|Path((first, second))| Self(first, second)).map_err(|_| unreadable())
    }
}

/// Query parameters, taken out one by one.
#[derive(Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Those of a request's query.
    ///
    /// # Errors
    /// A parameter given twice, or one that is not UTF-8 once decoded.
    pub fn read(query: Option<&str>) -> Result<Self, Problem> {
        let mut params: Vec<(String, String)> = Vec::new();
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode(name, true)?, decode(value, true)?);
            if params.iter().any(|(known, _)| *known == name) {
                return Err(Problem::invalid(&name, format!("the parameter {name} is there twice")));
            }
            params.push((name, value));
        }
        Ok(Self(params))
    }

    /// Takes one out.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Takes a number out.
    ///
    /// # Errors
    /// It is none, or out of bounds.
    pub fn number(&mut self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.take(name) else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(Problem::invalid(name, format!("{name} must be a number from {least} to {most}"))),
        }
    }

    /// Takes a span in milliseconds out; more than `most` is cut to it, as nobody knows the server's limits by heart.
    ///
    /// # Errors
    /// It is no number.
    pub fn span(&mut self, name: &str, most: u64) -> Result<Option<Duration>, Problem> {
        Ok(self.number(name, 0, u64::MAX)?.map(|ms| Duration::from_millis(ms.min(most))))
    }

    /// Takes a yes or no out.
    ///
    /// # Errors
    /// It is neither.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("true" | "") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Problem::invalid(name, format!("{name} must be true or false"))),
        }
    }

    /// What nobody took.
    pub fn rest(self) -> Vec<(String, String)> {
        self.0
    }

    /// Complains about what nobody took.
    ///
    /// # Errors
    /// There is something.
    pub fn finish(self) -> Result<(), Problem> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::invalid(&name, format!("there is no parameter {name:?} here"))),
        }
    }
}

/// Undoes percent-encoding, and in forms `+` for a blank.
///
/// # Errors
/// A broken escape, or octets that are not UTF-8.
pub fn decode(text: &str, form: bool) -> Result<String, Problem> {
    let broken = || Problem::invalid(text, "the percent-encoding is broken, or not of UTF-8");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' if form => out.push(b' '),
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
                    return Err(broken());
                };
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_nobody_takes_is_named() {
        let mut params = Params::read(Some("max=3&wiat=5&x=a%20b+c")).unwrap();
        assert_eq!(params.number("max", 1, 10).unwrap(), Some(3));
        assert_eq!(params.take("x").as_deref(), Some("a b c"));
        let problem = params.finish().unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("wiat"));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert!(Params::read(Some("a=1&a=2")).is_err());
        assert!(Params::read(Some("a=%f")).is_err());
        assert!(Params::read(Some("a=%ff")).is_err());
        let mut params = Params::read(Some("max=0&wait=x&flag=maybe")).unwrap();
        assert!(params.number("max", 1, 10).is_err());
        assert!(params.span("wait", 10).is_err());
        assert!(params.flag("flag").is_err());
    }

    #[test]
    fn a_span_that_is_too_long_is_cut() {
        let mut params = Params::read(Some("wait=100000")).unwrap();
        assert_eq!(params.span("wait", 60_000).unwrap(), Some(Duration::from_secs(60)));
    }
}
