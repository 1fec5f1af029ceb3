//! The Prometheus text format, version 0.0.4, and OpenMetrics 1.0, which differs little.

use std::fmt::Write;

/// A page of metrics in the making.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
    format: Format,
}

/// In which format a page of metrics is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, version 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The one that a request's `Accept` prefers; where it has no preference, the Prometheus text format.
    #[must_use]
    pub fn wanted(accept: &str) -> Self {
        let mut open = 0.0;
        let mut plain = 0.0;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut quality = 1.0;
            let mut version = "1.0.0";
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value.trim_matches('"'),
                    _ => {}
                }
            }
            match media.as_str() {
                "application/openmetrics-text" if version == "1.0.0" => open = f64::max(open, quality),
                "text/plain" => plain = f64::max(plain, quality),
                _ => {}
            }
        }
        if open > plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a metric is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Page {
    pub(crate) fn new(format: Format) -> Self {
        Self { text: String::new(), format }
    }

    /// Starts a family; its samples follow.
    pub(crate) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        // A counter's family there is called what its samples are called without their ending.
        let name = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let kind = kind.word();
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// One sample without labels.
    pub(crate) fn sample(&mut self, name: &str, value: impl std::fmt::Display) {
        self.line(format_args!("{name} {value}"));
    }

    /// One sample with labels.
    pub(crate) fn labelled(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        self.line(format_args!("{}{value}", if labels.is_empty() { " " } else { "} " }));
    }

    /// A family of one sample.
    pub(crate) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, value);
    }

    pub(crate) fn into_text(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.line(format_args!("# EOF"));
        }
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_what_accept_prefers() {
        for (accept, wanted) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/html,application/xhtml+xml", Format::Prometheus),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; version=\"1.0.0\"; q=0.5, text/plain;q=0.2", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.2,text/plain;q=0.5", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;version=7.0.0", Format::Prometheus),
        ] {
            assert_eq!(Format::wanted(accept), wanted, "{accept}");
        }
    }

    #[test]
    fn label_values_are_escaped_so_that_no_name_breaks_the_page() {
        let mut page = Page::default();
        page.labelled("depth", &[("queue", "a\"b\\c\nd"), ("host", "/")], 3);
        page.labelled("plain", &[], 1);
        assert_eq!(page.into_text(), "depth{queue=\"a\\\"b\\\\c\\nd\",host=\"/\"} 3\nplain 1\n");
    }
}
