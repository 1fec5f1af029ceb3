//! Bodies, what is said of them, and how long they are of use (cross-protocol §4, §8).

use crate::crossing::grid::{Row, play};
use crate::crossing::parties::Publication;

#[test]
fn octets_are_the_same_octets_everywhere_8() {
    let four_bytes = "peace 😀 𝄞 سلام".as_bytes();
    let large: Vec<u8> = (0..1024 * 1024u32).map(|n| (n % 251) as u8).collect();
    play(&[
        Row::stomp12("nothing", "").without_length().body(b"").mqtt_sees(&["format 1"]),
        Row::mqtt3("nothing", Publication::new(b"")),
        Row::mqtt5("nothing", Publication::new(b"").qos(1))
            .stomp_sees(&["persistent:true"])
            .mqtt_sees(&["qos 1"]),
        Row::stomp12("four-byte characters", "").without_length().body(four_bytes).mqtt_sees(&["format 1"]),
        Row::stomp10("four-byte characters", "").without_length().body(four_bytes).mqtt_sees(&["format 1"]),
        Row::mqtt3("four-byte characters", Publication::new(four_bytes)),
        Row::mqtt5("four-byte characters", Publication::new(four_bytes).format(true))
            .mqtt_sees(&["format 1"]),
        Row::stomp12("NULs", "").body(b"a\0b\0\xff"),
        Row::mqtt3("NULs", Publication::new(b"a\0b\0\xff")),
        Row::stomp12("a mebibyte", "").body(&large),
        Row::stomp10("a mebibyte", "persistent:true\n")
            .body(&large)
            .stomp_sees(&["persistent:true"])
            .mqtt_sees(&["qos 1"]),
        Row::mqtt3("a mebibyte", Publication::new(&large).qos(1))
            .stomp_sees(&["persistent:true"])
            .mqtt_sees(&["qos 1"]),
        Row::mqtt5("a mebibyte", Publication::new(&large)),
    ]);
}

#[test]
fn text_and_bytes_are_told_apart_4() {
    let text = || Publication::new(b"{}");
    play(&[
        Row::stomp12("no length, no type", "").without_length().mqtt_sees(&["format 1"]),
        Row::stomp12("a length", ""),
        Row::stomp12("a length, but text", "content-type:text/plain\n")
            .stomp_sees(&["content-type:text/plain"])
            .mqtt_sees(&["format 1", "content type text/plain"]),
        Row::stomp12("a type that is not text", "content-type:image/png\n")
            .without_length()
            .stomp_sees(&["content-type:image/png"])
            .mqtt_sees(&["content type image/png"]),
        Row::stomp12("said to be text", "amq-msg-type:text\n")
            .stomp_sees(&["amq-msg-type:text"])
            .mqtt_sees(&["format 1", "amq-msg-type=text"]),
        Row::stomp12("said to be bytes", "amq-msg-type:bytes\n")
            .without_length()
            .stomp_sees(&["amq-msg-type:bytes"])
            .mqtt_sees(&["amq-msg-type=bytes"]),
        Row::stomp12("said to be text and not", "content-type:text/plain\n")
            .body(b"\xff")
            .stomp_sees(&["content-type:text/plain"])
            .mqtt_sees(&["content type text/plain"]),
        Row::stomp12("JSON, which is how maps and lists travel", "content-type:application/json\n")
            .body(br#"{"a":[1,2]}"#)
            .stomp_sees(&["content-type:application/json"])
            .mqtt_sees(&["format 1", "content type application/json"]),
        Row::mqtt5("no indicator", text()),
        Row::mqtt5("text by the indicator", text().format(true)).mqtt_sees(&["format 1"]),
        Row::mqtt5("bytes by the indicator", text().format(false))
            .differs("0 means what its absence means; the model has no place for the difference"),
        Row::mqtt5("text by the content type", text().content_type("application/json"))
            .stomp_sees(&["content-type:application/json"])
            .mqtt_sees(&["format 1", "content type application/json"])
            .differs("§4 has such a body as text, so it is said to be; MQTT5 3.3.2-4 would add nothing"),
        Row::mqtt5("both", text().format(true).content_type("image/svg+xml"))
            .stomp_sees(&["content-type:image/svg+xml"])
            .mqtt_sees(&["format 1", "content type image/svg+xml"]),
    ]);
}

#[test]
fn what_has_an_end_arrives_with_what_is_left_of_it_5_6() {
    let message = || Publication::new(b"body");
    play(&[
        Row::stomp12("never", "expires:0\n"),
        Row::stomp12("a minute and a half second", "").lives(60_500),
        Row::stomp12("beyond what MQTT can say", "persistent:true\n")
            .lives(u64::from(u32::MAX) * 2000)
            .stomp_sees(&["persistent:true"])
            .mqtt_sees(&["qos 1"]),
        Row::mqtt5("a minute", message().expiry(60)),
        Row::mqtt5("as long as can be", message().expiry(u32::MAX)),
        Row::mqtt5("a minute, surely", message().qos(2).expiry(60))
            .stomp_sees(&["persistent:true", "ActiveMQ.MQTT.QoS:2"])
            .mqtt_sees(&["qos 2"]),
    ]);
}
