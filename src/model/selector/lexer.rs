//! Text to tokens, one at a time. Positions are byte offsets into the text; the parser turns them into characters.

use std::borrow::Cow;

/// A reserved word, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    And,
    Between,
    Escape,
    False,
    In,
    Is,
    Like,
    Not,
    Null,
    Or,
    True,
    XPath,
    XQuery,
}

const WORDS: [(&str, Word); 13] = [
    ("AND", Word::And),
    ("BETWEEN", Word::Between),
    ("ESCAPE", Word::Escape),
    ("FALSE", Word::False),
    ("IN", Word::In),
    ("IS", Word::Is),
    ("LIKE", Word::Like),
    ("NOT", Word::Not),
    ("NULL", Word::Null),
    ("OR", Word::Or),
    ("TRUE", Word::True),
    ("XPATH", Word::XPath),
    ("XQUERY", Word::XQuery),
];

/// The reserved word that `text` is, if it is one.
pub(super) fn reserved(text: &str) -> Option<Word> {
    WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, word)| *word)
}

/// Whether a name may begin with `byte`.
pub(super) fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte == b'$'
}

/// Whether a name may go on with `byte`.
pub(super) fn continues_name(byte: u8) -> bool {
    begins_name(byte) || byte.is_ascii_digit()
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    End,
    Word(Word),
    /// A bare name.
    Name(&'a str),
    /// A name in double quotes.
    Quoted(Cow<'a, str>),
    Text(Cow<'a, str>),
    Integer(i64),
    /// 9223372036854775808: an integer only behind a minus sign.
    TwoToThe63,
    Float(f64),
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Open,
    Close,
    Comma,
    Plus,
    Minus,
    Star,
    Slash,
    Percent,
}

/// Something that is no token: where, and a sentence's worth of what.
#[derive(Debug, PartialEq)]
pub(super) struct LexError {
    pub(super) at: usize,
    pub(super) what: Cow<'static, str>,
}

fn error<T>(at: usize, what: impl Into<Cow<'static, str>>) -> Result<T, LexError> {
    Err(LexError { at, what: what.into() })
}

#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    hyphens: bool,
}

impl<'a> Lexer<'a> {
    /// Reads `text` from byte `at`; `hyphens` lets names hold `-`.
    pub(super) fn new(text: &'a str, at: usize, hyphens: bool) -> Self {
        Self { text, at, hyphens }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.byte(0).is_some_and(&wanted) {
            self.at += 1;
        }
    }

    fn skip_blanks(&mut self) -> Result<(), LexError> {
        loop {
            match (self.byte(0), self.byte(1)) {
                (Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0c), _) => self.at += 1,
                (Some(b'-'), Some(b'-')) => self.skip_while(|byte| byte != b'\n' && byte != b'\r'),
                (Some(b'/'), Some(b'*')) => {
                    let rest = self.text.as_bytes().get(self.at + 2..).unwrap_or_default();
                    let Some(len) = memchr::memmem::find(rest, b"*/") else {
                        return error(self.at, "a comment that begins with /* must end with */");
                    };
                    self.at += len + 4;
                }
                _ => return Ok(()),
            }
        }
    }

    /// The next token and where it begins. After the last one comes [`Token::End`], for ever.
    pub(super) fn next(&mut self) -> Result<(Token<'a>, usize), LexError> {
        self.skip_blanks()?;
        let start = self.at;
        let Some(byte) = self.byte(0) else {
            return Ok((Token::End, start));
        };
        let token = match byte {
            b'\'' => Token::Text(self.quoted(b'\'', "a string that begins with ' must end with '")?),
            b'"' => {
                let name = self.quoted(b'"', "a name that begins with \" must end with \"")?;
                if name.is_empty() {
                    return error(start, "a name between double quotes must not be empty");
                }
                Token::Quoted(name)
            }
            b'0'..=b'9' => self.number()?,
            b'.' if self.byte(1).is_some_and(|byte| byte.is_ascii_digit()) => self.number()?,
            byte if begins_name(byte) => self.name(),
            _ => self.symbol()?,
        };
        Ok((token, start))
    }

    fn symbol(&mut self) -> Result<Token<'a>, LexError> {
        let (token, len) = match (self.byte(0), self.byte(1)) {
            (Some(b'<'), Some(b'>')) => (Token::NotEqual, 2),
            (Some(b'<'), Some(b'=')) => (Token::LessOrEqual, 2),
            (Some(b'>'), Some(b'=')) => (Token::GreaterOrEqual, 2),
            (Some(b'<'), _) => (Token::Less, 1),
            (Some(b'>'), _) => (Token::Greater, 1),
            (Some(b'='), _) => (Token::Equal, 1),
            (Some(b'('), _) => (Token::Open, 1),
            (Some(b')'), _) => (Token::Close, 1),
            (Some(b','), _) => (Token::Comma, 1),
            (Some(b'+'), _) => (Token::Plus, 1),
            (Some(b'-'), _) => (Token::Minus, 1),
            (Some(b'*'), _) => (Token::Star, 1),
            (Some(b'/'), _) => (Token::Slash, 1),
            (Some(b'%'), _) => (Token::Percent, 1),
            (Some(b'!'), Some(b'=')) => return error(self.at, "\"not equal\" is written <>, not !="),
            (Some(b'.'), _) => {
                return error(self.at, "a name that holds a dot must be written in double quotes");
            }
            _ => {
                let found = self.text.get(self.at..).and_then(|rest| rest.chars().next()).unwrap_or_default();
                return error(self.at, format!("the character {found:?} has no meaning outside quotes"));
            }
        };
        self.at += len;
        Ok(token)
    }

    fn name(&mut self) -> Token<'a> {
        let start = self.at;
        loop {
            self.skip_while(continues_name);
            // A hyphen belongs to the name only if the name goes on behind it: `a-b`, but not `a- b` nor `a--comment`.
            if self.hyphens && self.byte(0) == Some(b'-') && self.byte(1).is_some_and(continues_name) {
                self.at += 1;
            } else {
                break;
            }
        }
        let text = self.since(start);
        reserved(text).map_or(Token::Name(text), Token::Word)
    }

    /// Text between `quote`s, in which two of them stand for one.
    fn quoted(&mut self, quote: u8, unclosed: &'static str) -> Result<Cow<'a, str>, LexError> {
        let start = self.at;
        self.at += 1;
        let mut text = Cow::Borrowed("");
        loop {
            let from = self.at;
            self.skip_while(|byte| byte != quote);
            if self.byte(0).is_none() {
                return error(start, unclosed);
            }
            let run = self.since(from);
            self.at += 1;
            let doubled = self.byte(0) == Some(quote);
            if text.is_empty() && !doubled {
                return Ok(Cow::Borrowed(run));
            }
            text.to_mut().push_str(run);
            if !doubled {
                return Ok(text);
            }
            text.to_mut().push(char::from(quote));
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<Token<'a>, LexError> {
        let start = self.at;
        if self.byte(0) == Some(b'0')
            && matches!(self.byte(1), Some(b'x' | b'X'))
            && self.byte(2).is_some_and(|byte| byte.is_ascii_hexdigit())
        {
            self.at += 2;
            self.skip_while(|byte| byte.is_ascii_hexdigit());
            return self.integer(start, self.since(start + 2), 16);
        }
        self.skip_while(|byte| byte.is_ascii_digit());
        let mut whole = true;
        if self.byte(0) == Some(b'.') {
            whole = false;
            self.at += 1;
            self.skip_while(|byte| byte.is_ascii_digit());
        }
        let sign = usize::from(matches!(self.byte(1), Some(b'+' | b'-')));
        if matches!(self.byte(0), Some(b'e' | b'E'))
            && self.byte(1 + sign).is_some_and(|byte| byte.is_ascii_digit())
        {
            whole = false;
            self.at += 1 + sign;
            self.skip_while(|byte| byte.is_ascii_digit());
        }
        let digits = self.since(start);
        if !whole {
            return match digits.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Token::Float(value)),
                _ => error(start, "this number is too large"),
            };
        }
        if digits.len() > 1 && digits.starts_with('0') {
            if let Some(bad) = digits.bytes().position(|digit| digit > b'7') {
                let what = "a number that begins with 0 is octal and has no digit 8 or 9";
                return error(start + bad, what);
            }
            return self.integer(start, digits, 8);
        }
        self.integer(start, digits, 10)
    }

    fn integer(&mut self, start: usize, digits: &str, radix: u32) -> Result<Token<'a>, LexError> {
        if matches!(self.byte(0), Some(b'l' | b'L')) {
            self.at += 1;
        }
        if let Ok(value) = i64::from_str_radix(digits, radix) {
            return Ok(Token::Integer(value));
        }
        if radix != 10 {
            return error(start, "this number does not fit in 64 bits");
        }
        if digits.parse() == Ok(1u64 << 63) {
            return Ok(Token::TwoToThe63);
        }
        // Larger than any integer property: as a double it still compares correctly with all of them.
        digits
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite())
            .map_or_else(|| error(start, "this number is too large"), |value| Ok(Token::Float(value)))
    }
}

/// How a token is named in a refusal.
pub(super) fn describe(token: &Token<'_>) -> String {
    let excerpt = |text: &str| {
        let mut short: String = text.chars().take(24).flat_map(char::escape_debug).collect();
        if text.chars().nth(24).is_some() {
            short.push('…');
        }
        short
    };
    let symbol = match token {
        Token::End => "the end",
        Token::Word(wanted) => {
            WORDS.iter().find(|(_, word)| word == wanted).map_or("a word", |(text, _)| text)
        }
        Token::Name(name) => return format!("the name {}", excerpt(name)),
        Token::Quoted(name) => return format!("the name \"{}\"", excerpt(name)),
        Token::Text(text) => return format!("the string '{}'", excerpt(text)),
        Token::Integer(value) => return format!("the number {value}"),
        Token::TwoToThe63 => "the number 9223372036854775808",
        Token::Float(value) => return format!("the number {value:?}"),
        Token::Equal => "=",
        Token::NotEqual => "<>",
        Token::Less => "<",
        Token::LessOrEqual => "<=",
        Token::Greater => ">",
        Token::GreaterOrEqual => ">=",
        Token::Open => "(",
        Token::Close => ")",
        Token::Comma => ",",
        Token::Plus => "+",
        Token::Minus => "-",
        Token::Star => "*",
        Token::Slash => "/",
        Token::Percent => "%",
    };
    symbol.to_owned()
}
