//! The compiled selector: a tree whose leaves are ready to be evaluated, and its way back to text.

use std::fmt::{self, Display, Formatter, Write as _};

use super::lexer;
use super::like::Like;
use super::pattern::{Pattern, Template};

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is computed from two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Plus,
    Minus,
    Times,
    Divide,
    Remainder,
}

/// The strings of `IN`, sorted, each once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choices(Box<[Box<str>]>);

/// Up to here looking at every string is quicker than halving the list.
const LINEAR_CHOICES_MAX: usize = 8;

impl Choices {
    pub(super) fn new(mut texts: Vec<Box<str>>) -> Self {
        texts.sort_unstable();
        texts.dedup();
        Self(texts.into())
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        if self.0.len() <= LINEAR_CHOICES_MAX {
            self.0.iter().any(|choice| **choice == *text)
        } else {
            self.0.binary_search_by(|choice| (**choice).cmp(text)).is_ok()
        }
    }
}

/// What `INLIST` looks through.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum List {
    Make(Box<[Expr]>),
    Split { subject: Box<Expr>, pattern: Box<Pattern>, limit: i64 },
}

/// One node. Conditions and values share the type; the parser keeps each where it belongs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Box<str>),
    Name(Box<str>),
    Not(Box<Self>),
    And(Box<[Self]>),
    Or(Box<[Self]>),
    Compare(Comparison, Box<[Self; 2]>),
    IsNull {
        subject: Box<Self>,
        negated: bool,
    },
    Like {
        subject: Box<Self>,
        pattern: Box<Like>,
        negated: bool,
    },
    /// Subject, low, high.
    Between {
        operands: Box<[Self; 3]>,
        negated: bool,
    },
    In {
        name: Box<str>,
        choices: Choices,
        negated: bool,
    },
    Negate(Box<Self>),
    Compute(Arithmetic, Box<[Self; 2]>),
    Regex {
        pattern: Box<Pattern>,
        subject: Box<Self>,
    },
    InList {
        list: List,
        subject: Box<Self>,
    },
    Replace {
        subject: Box<Self>,
        pattern: Box<Pattern>,
        with: Box<Template>,
    },
}

impl Expr {
    /// Whether its value is true, false or unknown, whatever the message.
    pub(super) fn is_condition(&self) -> bool {
        match self {
            Self::Null
            | Self::Bool(_)
            | Self::Not(_)
            | Self::And(_)
            | Self::Or(_)
            | Self::Compare(..)
            | Self::IsNull { .. }
            | Self::Like { .. }
            | Self::Between { .. }
            | Self::In { .. }
            | Self::Regex { .. }
            | Self::InList { .. } => true,
            Self::Integer(_)
            | Self::Float(_)
            | Self::Text(_)
            | Self::Name(_)
            | Self::Negate(_)
            | Self::Compute(..)
            | Self::Replace { .. } => false,
        }
    }

    /// All of these, in order; one chain if the first is a chain itself.
    pub(super) fn and(left: Self, right: Self) -> Self {
        match left {
            Self::And(chain) => Self::And(append(chain, right)),
            other => Self::And(Box::new([other, right])),
        }
    }

    /// Any of these, in order; one chain if the first is a chain itself.
    pub(super) fn or(left: Self, right: Self) -> Self {
        match left {
            Self::Or(chain) => Self::Or(append(chain, right)),
            other => Self::Or(Box::new([other, right])),
        }
    }
}

fn append(chain: Box<[Expr]>, last: Expr) -> Box<[Expr]> {
    let mut chain = chain.into_vec();
    chain.push(last);
    chain.into_boxed_slice()
}

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

impl Display for Arithmetic {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Times => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        })
    }
}

/// Text between quotes, the quote itself doubled.
fn quoted(f: &mut Formatter<'_>, quote: char, text: &str) -> fmt::Result {
    f.write_char(quote)?;
    for letter in text.chars() {
        if letter == quote {
            f.write_char(quote)?;
        }
        f.write_char(letter)?;
    }
    f.write_char(quote)
}

fn text(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    quoted(f, '\'', text)
}

fn name(f: &mut Formatter<'_>, name: &str) -> fmt::Result {
    let bare = name.bytes().next().is_some_and(lexer::begins_name)
        && name.bytes().all(lexer::continues_name)
        && lexer::reserved(name).is_none();
    if bare { f.write_str(name) } else { quoted(f, '"', name) }
}

fn not(negated: bool) -> &'static str {
    if negated { "NOT " } else { "" }
}

fn separated<T: Display>(f: &mut Formatter<'_>, items: &[T], separator: &str) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

impl Display for Expr {
    /// Writes every compound in parentheses, so that precedence plays no part in reading it back.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Bool(true) => f.write_str("TRUE"),
            Self::Bool(false) => f.write_str("FALSE"),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => fmt::Debug::fmt(value, f),
            Self::Text(value) => text(f, value),
            Self::Name(value) => name(f, value),
            Self::Not(operand) => write!(f, "(NOT {operand})"),
            Self::And(operands) => {
                f.write_char('(')?;
                separated(f, operands, " AND ")?;
                f.write_char(')')
            }
            Self::Or(operands) => {
                f.write_char('(')?;
                separated(f, operands, " OR ")?;
                f.write_char(')')
            }
            Self::Compare(comparison, operands) => {
                let [left, right] = &**operands;
                write!(f, "({left} {comparison} {right})")
            }
            Self::IsNull { subject, negated } => write!(f, "({subject} IS {}NULL)", not(*negated)),
            Self::Like { subject, pattern, negated } => {
                write!(f, "({subject} {}LIKE ", not(*negated))?;
                text(f, pattern.text())?;
                if let Some(escape) = pattern.escape() {
                    f.write_str(" ESCAPE ")?;
                    text(f, escape.encode_utf8(&mut [0; 4]))?;
                }
                f.write_char(')')
            }
            Self::Between { operands, negated } => {
                let [subject, low, high] = &**operands;
                write!(f, "({subject} {}BETWEEN {low} AND {high})", not(*negated))
            }
            Self::In { name: subject, choices, negated } => {
                f.write_char('(')?;
                name(f, subject)?;
                write!(f, " {}IN (", not(*negated))?;
                for (index, choice) in choices.0.iter().enumerate() {
                    f.write_str(if index > 0 { ", " } else { "" })?;
                    text(f, choice)?;
                }
                f.write_str("))")
            }
            // The blank keeps a negative number behind it from making a comment.
            Self::Negate(operand) => write!(f, "(- {operand})"),
            Self::Compute(arithmetic, operands) => {
                let [left, right] = &**operands;
                write!(f, "({left} {arithmetic} {right})")
            }
            Self::Regex { pattern, subject } => {
                f.write_str("REGEX(")?;
                text(f, pattern.text())?;
                write!(f, ", {subject})")
            }
            Self::InList { list: List::Make(items), subject } => {
                f.write_str("INLIST(MAKELIST(")?;
                separated(f, items, ", ")?;
                write!(f, "), {subject})")
            }
            Self::InList { list: List::Split { subject: split, pattern, limit }, subject } => {
                write!(f, "INLIST(SPLIT({split}, ")?;
                text(f, pattern.text())?;
                if *limit != 0 {
                    write!(f, ", {limit}")?;
                }
                write!(f, "), {subject})")
            }
            Self::Replace { subject, pattern, with } => {
                write!(f, "REPLACE({subject}, ")?;
                text(f, pattern.text())?;
                f.write_str(", ")?;
                text(f, with.text())?;
                f.write_char(')')
            }
        }
    }
}
