//! The load generator, every measurement and every topology of it once: what it counts must come out exact and clean.
//! How fast it is, nobody asks here.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::server::Server;

/// Runs `sabir bench …` and reads its line of JSON.
fn bench(words: &[&str]) -> (Option<i32>, Value, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sabir"))
        .arg("bench")
        .args(words)
        .arg("--json")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let result = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), result, said)
}

/// The same, of a run that has to be clean.
fn clean(words: &[&str]) -> Value {
    let (code, result, said) = bench(words);
    assert_eq!(code, Some(0), "{words:?}: {said} {result}");
    assert_eq!(result["clean"], true, "{words:?}: {result}");
    for wrong in ["lost", "duplicated", "reordered", "corrupted"] {
        assert!(result[wrong].as_u64().unwrap_or(0) == 0, "{words:?}: {result}");
    }
    result
}

/// Messages sent and delivered.
fn counts(result: &Value) -> (u64, u64) {
    (result["messages"].as_u64().unwrap(), result["delivered"].as_u64().unwrap())
}

#[test]
fn every_topology_is_clean_over_mqtt() {
    let server = Server::start(&[]);
    let (address, pid) = (server.mqtt.to_string(), server.pid().to_string());
    for (words, delivered) in [
        (&["--topology", "one-to-one", "--mqtt-version", "3.1"][..], 600),
        (&["--topology", "pairs:5", "--qos", "2", "--window", "7"], 600),
        (&["--topology", "fan-in:7", "--qos", "1", "--mqtt-version", "3.1.1"], 600),
        (&["--topology", "fan-out:5", "--qos", "1"], 3000),
        (&["--topology", "competing:2x3", "--qos", "1"], 600),
        (&["--topology", "request-reply:3", "--qos", "0"], 600),
        (&["--topology", "request-reply:2", "--qos", "1"], 600),
        (&["--publishers", "9", "--subscribers", "2", "--window", "1"], 1200),
        (&["--pairs", "3", "--stored", "--qos", "1"], 600),
        (&["--publishers", "2", "--subscribers", "0", "--qos", "1"], 0),
        (&["--publishers", "2", "--subscribers", "0"], 0),
        (&["--rate", "6000", "--topology", "fan-in:3"], 600),
        (&["--size", "40", "--batch", "1"], 600),
    ] {
        let base = ["mqtt", "--server", &address, "--messages", "600", "--broker-pid", &pid];
        let result = clean(&[&base[..], words].concat());
        assert_eq!(counts(&result), (600, delivered), "{words:?}: {result}");
        assert!(result["cpu_us_per_message"].is_number() && result["rss_peak"].is_number(), "{result}");
        let is_open = words.contains(&"--rate");
        assert_eq!(result["loop"], if is_open { "open" } else { "closed" });
        assert_eq!(result["latency_us"].is_null(), delivered == 0 && !words.contains(&"1"), "{result}");
    }
}

#[test]
fn every_topology_is_clean_over_stomp() {
    let server = Server::start(&[]);
    let (address, pid) = (server.stomp.to_string(), server.pid().to_string());
    for (words, delivered) in [
        (&["--topology", "one-to-one", "--persistent", "--receipts"][..], 600),
        (&["--topology", "pairs:4", "--ack", "client"], 600),
        (&["--topology", "fan-in:6", "--ack", "client-individual"], 600),
        (&["--topology", "fan-out:5"], 3000),
        (&["--topology", "competing:2x3", "--ack", "client-individual", "--prefetch", "10"], 600),
        (&["--topology", "request-reply:3"], 600),
        (&["--producers", "2", "--consumers", "3", "--destination", "/topic/t"], 1800),
        (&["--producers", "2", "--consumers", "1", "--transaction", "16", "--receipts", "--persistent"], 600),
        (&["--transaction", "7", "--batch", "3"], 600),
        (&["--consumers", "0", "--destination", "/topic/nobody"], 0),
        (&["--rate", "6000", "--receipts", "--persistent"], 600),
    ] {
        let base = ["stomp", "--server", &address, "--messages", "600", "--pid", &pid];
        let result = clean(&[&base[..], words].concat());
        assert_eq!(counts(&result), (600, delivered), "{words:?}: {result}");
        assert_eq!(result["ack_latency_us"].is_null(), !words.contains(&"--receipts"), "{result}");
    }
}

#[test]
fn a_warm_up_is_not_counted_and_a_time_is_kept_to() {
    let server = Server::start(&[]);
    let address = server.mqtt.to_string();
    let words =
        ["mqtt", "--server", &address, "--duration", "0.2", "--warmup", "0.1", "--topology", "pairs:2"];
    let result = clean(&words);
    // What is under way when the measured part begins is delivered in it, and was sent before.
    let (sent, delivered) = counts(&result);
    assert!(sent > 0 && delivered >= sent && delivered <= sent + 200, "{result}");
    let result = clean(&["mqtt", "--server", &address, "--duration", "0.2", "--rate", "1000"]);
    let (sent, delivered) = counts(&result);
    assert!(sent == delivered && sent <= 202, "{result}");
}

#[test]
fn every_transport_carries_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket").to_str().unwrap().to_owned();
    let server = Server::start(&[("listeners.unix", &path)]);
    let unix = format!("unix://{path}");
    let web = |path: &str| format!("ws://{}{path}", server.http);
    let (stomp, mqtt) = (format!("tcp://{}", server.stomp), format!("tcp://{}", server.mqtt));
    let common = ["--messages", "600", "--url"];
    for url in [&unix, &mqtt, &web("/mqtt")] {
        let words = [&["mqtt", "--qos", "1", "--topology", "fan-out:2"], &common[..], &[url]].concat();
        assert_eq!(counts(&clean(&words)), (600, 1200), "{url}");
    }
    for url in [&unix, &stomp, &web("/stomp")] {
        let ways = ["--receipts", "--persistent", "--ack", "client-individual"];
        let words = [&["stomp"], &ways[..], &common[..], &[url]].concat();
        assert_eq!(counts(&clean(&words)), (600, 600), "{url}");
    }
}

#[test]
fn what_one_protocol_sends_another_receives_clean() {
    let server = Server::start(&[]);
    let (mqtt, stomp) = (format!("tcp://{}", server.mqtt), format!("ws://{}/stomp", server.http));
    let http = format!("http://{}", server.http);
    let url = |protocol: &str| match protocol {
        "mqtt" => mqtt.clone(),
        "stomp" => stomp.clone(),
        _ => http.clone(),
    };
    for (from, to, words, delivered) in [
        ("mqtt", "stomp", &["--topology", "fan-out:3"][..], 900),
        ("stomp", "mqtt", &["--topology", "fan-in:3"], 300),
        ("mqtt", "stomp", &["--topology", "competing:2x2", "--qos", "1"], 300),
        ("stomp", "mqtt", &["--topology", "competing:2x2", "--receipts", "--persistent"], 300),
        ("mqtt", "stomp", &["--topology", "pairs:3", "--qos", "1"], 300),
        ("mqtt", "stomp", &["--topology", "request-reply:2"], 300),
        ("stomp", "mqtt", &["--topology", "request-reply:2"], 300),
        ("http", "mqtt", &["--topology", "fan-in:2"], 300),
        ("http", "stomp", &["--topology", "competing:1x2"], 300),
    ] {
        let (from_url, to_url) = (url(from), url(to));
        let base = ["cross", "--from", from, "--to", to, "--from-url", &from_url, "--to-url", &to_url];
        let result = clean(&[&base[..], words, &["--messages", "300"]].concat());
        assert_eq!(counts(&result), (300, delivered), "{from} {to} {words:?}: {result}");
    }
}

#[test]
fn requests_of_http_are_each_answered() {
    let server = Server::start(&[]);
    let url = format!("http://{}", server.http);
    for words in [&["--connections", "3", "--window", "4"][..], &["--batch", "50", "--persistent"]] {
        let base = ["http", "--url", &url, "--messages", "300"];
        let result = clean(&[&base[..], words].concat());
        assert_eq!((counts(&result), &result["latency_of"]), ((300, 0), &Value::from("acknowledgement")));
    }
}

#[test]
fn idle_connections_and_those_that_come_and_go_are_all_let_in() {
    let server = Server::start(&[]);
    let pid = server.pid().to_string();
    let (mqtt, stomp) = (format!("tcp://{}", server.mqtt), format!("tcp://{}", server.stomp));
    for (protocol, url) in [("mqtt", &mqtt), ("stomp", &stomp)] {
        let base = ["--protocol", protocol, "--url", url, "--broker-pid", &pid];
        let words = ["idle", "--connections", "30", "--subscribe", "--keep-alives", "2"];
        let result = clean(&[&words[..], &base[..]].concat());
        assert_eq!((&result["connections"], &result["keep_alives"]), (&30.into(), &60.into()), "{result}");
        assert!(result["bytes_per_subscribed_connection"].is_number(), "{result}");
        if protocol == "mqtt" {
            // As it was called before it had a command of its own.
            let words = ["mqtt", "--url", url, "--idle", "20", "--pid", &pid];
            assert_eq!(clean(&words)["connections"], 20);
        }
        let result = clean(&[&["churn", "--connections", "120", "--window", "7"], &base[..]].concat());
        assert_eq!(result["connections"], 120, "{result}");
    }
}

#[test]
fn each_of_many_subscriptions_gets_its_own() {
    let server = Server::start(&[]);
    let (mqtt, stomp) = (format!("tcp://{}", server.mqtt), format!("tcp://{}", server.stomp));
    for (protocol, url) in [("mqtt", &mqtt), ("stomp", &stomp)] {
        let words =
            ["subs", "--protocol", protocol, "--url", url, "--subscriptions", "1203", "--connections"];
        let result = clean(&[&words[..], &["4", "--wildcards", "20", "--messages", "2000"]].concat());
        assert_eq!((counts(&result), &result["topics"]), ((2000, 2000), &1203.into()), "{result}");
        let few = ["4", "--topics", "3", "--messages", "2000"];
        let result = clean(&[&words[..], &few].concat());
        assert_eq!((counts(&result), &result["topics"]), ((2000, 2000), &3.into()), "{result}");
    }
}

#[test]
fn those_who_read_miss_nothing_beside_one_who_does_not() {
    let server = Server::start(&[]);
    let (mqtt, stomp) = (format!("tcp://{}", server.mqtt), format!("tcp://{}", server.stomp));
    for (protocol, url) in [("mqtt", &mqtt), ("stomp", &stomp)] {
        let words = ["slow", "--protocol", protocol, "--url", url, "--fast", "5", "--messages", "500"];
        let result = clean(&words);
        assert_eq!(counts(&result), (500, 2500), "{result}");
        assert_eq!(counts(&result["baseline"]), (500, 2500), "{result}");
    }
}

#[test]
fn a_backlog_is_filled_outlives_a_restart_and_is_drained_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let (mqtt, stomp) = (format!("tcp://{}", server.mqtt), format!("tcp://{}", server.stomp));
    for words in [
        &["--protocol", "mqtt", "--url", &mqtt, "--qos", "1"][..],
        &["--protocol", "stomp", "--url", &stomp, "--persistent", "--ack", "client-individual"],
    ] {
        let base = ["backlog", "--messages", "2000", "--senders", "3"];
        let result = clean(&[&base[..], words].concat());
        assert_eq!(counts(&result), (2000, 2000), "{words:?}: {result}");
        for part in ["fill", "drain"] {
            let tenths = result[part]["tenths"].as_array().unwrap();
            let sum: u64 = tenths.iter().map(|tenth| tenth["messages"].as_u64().unwrap()).sum();
            assert_eq!(sum, 2000, "{part}: {result}");
        }
    }

    // The command is a shell's: it ends the one broker and starts another with the same data on the same port.
    let (old, port) = (server.pid(), server.stomp);
    let binary = env!("CARGO_BIN_EXE_sabir");
    let (data, note) = (dir.path().join("data"), dir.path().join("pid"));
    let others = "--set listeners.mqtt=off --set listeners.http=off --set listeners.any=off";
    let command = format!(
        "kill {old}; while kill -0 {old} 2>/dev/null && ! grep -q '^State:.Z' /proc/{old}/status; do :; done; \
         {binary} serve --data-dir {} --set listeners.stomp={port} {others} >/dev/null 2>&1 & \
         echo $! | tee {}",
        data.display(),
        note.display()
    );
    let (pid, words) = (old.to_string(), ["backlog", "--protocol", "stomp", "--url", &stomp, "--persistent"]);
    let more = ["--messages", "2000", "--broker-pid", &pid, "--restart-command", &command];
    let (code, result, said) = bench(&[&words[..], &more].concat());
    let _ = server.wait();
    // Whatever came of it, the new broker must not stay.
    let new = std::fs::read_to_string(&note).unwrap_or_default();
    if let Some(new) = new.trim().parse().ok().and_then(Pid::from_raw) {
        kill_process(new, Signal::KILL).unwrap();
    }
    assert_eq!(code, Some(0), "{said} {result}");
    assert_eq!(counts(&result), (2000, 2000), "{result}");
    assert!(result["rss_restarted"].is_number(), "{result}");
    let seconds = |key: &str| result[key].as_f64().unwrap();
    assert!(seconds("first_delivery_seconds") >= seconds("restart_seconds"), "{result}");
}

#[test]
fn what_is_lost_makes_it_fail_and_is_counted() {
    let server = Server::start(&[]);
    let address = server.mqtt.to_string();
    let words = ["mqtt", "--server", &address, "--messages", "10", "--patience", "1"];
    // Nobody receives what a subscriber of another topic waits for.
    let cross = ["cross", "--from", "mqtt", "--to", "mqtt", "--to-destination", "elsewhere"];
    let url = format!("tcp://{address}");
    let ways = ["--from-url", &url, "--to-url", &url];
    let (code, result, said) = bench(&[&cross[..], &ways, &words[3..]].concat());
    assert_eq!((code, &result["lost"]), (Some(1), &10.into()), "{result}");
    assert_eq!(result["clean"], false, "{result}");
    assert!(said.contains("nothing has moved for 1 s"), "{said}");
}

#[test]
fn arguments_that_contradict_each_other_are_refused() {
    for (words, complaint) in [
        (&["mqtt", "--size", "39"][..], "at least 40"),
        (&["mqtt", "--topology", "ring:3"], "must be one-to-one"),
        (&["mqtt", "--topology", "pairs:3", "--pairs", "3"], "cannot be used with"),
        (&["mqtt", "--rate", "5", "--window", "5"], "cannot be used with"),
        (&["stomp", "--topology", "fan-out:3", "--destination", "/queue/q"], "needs a topic"),
        (&["stomp", "--topology", "competing:3x3", "--destination", "/topic/t"], "needs a queue"),
        (&["stomp", "--transaction", "50", "--window", "20"], "does not fit"),
        (&["backlog", "--protocol", "mqtt"], "needs --qos 1 or 2"),
        (&["cross", "--from", "http", "--to", "stomp", "--topology", "request-reply:1"], "over HTTP"),
        (&["idle", "--protocol", "http"], "mqtt or stomp"),
        (&["mqtt", "--url", "http://127.0.0.1:1"], "is none of tcp://"),
        (&["mqtt", "--url", "tcp://127.0.0.1:1"], "cannot connect"),
    ] {
        let (code, result, said) = bench(words);
        assert!(code.is_some_and(|code| code != 0) && result.is_null(), "{words:?}: {result}");
        assert!(said.contains(complaint), "{words:?}: {said}");
    }
}
