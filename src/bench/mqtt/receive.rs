//! The receiving side.

use sabir_mqtt::{Packet, client};

use super::Arguments;
use super::flow::Flow;
use super::peer::Peer;
use crate::verify::Ledger;

/// Receives, acknowledges and checks until it is told to stop.
pub(super) fn run(
    mut peer: Peer,
    index: usize,
    arguments: &Arguments,
    flow: &Flow,
) -> Result<Ledger, String> {
    let (publishers, _) = arguments.shape();
    let mut ledger = Ledger::new(publishers);
    // One subscriber of each pair, else one of many.
    let place = if arguments.pairs.is_some() { 0 } else { index };
    let mut seen = vec![false; publishers];
    let mut touched = Vec::with_capacity(publishers);
    let mut out = Vec::new();
    while !flow.is_finished() {
        out.clear();
        let outcome = peer
            .read(|packet, version| {
                if let Packet::Publish(publish) = packet
                    && let Some(publisher) = ledger.note(publish.payload, publish.dup)
                    && let Some(seen) = seen.get_mut(publisher)
                    && !*seen
                {
                    *seen = true;
                    touched.push(publisher);
                }
                client::answer(&mut out, version, packet);
                Ok(())
            })
            .and_then(|()| if out.is_empty() { Ok(()) } else { peer.write(&out) });
        for publisher in touched.drain(..) {
            if let Some(seen) = seen.get_mut(publisher) {
                *seen = false;
            }
            flow.note_received(publisher, place, ledger.reached(publisher));
        }
        if let Err(problem) = outcome {
            flow.fail();
            return Err(problem);
        }
    }
    peer.leave();
    Ok(ledger)
}
