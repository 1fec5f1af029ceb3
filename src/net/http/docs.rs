//! The contract as a page for people: every path with its methods and what they do.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::CONTRACT;

/// One operation of the contract.
#[derive(Debug, Default, PartialEq, Eq)]
struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    summary: &'a str,
}

/// The operations in the order of the contract, whose layout a test holds to: paths are indented by two, methods by four.
fn operations(contract: &str) -> Vec<Operation<'_>> {
    let paths = contract.split_once("\npaths:\n").map_or("", |(_, rest)| rest);
    let mut operations: Vec<Operation<'_>> = Vec::new();
    let mut path = "";
    for line in paths.lines().take_while(|line| line.is_empty() || line.starts_with([' ', '#'])) {
        let key = |indent: &str| line.strip_prefix(indent).filter(|rest| !rest.starts_with(' '));
        if let Some(found) = key("  ").and_then(|rest| rest.strip_suffix(':')) {
            path = found;
        } else if let Some(method) = key("    ").and_then(|rest| rest.strip_suffix(':'))
            && matches!(method, "get" | "put" | "post" | "delete" | "patch")
        {
            operations.push(Operation { method, path, summary: "" });
        } else if let Some(summary) = key("      ").and_then(|rest| rest.strip_prefix("summary: "))
            && let Some(operation) = operations.last_mut()
        {
            operation.summary = summary.trim_matches('"');
        }
    }
    operations
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

static PAGE: LazyLock<String> = LazyLock::new(|| {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>Sabir: the HTTP interface</title><h1>The HTTP interface</h1>\
         <p>For machines, with parameters, bodies and replies: <a href=\"/openapi.yaml\">openapi.yaml</a> (OpenAPI 3.1).</p>\
         <table><thead><tr><th scope=\"col\">Method</th><th scope=\"col\">Path</th><th scope=\"col\">What it does</th>\
         </tr></thead><tbody>",
    );
    for Operation { method, path, summary } in operations(CONTRACT) {
        let (method, path, summary) = (method.to_uppercase(), escape(path), escape(summary));
        // Writing into a String does not fail.
        let _ = write!(page, "<tr><td>{method}</td><td><code>{path}</code></td><td>{summary}</td></tr>");
    }
    page.push_str("</tbody></table></html>\n");
    page
});

/// `GET /docs`.
pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ];
    (headers, PAGE.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_says_what_it_does() {
        let operations = operations(CONTRACT);
        assert!(operations.len() > 20);
        for operation in &operations {
            assert!(!operation.summary.is_empty(), "{operation:?}");
            assert!(PAGE.contains(&escape(operation.path)));
        }
    }
}
