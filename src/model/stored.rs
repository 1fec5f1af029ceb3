//! Bodies that are not in memory: a large one lies with whoever keeps it, a file say, and is read piece by piece.

use std::any::Any;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

/// A body on its way in: still in the read buffer, in a buffer of its own, or not in memory.
#[derive(Clone, Debug)]
pub enum Body<'a> {
    /// In the read buffer.
    Borrowed(&'a [u8]),
    /// In a shared buffer.
    Shared(Bytes),
    /// Not in memory.
    Stored(Stored),
}

impl Body<'_> {
    /// Its length, in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Borrowed(bytes) => bytes.len() as u64,
            Self::Shared(bytes) => bytes.len() as u64,
            Self::Stored(stored) => stored.length(),
        }
    }

    /// The octets, if they are in memory.
    #[must_use]
    pub fn octets(&self) -> Option<&[u8]> {
        match self {
            Self::Borrowed(bytes) => Some(bytes),
            Self::Shared(bytes) => Some(bytes),
            Self::Stored(_) => None,
        }
    }
}

/// The body of a message, where it lies.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// In memory.
    Octets(&'a [u8]),
    /// Not in memory: whoever needs it reads it piece by piece.
    Stored(&'a Stored),
}

impl<'a> Content<'a> {
    /// Its length, in bytes.
    #[must_use]
    pub fn length(self) -> u64 {
        match self {
            Self::Octets(bytes) => bytes.len() as u64,
            Self::Stored(stored) => stored.length(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.length() == 0
    }

    /// The octets, if they are in memory.
    #[must_use]
    pub fn octets(self) -> Option<&'a [u8]> {
        match self {
            Self::Octets(bytes) => Some(bytes),
            Self::Stored(_) => None,
        }
    }
}

/// Where a large body lies. It stays readable, and the same, for as long as anybody holds it.
pub trait StoredBody: Any + Send + Sync + std::fmt::Debug {
    /// Its length, in bytes.
    fn length(&self) -> u64;

    /// Fills `buf` with what lies from `offset` on. This may wait for a disk.
    ///
    /// # Errors
    /// It cannot be read, or is damaged, or ends before `buf` is full.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// A large body that lies elsewhere; cheap to clone.
#[derive(Clone, Debug)]
pub struct Stored(Arc<dyn StoredBody>);

impl Stored {
    /// A body that lies there.
    #[must_use]
    pub fn new(body: Arc<dyn StoredBody>) -> Self {
        Self(body)
    }

    /// Its length, in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.0.length()
    }

    /// Fills `buf` with what lies from `offset` on. This may wait for a disk.
    ///
    /// # Errors
    /// It cannot be read, or is damaged, or ends before `buf` is full.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }

    /// Reads the first bytes, so many at most. This may wait for a disk.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read_front(&self, most: usize) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.length()).map_or(most, |length| length.min(most));
        let mut bytes = vec![0; length];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads all of it, for a form that must have it whole. This may wait for a disk.
    ///
    /// # Errors
    /// It is longer than `most`, or cannot be read.
    pub fn read_whole(&self, most: usize) -> io::Result<Bytes> {
        if self.length() > most as u64 {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the body is too large to be read at once",
            ));
        }
        self.read_front(most).map(Bytes::from)
    }

    /// What keeps it, for whoever knows the kind.
    #[must_use]
    pub fn kind<T: StoredBody>(&self) -> Option<&T> {
        (&*self.0 as &dyn Any).downcast_ref()
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Stored {}

/// Octets in memory as a stored body: for tests, and where there is no disk.
impl StoredBody for Vec<u8> {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = self.get(from..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Whether octets that come in pieces are UTF-8.
#[derive(Clone, Debug, Default)]
pub struct Utf8Check {
    /// The start of a character that a piece ended in.
    begun: [u8; 4],
    begun_len: usize,
    failed: bool,
}

impl Utf8Check {
    /// Takes the next piece.
    pub fn take(&mut self, mut piece: &[u8]) {
        while self.begun_len > 0 && !self.failed {
            let Some((&next, rest)) = piece.split_first() else { return };
            let Some(place) = self.begun.get_mut(self.begun_len) else { break };
            *place = next;
            self.begun_len += 1;
            piece = rest;
            match std::str::from_utf8(self.begun.get(..self.begun_len).unwrap_or_default()) {
                Ok(_) => self.begun_len = 0,
                Err(error) => self.failed = error.error_len().is_some(),
            }
        }
        if self.failed {
            return;
        }
        if let Err(error) = std::str::from_utf8(piece) {
            let rest = piece.get(error.valid_up_to()..).unwrap_or_default();
            match self.begun.get_mut(..rest.len()) {
                Some(begun) if error.error_len().is_none() => {
                    begun.copy_from_slice(rest);
                    self.begun_len = rest.len();
                }
                _ => self.failed = true,
            }
        }
    }

    /// Whether all of what was taken is UTF-8.
    #[must_use]
    pub fn is_text(&self) -> bool {
        !self.failed && self.begun_len == 0
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_check_in_pieces_says_what_a_check_of_the_whole_says() {
        let texts: [&[u8]; 8] = [
            b"",
            b"plain",
            "gr\u{fc}n \u{20ac} \u{1f600}!".as_bytes(),
            b"\xf0\x9f\x98",
            b"a\xffb",
            b"\xed\xa0\x80",
            b"ok \xe2\x82 cut",
            b"\xc3\xbc\xc3",
        ];
        for text in texts {
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let mut check = Utf8Check::default();
                    check.take(&text[..first]);
                    check.take(&text[first..second]);
                    check.take(&text[second..]);
                    assert_eq!(
                        check.is_text(),
                        std::str::from_utf8(text).is_ok(),
                        "{text:?} {first} {second}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_stored_body_is_read_in_parts_and_never_beyond_its_end() {
        let stored = Stored::new(Arc::new(b"0123456789".to_vec()));
        let mut part = [0; 4];
        stored.read_at(6, &mut part).unwrap();
        assert_eq!(&part, b"6789");
        assert!(stored.read_at(7, &mut part).is_err());
        assert_eq!(stored.read_front(3).unwrap(), b"012");
        assert_eq!(stored.read_whole(10).unwrap(), &b"0123456789"[..]);
        assert!(stored.read_whole(9).is_err());
        assert!(stored.kind::<Vec<u8>>().is_some());
    }
}
