//! What a tree says about a message, in three-valued logic: `None` is unknown.
//!
//! Nothing here allocates but `REPLACE`, a concatenation, and a number or a boolean that `REGEX` or `SPLIT` must see as
//! text. The tree's depth bounds the stack.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::{self, Display, Formatter};

use super::Lookup;
use super::pattern::join;
use super::tree::{Arithmetic, Comparison, Expr, List};
use crate::headers::{ValueRef, parse_float};

/// A value while evaluating.
#[derive(Debug)]
enum Seen<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// Octets, maps and lists: there, but like nothing else.
    Other,
}

impl<'a> From<ValueRef<'a>> for Seen<'a> {
    fn from(value: ValueRef<'a>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Bool(value) => Self::Bool(value),
            ValueRef::I8(value) => Self::Integer(value.into()),
            ValueRef::I16(value) => Self::Integer(value.into()),
            ValueRef::I32(value) => Self::Integer(value.into()),
            ValueRef::I64(value) => Self::Integer(value),
            ValueRef::F32(value) => Self::Float(value.into()),
            ValueRef::F64(value) => Self::Float(value),
            ValueRef::Str(text) => Self::Text(Cow::Borrowed(text)),
            ValueRef::Bytes(_) | ValueRef::Nested(_) => Self::Other,
        }
    }
}

#[derive(Clone, Copy)]
enum Number {
    Integer(i64),
    Float(f64),
}

impl Number {
    #[expect(clippy::cast_precision_loss, reason = "Java widens long to double the same way")]
    fn as_float(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Integer(left), Self::Integer(right)) => Some(left.cmp(&right)),
            _ => self.as_float().partial_cmp(&other.as_float()),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().map(Self::Integer).ok().or_else(|| parse_float(text).map(Self::Float))
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => crate::headers::FloatText(*value).fmt(f),
        }
    }
}

impl From<Number> for Seen<'_> {
    fn from(number: Number) -> Self {
        match number {
            Number::Integer(value) => Self::Integer(value),
            Number::Float(value) => Self::Float(value),
        }
    }
}

/// One evaluation: the message, and whether text may be read as a number or a boolean.
#[derive(Clone, Copy)]
pub(super) struct Evaluation<'a> {
    pub(super) message: &'a dyn Lookup,
    pub(super) convert: bool,
}

impl<'a> Evaluation<'a> {
    /// Whether the condition holds. A value in a condition's place is a bare name, by the parser's word.
    pub(super) fn truth(&self, expr: &'a Expr) -> Option<bool> {
        match expr {
            Expr::Null => None,
            Expr::Bool(value) => Some(*value),
            Expr::Not(operand) => self.truth(operand).map(|truth| !truth),
            Expr::And(operands) => self.all(operands, true),
            Expr::Or(operands) => self.all(operands, false),
            Expr::Compare(comparison, operands) => {
                let [left, right] = &**operands;
                let (left, right) = (self.value(left), self.value(right));
                match comparison {
                    Comparison::Equal => self.equal(&left, &right),
                    Comparison::NotEqual => self.equal(&left, &right).map(|truth| !truth),
                    Comparison::Less => self.ordered(&left, &right, Ordering::is_lt),
                    Comparison::LessOrEqual => self.ordered(&left, &right, Ordering::is_le),
                    Comparison::Greater => self.ordered(&left, &right, Ordering::is_gt),
                    Comparison::GreaterOrEqual => self.ordered(&left, &right, Ordering::is_ge),
                }
            }
            Expr::IsNull { subject, negated } => Some(matches!(self.value(subject), Seen::Null) != *negated),
            Expr::Like { subject, pattern, negated } => match self.value(subject) {
                Seen::Null => None,
                Seen::Text(text) => Some(pattern.matches(&text) != *negated),
                _ => Some(*negated),
            },
            Expr::Between { operands, negated } => {
                let [subject, low, high] = &**operands;
                let subject = self.value(subject);
                let above = self.ordered(&subject, &self.value(low), Ordering::is_ge);
                let below = self.ordered(&subject, &self.value(high), Ordering::is_le);
                let within = match (above, below) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                };
                within.map(|within| within != *negated)
            }
            Expr::In { name, choices, negated } => match self.message.get(name) {
                ValueRef::Str(text) => Some(choices.contains(text) != *negated),
                _ => None,
            },
            Expr::Regex { pattern, subject } => match self.value(subject) {
                Seen::Null => None,
                value => Some(as_text(&value).is_some_and(|text| pattern.found_in(&text))),
            },
            Expr::InList { list, subject } => self.in_list(list, &self.value(subject)),
            Expr::Name(_)
            | Expr::Integer(_)
            | Expr::Float(_)
            | Expr::Text(_)
            | Expr::Negate(_)
            | Expr::Compute(..)
            | Expr::Replace { .. } => self.as_condition(&self.value(expr)),
        }
    }

    /// AND (`wanted` true) or OR (`wanted` false) over a chain: the other answer decides at once, unknown spoils the rest.
    fn all(&self, operands: &'a [Expr], wanted: bool) -> Option<bool> {
        let mut answer = Some(wanted);
        for operand in operands {
            match self.truth(operand) {
                Some(truth) if truth != wanted => return Some(truth),
                Some(_) => {}
                None => answer = None,
            }
        }
        answer
    }

    fn as_condition(&self, value: &Seen<'_>) -> Option<bool> {
        match value {
            Seen::Null => None,
            Seen::Bool(value) => Some(*value),
            Seen::Text(text) if self.convert => Some(text.eq_ignore_ascii_case("true")),
            _ => Some(false),
        }
    }

    fn value(&self, expr: &'a Expr) -> Seen<'a> {
        match expr {
            Expr::Null => Seen::Null,
            Expr::Bool(value) => Seen::Bool(*value),
            Expr::Integer(value) => Seen::Integer(*value),
            Expr::Float(value) => Seen::Float(*value),
            Expr::Text(text) => Seen::Text(Cow::Borrowed(text)),
            Expr::Name(name) => self.message.get(name).into(),
            Expr::Negate(operand) => match self.number(&self.value(operand)) {
                Some(Number::Integer(value)) => match value.checked_neg() {
                    Some(negative) => Seen::Integer(negative),
                    None => Seen::Float(-Number::Integer(value).as_float()),
                },
                Some(Number::Float(value)) => Seen::Float(-value),
                None => Seen::Null,
            },
            Expr::Compute(arithmetic, operands) => {
                let [left, right] = &**operands;
                self.compute(*arithmetic, &self.value(left), &self.value(right))
            }
            Expr::Replace { subject, pattern, with } => match self.value(subject) {
                Seen::Text(text) => {
                    pattern.replace(&text, with).map_or(Seen::Null, |made| Seen::Text(Cow::Owned(made)))
                }
                _ => Seen::Null,
            },
            Expr::Not(_)
            | Expr::And(_)
            | Expr::Or(_)
            | Expr::Compare(..)
            | Expr::IsNull { .. }
            | Expr::Like { .. }
            | Expr::Between { .. }
            | Expr::In { .. }
            | Expr::Regex { .. }
            | Expr::InList { .. } => self.truth(expr).map_or(Seen::Null, Seen::Bool),
        }
    }

    /// A number as it stands, or text that reads as one if the selector converts.
    fn number(&self, value: &Seen<'_>) -> Option<Number> {
        match value {
            Seen::Integer(value) => Some(Number::Integer(*value)),
            Seen::Float(value) => Some(Number::Float(*value)),
            Seen::Text(text) if self.convert => Number::parse(text),
            _ => None,
        }
    }

    fn equal(&self, left: &Seen<'_>, right: &Seen<'_>) -> Option<bool> {
        Some(match (left, right) {
            (Seen::Null, _) | (_, Seen::Null) => return None,
            (Seen::Text(left), Seen::Text(right)) => left == right,
            (Seen::Bool(left), Seen::Bool(right)) => left == right,
            (Seen::Text(text), Seen::Bool(value)) | (Seen::Bool(value), Seen::Text(text)) => {
                self.convert && text.eq_ignore_ascii_case("true") == *value
            }
            _ => match (self.number(left), self.number(right)) {
                (Some(left), Some(right)) => left.compare(right) == Some(Ordering::Equal),
                _ => false,
            },
        })
    }

    fn ordered(&self, left: &Seen<'_>, right: &Seen<'_>, wanted: fn(Ordering) -> bool) -> Option<bool> {
        if matches!(left, Seen::Null) || matches!(right, Seen::Null) {
            return None;
        }
        let order = self.number(left).zip(self.number(right)).and_then(|(left, right)| left.compare(right));
        Some(order.is_some_and(wanted))
    }

    fn compute(&self, arithmetic: Arithmetic, left: &Seen<'a>, right: &Seen<'a>) -> Seen<'a> {
        if let (Arithmetic::Plus, Seen::Text(text)) = (arithmetic, left) {
            let made = match right {
                Seen::Null | Seen::Other => None,
                Seen::Bool(value) => join(text, value),
                Seen::Integer(value) => join(text, value),
                Seen::Float(value) => join(text, Number::Float(*value)),
                Seen::Text(more) => join(text, more),
            };
            return made.map_or(Seen::Null, |made| Seen::Text(Cow::Owned(made)));
        }
        let (Some(left), Some(right)) = (self.number(left), self.number(right)) else {
            return Seen::Null;
        };
        // Integers stay integers until they overflow.
        let exact: fn(i64, i64) -> Option<i64> = match arithmetic {
            Arithmetic::Plus => i64::checked_add,
            Arithmetic::Minus => i64::checked_sub,
            Arithmetic::Times => i64::checked_mul,
            Arithmetic::Divide | Arithmetic::Remainder => |_, _| None,
        };
        if let (Number::Integer(left), Number::Integer(right)) = (left, right)
            && let Some(value) = exact(left, right)
        {
            return Seen::Integer(value);
        }
        let (left, right) = (left.as_float(), right.as_float());
        Seen::Float(match arithmetic {
            Arithmetic::Plus => left + right,
            Arithmetic::Minus => left - right,
            Arithmetic::Times => left * right,
            Arithmetic::Divide => left / right,
            Arithmetic::Remainder => left % right,
        })
    }

    /// True if the value equals an item; else unknown if that could not be said of every item.
    fn in_list(&self, list: &'a List, wanted: &Seen<'a>) -> Option<bool> {
        match list {
            List::Make(items) => {
                let mut answer = Some(false);
                for item in items {
                    match self.equal(&self.value(item), wanted) {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => answer = None,
                    }
                }
                answer
            }
            List::Split { subject, pattern, limit } => {
                let subject = self.value(subject);
                if matches!(subject, Seen::Null) || matches!(wanted, Seen::Null) {
                    return None;
                }
                let text = as_text(&subject)?;
                Some(pattern.split(&text, *limit, |piece| {
                    self.equal(&Seen::Text(Cow::Borrowed(piece)), wanted) == Some(true)
                }))
            }
        }
    }
}

/// The text that a value is written as, if it has one.
fn as_text<'t>(value: &'t Seen<'_>) -> Option<Cow<'t, str>> {
    Some(match value {
        Seen::Text(text) => Cow::Borrowed(&**text),
        Seen::Bool(true) => Cow::Borrowed("true"),
        Seen::Bool(false) => Cow::Borrowed("false"),
        Seen::Integer(value) => Cow::Owned(value.to_string()),
        Seen::Float(value) => Cow::Owned(Number::Float(*value).to_string()),
        Seen::Null | Seen::Other => return None,
    })
}
