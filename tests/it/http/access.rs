//! Who may do what over HTTP: passwords, the console's cookie, and pages of others.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use super::web::{Web, messages};
use crate::server::Server;

pub(super) const ALICE: &str = "Authorization: Basic YWxpY2U6YSBnb29kIGxvbmcgc2VjcmV0\r\n";
pub(super) const BOB: &str = "Authorization: Basic Ym9iOmEgZ29vZCBsb25nIHNlY3JldA==\r\n";

pub(super) fn add_user(dir: &Path, name: &str) {
    let mut add = Command::new(env!("CARGO_BIN_EXE_sabir"))
        .args(["user", "add", name, "--data-dir"])
        .arg(dir.join("data"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(add.stdin.as_mut().unwrap(), b"a good long secret").unwrap();
    drop(add.stdin.take());
    assert!(add.wait().unwrap().success());
}

#[test]
fn with_users_every_request_is_somebodys() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "alice");
    add_user(dir.path(), "bob");
    let server = Server::start_in(dir.path(), &[]);
    let mut web = Web::new(server.http);
    let refused = web.post("/v1/queues/q/messages", b"x");
    assert!(refused.header("www-authenticate").unwrap().starts_with("Basic "));
    assert_eq!(refused.problem(401).0, "authentication-failed");
    let wrong = "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n";
    web.send("POST", "/v1/queues/q/messages", wrong, b"x").problem(401);
    web.get("/healthz/live").expect(200);
    web.send("POST", "/v1/queues/q/messages", ALICE, b"x").expect(201);
    // On one connection, each request for itself.
    web.post("/v1/queues/q/messages", b"x").problem(401);
    let got = messages(web.send("POST", "/v1/queues/q/pull", BOB, b""));
    assert_eq!(got[0]["userId"], "alice");
    let ack = format!("/v1/leases/{}/ack", got[0]["lease"].as_str().unwrap());
    web.send("POST", &ack, ALICE, b"").problem(404);
    web.send("POST", &ack, BOB, b"").expect(204);
    server.stop();
}

#[test]
fn the_consoles_login_is_a_cookie_until_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "alice");
    let server = Server::start_in(dir.path(), &[]);
    let mut web = Web::new(server.http);
    let quiet = "X-Requested-With: sabir-console\r\n";
    let refused = web.send("GET", "/v1/session", quiet, b"");
    assert!(refused.header("www-authenticate").is_none(), "the browser must not ask by itself");
    refused.problem(401);
    let login = json!({"user":"alice","password":"a good long secret"}).to_string();
    web.post("/v1/session", login.as_bytes()).problem(415);
    let wrong = json!({"user":"alice","password":"wrong"}).to_string();
    web.post_json("/v1/session", &wrong).problem(401);
    let reply = web.post_json("/v1/session", &login).expect(200);
    assert_eq!(reply.json()["user"], "alice");
    let set = reply.header("set-cookie").unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    let cookie = format!("Cookie: other=1; {}\r\n", set.split(';').next().unwrap());
    assert_eq!(web.send("GET", "/v1/session", &cookie, b"").expect(200).json()["user"], "alice");
    web.send("POST", "/v1/queues/q/messages", &cookie, b"x").expect(201);
    web.send("DELETE", "/v1/session", &cookie, b"").expect(204);
    web.send("POST", "/v1/queues/q/messages", &cookie, b"x").problem(401);
    server.stop();
}

#[test]
fn pages_of_others_can_change_nothing() {
    let server = Server::start(&[("http.allowed_origins", "https://shop.example")]);
    let mut web = Web::new(server.http);
    let target = "/v1/queues/q/messages";
    for headers in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        assert_eq!(web.send("POST", target, headers, b"x").problem(403).0, "access-denied", "{headers}");
    }
    // Reading that takes what it reads is no different.
    for target in ["/api/message/q?type=queue", "/v1/queues/q/stream"] {
        web.send("GET", target, "Sec-Fetch-Site: cross-site\r\n", b"").problem(403);
    }
    let own = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", server.http);
    assert!(web.send("POST", target, &own, b"x").expect(201).header("access-control-allow-origin").is_none());
    let listed = web.send("POST", target, "Origin: https://shop.example\r\n", b"x").expect(201);
    assert_eq!(listed.header("access-control-allow-origin"), Some("https://shop.example"));
    let asked = "Origin: https://shop.example\r\nAccess-Control-Request-Method: POST\r\n";
    let preflight = web.send("OPTIONS", target, asked, b"").expect(204);
    assert_eq!(preflight.header("access-control-allow-methods"), Some("POST"));
    let asked = "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n";
    let preflight = web.send("OPTIONS", target, asked, b"").expect(204);
    assert!(preflight.header("access-control-allow-origin").is_none());
    server.stop();
}
