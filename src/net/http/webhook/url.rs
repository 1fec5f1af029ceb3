//! URLs that requests go to.

use axum::http::uri::{PathAndQuery, Scheme};
use axum::http::{HeaderValue, Uri};

/// Longest URL.
const URL_BYTES_MAX: usize = 2048;

/// An absolute URL of HTTP, without a user in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Url {
    /// Whether it is https.
    pub(super) secure: bool,
    /// A name or an address, without brackets.
    pub(super) host: Box<str>,
    pub(super) port: u16,
    /// Host and port as the `Host` header has them.
    pub(super) authority: HeaderValue,
    pub(super) path: PathAndQuery,
}

impl Url {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > URL_BYTES_MAX {
            return Err("the URL is longer than 2048 bytes");
        }
        if text.contains('#') {
            return Err("the URL has a fragment (#), which no request carries");
        }
        let uri: Uri = text.parse().map_err(|_| "that is no URL")?;
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err("the URL must begin with https:// or http://"),
        };
        let authority = uri.authority().ok_or("the URL names no host")?;
        if authority.as_str().contains('@') {
            return Err(
                "the URL holds a user or a password; a header says it without showing it to everybody",
            );
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err("the URL names no host");
        }
        let named = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        let port = match named.strip_prefix(':') {
            None | Some("") => {
                if secure {
                    443
                } else {
                    80
                }
            }
            Some(text) => match text.parse() {
                Ok(0) | Err(_) => return Err("the URL's port must be from 1 to 65535"),
                Ok(port) => port,
            },
        };
        // http://host?query has no path, and a request needs one.
        let path = match uri.path_and_query().map(PathAndQuery::as_str) {
            None | Some("") => PathAndQuery::from_static("/"),
            Some(path) if path.starts_with('/') => path.parse().map_err(|_| "that is no URL")?,
            Some(query) => format!("/{query}").parse().map_err(|_| "that is no URL")?,
        };
        Ok(Self {
            secure,
            host: host.into(),
            port,
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| "the URL names no host")?,
            path,
        })
    }

    /// Whether both are of the same scheme, host and port.
    pub(super) fn is_same_origin(&self, other: &Self) -> bool {
        self.secure == other.secure && self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (text, secure, host, port, path) in [
            ("https://a.example", true, "a.example", 443, "/"),
            ("http://a.example:8080/x/y?z=1", false, "a.example", 8080, "/x/y?z=1"),
            ("HTTPS://[2001:db8::1]:444/", true, "2001:db8::1", 444, "/"),
            ("http://127.0.0.1?q", false, "127.0.0.1", 80, "/?q"),
        ] {
            let url = Url::parse(text).unwrap_or_else(|sentence| panic!("{text}: {sentence}"));
            assert_eq!((url.secure, &*url.host, url.port, url.path.as_str()), (secure, host, port, path));
        }
    }

    #[test]
    fn what_no_request_can_go_to_is_refused() {
        for text in [
            "",
            "/x",
            "a.example",
            "ftp://a.example",
            "file:///etc/passwd",
            "http://",
            "http:///x",
            "http://user@a.example",
            "http://user:password@a.example/",
            "http://a.example/#x",
            "http://a b/",
            "http://a.example:0/",
            "http://a.example:65536/",
            "http://a.example:x/",
            "http://a\r\nb/",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        assert!(Url::parse(&format!("http://a/{}", "x".repeat(2048))).is_err());
    }
}
