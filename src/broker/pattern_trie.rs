//! Interim table: a list. The trie replaces it.
/// One level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level<'a> {
    /// This level.
    Literal(&'a str),
    /// One level.
    One,
    /// The rest.
    Rest,
}
/// Names an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(u64);
/// Subscriptions by pattern.
#[derive(Debug)]
pub struct TopicTable<V> {
    entries: Vec<(Handle, Vec<Option<String>>, bool, V)>,
    next: u64,
}
impl<V> TopicTable<V> {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self { entries: Vec::new(), next: 0 }
    }
    /// Adds.
    pub fn insert(&mut self, pattern: &[Level<'_>], value: V) -> Handle {
        self.next += 1;
        let rest = pattern.last() == Some(&Level::Rest);
        let levels = pattern
            .iter()
            .filter_map(|l| match l {
                Level::Literal(t) => Some(Some((*t).to_owned())),
                Level::One => Some(None),
                Level::Rest => None,
            })
            .collect();
        self.entries.push((Handle(self.next), levels, rest, value));
        Handle(self.next)
    }
    /// Removes.
    pub fn remove(&mut self, handle: Handle) -> Option<V> {
        let at = self.entries.iter().position(|e| e.0 == handle)?;
        Some(self.entries.remove(at).3)
    }
    /// Matches.
    pub fn for_each_match(&self, name: &str, mut f: impl FnMut(&V)) {
        let names: Vec<&str> = name.split('\0').collect();
        for (_, levels, rest, value) in &self.entries {
            let fits = if *rest { names.len() >= levels.len() } else { names.len() == levels.len() };
            if fits && levels.iter().zip(&names).all(|(l, n)| l.as_deref().is_none_or(|l| l == *n)) {
                f(value);
            }
        }
    }
    /// Entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}
