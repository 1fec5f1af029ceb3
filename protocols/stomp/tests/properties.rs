//! Properties over generated input: what is written is read back, however it is cut; no input makes the session panic
//! or write what is no frame.

use proptest::prelude::*;
use sabir_stomp::client::{self, Decoder, Version};
use sabir_stomp::fuzz::{fuzz_decoder, fuzz_session};

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V10), Just(Version::V11), Just(Version::V12)]
}

/// Text a header of this version can carry.
fn expressible(text: &str, version: Version, name: bool) -> String {
    let kept = text.replace('\0', "");
    match version {
        Version::V12 => kept,
        // Without an escape for it, a return at the end of the line would be taken for a part of the line end.
        Version::V11 => kept.replace('\r', ""),
        Version::V10 => {
            let kept = kept.replace(['\r', '\n', '\t', ' '], "");
            if name { kept.replace(':', "") } else { kept }
        }
    }
}

/// Words a client might say, mangled or not.
fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "CONNECT\naccept-version:1.0\n\n\0",
        "CONNECT\naccept-version:1.1\nheart-beat:10,10\n\n\0",
        "CONNECT\naccept-version:1.2\nx-continue-on-error:true\n\n\0",
        "SEND\ndestination:/queue/a\n\nbody\0",
        "SEND\ndestination:/queue/a,/topic/b\ncontent-length:4\nreceipt:r\n\nbo\0y\0",
        "SEND\ndestination:/temp-queue/x\nreply-to:/temp-queue/y\ntransaction:t\n\n\0",
        "SEND\ndestination:/queue/a\npriority:5\na\\cb:c\\nd\na\\cb:2\n\n\0",
        "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\nreceipt:s\n\n\0",
        "SUBSCRIBE\nid:2\ndestination:/topic/>\nack:client-individual\n\n\0",
        "SUBSCRIBE\nid:3\ndestination:/queue/b\nbrowser:true\nack:client\n\n\0",
        "SUBSCRIBE\nid:4\ndestination:/temp-queue/y\n\n\0",
        "UNSUBSCRIBE\nid:1\n\n\0",
        "UNSUBSCRIBE\nid:1\nactivemq.subscriptionName:n\nreceipt:u\n\n\0",
        "ACK\nid:1-1-1-1\nmessage-id:ID:1-1\nsubscription:1\n\n\0",
        "ACK\nid:1-1-1-1-0\nmessage-id:ID\\c1-2\nsubscription:1\ntransaction:t\nreceipt:k\n\n\0",
        "NACK\nid:u2-1-1\nmessage-id:x\nsubscription:2\nrequeue:true\n\n\0",
        "BEGIN\ntransaction:t\n\n\0",
        "COMMIT\ntransaction:t\nreceipt:c\n\n\0",
        "ABORT\ntransaction:t\n\n\0",
        "DISCONNECT\nreceipt:d\n\n\0",
        "\n",
        "\r\n",
        "content-length:3\n",
        "\0",
    ]);
    let noise = prop::collection::vec(any::<u8>(), 0..8);
    let piece = prop_oneof![8 => words.prop_map(|word| word.as_bytes().to_vec()), 1 => noise];
    prop::collection::vec(piece, 1..20).prop_map(|pieces| pieces.concat())
}

/// A conversation as steps of the session's fuzz target.
fn steps() -> impl Strategy<Value = Vec<u8>> {
    let step = (any::<u8>(), conversation()).prop_map(|(step, data)| {
        let data = &data[..data.len().min(255)];
        let size = u8::try_from(data.len()).expect("cut to 255");
        [&[step, size][..], data].concat()
    });
    (prop::array::uniform8(any::<u8>()), prop::collection::vec(step, 1..12)).prop_map(|(answers, steps)| {
        let open = b"CONNECT\naccept-version:1.2\n\n\0";
        let size = u8::try_from(open.len()).expect("short");
        let first = [&[0, size][..], open].concat();
        [&[0x80][..], &answers, &first, &steps.concat()].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back_however_it_is_cut(
        version in version(),
        headers in prop::collection::vec((".{1,20}", ".{0,40}"), 0..8),
        body in prop::collection::vec(any::<u8>(), 0..100),
        cut in any::<prop::sample::Index>(),
    ) {
        let headers: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| (expressible(name, version, true), expressible(value, version, false)))
            .filter(|(name, _)| !name.is_empty() && name.trim() != "content-length")
            .collect();
        let mut bytes = Vec::new();
        let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        client::frame(&mut bytes, version, "SEND", pairs, Some(&body));
        let mut decoder = Decoder::new(version);
        let cut = cut.index(bytes.len());
        let partial = decoder.next(&bytes[..cut]).expect("a partial frame is no error");
        prop_assert!(partial.frame.is_none());
        let consumed = partial.consumed;
        let decoded = decoder.next(&bytes[consumed..]).expect("a frame");
        let frame = decoded.frame.expect("whole");
        prop_assert_eq!(frame.body(), body);
        let read: Vec<(String, String)> = frame
            .headers()
            .map(|header| (header.name().into_owned(), header.value().into_owned()))
            .filter(|(name, _)| name != "content-length")
            .collect();
        prop_assert_eq!(read, headers);
    }

    #[test]
    fn cutting_the_input_changes_nothing(pick in any::<u8>(), bytes in conversation()) {
        fuzz_decoder(&[&[pick][..], &bytes].concat());
    }

    #[test]
    fn noise_is_never_more_than_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_decoder(&bytes);
        fuzz_session(&bytes);
    }

    #[test]
    fn no_text_makes_the_session_fail(bytes in conversation()) {
        fuzz_session(&bytes);
    }

    #[test]
    fn no_conversation_makes_the_session_fail(bytes in steps()) {
        fuzz_session(&bytes);
    }
}
