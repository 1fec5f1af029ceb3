//! The console: the files of `web/`, in the binary, with the headers that keep a browser from doing anything else with them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::Routes;

/// Nothing but our own files, calls of our own server, and no frame around it: what is not named is forbidden. `'self'` covers
/// WebSockets of the same host.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What every file of the console comes with. `no-cache`: kept, but asked for again with its tag, so that a new binary shows
/// its own console at once.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::CACHE_CONTROL, "no-cache"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// A file of `web/`.
struct File {
    /// Below `/console/`.
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($media_type:ident: $($name:literal)+;)+) => {
        [$($(File { name: $name, media_type: $media_type, bytes: include_bytes!(concat!("../../web/", $name)) },)+)+]
    };
}

/// All of them; a test compares the list with the folder.
static FILES: &[File] = &files! {
    HTML: "index.html" "docs.html";
    STYLE: "base.css" "app.css" "docs.css" "vendor/uplot.css";
    IMAGE: "icon.svg";
    SCRIPT: "api.js" "app.js" "chart.js" "docs.js" "format.js" "live.js" "poll.js" "router.js" "sabir.js" "store.js" "theme.js"
        "ui.js"
        "pages/connections.js" "pages/dead-letters.js" "pages/destination-input.js" "pages/login.js" "pages/message.js"
        "pages/messages.js" "pages/overview.js" "pages/publish.js" "pages/queue.js" "pages/queues.js" "pages/routing.js"
        "pages/rules.js" "pages/subscriptions.js" "pages/tail.js" "pages/topics.js" "pages/try-it.js" "pages/webhooks.js"
        "vendor/htm.js" "vendor/js-yaml.js" "vendor/mqtt.js" "vendor/preact-hooks.js" "vendor/preact.js" "vendor/stomp.js"
        "vendor/uplot.js";
    TEXT: "vendor/htm.LICENSE" "vendor/js-yaml.LICENSE" "vendor/mqtt.LICENSE" "vendor/preact.LICENSE" "vendor/stomp.LICENSE"
        "vendor/uplot.LICENSE";
};

/// A tag for each of [`FILES`], from its content: the same content has the same tag in every build by one compiler.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |file: &File| {
        let mut hasher = DefaultHasher::new();
        file.bytes.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    };
    FILES.iter().map(tag).collect()
});

/// `/docs`, and the console's files below `/console/`. What `/` answers is decided where the other answers of `/` are.
#[must_use]
pub fn console() -> Routes {
    Routes::new()
        .at(
            "/console/{*path}",
            [(
                Method::GET,
                get(|Path(path): Path<String>, headers: HeaderMap| async move { serve(&path, &headers) }),
            )],
        )
        .at("/docs", [(Method::GET, get(|headers: HeaderMap| async move { serve("docs.html", &headers) }))])
}

/// The console's page, for a browser that asks for `/`. It is so small that a copy that is kept is not worth asking about.
#[must_use]
pub fn index() -> Response {
    serve("index.html", &HeaderMap::new())
}

fn serve(name: &str, headers: &HeaderMap) -> Response {
    let Some((file, tag)) = FILES.iter().zip(TAGS.iter()).find(|(file, _)| file.name == name) else {
        let headers = [(header::CONTENT_TYPE, TEXT), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
        return (StatusCode::NOT_FOUND, headers, "the console has no such file\n").into_response();
    };
    if is_known(headers, tag) {
        return (StatusCode::NOT_MODIFIED, HEADERS, [(header::ETAG, tag.as_str())]).into_response();
    }
    let own = [(header::CONTENT_TYPE, file.media_type), (header::ETAG, tag.as_str())];
    (HEADERS, own, file.bytes).into_response()
}

/// Whether the browser has the content of this tag (RFC 9110, 13.1.2).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|known| known.trim().trim_start_matches("W/"))
        .any(|known| known == "*" || known == tag)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::http::HeaderValue;

    use super::*;

    fn below(folder: &std::path::Path, prefix: &str, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("the folder is in the tree") {
            let entry = entry.expect("an entry of a folder that could be listed");
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().expect("an entry has a type").is_dir() {
                below(&entry.path(), &format!("{name}/"), found);
            } else {
                found.insert(name);
            }
        }
    }

    #[test]
    fn every_file_of_the_console_is_in_the_binary() {
        let mut found = BTreeSet::new();
        below(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../web")), "", &mut found);
        // What is for those who refresh the libraries.
        for tool in ["vendor/README.md", "vendor/SHA256SUMS", "vendor/refresh"] {
            assert!(found.remove(tool), "{tool}");
        }
        assert_eq!(found, FILES.iter().map(|file| file.name.to_owned()).collect());
    }

    #[test]
    fn a_file_comes_with_its_type_its_tag_and_the_policy() {
        let reply = serve("app.js", &HeaderMap::new());
        assert_eq!(reply.status(), StatusCode::OK);
        let header = |name: HeaderName| {
            reply.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        assert_eq!(header(header::CONTENT_TYPE), SCRIPT);
        assert_eq!(header(header::CACHE_CONTROL), "no-cache");
        let policy = header(header::CONTENT_SECURITY_POLICY);
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("  "), "{policy}");

        let tag = HeaderValue::from_str(header(header::ETAG)).expect("a tag is a header value");
        let known = |tag: HeaderValue| {
            serve("app.js", &HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)])).status()
        };
        assert_eq!(known(tag), StatusCode::NOT_MODIFIED);
        assert_eq!(known(HeaderValue::from_static("\"0\", *")), StatusCode::NOT_MODIFIED);
        assert_eq!(known(HeaderValue::from_static("\"0\"")), StatusCode::OK);
    }

    #[test]
    fn what_is_not_listed_is_not_served() {
        for name in ["", "vendor/refresh", "../Cargo.toml", "app.js/", "APP.JS"] {
            assert_eq!(serve(name, &HeaderMap::new()).status(), StatusCode::NOT_FOUND, "{name}");
        }
    }

    #[test]
    fn pages_have_no_inline_script_or_style_and_name_no_other_host() {
        for file in FILES.iter().filter(|file| file.media_type == HTML) {
            let text = std::str::from_utf8(file.bytes).expect("pages are UTF-8");
            for (at, _) in text.match_indices("<script") {
                let tag = text.get(at..).unwrap_or_default();
                assert!(
                    tag.contains("src=\"/console/") && tag.contains("></script>"),
                    "{}: {tag}",
                    file.name
                );
            }
            for forbidden in ["<style", " style=", " onclick=", "://", "javascript:"] {
                assert!(!text.contains(forbidden), "{}: {forbidden}", file.name);
            }
        }
    }
}
