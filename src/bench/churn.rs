//! `sabir bench churn`: connections that come and go.

use std::time::{Duration, Instant};

use sabir_mqtt::client::{self as mqtt_client};
use sabir_mqtt::{Packet, Reason};
use sabir_stomp::client as stomp_client;

use crate::dialect::{Dialect, Opening, Role};
use crate::json::Object;
use crate::latency::Latency;
use crate::link::{Link, Scratch, source_of};
use crate::options::{Common, seconds};
use crate::poll::Poll;
use crate::progress::Progress;
use crate::report::{lap_table, print_line, put_lap, warn};
use crate::tool::Target;
use crate::watch::Watch;

/// A port cools down for a minute after its connection, so the connections come from this many addresses in turn.
const SOURCES: usize = 8;
/// How long nothing may happen before it is looked at whether to give up.
const LOOK: Duration = Duration::from_millis(200);

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// What to speak, and to whom.
    #[command(flatten)]
    pub target: Target,
    /// Connections in all
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub connections: u64,
    /// For this many seconds instead
    #[arg(long, value_name = "SECONDS", conflicts_with = "connections", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// Handshakes under way at once
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub window: u16,
    /// What every measurement can be told.
    #[command(flatten)]
    pub common: Common,
}

/// A connection that has asked to be let in.
struct Guest {
    link: Link,
    since: Instant,
}

/// Runs one measurement and prints it. False if a connection was refused or lost.
///
/// # Errors
/// A sentence, if the broker cannot be reached at all.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let dialect = arguments.target.dialect("sabir/bench", "/topic/sabir.bench")?;
    let common = &arguments.common;
    let mut poll = Poll::new()?;
    let mut scratch = Scratch::new();
    let mut guests: Vec<Option<Guest>> = (0..arguments.window).map(|_| None).collect();
    let (mut opened, mut done) = (0u64, 0u64);
    let mut latency = Latency::new();
    let mut problems: Vec<String> = Vec::new();
    let mut progress = Progress::new();
    let mut watch = Watch::start(common.pid, common.syscalls);
    let end = arguments.duration.map(|duration| Instant::now() + duration);
    let mut moved = Instant::now();
    while problems.is_empty() {
        let enough = match end {
            Some(end) => Instant::now() >= end,
            None => opened >= arguments.connections,
        };
        if enough && guests.iter().all(Option::is_none) {
            break;
        }
        for (place, guest) in guests.iter_mut().enumerate().filter(|(_, guest)| guest.is_none()) {
            if end.is_none() && opened >= arguments.connections || enough {
                break;
            }
            match enter(&dialect, opened, common.patience()) {
                Ok(entered) => {
                    poll.add(&entered.link, place)?;
                    *guest = Some(entered);
                    opened += 1;
                }
                Err(error) => {
                    problems.push(error);
                    break;
                }
            }
        }
        poll.wait(LOOK)?;
        for event in 0..poll.count() {
            let Some(ready) = poll.ready(event) else { continue };
            let Some(slot) = guests.get_mut(ready.index) else { continue };
            let Some(guest) = slot else { continue };
            match greeted(&dialect, &mut guest.link, &mut scratch) {
                Ok(false) => {}
                Ok(true) => {
                    latency.record(guest.since.elapsed().as_nanos() as u64);
                    done += 1;
                    moved = Instant::now();
                    // Leaves and closes.
                    *slot = None;
                }
                Err(error) => {
                    problems.push(error);
                    *slot = None;
                }
            }
        }
        watch.sample();
        let of = end.is_none().then_some(arguments.connections);
        progress.show(done, of, opened - done, (!latency.is_empty()).then(|| latency.quantile_us(0.99)));
        if moved.elapsed() > common.patience() {
            problems.push(format!("nothing has moved for {} s", common.patience));
        }
    }
    let lap = watch.stop();
    progress.end();
    let rate = done as f64 / lap.elapsed.as_secs_f64().max(1e-9);
    let clean = problems.is_empty() && done == opened;
    if common.json {
        let mut object = Object::new();
        object.text("tool", "sabir bench").text("protocol", dialect.name()).text("topology", "churn");
        object.text("loop", "closed").put("window", arguments.window).put("connections", done);
        object.decimal("seconds", lap.elapsed.as_secs_f64()).put("rate", format!("{rate:.1}"));
        put_lap(&mut object, &lap, done);
        object.maybe("latency_us", latency.json()).put("lost", opened - done).put("clean", clean);
        print_line(&object.end());
    } else {
        print_line(&format!(
            "done       {done} let in and gone in {:.3} s: {rate:.0} per second, {} lost\n\
             latency    {} (connect to welcome, closed loop with {} under way)\n{}",
            lap.elapsed.as_secs_f64(),
            opened - done,
            if latency.is_empty() { "none".to_owned() } else { latency.text() },
            arguments.window,
            lap_table(&lap, done, "connection"),
        ));
    }
    crate::report::complain(&problems);
    warn(&lap);
    Ok(clean)
}

/// Connects and says hello.
fn enter(dialect: &Dialect, number: u64, patience: Duration) -> Result<Guest, String> {
    let since = Instant::now();
    let place = number as usize;
    let source = source_of(place % SOURCES * 10_000);
    let opening = Opening { role: Role::Idle, index: place % 100_000, in_flight_max: 1, source, patience };
    let (mut link, bytes) = match dialect {
        Dialect::Mqtt(options) => {
            let subprotocol = options.subprotocol();
            (Link::open(&options.place, source, subprotocol, true)?, options.greeting(&opening, true)?)
        }
        Dialect::Stomp(options) => {
            (Link::open(&options.place, source, "v12.stomp", false)?, options.greeting())
        }
        Dialect::Http(_) => return Err("HTTP has no handshake of its own".into()),
    };
    link.unblock()?;
    let start = link.out.len();
    link.out.extend_from_slice(&bytes);
    link.seal(start);
    if link.flush()? { Ok(Guest { link, since }) } else { Err("the broker does not read".into()) }
}

/// Whether the welcome has come; if so, says goodbye.
fn greeted(dialect: &Dialect, link: &mut Link, scratch: &mut Scratch) -> Result<bool, String> {
    let Some(input) = link.read(scratch)? else { return Ok(false) };
    let mut goodbye = Vec::new();
    let is_in = match dialect {
        Dialect::Mqtt(options) => {
            let decoder = mqtt_client::Decoder::new(options.version);
            match decoder.next(input).map_err(|error| error.to_string())?.packet {
                None => false,
                Some(Packet::Connack(connack)) if connack.reason == Reason::Success => {
                    let _ = mqtt_client::disconnect(&mut goodbye, options.version, Reason::Success);
                    true
                }
                Some(_) => return Err("the broker refuses a connection".into()),
            }
        }
        Dialect::Stomp(_) => {
            let mut decoder = stomp_client::Decoder::default();
            match decoder.next(input).map_err(|refusal| refusal.to_string())?.frame {
                None => false,
                Some(frame) if frame.command() == "CONNECTED" => {
                    stomp_client::disconnect(&mut goodbye, stomp_client::Version::V12, None);
                    true
                }
                Some(_) => return Err("the broker refuses a connection".into()),
            }
        }
        Dialect::Http(_) => false,
    };
    if is_in {
        let start = link.out.len();
        link.out.append(&mut goodbye);
        link.seal(start);
        link.flush()?;
    } else {
        link.keep(input);
    }
    Ok(is_in)
}
