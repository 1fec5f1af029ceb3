//! Authentication in several steps (AUTH), with a SCRAM client that shares no code with the server.

use std::array;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use sabir_model::base64;

use super::device::{Device, END};
use crate::server::Server;

/// Thousands of hashes take a while in a build that is not optimised.
const PATIENT: &[(&str, &str)] = &[("limits.connect_timeout_ms", "60000")];

/// `sabir user add`, before or while a server runs in `dir`.
pub(crate) fn add_user(dir: &Path, name: &str, password: &str) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sabir"))
        .args(["user", "add", name, "--data-dir"])
        .arg(dir.join("data"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// What SHA-256 begins with, and its round constants: the first 32 bits of fractions of roots of primes.
static CONSTANTS: LazyLock<([u32; 8], [u32; 64])> = LazyLock::new(|| {
    let primes = (2_u32..).filter(|n| (2..*n).all(|d| n % d != 0)).map(f64::from);
    let primes: Vec<f64> = primes.take(64).collect();
    let fraction = |root: f64| (root.fract() * 4_294_967_296.0) as u32;
    (array::from_fn(|at| fraction(primes[at].sqrt())), array::from_fn(|at| fraction(primes[at].cbrt())))
});

/// SHA-256 (FIPS 180-4), from its text.
fn sha256(message: &[u8]) -> [u8; 32] {
    let (mut hash, constants) = *CONSTANTS;
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - message.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut w = [0_u32; 64];
        for (word, bytes) in w.iter_mut().zip(block.chunks(4)) {
            *word = u32::from_be_bytes(bytes.try_into().unwrap());
        }
        for t in 16..64 {
            let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
            let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
            w[t] = w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1);
        }
        let mut v = hash;
        for t in 0..64 {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let one =
                v[7].wrapping_add(s1).wrapping_add(choice).wrapping_add(constants[t]).wrapping_add(w[t]);
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(one);
            v[0] = one.wrapping_add(s0).wrapping_add(majority);
        }
        for (sum, value) in hash.iter_mut().zip(v) {
            *sum = sum.wrapping_add(value);
        }
    }
    array::from_fn(|at| hash[at / 4].to_be_bytes()[at % 4])
}

/// HMAC (RFC 2104) of keys up to a block.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let padded = |pad: u8| -> [u8; 64] { array::from_fn(|at| key.get(at).unwrap_or(&0) ^ pad) };
    let inner = sha256(&[&padded(0x36)[..], message].concat());
    sha256(&[&padded(0x5c)[..], &inner].concat())
}

fn encoded(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    base64::encode(bytes, &mut text);
    String::from_utf8(text).unwrap()
}

fn unescaped(text: &str) -> String {
    text.replace("\\'", "'").replace("\\\\", "\\")
}

/// The client's side of one exchange (RFC 5802).
struct Scram {
    password: &'static str,
    first: String,
}

impl Scram {
    fn new(user: &str, password: &'static str) -> Self {
        Self { password, first: format!("n={user},r=rOprNGfwEbeRWgbNEkqO") }
    }

    fn opening(&self) -> String {
        format!("n,,{}", self.first)
    }

    /// The client's last message, and what the server must say after it.
    fn proof(&self, server_first: &str) -> (String, String) {
        let attribute = |name: &str| {
            let attributes = server_first.split(',');
            attributes
                .filter_map(|text| text.strip_prefix(name))
                .next()
                .unwrap_or_else(|| panic!("{server_first}"))
        };
        let salt = base64::decode(attribute("s=").as_bytes()).unwrap();
        let iterations: u32 = attribute("i=").parse().unwrap();
        let mut block = hmac(self.password.as_bytes(), &[&salt[..], &[0, 0, 0, 1]].concat());
        let mut salted = block;
        for _ in 1..iterations {
            block = hmac(self.password.as_bytes(), &block);
            salted.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
        }
        let unproved = format!("c=biws,r={}", attribute("r="));
        let said = format!("{},{server_first},{unproved}", self.first);
        let key = hmac(&salted, b"Client Key");
        let signature = hmac(&sha256(&key), said.as_bytes());
        let proof: Vec<u8> = key.iter().zip(signature).map(|(byte, mask)| byte ^ mask).collect();
        let verdict = hmac(&hmac(&salted, b"Server Key"), said.as_bytes());
        (format!("{unproved},p={}", encoded(&proof)), format!("v={}", encoded(&verdict)))
    }
}

/// Says CONNECT and hears the challenge.
fn challenged(server: &Server, scram: &Scram, words: &str) -> (Device, String) {
    let opening = scram.opening();
    let (device, heard) =
        Device::introduced(server, &format!("v5; id=a; clean; method=SCRAM-SHA-256; data={opening}{words}"));
    let data = heard.strip_prefix("AUTH continue-authentication; method=SCRAM-SHA-256; data=");
    let data = unescaped(data.unwrap_or_else(|| panic!("{heard}")));
    (device, data)
}

#[test]
fn the_test_s_own_hash_is_sha_256() {
    for (message, expected) in [
        (&b"abc"[..], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
    ] {
        let hex: String = sha256(message).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }
}

#[test]
fn scram_lets_in_who_proves_the_password_mqtt5_4_12_0_2() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "ann", "pencil");
    let server = Server::start_in(dir.path(), PATIENT);
    let scram = Scram::new("ann", "pencil");
    let (mut device, challenge) = challenged(&server, &scram, "");
    let (proof, verdict) = scram.proof(&challenge);
    device.say(&format!("AUTH 18; method=SCRAM-SHA-256; data={proof}"));
    let heard = device.expect_start("CONNACK success");
    assert!(heard.contains("; method=SCRAM-SHA-256") && unescaped(&heard).contains(&verdict), "{heard}");
    device.subscribe(&["a|1"]);
    device.say("PUBLISH a; qos=1; id=9 > proved");
    device.expect_all(&["PUBACK 9", "PUBLISH a; qos=1; id=1 > proved"]);
}

#[test]
fn a_wrong_proof_is_refused_mqtt5_4_12_0_4() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "ann", "pencil");
    let server = Server::start_in(dir.path(), PATIENT);
    for (user, password) in [("ann", "pen"), ("nobody", "pencil")] {
        let scram = Scram::new(user, password);
        let (mut device, challenge) = challenged(&server, &scram, "");
        let (proof, _) = scram.proof(&challenge);
        device.say(&format!("AUTH 18; method=SCRAM-SHA-256; data={proof}"));
        device.expect_start("CONNACK bad-user-name-or-password");
        device.expect(END);
    }
}

#[test]
fn a_method_that_is_not_offered_is_refused_mqtt5_4_12_0_1() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "ann", "pencil");
    let server = Server::start_in(dir.path(), PATIENT);
    let (mut device, heard) = Device::introduced(&server, "v5; id=a; clean; method=PLAIN; data=x");
    assert!(heard.starts_with("CONNACK bad-authentication-method"), "{heard}");
    device.expect(END);
}

#[test]
fn only_auth_with_the_same_method_may_follow_a_challenge_mqtt5_4_12_0_5() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "ann", "pencil");
    let server = Server::start_in(dir.path(), PATIENT);
    for packet in [
        "AUTH 18; method=PLAIN; data=x",
        "AUTH 19; method=SCRAM-SHA-256; data=x",
        "PUBLISH a > early",
        "SUBSCRIBE 1; f=a",
        "PINGREQ",
    ] {
        let (mut device, _) = challenged(&server, &Scram::new("ann", "pencil"), "");
        device.say(packet);
        let heard = device.expect_start("CONNACK ");
        assert!(!heard.starts_with("CONNACK success"), "{packet}: {heard}");
        device.expect(END);
    }
    let (mut device, _) = challenged(&server, &Scram::new("ann", "pencil"), "");
    device.say("DISCONNECT");
    device.expect(END);
}

#[test]
fn without_a_method_there_is_no_auth_mqtt5_4_12_0_6() {
    let server = Server::start(&[]);
    let (mut device, heard) = Device::introduced(&server, "v5; id=a; clean");
    assert!(!heard.contains("method="), "{heard}");
    device.say("AUTH 18; method=SCRAM-SHA-256; data=x");
    device.expect_end("protocol-error");
}

#[test]
fn authenticating_again_ends_the_connection_mqtt5_4_12_1_2() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "ann", "pencil");
    let server = Server::start_in(dir.path(), PATIENT);
    let scram = Scram::new("ann", "pencil");
    let (mut device, challenge) = challenged(&server, &scram, "");
    device.say(&format!("AUTH 18; method=SCRAM-SHA-256; data={}", scram.proof(&challenge).0));
    device.expect_start("CONNACK success");
    device.say(&format!("AUTH 19; method=SCRAM-SHA-256; data={}", scram.opening()));
    device.expect_end("bad-authentication-method");
}
