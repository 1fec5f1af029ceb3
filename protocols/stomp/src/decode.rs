//! Finds frames in bytes, in place and incrementally: what has been looked at is not looked at again when more arrives.
//!
//! The decoder keeps offsets, never bytes. Its caller keeps the bytes of a partial frame and presents them again with
//! more behind them. It allocates nothing for a frame once its table of header lines has grown to the usual size.

use memchr::{memchr, memchr2};
use sabir_model::error::{Code, Refusal};
use sabir_model::limits::Limits;

use crate::frame::{Frame, Reading, Span};

/// Header lines the table keeps room for between frames.
const SPANS_KEPT: usize = 64;

const CONTENT_LENGTH: &[u8] = b"content-length";

/// What a decoder refuses to exceed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) command_bytes_max: usize,
    pub(crate) header_line_bytes_max: usize,
    pub(crate) headers_max: usize,
    pub(crate) body_bytes_max: usize,
    pub(crate) frame_bytes_max: usize,
    /// The body of a SEND from this size up is not waited for, if its length is stated.
    pub(crate) blob_bytes_min: usize,
}

impl Bounds {
    /// Those for a connection that has introduced itself.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            command_bytes_max: limits.command_bytes_max,
            header_line_bytes_max: limits.header_line_bytes_max,
            headers_max: limits.headers_max,
            body_bytes_max: limits.body_bytes_max,
            // Offsets of header lines are kept in 32 bits.
            frame_bytes_max: limits.frame_bytes_max.min(u32::MAX as usize),
            blob_bytes_min: limits.blob_bytes_min,
        }
    }

    /// Those for a connection that has not.
    pub(crate) fn before_login(limits: &Limits) -> Self {
        let body_bytes_max = limits.body_bytes_before_login_max.min(limits.body_bytes_max);
        Self { body_bytes_max, blob_bytes_min: usize::MAX, ..Self::new(limits) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Command,
    Headers,
    Body,
    Whole,
}

/// How far a frame has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More bytes are needed; `expect` is how long the frame will be, zero if that is not known.
    Partial {
        /// Bytes of the whole frame.
        expect: usize,
    },
    /// The frame takes this many bytes; [`Decoder::frame`] reads it.
    Whole {
        /// Bytes of the whole frame.
        total: usize,
    },
    /// The head of a SEND with a large body, and perhaps some of the body; [`Decoder::frame`] reads it, without the body.
    Large {
        /// Bytes before the body.
        head: usize,
        /// Bytes of the body, if the head says so. NUL follows it.
        length: Option<usize>,
    },
}

/// The state of scanning one frame.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    stage: Stage,
    spans: Vec<Span>,
    /// Bytes of the frame that need no second look.
    scanned: usize,
    /// Where the present line starts.
    line: usize,
    /// Bytes of the head searched for NUL.
    ended: usize,
    command_end: usize,
    body_start: usize,
    body_end: usize,
    length: Option<usize>,
    escaped: bool,
}

impl Decoder {
    /// Line ends and NULs at the front of `bytes`: between frames they mean nothing (or a heart-beat).
    pub(crate) fn blanks(bytes: &[u8]) -> usize {
        bytes.iter().take_while(|byte| matches!(byte, b'\n' | b'\r' | 0)).count()
    }

    /// Scans on. `bytes` starts at the first byte of the frame, which is no blank, and holds at least what it held at
    /// the last call if that was partial.
    pub(crate) fn poll(&mut self, bytes: &[u8], bounds: &Bounds) -> Result<Progress, Refusal> {
        if self.stage == Stage::Whole {
            self.reset();
        }
        if self.stage == Stage::Command && !self.scan_command(bytes, bounds)? {
            return Ok(Progress::Partial { expect: 0 });
        }
        if self.stage == Stage::Headers && !self.scan_headers(bytes, bounds)? {
            return Ok(Progress::Partial { expect: 0 });
        }
        self.scan_body(bytes, bounds)
    }

    /// Forgets the frame; a table that one large frame blew up shrinks.
    pub(crate) fn reset(&mut self) {
        self.stage = Stage::Command;
        self.spans.clear();
        self.spans.shrink_to(SPANS_KEPT);
        self.scanned = 0;
        self.ended = 0;
        self.length = None;
        self.escaped = false;
    }

    /// The frame that [`Decoder::poll`] found whole at the front of `bytes`.
    ///
    /// # Errors
    /// The head is not UTF-8, or holds an escape that is none in the version spoken.
    pub(crate) fn frame<'a>(&'a self, bytes: &'a [u8], version: Reading) -> Result<Frame<'a>, Refusal> {
        let head = bytes.get(..self.body_start).unwrap_or_default();
        let head = std::str::from_utf8(head).map_err(|_| malformed("the frame's headers are not UTF-8"))?;
        let command = head.get(..self.command_end).unwrap_or_default();
        let reading = match (version, command) {
            (Reading::Escaped { .. }, "CONNECT" | "STOMP" | "CONNECTED") => Reading::Plain,
            // Without a backslash there is nothing to undo.
            (Reading::Escaped { .. }, _) if !self.escaped => Reading::Plain,
            _ => version,
        };
        let frame = Frame {
            command,
            head,
            spans: &self.spans,
            reading,
            body: bytes.get(self.body_start..self.body_end).unwrap_or_default(),
            body_start: self.body_start,
            sized: self.length.is_some(),
            is_text: None,
        };
        if self.escaped && !reading.accepts(head) {
            let strange = |header: &crate::frame::Header<'_>| {
                !(reading.accepts(header.raw_name()) && reading.accepts(header.raw_value()))
            };
            let name = frame.headers().find(strange).map_or(command, |header| header.raw_name());
            return Err(malformed(format!(
                "the header \"{name}\" holds an escape that this version does not know"
            )));
        }
        Ok(frame)
    }

    fn scan_command(&mut self, bytes: &[u8], bounds: &Bounds) -> Result<bool, Refusal> {
        let too_long = || too_large(format!("a command is at most {} bytes long", bounds.command_bytes_max));
        // One byte more for a carriage return.
        let window = bytes.get(..bytes.len().min(bounds.command_bytes_max + 2)).unwrap_or_default();
        let fresh = window.get(self.scanned..).unwrap_or_default();
        let Some(end) = memchr(b'\n', fresh).map(|at| at + self.scanned) else {
            if memchr(0, fresh).is_some() {
                return Err(malformed("a frame ended within its command line"));
            }
            self.scanned = window.len();
            return if window.len() > bounds.command_bytes_max + 1 { Err(too_long()) } else { Ok(false) };
        };
        let command = without_return(window.get(..end).unwrap_or_default());
        if command.len() > bounds.command_bytes_max {
            return Err(too_long());
        }
        self.command_end = command.len();
        self.line = end + 1;
        self.scanned = end + 1;
        self.stage = Stage::Headers;
        Ok(true)
    }

    fn scan_headers(&mut self, bytes: &[u8], bounds: &Bounds) -> Result<bool, Refusal> {
        let too_long =
            || too_large(format!("a header line is at most {} bytes long", bounds.header_line_bytes_max));
        loop {
            let fresh = bytes.get(self.scanned..).unwrap_or_default();
            let Some(end) = memchr(b'\n', fresh).map(|at| at + self.scanned) else {
                // Said at once: the client believes the frame has ended, and nothing more may come.
                if memchr(0, bytes.get(self.ended..).unwrap_or_default()).is_some() {
                    return Err(unterminated());
                }
                self.ended = bytes.len();
                self.scanned = bytes.len();
                let line_len = bytes.len() - self.line;
                return if line_len > bounds.header_line_bytes_max + 1 { Err(too_long()) } else { Ok(false) };
            };
            let start = self.line;
            let line = without_return(bytes.get(start..end).unwrap_or_default());
            self.line = end + 1;
            self.scanned = end + 1;
            if line.is_empty() {
                self.body_start = end + 1;
                self.stage = Stage::Body;
                return self.check_head(bytes).map(|()| true);
            }
            if line.len() > bounds.header_line_bytes_max {
                return Err(too_long());
            }
            let Some(colon) = memchr(b':', line).filter(|at| *at > 0) else {
                let cut_off = memchr(0, line).is_some();
                return Err(if cut_off {
                    unterminated()
                } else {
                    malformed("a header line has the form name:value")
                });
            };
            if self.spans.len() >= bounds.headers_max {
                return Err(too_large(format!("a frame has at most {} headers", bounds.headers_max)));
            }
            let (Some(start), Some(at), Some(end)) =
                (offset(start), offset(start + colon), offset(start + line.len()))
            else {
                return Err(too_large(format!("a frame is at most {} bytes long", bounds.frame_bytes_max)));
            };
            self.spans.push(Span { start, colon: at, end });
            let (name, value) = line.split_at(colon);
            if self.length.is_none()
                && name.len() >= CONTENT_LENGTH.len()
                && name.trim_ascii() == CONTENT_LENGTH
            {
                let value = value.get(1..).unwrap_or_default();
                self.length = Some(content_length(value, bounds.body_bytes_max)?);
            }
            if self.line > bounds.frame_bytes_max {
                return Err(too_large(format!("a frame is at most {} bytes long", bounds.frame_bytes_max)));
            }
        }
    }

    /// One look over the whole head for what is rare.
    fn check_head(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let head = bytes.get(..self.body_start).unwrap_or_default();
        match memchr2(b'\\', 0, head).and_then(|at| head.get(at..)) {
            None => self.escaped = false,
            Some(rest) if memchr(0, rest).is_some() => return Err(unterminated()),
            Some(_) => self.escaped = true,
        }
        Ok(())
    }

    fn is_send(&self, bytes: &[u8]) -> bool {
        bytes.get(..self.command_end) == Some(b"SEND")
    }

    /// The head is a frame of its own; what follows is not waited for.
    fn large(&mut self, length: Option<usize>) -> Progress {
        self.body_end = self.body_start;
        self.stage = Stage::Whole;
        Progress::Large { head: self.body_start, length }
    }

    fn scan_body(&mut self, bytes: &[u8], bounds: &Bounds) -> Result<Progress, Refusal> {
        let end = match self.length {
            Some(length) if length >= bounds.blob_bytes_min && self.is_send(bytes) => {
                return Ok(self.large(Some(length)));
            }
            Some(length) => {
                let end = self.body_start.saturating_add(length);
                let total = end.saturating_add(1);
                if total > bounds.frame_bytes_max {
                    return Err(too_large(format!(
                        "a frame is at most {} bytes long",
                        bounds.frame_bytes_max
                    )));
                }
                match bytes.get(end) {
                    None => return Ok(Progress::Partial { expect: total }),
                    Some(0) => end,
                    Some(_) => {
                        return Err(malformed(
                            "the body is not followed by NUL where content-length ends it",
                        ));
                    }
                }
            }
            None => {
                let found =
                    memchr(0, bytes.get(self.scanned..).unwrap_or_default()).map(|at| at + self.scanned);
                self.scanned = bytes.len();
                let end = found.unwrap_or(bytes.len());
                if end - self.body_start > bounds.body_bytes_max {
                    return Err(too_large_body(bounds.body_bytes_max));
                }
                if end >= bounds.frame_bytes_max {
                    return Err(too_large(format!(
                        "a frame is at most {} bytes long",
                        bounds.frame_bytes_max
                    )));
                }
                match found {
                    None if end - self.body_start >= bounds.blob_bytes_min && self.is_send(bytes) => {
                        return Ok(self.large(None));
                    }
                    None => return Ok(Progress::Partial { expect: 0 }),
                    Some(end) => end,
                }
            }
        };
        self.body_end = end;
        self.stage = Stage::Whole;
        Ok(Progress::Whole { total: end + 1 })
    }
}

fn offset(value: usize) -> Option<u32> {
    u32::try_from(value).ok()
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Blanks round the number are let pass: clients of every version pad it.
fn content_length(value: &[u8], body_bytes_max: usize) -> Result<usize, Refusal> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::new(Code::InvalidHeader, "content-length must be a number of bytes"));
    }
    let length = digits
        .iter()
        .fold(0usize, |sum, digit| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
    if length > body_bytes_max {
        return Err(too_large_body(body_bytes_max));
    }
    Ok(length)
}

/// The refusal of a body that is longer than this.
pub(crate) fn too_large_body(body_bytes_max: usize) -> Refusal {
    too_large(format!("a body is at most {body_bytes_max} bytes long"))
}

fn unterminated() -> Refusal {
    malformed("a frame ended within its headers; an empty line must come before the body")
}

fn malformed(sentence: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::MalformedFrame, sentence)
}

fn too_large(sentence: String) -> Refusal {
    Refusal::new(Code::TooLarge, sentence)
}
