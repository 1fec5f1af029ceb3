//! A login by HTTP at the door, which stands in for the protocol's own.

use sabir_model::base64;

use super::raw::{BINARY, Came, Raw, TEXT};
use crate::http::web::Web;
use crate::mqtt::auth::add_user;
use crate::server::Server;

const PASSWORD: &str = "a good long secret";
/// CONNECT of MQTT 3.1.1 with the client id `a`.
const MQTT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";

fn basic(name: &str, password: &str) -> String {
    let mut header = b"Authorization: Basic ".to_vec();
    base64::encode(format!("{name}:{password}").as_bytes(), &mut header);
    header.extend(b"\r\n");
    String::from_utf8(header).unwrap()
}

/// What comes first after these bytes, as text.
fn first(raw: &mut Raw, kind: u8, bytes: &[u8]) -> String {
    raw.send(kind, bytes);
    match raw.next() {
        Came::Text(said) | Came::Binary(said) => said.escape_ascii().to_string(),
        other => panic!("{other:?}"),
    }
}

/// A STOMP client without a login that sends itself a message: as whom?
fn stomp_user(server: &Server, headers: &str) -> Option<String> {
    let (mut raw, head) = Raw::open(server.http, "/stomp", headers);
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    let said = first(&mut raw, TEXT, b"CONNECT\naccept-version:1.2\nhost:/\n\n\0");
    if !said.starts_with("CONNECTED") {
        assert!(said.starts_with("ERROR") && said.contains("authentication-failed"), "{said}");
        return None;
    }
    let words = "SUBSCRIBE\nid:1\ndestination:/topic/t\n\n\0SEND\ndestination:/topic/t\nreceipt:1\n\nx\0";
    let mut said = first(&mut raw, TEXT, words.as_bytes());
    while !said.contains("MESSAGE") {
        said += &first(&mut raw, 0x8a, b"");
    }
    let (_, rest) = said.split_once("JMSXUserID:").expect("a message names its sender");
    rest.split_once("\\n").map(|(name, _)| name.to_owned())
}

#[test]
fn a_login_at_the_door_stands_in_for_one_of_the_protocol() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "alice", PASSWORD);
    add_user(dir.path(), "bob", PASSWORD);
    let server = Server::start_in(dir.path(), &[]);
    let alice = basic("alice", PASSWORD);

    assert_eq!(stomp_user(&server, ""), None, "nobody is let in without one");
    assert_eq!(stomp_user(&server, &alice).as_deref(), Some("alice"));

    let mut web = Web::new(server.http);
    let login = format!("{{\"user\":\"bob\",\"password\":\"{PASSWORD}\"}}");
    let reply = web.post_json("/v1/session", &login).expect(200);
    let cookie = reply.header("set-cookie").unwrap();
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    assert_eq!(stomp_user(&server, &cookie).as_deref(), Some("bob"));

    let (mut raw, _) = Raw::open(server.http, "/mqtt", &alice);
    assert_eq!(first(&mut raw, BINARY, MQTT), r" \x02\x00\x00");
    let (mut raw, _) =
        Raw::open(server.http, "/ws", &format!("{alice}Sec-WebSocket-Protocol: sabir.json\r\n"));
    let said = first(&mut raw, TEXT, br#"{"op":"connect","ref":1}"#);
    assert!(said.contains("\\\"connected\\\""), "{said}");
    server.stop();
}

#[test]
fn a_wrong_login_at_the_door_is_refused_and_the_protocols_own_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "alice", PASSWORD);
    add_user(dir.path(), "bob", PASSWORD);
    let server = Server::start_in(dir.path(), &[]);
    let (_, head) = Raw::open(server.http, "/stomp", &basic("alice", "wrong"));
    assert!(head.starts_with("http/1.1 401 ") && head.contains("www-authenticate: basic"), "{head}");

    // A cookie that is over is none: browsers send it whether or not anybody wants them to.
    let over = format!("Cookie: sabir-session={}\r\n", "0".repeat(32));
    assert_eq!(stomp_user(&server, &over), None);

    let (mut raw, _) = Raw::open(server.http, "/stomp", &basic("alice", PASSWORD));
    let wrong = "CONNECT\naccept-version:1.2\nhost:/\nlogin:bob\npasscode:wrong\n\n\0";
    let said = first(&mut raw, TEXT, wrong.as_bytes());
    assert!(said.contains("authentication-failed"), "{said}");

    // A foreign page does not get to use what the browser keeps.
    let foreign = format!("{}Origin: https://elsewhere.example\r\n", basic("alice", PASSWORD));
    let (_, head) = Raw::open(server.http, "/stomp", &foreign);
    assert!(head.starts_with("http/1.1 403 "), "{head}");
    server.stop();
}
