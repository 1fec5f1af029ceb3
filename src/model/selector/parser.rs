//! Tokens to tree, by precedence climbing. Refuses what can never make sense, with the place and what was expected there.

use super::lexer::{self, Lexer, Token, Word};
use super::like::Like;
use super::pattern::{Pattern, Template};
use super::tree::{Arithmetic, Choices, Comparison, Expr, List};
use crate::error::{Code, Refusal};

/// Deepest nesting of parentheses, function calls and prefix operators: bounds the parser's stack.
pub(super) const NESTING_MAX: usize = 64;
/// Longest path from the root of the tree to a leaf: bounds the stack of evaluation, printing and dropping.
pub(super) const DEPTH_MAX: usize = 200;
/// Most regular expressions in one selector: each may take up to 32 KiB, and all are run over every message.
const REGEX_MAX: usize = 8;

// Precedence, lowest first.
const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const EQUALITY: u8 = 4;
const COMPARISON: u8 = 5;
const SUM: u8 = 6;
const PRODUCT: u8 = 7;
const PREFIX: u8 = 8;

const FUNCTIONS: &str = "INLIST, MAKELIST, REGEX, REPLACE and SPLIT";

/// A parsed part: where it begins and how deep it is.
struct Part {
    expr: Expr,
    at: usize,
    depth: usize,
}

pub(super) struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    token: Token<'a>,
    at: usize,
    nesting: usize,
    regexes: usize,
}

impl<'a> Parser<'a> {
    /// Parses all of `text` from byte `from` on.
    pub(super) fn parse(text: &'a str, from: usize, hyphens: bool) -> Result<Expr, Refusal> {
        let lexer = Lexer::new(text, from, hyphens);
        let mut parser = Self { text, lexer, token: Token::End, at: from, nesting: 0, regexes: 0 };
        parser.advance()?;
        if parser.token == Token::End {
            return Err(parser.refuse(parser.at, "the selector is empty"));
        }
        let whole = parser.expression(OR)?;
        if parser.token != Token::End {
            return Err(parser.expected("an operator or the end"));
        }
        Ok(parser.condition(whole)?.expr)
    }

    fn refuse(&self, at: usize, what: impl std::fmt::Display) -> Refusal {
        let place = self.text.get(..at).unwrap_or(self.text).chars().count() + 1;
        Refusal::new(Code::InvalidSelector, format!("Selector, character {place}: {what}."))
    }

    fn expected(&self, what: &str) -> Refusal {
        self.refuse(self.at, format_args!("expected {what}, found {}", lexer::describe(&self.token)))
    }

    fn advance(&mut self) -> Result<(), Refusal> {
        let (token, at) = self.lexer.next().map_err(|error| self.refuse(error.at, error.what))?;
        (self.token, self.at) = (token, at);
        Ok(())
    }

    fn take(&mut self, token: &Token<'_>, what: &str) -> Result<(), Refusal> {
        if self.token == *token { self.advance() } else { Err(self.expected(what)) }
    }

    fn take_text(&mut self, what: &str) -> Result<Box<str>, Refusal> {
        let Token::Text(text) = &self.token else {
            return Err(self.expected(what));
        };
        let text = Box::from(&**text);
        self.advance()?;
        Ok(text)
    }

    fn join(&self, expr: Expr, at: usize, parts_depth: usize) -> Result<Part, Refusal> {
        if parts_depth >= DEPTH_MAX {
            return Err(self.refuse(at, format_args!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(Part { expr, at, depth: parts_depth + 1 })
    }

    /// `part` as a condition: a bare name counts as one.
    fn condition(&self, part: Part) -> Result<Part, Refusal> {
        if part.expr.is_condition() || matches!(part.expr, Expr::Name(_)) {
            return Ok(part);
        }
        Err(self.refuse(part.at, "expected a condition, found a value that is neither true nor false"))
    }

    /// `part` as an operand of arithmetic.
    fn value(&self, part: Part) -> Result<Part, Refusal> {
        if part.expr.is_condition() && part.expr != Expr::Null {
            return Err(self.refuse(part.at, "expected a value to compute with, found a condition"));
        }
        Ok(part)
    }

    /// `part` as an operand of `<`, `<=`, `>`, `>=` or `BETWEEN`.
    fn ordered(&self, part: Part) -> Result<Part, Refusal> {
        if part.expr.is_condition() || matches!(part.expr, Expr::Text(_)) {
            return Err(self.refuse(part.at, "only numbers can be compared with <, <=, >, >= and BETWEEN"));
        }
        Ok(part)
    }

    /// An expression whose loosest operator binds at least as tightly as `level`.
    fn expression(&mut self, level: u8) -> Result<Part, Refusal> {
        let mut left = self.prefix(level)?;
        loop {
            let found = match self.token {
                Token::Word(Word::Or) => OR,
                Token::Word(Word::And) => AND,
                Token::Equal | Token::NotEqual | Token::Word(Word::Is) => EQUALITY,
                Token::Less
                | Token::LessOrEqual
                | Token::Greater
                | Token::GreaterOrEqual
                | Token::Word(Word::Like | Word::Between | Word::In | Word::Not) => COMPARISON,
                Token::Plus | Token::Minus => SUM,
                Token::Star | Token::Slash | Token::Percent => PRODUCT,
                _ => return Ok(left),
            };
            if found < level {
                return Ok(left);
            }
            left = match found {
                OR | AND => self.logic(left, found)?,
                EQUALITY => self.equality(left)?,
                COMPARISON => self.comparison(left)?,
                _ => self.arithmetic(left, found)?,
            };
        }
    }

    fn logic(&mut self, left: Part, level: u8) -> Result<Part, Refusal> {
        let left = self.condition(left)?;
        self.advance()?;
        let right = self.expression(level + 1)?;
        let right = self.condition(right)?;
        // A chain is one node, so a long list of alternatives is not deep.
        let chained = match &left.expr {
            Expr::Or(_) => level == OR,
            Expr::And(_) => level == AND,
            _ => false,
        };
        let depth = if chained { left.depth - 1 } else { left.depth };
        let join = if level == OR { Expr::or } else { Expr::and };
        self.join(join(left.expr, right.expr), left.at, depth.max(right.depth))
    }

    fn equality(&mut self, left: Part) -> Result<Part, Refusal> {
        let comparison = match self.token {
            Token::Equal => Comparison::Equal,
            Token::NotEqual => Comparison::NotEqual,
            _ => return self.is_null(left),
        };
        self.advance()?;
        let right = self.expression(EQUALITY + 1)?;
        for side in [&left, &right] {
            if side.expr == Expr::Null {
                return Err(self.refuse(side.at, "nothing equals NULL; write IS NULL or IS NOT NULL"));
            }
        }
        let literal = |expr: &Expr| matches!(expr, Expr::Integer(_) | Expr::Float(_) | Expr::Text(_));
        let boolean = |expr: &Expr| matches!(expr, Expr::Bool(_));
        if (boolean(&left.expr) && literal(&right.expr)) || (literal(&left.expr) && boolean(&right.expr)) {
            return Err(self.refuse(left.at, "TRUE and FALSE cannot be compared with a number or a string"));
        }
        let depth = left.depth.max(right.depth);
        self.join(Expr::Compare(comparison, Box::new([left.expr, right.expr])), left.at, depth)
    }

    fn is_null(&mut self, left: Part) -> Result<Part, Refusal> {
        self.advance()?;
        let negated = self.token == Token::Word(Word::Not);
        if negated {
            self.advance()?;
        }
        let what = if negated { "NULL after IS NOT" } else { "NULL or NOT NULL after IS" };
        self.take(&Token::Word(Word::Null), what)?;
        self.join(Expr::IsNull { subject: Box::new(left.expr), negated }, left.at, left.depth)
    }

    fn comparison(&mut self, left: Part) -> Result<Part, Refusal> {
        let comparison = match self.token {
            Token::Less => Comparison::Less,
            Token::LessOrEqual => Comparison::LessOrEqual,
            Token::Greater => Comparison::Greater,
            Token::GreaterOrEqual => Comparison::GreaterOrEqual,
            _ => return self.predicate(left),
        };
        self.advance()?;
        let right = self.expression(COMPARISON + 1)?;
        let (left, right) = (self.ordered(left)?, self.ordered(right)?);
        let depth = left.depth.max(right.depth);
        self.join(Expr::Compare(comparison, Box::new([left.expr, right.expr])), left.at, depth)
    }

    /// `[NOT] LIKE`, `[NOT] BETWEEN`, `[NOT] IN` behind `left`.
    fn predicate(&mut self, left: Part) -> Result<Part, Refusal> {
        let negated = self.token == Token::Word(Word::Not);
        if negated {
            self.advance()?;
        }
        match self.token {
            Token::Word(Word::Like) => self.like(left, negated),
            Token::Word(Word::Between) => self.between(left, negated),
            Token::Word(Word::In) => self.choices(left, negated),
            _ => Err(self.expected("LIKE, BETWEEN or IN after NOT")),
        }
    }

    fn like(&mut self, left: Part, negated: bool) -> Result<Part, Refusal> {
        self.advance()?;
        let pattern = self.take_text("a string as the pattern of LIKE")?;
        let mut escape = None;
        if self.token == Token::Word(Word::Escape) {
            self.advance()?;
            let at = self.at;
            let text = self.take_text("a string of one character after ESCAPE")?;
            let mut letters = text.chars();
            escape = letters.next();
            if escape.is_none() || letters.next().is_some() {
                return Err(self.refuse(at, "ESCAPE takes a string of exactly one character"));
            }
        }
        let pattern = Box::new(Like::new(&pattern, escape));
        self.join(Expr::Like { subject: Box::new(left.expr), pattern, negated }, left.at, left.depth)
    }

    fn between(&mut self, left: Part, negated: bool) -> Result<Part, Refusal> {
        self.advance()?;
        let low = self.expression(SUM)?;
        self.take(&Token::Word(Word::And), "AND between the bounds of BETWEEN")?;
        let high = self.expression(SUM)?;
        let (left, low, high) = (self.ordered(left)?, self.ordered(low)?, self.ordered(high)?);
        let depth = left.depth.max(low.depth).max(high.depth);
        let operands = Box::new([left.expr, low.expr, high.expr]);
        self.join(Expr::Between { operands, negated }, left.at, depth)
    }

    fn choices(&mut self, left: Part, negated: bool) -> Result<Part, Refusal> {
        let Expr::Name(name) = left.expr else {
            return Err(self.refuse(left.at, "IN needs a name on its left"));
        };
        self.advance()?;
        self.take(&Token::Open, "( after IN")?;
        let mut texts = vec![self.take_text("a string in the list of IN")?];
        while self.token == Token::Comma {
            self.advance()?;
            texts.push(self.take_text("a string in the list of IN")?);
        }
        self.take(&Token::Close, "a comma or ) in the list of IN")?;
        self.join(Expr::In { name, choices: Choices::new(texts), negated }, left.at, left.depth)
    }

    fn arithmetic(&mut self, left: Part, level: u8) -> Result<Part, Refusal> {
        let arithmetic = match self.token {
            Token::Plus => Arithmetic::Plus,
            Token::Minus => Arithmetic::Minus,
            Token::Star => Arithmetic::Times,
            Token::Slash => Arithmetic::Divide,
            _ => Arithmetic::Remainder,
        };
        self.advance()?;
        let right = self.expression(level + 1)?;
        let (left, right) = (self.value(left)?, self.value(right)?);
        let depth = left.depth.max(right.depth);
        self.join(Expr::Compute(arithmetic, Box::new([left.expr, right.expr])), left.at, depth)
    }

    /// A prefix operator with its operand, or a primary. Counts the nesting.
    fn prefix(&mut self, level: u8) -> Result<Part, Refusal> {
        if self.nesting >= NESTING_MAX {
            return Err(self.refuse(self.at, format_args!("nested deeper than {NESTING_MAX} levels")));
        }
        self.nesting += 1;
        let part = match self.token {
            Token::Word(Word::Not) => self.not(level),
            Token::Minus => self.minus(),
            Token::Plus => {
                self.advance()?;
                self.expression(PREFIX).and_then(|operand| self.value(operand))
            }
            _ => self.primary(),
        };
        self.nesting -= 1;
        part
    }

    /// JMS 2.0 §3.8.1.1: NOT negates the whole comparison behind it. Where only an operand can stand (`a = NOT b`), it
    /// negates that operand.
    fn not(&mut self, level: u8) -> Result<Part, Refusal> {
        let at = self.at;
        self.advance()?;
        let operand = self.expression(if level <= NOT { NOT } else { PREFIX })?;
        let operand = self.condition(operand)?;
        self.join(Expr::Not(Box::new(operand.expr)), at, operand.depth)
    }

    fn minus(&mut self) -> Result<Part, Refusal> {
        let at = self.at;
        self.advance()?;
        if self.token == Token::TwoToThe63 {
            self.advance()?;
            return self.join(Expr::Integer(i64::MIN), at, 0);
        }
        let operand = self.expression(PREFIX)?;
        let operand = self.value(operand)?;
        match operand.expr {
            Expr::Integer(value) if value != i64::MIN => self.join(Expr::Integer(-value), at, 0),
            Expr::Float(value) => self.join(Expr::Float(-value), at, 0),
            other => self.join(Expr::Negate(Box::new(other)), at, operand.depth),
        }
    }

    fn primary(&mut self) -> Result<Part, Refusal> {
        let at = self.at;
        let expr = match &self.token {
            Token::Open => {
                self.advance()?;
                let inner = self.expression(OR)?;
                self.take(&Token::Close, "an operator or )")?;
                return Ok(Part { at, ..inner });
            }
            Token::Name(name) => {
                let name = *name;
                self.advance()?;
                if self.token == Token::Open {
                    return self.function(name, at);
                }
                return self.join(Expr::Name(name.into()), at, 0);
            }
            Token::Word(Word::XPath | Word::XQuery) => {
                let what = "XPATH and XQUERY selectors are not supported; select on properties";
                return Err(Refusal { code: Code::Unsupported, ..self.refuse(at, what) });
            }
            Token::Quoted(name) => Expr::Name(Box::from(&**name)),
            Token::Text(text) => Expr::Text(Box::from(&**text)),
            Token::Integer(value) => Expr::Integer(*value),
            // Without a minus sign before it this is beyond every integer.
            Token::TwoToThe63 => Expr::Float(9_223_372_036_854_775_808.0),
            Token::Float(value) => Expr::Float(*value),
            Token::Word(Word::True) => Expr::Bool(true),
            Token::Word(Word::False) => Expr::Bool(false),
            Token::Word(Word::Null) => Expr::Null,
            Token::Word(_) => {
                return Err(
                    self.expected("a name or a value (reserved words need double quotes to be names)")
                );
            }
            _ => return Err(self.expected("a name or a value")),
        };
        self.advance()?;
        self.join(expr, at, 0)
    }

    /// A function call from its opening parenthesis on.
    fn function(&mut self, name: &str, at: usize) -> Result<Part, Refusal> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is("REGEX") {
            self.advance()?;
            let pattern = self.pattern("REGEX")?;
            self.comma("REGEX", "an expression and a subject")?;
            let subject = self.argument()?;
            self.close("REGEX", "an expression and a subject")?;
            self.join(Expr::Regex { pattern, subject: Box::new(subject.expr) }, at, subject.depth)
        } else if is("REPLACE") {
            self.advance()?;
            let subject = self.argument()?;
            self.comma("REPLACE", "a subject, an expression and a replacement")?;
            let pattern = self.pattern("REPLACE")?;
            self.comma("REPLACE", "a subject, an expression and a replacement")?;
            let with_at = self.at;
            let with = self.take_text("a string as the replacement of REPLACE")?;
            let with = Box::new(Template::new(&with, &pattern).map_err(|why| {
                self.refuse(with_at, format_args!("the replacement of REPLACE is not valid: {why}"))
            })?);
            self.close("REPLACE", "a subject, an expression and a replacement")?;
            self.join(Expr::Replace { subject: Box::new(subject.expr), pattern, with }, at, subject.depth)
        } else if is("INLIST") {
            self.advance()?;
            let (list, list_depth) = self.list()?;
            self.comma("INLIST", "a list and a value")?;
            let subject = self.argument()?;
            self.close("INLIST", "a list and a value")?;
            let depth = list_depth.max(subject.depth);
            self.join(Expr::InList { list, subject: Box::new(subject.expr) }, at, depth)
        } else if is("MAKELIST") || is("SPLIT") {
            Err(self.refuse(at, "a list can only be the first argument of INLIST"))
        } else {
            Err(self.refuse(at, format_args!("there is no such function; there are {FUNCTIONS}")))
        }
    }

    /// The first argument of `INLIST`, and its depth.
    fn list(&mut self) -> Result<(List, usize), Refusal> {
        let Token::Name(name) = self.token else {
            return Err(self.expected("MAKELIST(…) or SPLIT(…) as the first argument of INLIST"));
        };
        if name.eq_ignore_ascii_case("MAKELIST") {
            self.advance()?;
            self.take(&Token::Open, "( after MAKELIST")?;
            let mut items = Vec::new();
            let mut depth = 0;
            if self.token != Token::Close {
                loop {
                    let item = self.argument()?;
                    depth = depth.max(item.depth);
                    items.push(item.expr);
                    if self.token != Token::Comma {
                        break;
                    }
                    self.advance()?;
                }
            }
            self.take(&Token::Close, "a comma or ) in MAKELIST")?;
            Ok((List::Make(items.into()), depth))
        } else if name.eq_ignore_ascii_case("SPLIT") {
            self.advance()?;
            self.take(&Token::Open, "( after SPLIT")?;
            let subject = self.argument()?;
            self.comma("SPLIT", "a subject, an expression and possibly a limit")?;
            let pattern = self.pattern("SPLIT")?;
            let mut limit = 0;
            if self.token == Token::Comma {
                self.advance()?;
                let at = self.at;
                let Part { expr: Expr::Integer(value), .. } = self.expression(PREFIX)? else {
                    return Err(self.refuse(at, "the limit of SPLIT must be an integer"));
                };
                limit = value;
            }
            self.close("SPLIT", "a subject, an expression and possibly a limit")?;
            Ok((List::Split { subject: Box::new(subject.expr), pattern, limit }, subject.depth))
        } else {
            Err(self.expected("MAKELIST(…) or SPLIT(…) as the first argument of INLIST"))
        }
    }

    fn argument(&mut self) -> Result<Part, Refusal> {
        self.expression(OR)
    }

    fn comma(&mut self, function: &str, arguments: &str) -> Result<(), Refusal> {
        self.take(&Token::Comma, &format!("a comma: {function} takes {arguments}"))
    }

    fn close(&mut self, function: &str, arguments: &str) -> Result<(), Refusal> {
        self.take(&Token::Close, &format!("): {function} takes {arguments}"))
    }

    /// A regular expression. Only a string will do: compiled once, and never chosen by the sender of a message.
    fn pattern(&mut self, function: &str) -> Result<Box<Pattern>, Refusal> {
        let at = self.at;
        let text = self.take_text(&format!("a string as the regular expression of {function}"))?;
        self.regexes += 1;
        if self.regexes > REGEX_MAX {
            return Err(self.refuse(at, format_args!("more than {REGEX_MAX} regular expressions")));
        }
        let pattern = Pattern::new(&text).map_err(|why| {
            self.refuse(at, format_args!("the regular expression of {function} is not valid: {why}"))
        })?;
        Ok(Box::new(pattern))
    }
}
