//! Names and values that the other side cannot write as they are, and words that are not the sender's to say
//! (cross-protocol §5, 16 and 24).

use crate::crossing::grid::{Row, play};
use crate::crossing::parties::Publication;

fn message() -> Publication {
    Publication::new(b"body")
}

#[test]
fn odd_names_and_values_arrive_escaped_as_the_receiver_does_it_5_16() {
    play(&[
        Row::stomp12("from STOMP 1.2", "a\\cb:x\\cy\\\\z\\n\\r.\n")
            .stomp_sees(&["a\\cb:x\\cy\\\\z\\n\\r."])
            .stomp10_sees(&["a%3Ab:x:y\\z%0A%0D.", "x-percent-encoded:a%3Ab"])
            .mqtt_sees(&["a:b=x:y\\\\z\\n\\r."]),
        Row::stomp10("from STOMP 1.0, which has no escapes", "a:x:y\\nz\n")
            .stomp_sees(&["a:x\\cy\\\\nz"])
            .stomp10_sees(&["a:x:y\\nz"])
            .mqtt_sees(&["a=x:y\\\\nz"]),
        Row::stomp10("blanks that 1.0 trims", "a: x \n").stomp_sees(&["a:x"]).mqtt_sees(&["a=x"]),
        Row::stomp12("blanks that 1.2 keeps", "a: x \n").stomp_sees(&["a: x "]).mqtt_sees(&["a= x "]),
        Row::mqtt5("from MQTT", message().user("a:b\\c", "x:y").user("l", "1\r\n2").user("ü", "😀"))
            .stomp_sees(&["a\\cb\\\\c:x\\cy", "l:1\\r\\n2", "ü:😀"])
            .stomp10_sees(&["a%3Ab\\c:x:y", "l:1%0D%0A2", "ü:😀", "x-percent-encoded:a%3Ab\\c,l"])
            .mqtt_sees(&["a:b\\\\c=x:y", "l=1\\r\\n2", "ü=😀"]),
        Row::mqtt5("an empty name, which STOMP has not", message().user("", "x").user("a", ""))
            .stomp_sees(&["a:"])
            .mqtt_sees(&["=x", "a="]),
        Row::mqtt5("four-byte characters everywhere", message().user("😀", "😀").data("😀".as_bytes()))
            .stomp_sees(&["correlation-id:😀", "😀:😀"])
            .mqtt_sees(&["data \\xf0\\x9f\\x98\\x80", "😀=😀"]),
        Row::stomp12("odd content type and type", "content-type:a\\cb\ntype:c\\nd\n")
            .stomp_sees(&["content-type:a\\cb", "type:c\\nd"])
            .stomp10_sees(&["content-type:a:b", "type:c%0Ad", "x-percent-encoded:type"])
            .mqtt_sees(&["content type a:b", "type=c\\nd"]),
    ]);
}

#[test]
fn nobody_speaks_in_the_brokers_name_5_24() {
    play(&[
        Row::stomp12(
            "from STOMP",
            "JMSXUserID:root\nuser-id:root\nmessage-id:1\nredelivered:true\nJMSXDeliveryCount:9\ndelivery-count:9\n\
             original-destination:/queue/x\nsubscription:x\nack:x\nx-percent-encoded:x\n",
        )
        .stomp_sees(&["user-id:root"])
        .mqtt_sees(&["user-id=root"]),
        // To MQTT they are names like any other, and must arrive unaltered [MQTT5 3.3.2-17].
        Row::mqtt5(
            "from MQTT",
            message()
                .user("destination", "/queue/x")
                .user("subscription", "x")
                .user("ack", "x")
                .user("content-length", "99999")
                .user("redelivered", "true")
                .user("persistent", "true")
                .user("expires", "1")
                .user("timestamp", "1")
                .user("delivery-count", "9")
                .user("original-destination", "/queue/x")
                .user("JMSXUserID", "root")
                .user("browser", "end")
                .user("property-types", "x=i32")
                .user("x-percent-encoded", "x")
                .user("ActiveMQ.MQTT.QoS", "2")
                .user("ActiveMQ.Retain", "true")
                .user("user-id", "root"),
        )
        .stomp_sees(&["user-id:root"])
        .mqtt_sees(&[
            "destination=/queue/x",
            "subscription=x",
            "ack=x",
            "content-length=99999",
            "redelivered=true",
            "persistent=true",
            "expires=1",
            "timestamp=1",
            "delivery-count=9",
            "original-destination=/queue/x",
            "JMSXUserID=root",
            "browser=end",
            "property-types=x=i32",
            "x-percent-encoded=x",
            "ActiveMQ.MQTT.QoS=2",
            "ActiveMQ.Retain=true",
            "user-id=root",
        ]),
    ]);
}
