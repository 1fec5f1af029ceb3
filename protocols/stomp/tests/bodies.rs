//! Large bodies are not copied on their way through, and partial ones are not scanned again.

mod harness;

use std::io::IoSlice;

use bytes::Bytes;
use harness::{Connection, token};
use sabir_model::chunks::{Chunks, REFERENCE_BYTES_MIN};
use sabir_model::command::{Command, Outcome, Promise, Publish, ReceiptTime, WireAck};
use sabir_model::delivery::{Delivery, EncodeCache};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::SubscriptionKey;
use sabir_model::limits::Limits;
use sabir_model::message::{Body, Facts, FieldsWriter, Message, Tag};
use sabir_model::session::{Egress, EgressNote, Flow, Host, Input, Session};
use sabir_model::settlement::SettleMode;
use sabir_stomp::client::{self, Decoder, Version};

/// Keeps the last body.
#[derive(Default)]
struct Keeper(Option<Bytes>);

impl Host for Keeper {
    fn publish(&mut self, publish: Publish<'_>) -> Outcome {
        if let Body::Shared(bytes) = publish.body {
            self.0 = Some(bytes);
        }
        Outcome::Accepted(None)
    }
    fn settle(&mut self, _ack: WireAck) {}
    fn settle_now(&mut self, _ack: WireAck) -> Outcome {
        Outcome::Accepted(None)
    }
    fn ask(&mut self, _command: Command<'_>) -> Outcome {
        Outcome::Accepted(None)
    }
    fn temporary(&mut self, _kind: Kind, _label: &str) -> Result<Destination, Refusal> {
        Err(Refusal::new(Code::Unsupported, "not here"))
    }
    fn temporary_label(&self, _destination: &Destination) -> Option<&str> {
        None
    }
    fn receipt(&mut self, _promise: Option<Promise>) -> ReceiptTime {
        ReceiptTime::Now
    }
    fn note(&mut self, _note: EgressNote<'_>) {}
    fn session_name(&self) -> String {
        String::new()
    }
}

#[test]
fn the_driver_is_told_how_long_a_frame_with_a_length_will_be() {
    let mut connection = Connection::introduced(Limits::default(), "1.2", "");
    let mut frame = Vec::new();
    client::send(&mut frame, Version::V12, "/queue/a", &[], &[7; 100_000]);
    connection.receive(&frame[..20]);
    assert_eq!(connection.expected, 0, "the length has not come yet");
    connection.receive(&frame[20..1000]);
    assert_eq!((connection.expected, connection.flow.clone()), (frame.len(), Ok(Flow::More)));
    connection.receive(&frame[1000..]);
    assert_eq!((connection.expected, connection.asked().len()), (0, 1));
}

#[test]
fn a_large_body_in_a_buffer_of_its_own_is_shared_with_it() {
    let mut connection = Connection::introduced(Limits::default(), "1.2", "");
    let mut frame = Vec::new();
    client::send(&mut frame, Version::V12, "/queue/a", &[], &[7; 100_000]);
    let bytes = Bytes::from(frame);
    let now = connection.now();
    let mut keeper = Keeper::default();
    let mut input = Input::from_shared(&bytes);
    let flow = connection.session.receive(now, &mut input, &mut keeper, &mut connection.out);
    assert_eq!(flow, Ok(Flow::More));
    let body = keeper.0.expect("shared");
    assert_eq!(body.len(), 100_000);
    assert!(bytes.as_ptr_range().contains(&body.as_ptr()), "the body lies in the read buffer");
}

#[test]
fn a_large_body_leaves_by_reference_also_to_many() {
    for (version, cached) in
        [(Version::V10, false), (Version::V11, true), (Version::V12, true), (Version::V12, false)]
    {
        let mut connection = Connection::introduced(Limits::default(), version.as_str(), "");
        let settle = SettleMode::Individual;
        let key = SubscriptionKey(0);
        connection.host.egress.note(EgressNote::Attach { key, label: b"1", settle, options: 0 });
        let mut fields = FieldsWriter::new();
        fields.destination(Tag::Destination, &Destination::topic("t"));
        for size in [REFERENCE_BYTES_MIN - 1, REFERENCE_BYTES_MIN, 200_000] {
            let body = vec![7; size];
            let message = Message::new(Facts::default(), &[fields.as_slice()], Body::Borrowed(&body));
            let delivery = Delivery {
                message: &message,
                subscription: key,
                queue: None,
                token: Some(token(1)),
                attempt: 1,
                redelivered: false,
                browsed: false,
                grant: None,
                sequence: None,
                progress: 0,
            };
            let mut cache = EncodeCache::new();
            let mut out = Chunks::new();
            for _ in 0..2 {
                let cache = cached.then_some(&mut cache);
                connection.host.egress.deliver(connection.now().wall, &delivery, cache, &mut out);
            }
            let mut slices = [IoSlice::new(&[]); 16];
            let count = out.slices(&mut slices);
            let referenced = slices[..count]
                .iter()
                .filter(|slice| slice.as_ptr() == message.body().octets().expect("in memory").as_ptr())
                .count();
            assert_eq!(referenced, if size >= REFERENCE_BYTES_MIN { 2 } else { 0 });
            let bytes = out.to_vec();
            let mut decoder = Decoder::new(version);
            let consumed = {
                let first = decoder.next(&bytes).expect("a frame");
                assert_eq!(first.frame.expect("whole").body(), body);
                first.consumed
            };
            assert_eq!(consumed * 2, bytes.len(), "both receivers get the same");
        }
    }
}

#[test]
fn a_frame_that_trickles_in_is_read_once_at_its_end() {
    let mut connection = Connection::introduced(Limits::default(), "1.2", "");
    let mut frame = Vec::new();
    client::send_text(&mut frame, Version::V12, "/queue/a", &[("h", "v")], &"text ".repeat(2000));
    for byte in &frame[..frame.len() - 1] {
        connection.receive(std::slice::from_ref(byte));
        assert!(connection.asked().is_empty());
    }
    connection.receive(&[0]);
    assert_eq!(connection.asked().len(), 1);
}

#[test]
fn waiting_receipts_are_bounded_in_bytes_too() {
    let mut connection = Connection::introduced(Limits::default(), "1.2", "");
    connection.host.receipts_later = true;
    let receipt = "r".repeat(10_000);
    let mut sent = 0;
    while connection.flow == Ok(Flow::More) {
        let mut frame = Vec::new();
        client::send(&mut frame, Version::V12, "/queue/a", &[("receipt", &receipt)], b"");
        connection.receive(&frame);
        sent += 1;
        assert!(sent < 1000, "reading pauses");
    }
    assert_eq!(connection.flow, Ok(Flow::Parked));
}
