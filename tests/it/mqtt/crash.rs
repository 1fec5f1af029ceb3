//! The server is killed (`kill -9`) in the middle of an exchange and started again: what it has said is still true.

use rustix::process::Signal;

use super::device::Device;
use crate::server::Server;

/// A server whose process is replaced by another on the same data.
struct Phoenix {
    dir: tempfile::TempDir,
    server: Option<Server>,
}

impl Phoenix {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Some(Server::start_in(dir.path(), &[]));
        Self { dir, server }
    }

    fn now(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn die_and_rise(&mut self) {
        let server = self.server.take().unwrap();
        server.signal(Signal::KILL);
        server.wait();
        self.server = Some(Server::start_in(self.dir.path(), &[]));
    }
}

#[test]
fn publishing_with_qos_2_survives_kill_9_after_each_packet_mqtt5_4_3_3_10() {
    for words in ["v4; id=a", "v5; id=a; expiry=1000"] {
        let mut phoenix = Phoenix::new();
        let mut watcher = Device::open(phoenix.now(), "v4; id=w");
        watcher.subscribe(&["a|2"]);
        let mut device = Device::open(phoenix.now(), words);
        device.say("PUBLISH a; qos=2; id=1 > x");
        device.expect("PUBREC 1");
        watcher.expect("PUBLISH a; qos=2; id=1 > x");
        phoenix.die_and_rise();
        // PUBREC was lost, as far as the client knows.
        let mut device = Device::resumed(phoenix.now(), words);
        device.say("PUBLISH a; qos=2; id=1; dup > x");
        device.expect("PUBREC 1");
        device.say("PUBREL 1");
        device.expect("PUBCOMP 1");
        phoenix.die_and_rise();
        // PUBCOMP was lost.
        let mut device = Device::resumed(phoenix.now(), words);
        device.say("PUBREL 1");
        device.expect_start("PUBCOMP 1");
        device.say("PUBLISH a; qos=2; id=1 > another");
        device.expect("PUBREC 1");
        let mut watcher = Device::resumed(phoenix.now(), "v4; id=w");
        watcher.expect("PUBLISH a; qos=2; id=1; dup > x");
        watcher.expect("PUBLISH a; qos=2; id=2 > another");
        watcher.expect_quiet();
    }
}

#[test]
fn receiving_with_qos_2_survives_kill_9_after_each_packet_mqtt5_4_3_3_6() {
    for words in ["v4; id=a", "v5; id=a; expiry=1000"] {
        let mut phoenix = Phoenix::new();
        let mut device = Device::open(phoenix.now(), words);
        device.subscribe(&["a|2"]);
        device.say("PUBLISH a; qos=2; id=1 > x");
        device.expect_all(&["PUBREC 1", "PUBLISH a; qos=2; id=1 > x"]);
        phoenix.die_and_rise();
        let mut device = Device::resumed(phoenix.now(), words);
        device.expect("PUBLISH a; qos=2; id=1; dup > x");
        device.say("PUBREC 1");
        device.expect("PUBREL 1");
        phoenix.die_and_rise();
        let mut device = Device::resumed(phoenix.now(), words);
        device.expect("PUBREL 1");
        device.say("PUBCOMP 1");
        device.leave();
        // The next PUBCOMP is known to be kept when a later answer is.
        Device::open(phoenix.now(), "v4; id=p; clean").publish("$queue/other > x");
        phoenix.die_and_rise();
        Device::resumed(phoenix.now(), words).expect_quiet();
    }
}

#[test]
fn what_was_acknowledged_is_there_after_kill_9_mqtt5_4_3_2_4() {
    let mut phoenix = Phoenix::new();
    let mut away = Device::open(phoenix.now(), "v5; id=a; expiry=1000");
    away.say("SUBSCRIBE 1; sid=3; f=a/+|1|rap");
    away.expect("SUBACK 1 [01]");
    away.leave();
    let mut publisher = Device::open(phoenix.now(), "v5; id=p; clean");
    publisher.publish("a/1; u:k=1; u:k=2; type=t; reply=r; corr=c > one");
    publisher.publish("a/2; retain > two");
    phoenix.die_and_rise();
    let mut back = Device::resumed(phoenix.now(), "v5; id=a; expiry=1000");
    // Whether they have been sent before is not written down, so they may have been.
    back.expect("PUBLISH a/1; qos=1; id=1; dup; sid=3; type=t; reply=r; corr=c; u:k=1; u:k=2 > one");
    back.expect("PUBLISH a/2; qos=1; id=2; dup; retain; sid=3 > two");
    // An end of a subscription is kept, too.
    back.say("PUBACK 1");
    back.say("PUBACK 2");
    back.say("UNSUBSCRIBE 2; f=a/+");
    back.expect("UNSUBACK 2 [00]");
    phoenix.die_and_rise();
    let mut publisher = Device::open(phoenix.now(), "v5; id=p; clean");
    publisher.publish("a/3 > three");
    Device::resumed(phoenix.now(), "v5; id=a; expiry=1000").expect_quiet();
}
