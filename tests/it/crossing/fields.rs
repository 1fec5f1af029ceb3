//! The fields of a message and its properties (cross-protocol §1, §3).

use crate::crossing::grid::{Row, play};
use crate::crossing::parties::Publication;

fn message() -> Publication {
    Publication::new(b"body")
}

#[test]
fn persistence_and_quality_of_service_cross_5_10() {
    play(&[
        Row::stomp12("not persistent by default", ""),
        Row::stomp12("persistent", "persistent:true\n")
            .stomp_sees(&["persistent:true"])
            .mqtt_sees(&["qos 1"]),
        Row::stomp10("persistent", "persistent:true\n")
            .stomp_sees(&["persistent:true"])
            .mqtt_sees(&["qos 1"]),
        Row::stomp12("a QoS of ActiveMQ's, 2", "ActiveMQ.MQTT.QoS:2\n")
            .stomp_sees(&["persistent:true", "ActiveMQ.MQTT.QoS:2"])
            .mqtt_sees(&["qos 2"]),
        Row::stomp12("a QoS of ActiveMQ's, 1", "ActiveMQ.MQTT.QoS:1\n")
            .stomp_sees(&["persistent:true"])
            .mqtt_sees(&["qos 1"]),
        Row::stomp12("a QoS of ActiveMQ's, 0", "ActiveMQ.MQTT.QoS:0\n"),
        Row::stomp12("a QoS below the promise", "ActiveMQ.MQTT.QoS:0\npersistent:true\n")
            .stomp_sees(&["persistent:true"])
            .mqtt_sees(&["qos 1"])
            .differs("ActiveMQ gives QoS 0; here nothing weakens what persistent promises"),
        Row::mqtt3("QoS 0", message()),
        Row::mqtt3("QoS 1", message().qos(1)).stomp_sees(&["persistent:true"]).mqtt_sees(&["qos 1"]).differs(
            "ActiveMQ adds ActiveMQ.MQTT.QoS:1, which says no more than persistent:true; only 2 is said",
        ),
        Row::mqtt3("QoS 2", message().qos(2))
            .stomp_sees(&["persistent:true", "ActiveMQ.MQTT.QoS:2"])
            .mqtt_sees(&["qos 2"]),
        Row::mqtt5("QoS 0", message()),
        Row::mqtt5("QoS 1", message().qos(1)).stomp_sees(&["persistent:true"]).mqtt_sees(&["qos 1"]),
        Row::mqtt5("QoS 2", message().qos(2))
            .stomp_sees(&["persistent:true", "ActiveMQ.MQTT.QoS:2"])
            .mqtt_sees(&["qos 2"]),
    ]);
}

#[test]
fn what_is_to_be_kept_says_so_and_is_sent_live_without() {
    play(&[
        Row::stomp12("from STOMP", "ActiveMQ.Retain:true\n").stomp_sees(&["ActiveMQ.Retain:true"]),
        Row::stomp12("said to be false", "ActiveMQ.Retain:false\n"),
        Row::mqtt3("from MQTT 3.1.1", message().qos(1).retain())
            .stomp_sees(&["persistent:true", "ActiveMQ.Retain:true"])
            .mqtt_sees(&["qos 1"]),
        Row::mqtt5("from MQTT 5", message().retain()).stomp_sees(&["ActiveMQ.Retain:true"]),
    ]);
}

#[test]
fn priority_timestamp_type_and_the_like_cross_1() {
    play(&[
        Row::stomp12("priority", "priority:9\n").stomp_sees(&["priority:9"]).mqtt_sees(&["priority=9"]),
        Row::stomp12("beyond the range 5.8", "priority:12\n")
            .stomp_sees(&["priority:9"])
            .mqtt_sees(&["priority=9"]),
        Row::mqtt5("priority", message().user("priority", "7"))
            .stomp_sees(&["priority:7"])
            .mqtt_sees(&["priority=7"]),
        Row::mqtt5("no priority", message().user("priority", "high")).mqtt_sees(&["priority=high"]),
        Row::stomp12("timestamp", "timestamp:1234567890123\n"),
        Row::stomp12("type", "type:order\n").stomp_sees(&["type:order"]).mqtt_sees(&["type=order"]),
        Row::mqtt5("type", message().user("type", "order"))
            .stomp_sees(&["type:order"])
            .mqtt_sees(&["type=order"]),
        Row::stomp12("content encoding", "content-encoding:gzip\n")
            .stomp_sees(&["content-encoding:gzip"])
            .mqtt_sees(&["content-encoding=gzip"]),
        Row::mqtt5("content encoding", message().user("content-encoding", "gzip"))
            .stomp_sees(&["content-encoding:gzip"])
            .mqtt_sees(&["content-encoding=gzip"]),
        Row::stomp12("application", "app-id:shop\n").stomp_sees(&["app-id:shop"]).mqtt_sees(&["app-id=shop"]),
        Row::stomp12("group", "JMSXGroupID:g\nJMSXGroupSeq:3\n")
            .stomp_sees(&["JMSXGroupID:g", "JMSXGroupSeq:3"])
            .mqtt_sees(&["JMSXGroupID=g", "JMSXGroupSeq=3"]),
        Row::stomp12("the end of a group 5.17", "JMSXGroupID:g\nJMSXGroupSeq:-1\n")
            .stomp_sees(&["JMSXGroupID:g", "JMSXGroupSeq:-1"])
            .mqtt_sees(&["JMSXGroupID=g", "JMSXGroupSeq=-1"]),
        Row::mqtt5("group", message().user("JMSXGroupID", "g").user("JMSXGroupSeq", "3"))
            .stomp_sees(&["JMSXGroupID:g", "JMSXGroupSeq:3"])
            .mqtt_sees(&["JMSXGroupID=g", "JMSXGroupSeq=3"]),
        Row::stomp12("an id of the sender's", "amqp-message-id:m-1\n")
            .stomp_sees(&["message-id:m-1", "amqp-message-id:m-1"])
            .mqtt_sees(&["message-id=m-1"]),
        Row::mqtt5("an id of the sender's", message().user("a", "1").user("message-id", "m-1"))
            .stomp_sees(&["a:1", "message-id:m-1", "amqp-message-id:m-1"])
            .mqtt_sees(&["a=1", "message-id=m-1"]),
        Row::mqtt5("an id that STOMP cannot acknowledge by", message().user("message-id", "m\n1"))
            .mqtt_sees(&["message-id=m\\n1"]),
        Row::stomp12("trace context", "traceparent:00-4bf9-00f0-01\ntracestate:a=b\n")
            .stomp_sees(&["traceparent:00-4bf9-00f0-01", "tracestate:a=b"])
            .mqtt_sees(&["traceparent=00-4bf9-00f0-01", "tracestate=a=b"]),
        Row::mqtt5(
            "trace context",
            message().user("traceparent", "00-4bf9-00f0-01").user("tracestate", "a=b"),
        )
        .stomp_sees(&["traceparent:00-4bf9-00f0-01", "tracestate:a=b"])
        .mqtt_sees(&["traceparent=00-4bf9-00f0-01", "tracestate=a=b"]),
    ]);
}

#[test]
fn correlation_ids_are_text_for_stomp_and_octets_for_mqtt_5_4() {
    play(&[
        Row::stomp12("text", "correlation-id:order 1\n")
            .stomp_sees(&["correlation-id:order 1"])
            .mqtt_sees(&["data order 1"]),
        Row::stomp12("JMS's name for it", "JMSCorrelationID:j\n")
            .stomp_sees(&["correlation-id:j"])
            .mqtt_sees(&["data j"]),
        Row::stomp12("escapes", "correlation-id:a\\cb\\\\c\n")
            .stomp_sees(&["correlation-id:a\\cb\\\\c"])
            .stomp10_sees(&["correlation-id:a:b\\c"])
            .mqtt_sees(&["data a:b\\\\c"]),
        Row::stomp12("empty", "correlation-id:\n").stomp_sees(&["correlation-id:"]).mqtt_sees(&["data "]),
        Row::stomp12("octets as shown by STOMP", "correlation-id:base64\\c/wA=\n")
            .stomp_sees(&["correlation-id:base64\\c/wA="])
            .stomp10_sees(&["correlation-id:base64:/wA="])
            .mqtt_sees(&["data \\xff\\x00"]),
        Row::stomp10("octets as shown by STOMP 1.0", "correlation-id:base64:/wA=\n")
            .stomp_sees(&["correlation-id:base64\\c/wA="])
            .stomp10_sees(&["correlation-id:base64:/wA="])
            .mqtt_sees(&["data \\xff\\x00"]),
        Row::stomp12("no base64 after all", "correlation-id:base64\\cx\n")
            .stomp_sees(&["correlation-id:base64\\cx"])
            .stomp10_sees(&["correlation-id:base64:x"])
            .mqtt_sees(&["data base64:x"]),
        Row::mqtt5("text", message().data("ü 1".as_bytes()))
            .stomp_sees(&["correlation-id:ü 1"])
            .mqtt_sees(&["data \\xc3\\xbc 1"]),
        Row::mqtt5("octets 8", message().data(b"\xff\0"))
            .stomp_sees(&["correlation-id:base64\\c/wA="])
            .stomp10_sees(&["correlation-id:base64:/wA="])
            .mqtt_sees(&["data \\xff\\x00"]),
        Row::mqtt5("a control character", message().data(b"a\nb"))
            .stomp_sees(&["correlation-id:base64\\cYQpi"])
            .stomp10_sees(&["correlation-id:base64:YQpi"])
            .mqtt_sees(&["data a\\nb"]),
        // Whoever sends it back must not be taken to mean the two octets.
        Row::mqtt5("text that looks like shown octets", message().data(b"base64:/wA="))
            .stomp_sees(&["correlation-id:base64\\cYmFzZTY0Oi93QT0="])
            .stomp10_sees(&["correlation-id:base64:YmFzZTY0Oi93QT0="])
            .mqtt_sees(&["data base64:/wA="]),
        Row::stomp12("and sent back", "correlation-id:base64\\cYmFzZTY0Oi93QT0=\n")
            .stomp_sees(&["correlation-id:base64\\cYmFzZTY0Oi93QT0="])
            .stomp10_sees(&["correlation-id:base64:YmFzZTY0Oi93QT0="])
            .mqtt_sees(&["data base64:/wA="]),
        Row::mqtt5("text that only begins so", message().data(b"base64:aGk="))
            .stomp_sees(&["correlation-id:base64\\caGk="])
            .stomp10_sees(&["correlation-id:base64:aGk="])
            .mqtt_sees(&["data base64:aGk="]),
        Row::mqtt5("empty", message().data(b"")).stomp_sees(&["correlation-id:"]).mqtt_sees(&["data "]),
    ]);
}

#[test]
fn reply_addresses_become_each_others_names_5_12_5_13() {
    play(&[
        Row::stomp12("a topic", "reply-to:/topic/a.b\n")
            .stomp_sees(&["reply-to:/topic/a.b"])
            .mqtt_sees(&["response a/b"]),
        Row::stomp10("a queue", "reply-to:/queue/a.b\n")
            .stomp_sees(&["reply-to:/queue/a.b"])
            .mqtt_sees(&["response $queue/a/b"]),
        Row::stomp12("JMS's way", "JMSReplyTo:queue\\c//a.b\n")
            .stomp_sees(&["reply-to:/queue/a.b"])
            .mqtt_sees(&["response $queue/a/b"]),
        Row::mqtt5("a topic", message().response("a/b.c"))
            .stomp_sees(&["reply-to:/topic/a.b%2Ec"])
            .mqtt_sees(&["response a/b.c"]),
        Row::mqtt5("a queue", message().response("$queue/a/b"))
            .stomp_sees(&["reply-to:/queue/a.b"])
            .mqtt_sees(&["response $queue/a/b"]),
        Row::mqtt5("somebody's temporary queue", message().response("$reply/queue/ID:1"))
            .stomp_sees(&["reply-to:/remote-temp-queue/ID\\c1"])
            .stomp10_sees(&["reply-to:/remote-temp-queue/ID:1"])
            .mqtt_sees(&["response $reply/queue/ID:1"]),
        Row::mqtt5("no destination of ours", message().response("a\nb"))
            .stomp_sees(&["reply-to:a\\nb"])
            .stomp10_sees(&["reply-to:a%0Ab", "x-percent-encoded:reply-to"])
            .mqtt_sees(&["response a\nb"]),
        Row::stomp12("text that is no destination", "reply-to:somewhere\n")
            .stomp_sees(&["reply-to:somewhere"])
            .mqtt_sees(&["response somewhere"])
            .differs(
                "as a destination of STOMP it would be the queue of this name; as an address it is text",
            ),
        Row::stomp12("text that is no topic either", "reply-to:some#where\n")
            .stomp_sees(&["reply-to:some#where"])
            .mqtt_sees(&["reply-to=some#where"]),
    ]);
}

#[test]
fn properties_keep_their_order_and_repetitions_where_the_receiver_can_5_2() {
    play(&[
        // The frame's own rule: of repeated headers the first counts.
        Row::stomp12("from STOMP", "b:1\na:2\nb:3\n").stomp_sees(&["b:1", "a:2"]).mqtt_sees(&["b=1", "a=2"]),
        Row::mqtt5("from MQTT 8", message().user("a", "1").user("b", "x").user("a", "2").user("a", "1"))
            .stomp_sees(&["a:1", "b:x", "a:2", "a:1"])
            .mqtt_sees(&["a=1", "b=x", "a=2", "a=1"]),
        Row::stomp12("numbers stay text 5.3", "n:5\nf:1.50\nt:true\n")
            .stomp_sees(&["n:5", "f:1.50", "t:true"])
            .mqtt_sees(&["n=5", "f=1.50", "t=true"]),
        Row::stomp12("types on demand 5.3", "n:5\nf:1.50\nb:/wA=\nproperty-types:n=i32,f=f64,b=bytes\n")
            .stomp_sees(&["n:5", "f:1.5", "b:/wA=", "property-types:n=i32,f=f64,b=bytes"])
            .mqtt_sees(&["n=5", "f=1.5", "b=/wA="]),
        Row::stomp12("a float's shortest text 8", "f:0.1\nproperty-types:f=f32\n")
            .stomp_sees(&["f:0.1", "property-types:f=f32"])
            .mqtt_sees(&["f=0.1"]),
        Row::stomp12("beyond 2 to the 53rd 8", "n:9007199254740993\nproperty-types:n=i64\n")
            .stomp_sees(&["n:9007199254740993", "property-types:n=i64"])
            .mqtt_sees(&["n=9007199254740993"]),
        Row::mqtt5(
            "everything MQTT has",
            message()
                .qos(1)
                .format(true)
                .content_type("application/json")
                .response("r")
                .data(b"c")
                .user("z", "1")
                .user("a", ""),
        )
        .stomp_sees(&[
            "content-type:application/json",
            "reply-to:/topic/r",
            "correlation-id:c",
            "z:1",
            "a:",
            "persistent:true",
        ])
        .mqtt_sees(&[
            "qos 1",
            "format 1",
            "content type application/json",
            "response r",
            "data c",
            "z=1",
            "a=",
        ]),
    ]);
}
