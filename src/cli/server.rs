//! Where a server is, what it is spoken to, and who we are there: the text after `--server`.

use std::fmt;
use std::path::PathBuf;

use sabir_mqtt::Version;

use super::{Failure, ServerArgs};

const STOMP_PORT: u16 = 61613;
const MQTT_PORT: u16 = 1883;
/// Of HTTP and WebSocket.
const HTTP_PORT: u16 = 8161;

/// What a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Stomp,
    Mqtt(Version),
    Http,
}

impl Protocol {
    /// Its name for people.
    fn name(self) -> &'static str {
        match self {
            Self::Stomp => "STOMP",
            Self::Mqtt(_) => "MQTT",
            Self::Http => "HTTP",
        }
    }
}

/// Where a server is and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) protocol: Protocol,
    pub(super) place: Location,
    /// Over WebSocket, at this path.
    pub(super) websocket: Option<String>,
    pub(super) login: Option<String>,
    pub(super) passcode: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Server {
    /// Reads `stomp://user:password@host:port` or `mqtt://…`, of which everything but the host may be left out; `ws://…/path`,
    /// which is MQTT if the path ends with `mqtt` and else STOMP; `http://…`; or `unix:path`, which is STOMP. `%40` and the
    /// like stand for characters that would end a part; `?version=3.1.1` chooses a version of MQTT.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            let text = without_password(text);
            format!(
                "{text:?} is not stomp://USER:PASSWORD@HOST:PORT, mqtt://…, ws://…/stomp, ws://…/mqtt, http://… or unix:PATH"
            )
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(wrong());
            }
            let place = Location::Unix(path.into());
            return Ok(Self {
                protocol: Protocol::Stomp,
                place,
                websocket: None,
                login: None,
                passcode: None,
            });
        }
        let mut websocket = None;
        let (protocol, port, rest) = match text.split_once("://") {
            None => (Protocol::Stomp, STOMP_PORT, text),
            Some(("stomp" | "tcp", rest)) => (Protocol::Stomp, STOMP_PORT, rest),
            Some(("mqtt", rest)) => match rest.rsplit_once("?version=") {
                Some((rest, version)) => (Protocol::Mqtt(mqtt_version(version)?), MQTT_PORT, rest),
                None => (Protocol::Mqtt(Version::V5), MQTT_PORT, rest),
            },
            Some(("http", rest)) => (Protocol::Http, HTTP_PORT, rest),
            Some(("ws", rest)) => {
                let (rest, version) = match rest.rsplit_once("?version=") {
                    Some((rest, version)) => (rest, mqtt_version(version)?),
                    None => (rest, Version::V5),
                };
                let (rest, path) = match rest.split_once('/') {
                    Some((rest, path)) if !path.is_empty() => (rest, format!("/{path}")),
                    Some((rest, _)) => (rest, "/stomp".to_owned()),
                    None => (rest, "/stomp".to_owned()),
                };
                if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(wrong());
                }
                let is_mqtt = path.ends_with("mqtt");
                websocket = Some(path);
                (if is_mqtt { Protocol::Mqtt(version) } else { Protocol::Stomp }, HTTP_PORT, rest)
            }
            Some(_) => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, rest),
        };
        let (login, passcode) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((login, passcode)) => (
                Some(percent_decoded(login).ok_or_else(wrong)?),
                Some(percent_decoded(passcode).ok_or_else(wrong)?),
            ),
            None => (None, None),
        };
        if [&login, &passcode].into_iter().flatten().any(|part| part.contains(['\n', '\r', '\0'])) {
            return Err(wrong());
        }
        let (host, given) = match address.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or_else(wrong)?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) })
            }
            None => match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        let port = given.map_or(Ok(port), |given| given.parse().map_err(|_| wrong()))?;
        if host.is_empty() || host.contains(['/', ' ', '?']) {
            return Err(wrong());
        }
        Ok(Self {
            protocol,
            place: Location::Tcp { host: host.to_owned(), port },
            websocket,
            login,
            passcode,
        })
    }

    /// What the arguments name, or the environment, or the usual.
    pub(super) fn of(args: &ServerArgs) -> Result<Self, Failure> {
        let text = match &args.server {
            Some(text) => text.clone(),
            None => match std::env::var("SABIR_SERVER") {
                Ok(text) if !text.is_empty() => text,
                _ => "stomp://127.0.0.1:61613".to_owned(),
            },
        };
        let mut server = Self::parse(&text).map_err(Failure::Usage)?;
        match (&mut server.protocol, args.mqtt_version) {
            (Protocol::Mqtt(version), Some(wanted)) => *version = wanted,
            (Protocol::Stomp | Protocol::Http, Some(_)) => server.refuse(&[("--mqtt-version", true)])?,
            (_, None) => {}
        }
        // MQTT has no words for it.
        let is_mqtt = matches!(server.protocol, Protocol::Mqtt(_));
        server.refuse(&[("--virtual-host", is_mqtt && args.virtual_host != "/")])?;
        Ok(server)
    }

    /// That none of these options is given: the protocol has no meaning for them.
    pub(super) fn refuse(&self, options: &[(&str, bool)]) -> Result<(), Failure> {
        match options.iter().find(|(_, given)| *given) {
            Some((option, _)) => {
                Err(Failure::Usage(format!("{option} has no meaning over {}", self.protocol.name())))
            }
            None => Ok(()),
        }
    }
}

/// Reads a version of MQTT.
pub(super) fn mqtt_version(text: &str) -> Result<Version, String> {
    match text {
        "3.1" => Ok(Version::V31),
        "3.1.1" => Ok(Version::V311),
        "5" | "5.0" => Ok(Version::V5),
        _ => Err(format!("{text:?} is no version of MQTT; there are 3.1, 3.1.1 and 5")),
    }
}

/// For messages: the text with what might be a password left out.
fn without_password(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, address)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://…@{address}"),
            None => format!("…@{address}"),
        },
        None => text.to_owned(),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
            out.push(high << 4 | low);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn servers_are_read_from_their_urls() {
        let (stomp, mqtt) = (Protocol::Stomp, Protocol::Mqtt(Version::V5));
        for (text, protocol, place, login, passcode) in [
            ("stomp://127.0.0.1:61613", stomp, "127.0.0.1:61613", None, None),
            ("broker", stomp, "broker:61613", None, None),
            ("broker:1/", stomp, "broker:1", None, None),
            ("stomp://alice:secret@broker", stomp, "broker:61613", Some("alice"), Some("secret")),
            ("stomp://al%40ice:s%3Ae@c:r@[::1]:7", stomp, "[::1]:7", Some("al@ice"), Some("s:e@c:r")),
            ("alice@broker:1", stomp, "broker:1", Some("alice"), Some("")),
            ("[::1]", stomp, "[::1]:61613", None, None),
            ("unix:/run/s.sock", stomp, "/run/s.sock", None, None),
            ("unix:///run/s.sock", stomp, "/run/s.sock", None, None),
            ("mqtt://broker", mqtt, "broker:1883", None, None),
            ("mqtt://broker/?version=3.1.1", Protocol::Mqtt(Version::V311), "broker:1883", None, None),
            ("mqtt://a:b@[::1]:7?version=3.1", Protocol::Mqtt(Version::V31), "[::1]:7", Some("a"), Some("b")),
        ] {
            let server = Server::parse(text).unwrap();
            assert_eq!(server.websocket, None);
            assert_eq!((server.protocol, server.place.to_string().as_str()), (protocol, place), "{text}");
            assert_eq!((server.login.as_deref(), server.passcode.as_deref()), (login, passcode), "{text}");
        }
    }

    #[test]
    fn a_websocket_carries_what_its_path_says() {
        let mqtt = Protocol::Mqtt(Version::V5);
        for (text, protocol, place, path) in [
            ("ws://broker", Protocol::Stomp, "broker:8161", Some("/stomp")),
            ("ws://a:b@broker:80/", Protocol::Stomp, "broker:80", Some("/stomp")),
            ("ws://broker/some/ws?x=y", Protocol::Stomp, "broker:8161", Some("/some/ws?x=y")),
            ("ws://[::1]:9/mqtt", mqtt, "[::1]:9", Some("/mqtt")),
            ("ws://broker/mqtt?version=3.1.1", Protocol::Mqtt(Version::V311), "broker:8161", Some("/mqtt")),
            ("http://a:b@broker", Protocol::Http, "broker:8161", None),
            ("http://broker:80/", Protocol::Http, "broker:80", None),
        ] {
            let server = Server::parse(text).unwrap();
            assert_eq!((server.protocol, server.place.to_string().as_str()), (protocol, place), "{text}");
            assert_eq!(server.websocket.as_deref(), path, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_said_without_the_password() {
        for text in [
            "",
            "ftp://x",
            "wss://x",
            "ws://",
            "ws://x/a b",
            "http://",
            "http://x/path",
            "stomp://",
            "broker:x",
            "broker:99999",
            "[::1",
            "[::1]x",
            "a%zz@b",
            "a%0a@b",
            "unix:",
            "a/b",
            "mqtt://",
            "mqtt://x?version=4",
            "mqtt://x?versio=5",
            "stomp://x?version=5",
        ] {
            assert!(Server::parse(text).is_err(), "{text}");
        }
        let sentence = Server::parse("ftp://alice:secret@broker").err().unwrap();
        assert_eq!(
            sentence,
            "\"ftp://…@broker\" is not stomp://USER:PASSWORD@HOST:PORT, mqtt://…, ws://…/stomp, ws://…/mqtt, http://… or unix:PATH"
        );
    }
}
