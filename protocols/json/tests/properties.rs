//! Properties over generated conversations: however the input is cut the answers are the same, and no input makes the session
//! panic or write what is no answer. The checks are those of the fuzz target.

use proptest::prelude::*;
use sabir_json::fuzz::fuzz;

/// Words a client might say, mangled or not.
fn words() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        r#"{"op":"connect","ref":1,"user":"a","password":"b","clientId":"c","host":"/","heartbeat":1}"#,
        r#"{"op":"connect"}"#,
        r#"{"op":"send","ref":2,"destination":"queue://a","body":"b"}"#,
        r#"{"op":"send","noReply":true,"destination":"queue://a,topic://b","bodyBase64":"AP8=","properties":{"n":5}}"#,
        r#"{"op":"send","ref":3,"transaction":"t","message":{"destination":"topic://é","body":{"a":[1,null]}}}"#,
        r#"{"op":"send","ref":4,"destination":"queue://a","destinatoin":"x"}"#,
        r#"{"op":"request","ref":5,"destination":"queue://a","timeout":100}"#,
        r#"{"op":"subscribe","ref":6,"id":"1","destination":"queue://a","ack":"client","credit":2}"#,
        r#"{"op":"subscribe","ref":7,"id":"2","destination":"topic://a.>","ack":"individual"}"#,
        r#"{"op":"subscribe","id":"3","destination":"queue://b","browse":true,"ack":"client"}"#,
        r#"{"op":"credit","ref":8,"id":"1","credit":0}"#,
        r#"{"op":"unsubscribe","ref":9,"id":"1"}"#,
        r#"{"op":"unsubscribe","durable":"d","noReply":true}"#,
        r#"{"op":"ack","ref":10,"deliveryId":"1-1-1-1-0"}"#,
        r#"{"op":"ack","noReply":true,"ref":11,"deliveryId":"1-1-1-1-1"}"#,
        r#"{"op":"nack","noReply":true,"deliveryId":"1-1-2-1-0","requeue":true,"transaction":"t"}"#,
        r#"{"op":"release","ref":12,"deliveryId":"u1"}"#,
        r#"{"op":"begin","ref":13,"transaction":"t"}"#,
        r#"{"op":"commit","ref":14,"transaction":"t"}"#,
        r#"{"op":"abort","transaction":"t"}"#,
        r#"{"op":"temporary","ref":15,"kind":"topic"}"#,
        r#"{"op":"ping","ref":16}"#,
        r#"{"op":"disconnect","ref":17}"#,
        " \n",
        "{",
        r#"{"op":"}"#,
        "[]",
    ]);
    let noise = prop::collection::vec(any::<u8>(), 0..8);
    prop_oneof![30 => words.prop_map(|word| word.as_bytes().to_vec()), 1 => noise]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), prop::collection::vec(words(), 1..20)).prop_map(|(greets, words)| {
        let greeting = if greets { &br#"{"op":"connect"}"#[..] } else { b" " };
        [greeting, &words.concat()].concat()
    })
}

/// A conversation as steps of the fuzz target: answers of the host, then deliveries, receipts, time and bytes in any order.
fn steps() -> impl Strategy<Value = Vec<u8>> {
    let step = (0_u8..8, words()).prop_map(|(step, data)| {
        let size = u8::try_from(data.len()).unwrap_or(u8::MAX);
        [&[step, size], data.get(..usize::from(size)).unwrap_or_default()].concat()
    });
    (prop::collection::vec(any::<u8>(), 8), prop::collection::vec(step, 1..30)).prop_map(
        |(answers, steps)| {
            let greeting = br#"{"op":"connect"}"#;
            [&[0xff], &answers[..], &[0, greeting.len() as u8], greeting, &steps.concat()].concat()
        },
    )
}

proptest! {
    #[test]
    fn cutting_the_input_changes_nothing(conversation in text()) {
        fuzz(&conversation);
    }

    #[test]
    fn whatever_the_host_answers_the_session_writes_answers(conversation in steps()) {
        fuzz(&conversation);
    }

    #[test]
    fn noise_is_never_more_than_refused(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz(&noise);
    }
}
