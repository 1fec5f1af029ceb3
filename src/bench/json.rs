//! One line of JSON, key by key in the order given.

use std::fmt::{Display, Write as _};

/// An object that is being written.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    text: String,
}

impl Object {
    pub(crate) fn new() -> Self {
        Self { text: "{".to_owned() }
    }

    fn key(&mut self, name: &str) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        let _ = write!(self.text, "\"{name}\":");
    }

    /// What is JSON already: a whole number, a truth value, an object.
    pub(crate) fn put(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.key(name);
        let _ = write!(self.text, "{value}");
        self
    }

    /// The same, or null.
    pub(crate) fn maybe(&mut self, name: &str, value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => self.put(name, value),
            None => self.put(name, "null"),
        }
    }

    /// A number with three digits behind the point.
    pub(crate) fn decimal(&mut self, name: &str, value: f64) -> &mut Self {
        self.maybe(name, value.is_finite().then(|| format!("{value:.3}")))
    }

    /// Text.
    pub(crate) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.key(name);
        self.text.push_str(&quoted(value));
        self
    }

    pub(crate) fn end(&mut self) -> String {
        format!("{}}}", self.text)
    }
}

/// Text as JSON writes it.
pub(crate) fn quoted(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A list of what is JSON already.
pub(crate) fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_and_text_is_escaped() {
        let mut object = Object::new();
        object.text("a", "x\"\\\n").put("b", 1).maybe("c", None::<u8>).decimal("d", 0.5);
        object.decimal("e", f64::NAN).put("f", list(["1".to_owned(), quoted("z")]));
        assert_eq!(object.end(), r#"{"a":"x\"\\\u000a","b":1,"c":null,"d":0.500,"e":null,"f":[1,"z"]}"#);
    }
}
