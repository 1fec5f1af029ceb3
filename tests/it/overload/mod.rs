//! Floods: what a broker does when more comes than it may hold. Counts, not times: who is served, who is refused, what is
//! left afterwards.

mod disk;
mod doors;
mod fairness;
mod mixed;
mod slow;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::client::{Client, tcp};
use crate::http::web::Web;
use crate::server::Server;

/// The page of metrics.
fn page(server: &Server) -> String {
    Web::new(server.http).get("/metrics").expect(200).text()
}

/// The sum of all series of this name.
fn metric(page: &str, name: &str) -> u64 {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next())?
    });
    values.map(|value| value.parse::<f64>().unwrap() as u64).sum()
}

/// Most memory that the process has had, in bytes.
fn most_resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

/// Tells threads to stop when it goes, also when a test fails: else they would run for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Repeats something until it is told to stop.
fn until(stop: &AtomicBool, mut what: impl FnMut()) {
    while !stop.load(Ordering::Acquire) {
        what();
    }
}

/// Writes the same bytes for as long as somebody takes them, connecting anew when it is thrown out; counts what went out.
fn flood(address: SocketAddr, greeting: &[u8], bytes: &[u8], stop: &AtomicBool, written: &AtomicU64) {
    let bytes = bytes.repeat((64 << 10) / bytes.len() + 1);
    until(stop, || {
        let Ok(mut stream) = TcpStream::connect(address) else { return };
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        if stream.write_all(greeting).is_err() {
            return;
        }
        while !stop.load(Ordering::Acquire) {
            // What is written in part goes on where it was.
            let mut rest = bytes.as_slice();
            while !rest.is_empty() && !stop.load(Ordering::Acquire) {
                match stream.write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
            written.fetch_add(1, Ordering::Relaxed);
            // Others of this machine want to do something, too; it is a flood all the same.
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

const STOMP_CONNECT: &[u8] = b"CONNECT\naccept-version:1.2\nhost:/\n\n\0";
/// Whose refused sends do not end the connection.
const STOMP_CONNECT_ON: &[u8] = b"CONNECT\naccept-version:1.2\nhost:/\nx-continue-on-error:true\n\n\0";

/// A STOMP connection that is in the way of nothing.
fn stomp(server: &Server) -> Client {
    Client::connect(tcp(server.stomp))
}
