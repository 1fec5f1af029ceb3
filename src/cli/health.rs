//! `sabir health`: asks a broker over HTTP whether it is ready, for container engines and scripts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use clap::Args;

use super::configuration::ConfigArgs;
use super::link::Link;
use super::server::Location;
use super::{Failure, output, seconds};
use crate::config::Listeners;

const PATH: &str = "/healthz/ready";
const HTTP_PORT: u16 = 80;
/// More than the broker ever answers; beyond it something else does.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// http://HOST:PORT or unix:PATH [default: what of the configuration's listeners speaks HTTP]
    #[arg(value_name = "URL", conflicts_with_all = ["config", "data_dir", "set"])]
    url: Option<String>,
    /// Seconds for all of it
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    timeout: Duration,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let place = match &arguments.url {
        Some(url) => parse(url).map_err(Failure::Usage)?,
        None => configured(&arguments.config.load()?.config.listeners).ok_or_else(|| {
            let sentence = "no listener of the configuration speaks HTTP at a known port (listeners.http, \
                            listeners.any, listeners.unix)";
            Failure::Usage(sentence.to_owned())
        })?,
    };
    // Whoever asks knows ready and not ready; that no answer came is the latter.
    match ask(&place, arguments.timeout) {
        Err(Failure::TimedOut(sentence)) => Err(Failure::Failed(sentence)),
        Ok(answer) if answer.status == 200 => output::write(format!("{}\n", answer.sentence).as_bytes()),
        Ok(Answer { status, sentence }) => {
            Err(Failure::Failed(format!("{place} is not ready: {sentence} (HTTP {status})")))
        }
        Err(other) => Err(other),
    }
}

fn parse(url: &str) -> Result<Location, String> {
    let wrong = || format!("{url:?} is not http://HOST:PORT or unix:PATH");
    if let Some(path) = url.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() { Err(wrong()) } else { Ok(Location::Unix(path.into())) };
    }
    let address = url.strip_prefix("http://").ok_or_else(wrong)?;
    let address = address.strip_suffix('/').unwrap_or(address);
    let (host, port) = match address.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']').ok_or_else(wrong)?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) })
        }
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(HTTP_PORT), |port| port.parse().map_err(|_| wrong()))?;
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c)) {
        return Err(wrong());
    }
    Ok(Location::Tcp { host: host.to_owned(), port })
}

/// Where a broker with these listeners answers to its own machine.
fn configured(listeners: &Listeners) -> Option<Location> {
    let known = |address: &&SocketAddr| address.port() != 0;
    let tcp = listeners.http.iter().chain(&listeners.any).find(known).map(|address| {
        let host = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        Location::Tcp { host: host.to_string(), port: address.port() }
    });
    tcp.or_else(|| listeners.unix.first().map(|path| Location::Unix(path.clone())))
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    sentence: String,
}

#[expect(clippy::disallowed_methods, reason = "a client of the broker: its deadline is its own")]
fn ask(place: &Location, timeout: Duration) -> Result<Answer, Failure> {
    let late = || Failure::TimedOut(format!("{place} did not answer within {} s", timeout.as_secs_f64()));
    let deadline = Instant::now().checked_add(timeout);
    let mut link = Link::plain(place, timeout)?;
    let host = match place {
        Location::Tcp { .. } => place.to_string(),
        Location::Unix(_) => "localhost".to_owned(),
    };
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sabir-health\r\nConnection: close\r\n\r\n"
    );
    link.out().extend_from_slice(request.as_bytes());
    if let Some(error) = link.write()? {
        return Err(super::link::broken(&error));
    }
    loop {
        if let Some(answer) = read(link.input()) {
            return answer
                .map_err(|what| Failure::Failed(format!("{place} does not answer as a broker: {what}")));
        }
        if link.input().len() > ANSWER_BYTES_MAX {
            let sentence = format!("{place} does not answer as a broker: its answer does not end");
            return Err(Failure::Failed(sentence));
        }
        if !link.fill(deadline)? {
            return Err(late());
        }
    }
}

/// The answer, once all of it is there. The broker always says how long it is.
fn read(bytes: &[u8]) -> Option<Result<Answer, &'static str>> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    if !bytes.starts_with(b"HTTP/1.".get(..bytes.len().min(7))?) {
        return Some(Err("it is not HTTP"));
    }
    let (head, body) = bytes.split_at_checked(end? + 4)?;
    let Ok(head) = std::str::from_utf8(head) else { return Some(Err("its head is not text")) };
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1).and_then(|status| status.parse().ok());
    let Some(status) = status else { return Some(Err("it has no status")) };
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    let Some(length) = length else { return Some(Err("it has no length")) };
    let body = body.get(..length)?;
    let sentence = String::from_utf8_lossy(body).lines().next().unwrap_or_default().to_owned();
    Some(Ok(Answer { status, sentence }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;
    use crate::config::Config;

    fn health(line: &[&str]) -> Result<(), Failure> {
        let words = ["sabir", "health"].into_iter().chain(line.iter().copied());
        let Some(Command::Health(arguments)) = Cli::try_parse_from(words).unwrap().command else {
            panic!("{line:?} is not about health")
        };
        run(arguments)
    }

    /// Answers one request with these bytes and then says nothing more until the client has gone.
    fn answering(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(answer);
            while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
        });
        url
    }

    fn sentence(outcome: Result<(), Failure>) -> String {
        match outcome {
            Err(Failure::Failed(sentence)) => sentence,
            other => panic!("not a failure with status 1: {other:?}"),
        }
    }

    #[test]
    fn readiness_is_told_by_the_status_and_the_sentence() {
        assert_eq!(health(&[&answering(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n")]), Ok(()));
        let url = answering(b"HTTP/1.1 503 No\r\nContent-Length: 14\r\n\r\nshutting down\n");
        let said = sentence(health(&[&url]));
        assert!(said.ends_with("is not ready: shutting down (HTTP 503)"), "{said}");
    }

    #[test]
    fn whoever_is_no_broker_or_says_nothing_is_not_ready() {
        let said = sentence(health(&[&answering(b"ERROR\nmessage:what?\n\n\0")]));
        assert!(said.ends_with("does not answer as a broker: it is not HTTP"), "{said}");
        let said = sentence(health(&[&answering(b"HTTP/1.1 200 OK\r\n"), "--timeout", "0.1"]));
        assert!(said.ends_with("did not answer within 0.1 s"), "{said}");
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let said = sentence(health(&[&format!("http://{nobody}")]));
        assert!(said.starts_with(&format!("{nobody} cannot be reached")), "{said}");
    }

    #[test]
    fn places_are_read_from_urls() {
        for (url, place) in [
            ("http://broker:8161/", "broker:8161"),
            ("http://broker", "broker:80"),
            ("http://[::1]:7", "[::1]:7"),
            ("unix:/run/sabir.sock", "/run/sabir.sock"),
            ("unix:///run/sabir.sock", "/run/sabir.sock"),
        ] {
            assert_eq!(parse(url).unwrap().to_string(), place, "{url}");
        }
        for bad in [
            "",
            "broker:1",
            "https://broker",
            "http://",
            "http://a/b",
            "http://a:b@c",
            "unix:",
            "http://[::1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_url_the_listeners_of_the_configuration_are_asked() {
        let place = |change: fn(&mut Listeners)| {
            let mut listeners = Config::default().listeners;
            change(&mut listeners);
            configured(&listeners).map(|place| place.to_string())
        };
        assert_eq!(place(|_| ()).as_deref(), Some("127.0.0.1:8161"));
        assert_eq!(
            place(|listeners| listeners.http = vec!["0.0.0.0:9".parse().unwrap()]).as_deref(),
            Some("127.0.0.1:9")
        );
        assert_eq!(
            place(|listeners| listeners.http = vec!["[::]:9".parse().unwrap()]).as_deref(),
            Some("[::1]:9")
        );
        assert_eq!(place(|listeners| listeners.http.clear()).as_deref(), Some("127.0.0.1:61616"));
        let only_unix = |listeners: &mut Listeners| {
            listeners.http.clear();
            listeners.any = vec!["127.0.0.1:0".parse().unwrap()];
            listeners.unix = vec!["/run/s".into()];
        };
        assert_eq!(place(only_unix).as_deref(), Some("/run/s"));
        let outcome = health(&["--set", "listeners.http=off", "--set", "listeners.any=off"]);
        assert!(matches!(outcome, Err(Failure::Usage(_))), "{outcome:?}");
    }
}
