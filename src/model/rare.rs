//! What most of its owners never need: a pointer, and nothing behind it until it is used.

/// A part that is made when it is first needed. An idle connection is as large as what every connection needs.
#[derive(Clone, Debug)]
pub struct Rare<T>(Option<Box<T>>);

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Rare<T> {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// The part, if it has been needed.
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        self.0.as_deref()
    }

    /// The part, if it has been needed.
    #[must_use]
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// Gives its memory back.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

impl<T: Default> Rare<T> {
    /// The part, made now if it has not been needed before.
    pub fn make(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }

    /// Takes the part out; a new one if there is none.
    #[must_use]
    pub fn take(&mut self) -> T {
        self.0.take().map_or_else(T::default, |part| *part)
    }
}
