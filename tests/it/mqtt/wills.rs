//! Wills: when they are sent, when not, and as what.

use super::device::{Device, END, pass};
use crate::server::Server;

fn watcher(server: &Server) -> Device {
    let mut watcher = Device::open(server, "v5; id=watcher; clean");
    watcher.subscribe(&["will/#|2|rap"]);
    watcher
}

#[test]
fn a_will_is_sent_unless_the_client_left_politely_mqtt5_3_1_2_8() {
    let server = Server::start(&[]);
    let mut watcher = watcher(&server);
    for (version, goodbye, sent) in [
        ("v3", None, true),
        ("v4", None, true),
        ("v5", None, true),
        ("v3", Some("DISCONNECT"), false),
        ("v4", Some("DISCONNECT"), false),
        ("v5", Some("DISCONNECT"), false),
        ("v5", Some("DISCONNECT; code=04"), true),
        ("v5", Some("DISCONNECT; code=80"), true),
        ("v5", Some("DISCONNECT; code=98"), true),
        // A protocol error: the server closes.
        ("v4", Some("CONNECT v4; id=a"), true),
        ("v5", Some("CONNECT v5; id=a"), true),
    ] {
        let mut device = Device::open(&server, &format!("{version}; id=a; clean; will=will/a > {version}"));
        match goodbye {
            None => device.vanish(),
            Some(packet) => {
                device.say(packet);
                while device.hear() != END {}
            }
        }
        if sent {
            watcher.expect(&format!("PUBLISH will/a > {version}"));
        }
        watcher.expect_quiet();
    }
    // [3: 3.1.2-12]
    Device::open(&server, "v4; id=b; clean").vanish();
    pass(&server);
    watcher.expect_quiet();
}

#[test]
fn a_will_is_published_with_its_qos_its_flag_and_its_properties_mqtt5_3_1_2_15() {
    let server = Server::start(&[]);
    let mut watcher = watcher(&server);
    for (words, heard) in [
        ("v4; will=will/a > plain", "PUBLISH will/a > plain"),
        ("v4; will=will/a; will-qos=1 > one", "PUBLISH will/a; qos=1; id=1 > one"),
        ("v4; will=will/a; will-qos=2; will-retain > kept", "PUBLISH will/a; qos=2; id=2; retain > kept"),
        ("v4; will=will/a", "PUBLISH will/a"),
        (
            "v5; will=will/b; will-retain; will-expiry=100; will-type=t; format=1; reply=r; corr=c; u:b=1; u:a=2; u:b=3 > five",
            "PUBLISH will/b; retain; format=1; expiry=100; type=t; reply=r; corr=c; u:b=1; u:a=2; u:b=3 > five",
        ),
    ] {
        Device::open(
            &server,
            &format!("{words_head}; id=a; clean; {rest}", words_head = &words[..2], rest = &words[4..]),
        )
        .vanish();
        watcher.expect(heard);
    }
    let mut late = Device::open(&server, "v4; id=late; clean");
    late.subscribe(&["will/a|0"]);
    late.expect("PUBLISH will/a; retain > kept");
    late.expect_quiet();
}

#[test]
fn a_delayed_will_waits_for_the_client_to_come_back_mqtt5_3_1_3_9() {
    let server = Server::start(&[]);
    let mut watcher = watcher(&server);
    let words = "v5; id=a; expiry=100; will=will/a; will-delay=1 > gone";
    Device::open(&server, words).vanish();
    // In time: not sent, neither now nor later.
    let device = Device::resumed(&server, "v5; id=a; expiry=100");
    pass(&server);
    watcher.expect_quiet();
    device.leave();
    Device::resumed(&server, words).vanish();
    // Too late.
    watcher.expect("PUBLISH will/a > gone");
    // [5: 3.1.2-10] It is sent once.
    Device::resumed(&server, "v5; id=a; expiry=100").leave();
    pass(&server);
    watcher.expect_quiet();
}

#[test]
fn the_end_of_the_session_does_not_wait_for_the_delay_mqtt5_3_1_2_8() {
    let server = Server::start(&[]);
    let mut watcher = watcher(&server);
    // The session ends with the connection.
    Device::open(&server, "v5; id=a; will=will/a; will-delay=1000 > a").vanish();
    watcher.expect("PUBLISH will/a > a");
    // A second later.
    Device::open(&server, "v5; id=b; expiry=1; will=will/b; will-delay=1000 > b").vanish();
    watcher.expect("PUBLISH will/b > b");
    // By a clean start.
    Device::open(&server, "v5; id=c; expiry=100; will=will/c; will-delay=1000 > c").vanish();
    Device::open(&server, "v5; id=c; clean").leave();
    watcher.expect("PUBLISH will/c > c");
    watcher.expect_quiet();
}

#[test]
fn whether_a_take_over_sends_the_will_depends_on_the_session_mqtt5_3_1_4_3() {
    let server = Server::start(&[]);
    let mut watcher = watcher(&server);
    for (old, new, sent) in [
        ("v4; id=a; will=will/a > x", "v4; id=a", true),
        ("v4; id=b; clean; will=will/b > x", "v4; id=b; clean", true),
        ("v5; id=c; will=will/c > x", "v5; id=c", true),
        ("v5; id=d; expiry=100; will=will/d > x", "v5; id=d; expiry=100", true),
        ("v5; id=e; expiry=100; will=will/e; will-delay=100 > x", "v5; id=e; expiry=100", false),
        ("v5; id=f; expiry=100; will=will/f; will-delay=100 > x", "v5; id=f; clean", true),
        ("v5; id=g; expiry=0; will=will/g; will-delay=100 > x", "v5; id=g", true),
    ] {
        let mut device = Device::open(&server, old);
        let other = Device::open(&server, new);
        device.expect_end("session-taken-over");
        if sent {
            let id = &old[7..8];
            watcher.expect(&format!("PUBLISH will/{id} > x"));
        }
        other.leave();
        watcher.expect_quiet();
    }
}

#[test]
fn a_will_outlives_the_server_mqtt5_3_1_2_7() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let mut away = Device::open(&server, "v4; id=away");
    away.subscribe(&["will/#|1"]);
    away.leave();
    let _device = Device::open(&server, "v5; id=a; expiry=100; will=will/a; will-qos=1 > gone");
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    let server = Server::start_in(dir.path(), &[]);
    let mut back = Device::resumed(&server, "v4; id=away");
    back.expect("PUBLISH will/a; qos=1; id=1 > gone");
}
