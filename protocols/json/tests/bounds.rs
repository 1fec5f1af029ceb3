//! What a connection cannot make grow: what needs more lines than a transcript should have.

mod harness;

use harness::{Connection, code};
use sabir_model::limits::Limits;
use sabir_model::session::Flow;

#[test]
fn who_asks_a_hundred_times_for_nothing_is_no_client() {
    let mut connection = Connection::introduced(Limits::default());
    for _ in 0..3 {
        connection.receive(format!("{}{{\"op\":\"ping\"}}", "{}".repeat(99)).as_bytes());
        assert_eq!(connection.flow, Ok(Flow::More));
    }
    // What is refused although it has an op may come as often as it likes: a full queue is no fault of the client.
    connection.receive(r#"{"op":"ack"}"#.repeat(1000).as_bytes());
    assert_eq!(connection.flow, Ok(Flow::More));
    connection.written();
    connection.receive("{}".repeat(5000).as_bytes());
    assert_eq!(connection.flow.as_ref().map_err(|violation| violation.0.code), Err(code("missing-header")));
    assert_eq!(connection.written().iter().filter(|byte| **byte == b'\n').count(), 100);
}

#[test]
fn a_thousand_requests_wait_and_the_next_is_refused() {
    let mut connection = Connection::introduced(Limits::default());
    let ask = |number: usize| format!(r#"{{"op":"request","ref":{number},"destination":"queue://a"}}"#);
    for number in 0..1000 {
        connection.receive(ask(number).as_bytes());
    }
    assert!(connection.written().is_empty());
    connection.receive(ask(1000).as_bytes());
    let answer = String::from_utf8(connection.written()).expect("text");
    assert!(answer.starts_with(r#"{"op":"error","ref":1000,"code":"limit-reached""#), "{answer}");
    connection.now_ms = 30_000;
    connection.timeout();
    let answers = String::from_utf8(connection.written()).expect("text");
    assert_eq!(answers.lines().filter(|line| line.contains("timed-out")).count(), 1000);
    connection.receive(ask(1001).as_bytes());
    assert!(connection.written().is_empty(), "there is room again");
}
