//! What can be said, what is answered, and that everything printed reads back.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::ffi::OsString;
use std::path::PathBuf;

use expect_test::{Expect, expect, expect_file};

use super::*;

/// Reads `text` as `sabir.toml` beside other sources; the problems, one per line, or nothing.
fn load(text: &str, environment: &[(&str, &str)], sets: &[&str]) -> Result<Loaded, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sabir.toml");
    std::fs::write(&path, text).unwrap();
    let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    let sources = Sources {
        file: Some(path),
        environment: environment.iter().map(pair).collect(),
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
        data_dir: None,
    };
    Config::load(&sources).map_err(|problems| {
        assert!(!problems.is_empty());
        let lines: Vec<_> = problems.iter().map(|problem| format!("{problem}\n")).collect();
        lines.concat().replace(&format!("{}/", directory.path().display()), "")
    })
}

fn file(text: &str) -> Config {
    load(text, &[], &[]).unwrap().config
}

fn refused(text: &str, answer: Expect) {
    answer.assert_eq(&load(text, &[], &[]).unwrap_err());
}

#[test]
fn nothing_said_is_the_default() {
    assert_eq!(Config::load(&Sources::default()).unwrap().config, Config::default());
    assert_eq!(file(""), Config::default());
    let config = Config::default();
    assert_eq!(config.listeners.stomp, ["127.0.0.1:61613".parse().unwrap()]);
    assert_eq!(config.listeners.mqtt, ["127.0.0.1:1883".parse().unwrap()]);
    assert_eq!(config.listeners.any, ["127.0.0.1:61616".parse().unwrap()]);
    assert_eq!(config.listeners.http, ["127.0.0.1:8161".parse().unwrap()]);
    assert!(config.listeners.unix.is_empty());
    assert_eq!(config.store.durability, Durability::Fsync);
    assert_eq!(config.limits.body_bytes_max, 1 << 30);
    assert_eq!(config.users_file(), PathBuf::from("./sabir-data/users.toml"));
    assert_eq!(config.virtual_topic.len(), 1);
    assert!(config.permission.is_empty());
}

#[test]
fn later_sources_win_and_are_named() {
    let text =
        "[store]\ndir = \"/file\"\nsegment_bytes = \"1 MiB\"\ndurability = \"os\"\n[log]\nlevel = \"warn\"\n";
    let environment =
        [("SABIR__STORE__DURABILITY", "memory"), ("SABIR__LOG__LEVEL", "debug"), ("HOME", "/x")];
    let loaded = load(text, &environment, &["log.level=trace", "limits.headers_max = 77"]).unwrap();
    let store = &loaded.config.store;
    assert_eq!((store.dir.to_str(), store.segment_bytes), (Some("/file"), 1 << 20));
    assert_eq!(store.durability, Durability::Memory);
    assert_eq!(loaded.config.limits.headers_max, 77);
    let place = |section, key| loaded.place(section, key).to_string();
    assert!(place("store", "dir").ends_with("sabir.toml line 2"));
    assert_eq!(place("store", "durability"), "SABIR__STORE__DURABILITY");
    assert_eq!(place("log", "level"), "--set log.level=trace");
    assert_eq!(place("server", "worker_threads"), "default");
    let sources = Sources {
        sets: vec!["store.dir=/set".into()],
        data_dir: Some("/argument".into()),
        ..Sources::default()
    };
    let loaded = Config::load(&sources).unwrap();
    assert_eq!(loaded.config.store.dir, PathBuf::from("/argument"));
    assert_eq!(loaded.place("store", "dir"), &Place::DataDir);
}

#[test]
fn every_key_can_be_set_by_environment_and_by_argument() {
    let shown = Config::default().show_sections();
    for (outline, values) in SECTIONS.iter().zip(&shown) {
        for (field, value) in outline.fields.iter().zip(values) {
            let Some(value) = value else { continue };
            let value = value.trim_matches(['"', '[', ']']);
            let name = format!("SABIR__{}__{}", outline.name.to_uppercase(), field.name.to_uppercase());
            let set = format!("{}.{}={value}", outline.name, field.name);
            let loaded = load("", &[(&name, value)], &[&set]).unwrap();
            assert_eq!(loaded.config, Config::default(), "{set}");
            assert_eq!(loaded.place(outline.name, field.name), &Place::Set(set.clone()));
        }
    }
}

#[test]
fn unknown_names_are_refused_with_what_was_probably_meant() {
    refused(
        "[store]\ndurabilty = \"os\"\ndri = \"x\"\n\n[listener]\nstomp = \"off\"\n[limits]\nsegment_bytes = 5\nfoo = 1\n",
        expect![[r#"
            sabir.toml line 2: unknown key store.durabilty; did you mean store.durability?
            sabir.toml line 3: unknown key store.dri; did you mean store.dir?
            sabir.toml line 5: unknown section [listener]; did you mean [listeners]?
            sabir.toml line 8: unknown key limits.segment_bytes; did you mean store.segment_bytes?
            sabir.toml line 9: unknown key limits.foo; `sabir config sample` lists them all
        "#]],
    );
    refused(
        "durability = \"os\"\nwhatever = 1\n[colour]\n[[store]]\ndir = \"x\"\n[policy]\ndestination = \"queue://a\"\n",
        expect![[r#"
            sabir.toml line 1: durability stands outside every section; did you mean store.durability?
            sabir.toml line 2: whatever stands outside every section
            sabir.toml line 3: unknown section [colour]; `sabir config sample` lists them all
            sabir.toml line 4: store is a section: write [store] once
            sabir.toml line 6: policy is a list: write [[policy]] for each entry
        "#]],
    );
    refused(
        "[[virtual_topic]]\nlocal = true\nprefx = \"x\"\n[[composite]]\nname = \"queue://a\"\nforward_to = \"queue://b\"\ncopy_message = true\n",
        expect![[r#"
            sabir.toml line 2: there is no key virtual_topic.local: there is no network of brokers, so every message is local
            sabir.toml line 3: unknown key virtual_topic.prefx; did you mean virtual_topic.prefix?
            sabir.toml line 7: there is no key composite.copy_message: every target always gets a copy of its own
        "#]],
    );
    let environment = [
        ("SABIR__STORE__DRI", "x"),
        ("SABIR__STROE__DIR", "x"),
        ("SABIR__DIR", "x"),
        ("SABIR__POLICY__NACK", "x"),
    ];
    expect![[r#"
        SABIR__STORE__DRI: unknown key store.dri; did you mean store.dir?
        SABIR__STROE__DIR: unknown key stroe.dir; did you mean store.dir?
        SABIR__DIR: must be SABIR__SECTION__KEY, with a value in UTF-8
        SABIR__POLICY__NACK: policy is a list and can only be written in the file, as [[policy]]
        --set store.dri=x: unknown key store.dri; did you mean store.dir?
        --set dir=x: must be section.key=value
        --set store.dir: must be section.key=value
    "#]]
    .assert_eq(&load("", &environment, &["store.dri=x", "dir=x", "store.dir"]).unwrap_err());
}

#[test]
fn wrong_types_and_values_out_of_bounds_are_refused() {
    refused(
        r#"[listeners]
stomp = 61613
any = "0.0.0.0"
[store]
dir = ""
durability = "sync"
segment_bytes = "64 MB"
quarantine = "yes"
[limits]
headers_max = 0
connections_max = "many"
frame_bytes_max = 1.5
body_bytes_max = -1
outbox_bytes_soft = 99999999999999999999999999999999999999999999
[security]
allow_anonymous_local = "perhaps"
users_file = ["x"]
[log]
level = "loud"
format = "xml"
[http]
allowed_origins = ["shop.example"]
"#,
        expect![[r#"
            sabir.toml line 2: listeners.stomp must be ADDRESS:PORT (such as 127.0.0.1:61613 or [::1]:61613), several separated by commas, or off, not 61613
            sabir.toml line 3: listeners.any must be ADDRESS:PORT (such as 127.0.0.1:61613 or [::1]:61613), several separated by commas, or off, not "0.0.0.0"
            sabir.toml line 5: store.dir must be a path, not ""
            sabir.toml line 6: store.durability must be memory, os, interval(MILLISECONDS) or fsync, not "sync"
            sabir.toml line 7: store.segment_bytes must be bytes from 4 KiB to 4 GiB, not "64 MB"
            sabir.toml line 8: store.quarantine must be true or false, not "yes"
            sabir.toml line 10: limits.headers_max must be a whole number from 8 to 100000, not 0
            sabir.toml line 11: limits.connections_max must be a whole number from 1 to 10000000, not "many"
            sabir.toml line 12: limits.frame_bytes_max must be bytes from 1 KiB to 2 GiB, not a number with a fraction
            sabir.toml line 13: limits.body_bytes_max must be bytes from 1 to 2 GiB, not -1
            sabir.toml line 14: limits.outbox_bytes_soft must be bytes from 4 KiB to 2 GiB, not a number too large to read
            sabir.toml line 16: security.allow_anonymous_local must be true, false or auto, not "perhaps"
            sabir.toml line 17: security.users_file must be a path, not a list
            sabir.toml line 19: log.level must be off, error, warn, info, debug or trace, for everything or as MODULE=LEVEL, separated by commas, not "loud"
            sabir.toml line 20: log.format must be auto, human or json, not "xml"
            sabir.toml line 22: http.allowed_origins must be a list of origins such as "https://shop.example", or "*", not "shop.example"
        "#]],
    );
}

#[test]
fn entries_of_lists_are_checked_like_keys() {
    refused(
        r#"[[policy]]
destination = "orders.>"
nack = "drop"
[[policy]]
delivery_limit = 3
[[policy]]
destination = "queue://a.>.b"
dead_letter_queue = "topic://x"
[[policy]]
destination = "temp-queue://a"
[[composite]]
name = "queue://a"
forward_to = ["queue://b.*"]
[[composite]]
name = "queue://c"
forward_to = [{ destination = "queue://d", selecter = "x" }]
[[composite]]
name = "queue://e"
forward_to = []
[[composite]]
name = "queue://f"
forward_to = [{ destination = "queue://d", selector = "a = = 1" }]
[[virtual_topic]]
name = "queue://x"
prefix = "Consumer."
postfix = "q"
[[permission]]
effect = "maybe"
users = []
actions = ["read"]
destinations = ["orders"]
"#,
        expect![[r#"
            sabir.toml line 2: policy.destination must be queue://NAME or topic://NAME, not "orders.>"
            sabir.toml line 3: policy.nack must be redeliver or dead-letter, not "drop"
            sabir.toml line 4: this [[policy]] lacks destination
            sabir.toml line 7: policy.destination must be queue://NAME or topic://NAME, not "queue://a.>.b" ("a.>.b" has '>' before its last level; '>' must come last)
            sabir.toml line 8: policy.dead_letter_queue must be the name of a queue, not "topic://x"
            sabir.toml line 10: policy.destination must be queue://NAME or topic://NAME, not "temp-queue://a"
            sabir.toml line 13: composite.forward_to must be a list of "queue://NAME", "topic://NAME" or tables { destination = "…", selector = "…" }, not "queue://b.*" (a message cannot be sent to a wildcard)
            sabir.toml line 16: composite.forward_to must be a list of "queue://NAME", "topic://NAME" or tables { destination = "…", selector = "…" }, not a table with selecter (its keys are destination and selector)
            sabir.toml line 19: composite.forward_to must be a list of "queue://NAME", "topic://NAME" or tables { destination = "…", selector = "…" }, not an empty list
            sabir.toml line 22: composite.forward_to must be a list of "queue://NAME", "topic://NAME" or tables { destination = "…", selector = "…" }, not "a = = 1" (Selector, character 5: expected a name or a value, found =.)
            sabir.toml line 24: virtual_topic.name must be the name of a topic; * is one level, a last > the rest, not "queue://x"
            sabir.toml line 25: virtual_topic.prefix must be whole levels that end with a dot, at least one of them *, such as Consumer.*., not "Consumer."
            sabir.toml line 26: virtual_topic.postfix must be empty, or whole levels that begin with a dot, without wildcards, not "q"
            sabir.toml line 28: permission.effect must be allow or deny, not "maybe"
            sabir.toml line 29: permission.users must be a list of user names, "anonymous" or "*", not an empty list
            sabir.toml line 30: permission.actions must be a list of connect, send, consume, browse, create or manage, or "*", not "read"
            sabir.toml line 31: permission.destinations must be a list of queue://NAME, topic://NAME, temp-queue://NAME or temp-topic://NAME, not "orders"
        "#]],
    );
}

#[test]
fn contradictions_are_refused() {
    refused(
        r#"[listeners]
stomp = "127.0.0.1:61613,127.0.0.1:61613"
any = "0.0.0.0:61613"
http = "[::1]:8161"
[limits]
outbox_bytes_soft = "16 MiB"
body_bytes_before_login = "200 MiB"
body_bytes_max = "100 MiB"
[stomp]
heartbeat_max_ms = 500
[store]
segment_bytes = "2 GiB"
disk_bytes_max = "512 MiB"
disk_free_bytes_min = "2 GiB"
disk_free_bytes_resume = "1 GiB"
[[policy]]
destination = "queue://a"
[[policy]]
destination = "queue://a"
[[composite]]
name = "queue://a"
forward_to = ["queue://b"]
[[composite]]
name = "queue://b"
forward_to = ["topic://x", "queue://c.1"]
[[composite]]
name = "queue://c.*"
forward_to = ["queue://a"]
[[composite]]
name = "topic://y"
forward_to = ["queue://a"]
"#,
        expect![[r#"
            sabir.toml line 2: listeners.stomp names 127.0.0.1:61613 twice
            sabir.toml line 3: listeners.any is 0.0.0.0:61613, which listeners.stomp takes already with 127.0.0.1:61613
            sabir.toml line 6: limits.outbox_bytes_soft (16 MiB) must not be more than limits.outbox_bytes_hard (8 MiB)
            sabir.toml line 7: limits.body_bytes_before_login (200 MiB) must not be more than limits.body_bytes_max (100 MiB)
            sabir.toml line 10: stomp.heartbeat_min_ms (1000) must not be more than stomp.heartbeat_max_ms (500)
            sabir.toml line 12: store.segment_bytes (2 GiB) must not be more than store.journal_bytes_max (1 GiB)
            sabir.toml line 13: store.disk_bytes_max (512 MiB) must be 0 or not less than store.journal_bytes_max (1 GiB)
            sabir.toml line 15: store.disk_free_bytes_resume (1 GiB) must be 0 or not less than store.disk_free_bytes_min (2 GiB)
            sabir.toml line 18: a second [[policy]] whose destination is queue://a
            sabir.toml line 20: queue://a forwards to itself, by itself or by way of others
            sabir.toml line 23: queue://b forwards to itself, by itself or by way of others
            sabir.toml line 26: queue://c.* forwards to itself, by itself or by way of others
        "#]],
    );
    refused(
        "[listeners]\nstomp = \"off\"\nmqtt = \"off\"\nany = \"off\"\nhttp = \"off\"\n",
        expect![[r#"
            every listener is off, so nobody could connect
        "#]],
    );
    let same = load("", &[], &["listeners.any=127.0.0.1:61613"]).unwrap_err();
    assert_eq!(
        same,
        "--set listeners.any=127.0.0.1:61613: listeners.stomp and listeners.any are both 127.0.0.1:61613\n"
    );
    assert!(load("", &[], &["listeners.any=127.0.0.1:0", "listeners.stomp=127.0.0.1:0"]).is_ok());
    assert!(load("", &[], &["listeners.any=[::1]:61613"]).is_ok());
}

#[test]
fn a_file_that_is_no_toml_says_where() {
    refused(
        "[store]\ndir = \"x\ndurability = \"os\"\n[log]\nlevl = \"info\"\n",
        expect![[r#"
            sabir.toml line 2: invalid basic string, expected `"`
            sabir.toml line 5: unknown key log.levl; did you mean log.level?
        "#]],
    );
    refused(
        "[store]\ndir = \"x\"\ndir = \"y\"\n[store]\n",
        expect![[r#"
            sabir.toml line 3: duplicate key
            sabir.toml line 4: duplicate key
        "#]],
    );
    let missing = Sources { file: Some("/no/such/sabir.toml".into()), ..Sources::default() };
    let problems = Config::load(&missing).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "/no/such/sabir.toml cannot be read: No such file or directory (os error 2)"
    );
}

const EVERYTHING: &str = r#"
virtual_topic = []
[listeners]
stomp = "127.0.0.1:61613, [::1]:61613"
unix = "/run/sabir.sock"
[http]
allowed_origins = ["https://shop.example", "http://localhost:8080"]
[security]
allow_anonymous_local = false
users_file = "/etc/sabir/\"users\".toml"
[store]
durability = "interval(250)"
[log]
level = "info,sabir_store=debug"
[[policy]]
destination = "queue://orders.>"
durability = "memory"
messages_max = 1_000
bytes_max = "1 GiB"
prefetch = 5
[[composite]]
name = "queue://orders.*"
forward_to = ["queue://b", { destination = "topic://c", selector = "colour = 'red'" }]
[[permission]]
effect = "deny"
users = ["*", "anonymous", "alice"]
actions = ["send", "consume"]
destinations = ["queue://secret.>", "temp-topic://>"]
[[permission]]
effect = "allow"
users = "root"
actions = "*"
"#;

#[test]
fn what_show_prints_reads_back_as_the_same() {
    for text in ["", EVERYTHING] {
        let loaded = load(text, &[], &["server.worker_threads=3"]).unwrap();
        let shown = loaded.show();
        assert_eq!(load(&shown, &[], &[]).unwrap().config, loaded.config, "{shown}");
        assert!(shown.contains("worker_threads = 3  # --set\n"), "{shown}");
        assert!(shown.contains("drain_timeout_ms = 10000  # default\n"), "{shown}");
    }
    let shown = load(EVERYTHING, &[], &[]).unwrap().show();
    assert!(shown.contains("[[permission]]  # ") && shown.contains("sabir.toml line 24"), "{shown}");
}

#[test]
fn the_sample_is_the_default_commented_or_not() {
    assert_eq!(file(&sample()), Config::default());
    let uncommented: String = sample()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
                    || rest.starts_with("[[") =>
            {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let config = file(&uncommented);
    assert_eq!(
        (config.policy.len(), config.composite.len(), config.virtual_topic.len(), config.permission.len()),
        (1, 1, 1, 1)
    );
    assert_eq!(config.virtual_topic, Config::default().virtual_topic);
    let scalars = Config { policy: vec![], composite: vec![], permission: vec![], ..config };
    assert_eq!(scalars, Config::default());
    for outline in &SECTIONS {
        for field in outline.fields {
            assert!(sample().contains(&format!("\n# {} = ", field.name)), "{}", field.name);
        }
    }
}

#[test]
fn the_documentation_page_is_the_table() {
    expect_file!["../../docs/configuration.md"].assert_eq(&markdown());
}

#[test]
fn help_names_every_key() {
    let help = help();
    for outline in &SECTIONS {
        for field in outline.fields {
            assert!(help.contains(&format!("  {}.{}=", outline.name, field.name)), "{}", field.name);
        }
    }
    assert!(help.contains("  listeners.stomp=127.0.0.1:61613\n"));
}

#[test]
fn listeners_beyond_loopback_need_users() {
    let config = load("", &[], &["listeners.http=0.0.0.0:8161"]).unwrap().config;
    assert!(config.check_exposure(true).is_ok());
    let sentence = config.check_exposure(false).unwrap_err();
    assert!(
        sentence.starts_with("listeners.http is 0.0.0.0:8161, which other machines can reach"),
        "{sentence}"
    );
    assert!(Config::default().check_exposure(false).is_ok());
}
