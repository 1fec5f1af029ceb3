//! Connections that do nothing, and the memory that the broker keeps for each.

use std::thread;
use std::time::{Duration, Instant};

use super::Arguments;
use super::peer::{Peer, Role};
use crate::process::Usage;
use crate::report::print_line;

/// Brokers give memory back a little later.
const SETTLE: Duration = Duration::from_secs(1);

/// Opens `count` connections, then gives each a subscription of its own, and reads the broker's memory in between.
pub(super) fn run(arguments: &Arguments, count: u32) -> Result<(), String> {
    let before = resident(arguments)?;
    let start = Instant::now();
    let mut peers = Vec::new();
    for index in 0..count {
        let peer = Peer::open(arguments, Role::Idle, index as usize)
            .map_err(|error| format!("connection {}: {error}", index + 1))?;
        peers.push(peer);
    }
    let elapsed = start.elapsed();
    let connected = settled(arguments)?;
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.add_subscription(arguments, &format!("{}/{index}", arguments.topic))?;
    }
    let subscribed = settled(arguments)?;
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.ping(arguments.common.patience())
            .map_err(|error| format!("connection {}: {error}", index + 1))?;
    }
    let each = |after: u64| after.saturating_sub(before) / u64::from(count.max(1));
    let (bare, with_subscription) = (each(connected), each(subscribed));
    let seconds = elapsed.as_secs_f64();
    print_line(&if arguments.common.json {
        format!(
            "{{\"connections\":{count},\"seconds\":{seconds:.3},\"broker_rss_before\":{before},\
             \"broker_rss_connected\":{connected},\"broker_rss_subscribed\":{subscribed},\
             \"bytes_per_connection\":{bare},\"bytes_per_subscribed_connection\":{with_subscription}}}"
        )
    } else {
        let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        format!(
            "connections  {count} in {seconds:.3} s, all still answer\n\
             broker       {:.1} MiB resident before, {:.1} with the connections, {:.1} with a subscription for each\n\
             each         {bare} bytes; {with_subscription} with its subscription",
            mib(before),
            mib(connected),
            mib(subscribed),
        )
    });
    for peer in peers {
        peer.leave();
    }
    Ok(())
}

fn settled(arguments: &Arguments) -> Result<u64, String> {
    thread::sleep(SETTLE);
    resident(arguments)
}

fn resident(arguments: &Arguments) -> Result<u64, String> {
    let usage = arguments.common.pid.and_then(|pid| Usage::of(Some(pid)));
    usage.map(|usage| usage.rss).ok_or_else(|| "--pid names no process that can be looked at".to_owned())
}
