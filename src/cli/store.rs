//! `sabir store`: looks at the message log of a broker that is not running, verifies it, mends it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;

use clap::{Args, Subcommand};
use sabir_model::destination::Destination;
use sabir_model::varint::{read_block, read_text};
use sabir_store::{Inspection, LostRange, Offline, Progress, RealFs, RecoveryReport, StoreError};
use serde_json::{Value, json};

use super::configuration::ConfigArgs;
use super::{Failure, output};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Tell what is in the message log: files, queues, messages
    Inspect(Arguments),
    /// Read the whole message log and name what is damaged; status 1 if anything is
    Verify(Arguments),
    /// Copy damaged parts of the message log aside, and give up the messages in them
    Repair(RepairArguments),
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
pub(super) struct RepairArguments {
    /// Do it: without this only what would be lost is told
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    arguments: Arguments,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Inspect(arguments) => inspect(arguments),
        Command::Verify(arguments) => verify(arguments),
        Command::Repair(arguments) => repair(arguments),
    }
}

fn failed(error: &StoreError) -> Failure {
    Failure::Failed(error.to_string())
}

fn open(config: ConfigArgs) -> Result<Offline, Failure> {
    let dir = config.load()?.config.store.dir;
    Offline::open(&dir, Arc::new(RealFs::new())).map_err(|error| failed(&error))
}

/// What the broker calls its queues, by their ids.
type Names = HashMap<u64, String>;

/// The table in which the broker keeps the definitions of its queues (see its `recovery.rs`).
const TABLE_QUEUES: u8 = 1;

/// A definition begins with its version, the virtual host and the destination. What cannot be read has no name.
fn name(key: &[u8], value: &[u8]) -> Option<(u64, String)> {
    let id = u64::from_le_bytes(key.try_into().ok()?);
    let (&1, mut rest) = value.split_first()? else { return None };
    let host = read_text(&mut rest)?;
    let destination = Destination::decode(read_block(&mut rest)?)?;
    Some((id, if host == "/" { destination.to_string() } else { format!("{destination} of {host}") }))
}

fn look(log: &Offline) -> Result<(Inspection, Names), Failure> {
    let mut names = Names::new();
    let inspection = log.inspect(&mut |table, key, value| {
        if table == TABLE_QUEUES {
            names.extend(name(key, value));
        }
    });
    Ok((inspection.map_err(|error| failed(&error))?, names))
}

fn inspect(arguments: Arguments) -> Result<(), Failure> {
    let log = open(arguments.config)?;
    let (inspection, names) = look(&log)?;
    let text =
        if arguments.json { inspected_json(&inspection, &names) } else { inspected(&inspection, &names) };
    output::write(text.as_bytes())
}

fn inspected_json(inspection: &Inspection, names: &Names) -> String {
    let segments: Vec<Value> = inspection
        .segments
        .iter()
        .map(|segment| {
            json!({
                "number": segment.number,
                "fileBytes": segment.file_bytes,
                "writtenBytes": segment.end,
                "messages": segment.live,
                "messageBytes": segment.bytes_live,
            })
        })
        .collect();
    let queues: Vec<Value> = inspection
        .queues
        .iter()
        .map(|queue| {
            json!({
                "id": queue.queue.0,
                "name": names.get(&queue.queue.0),
                "messages": queue.messages,
                "bytes": queue.bytes,
                "largeMessages": queue.large,
                "largeBytes": queue.large_bytes,
                "oldest": queue.oldest.map(|oldest| oldest.0),
                "next": queue.next.0,
                "attempted": queue.attempted,
            })
        })
        .collect();
    let whole = json!({
        "format": inspection.format,
        "id": format!("{:016x}", inspection.store_id),
        "position": inspection.position.0,
        "checkpoint": inspection.checkpoint.0,
        "entries": inspection.entries,
        "segments": segments,
        "bodies": {
            "files": inspection.blobs,
            "fileBytes": inspection.blob_bytes,
            "unneeded": inspection.orphans,
        },
        "queues": queues,
    });
    format!("{whole}\n")
}

fn inspected(inspection: &Inspection, names: &Names) -> String {
    let mut out = String::new();
    let messages: u64 = inspection.queues.iter().map(|queue| queue.messages).sum();
    let bytes: u64 = inspection.queues.iter().map(|queue| queue.bytes).sum();
    let in_use = inspection.segments.iter().filter(|segment| segment.live > 0).count();
    let file_bytes: u64 = inspection.segments.iter().map(|segment| segment.file_bytes).sum();
    let lines = [
        format!("format       {}", inspection.format),
        format!("id           {:016x}", inspection.store_id),
        format!("position     {}, checkpoint at {}", inspection.position.0, inspection.checkpoint.0),
        format!("segments     {}, {in_use} with messages, {file_bytes} bytes", inspection.segments.len()),
        format!(
            "large bodies {} files, {} of them unneeded, {} bytes",
            inspection.blobs, inspection.orphans, inspection.blob_bytes
        ),
        format!("queues       {} with {messages} messages of {bytes} bytes", inspection.queues.len()),
        format!("entries      {}", inspection.entries),
    ];
    for line in lines {
        out.push_str(&line);
        out.push('\n');
    }
    if !inspection.queues.is_empty() {
        out.push_str("\n        id     messages          bytes       oldest         next  queue\n");
    }
    for queue in &inspection.queues {
        let oldest = queue.oldest.map_or_else(|| "-".to_owned(), |oldest| oldest.0.to_string());
        let name = names.get(&queue.queue.0).map_or("", String::as_str);
        let _ = writeln!(
            out,
            "{:>10} {:>12} {:>14} {:>12} {:>12}  {name}",
            queue.queue.0, queue.messages, queue.bytes, oldest, queue.next.0
        );
    }
    out
}

/// Shows on a terminal how far reading has come.
fn progress() -> Progress {
    if !io::stderr().is_terminal() {
        return Arc::new(|_, _| {});
    }
    Arc::new(|done, total| {
        let percent = done.saturating_mul(100) / total.max(1);
        let mut out = io::stderr().lock();
        let _ = write!(out, "\rread {} of {} MiB ({percent} %)", done >> 20, total >> 20);
        if done >= total {
            let _ = write!(out, "\r\x1b[K");
        }
    })
}

fn clear_progress() {
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr().lock(), "\r\x1b[K");
    }
}

fn verify(arguments: Arguments) -> Result<(), Failure> {
    let log = open(arguments.config)?;
    let found = log.verify(progress());
    clear_progress();
    let found = found.map_err(|error| failed(&error))?;
    let manifests: Vec<String> = found.manifests.iter().map(|file| file.display().to_string()).collect();
    let text = if arguments.json {
        let mut whole = report_json(&found.report);
        whole["sound"] = found.is_sound().into();
        whole["manifests"] = manifests.into();
        format!("{whole}\n")
    } else {
        let mut text =
            format!("{} messages and what lies behind the checkpoint were read\n", found.report.messages);
        report(&found.report, &mut text);
        for file in manifests {
            let _ = writeln!(text, "{file} cannot be read; the other copy of the manifest can");
        }
        text
    };
    output::write(text.as_bytes())?;
    if found.is_sound() { Ok(()) } else { Err(Failure::Failed("the message log is damaged".to_owned())) }
}

fn repair(arguments: RepairArguments) -> Result<(), Failure> {
    let Arguments { json, config } = arguments.arguments;
    let log = open(config)?;
    let found = log.verify(progress());
    clear_progress();
    let found = found.map_err(|error| failed(&error))?;
    let (report_of, done) = if found.is_sound() || !arguments.yes {
        (found.report.clone(), false)
    } else {
        (log.repair().map_err(|error| failed(&error))?, true)
    };
    let text = if json {
        let mut whole = report_json(&report_of);
        whole["repaired"] = done.into();
        format!("{whole}\n")
    } else {
        let mut text = String::new();
        report(&report_of, &mut text);
        text.push_str(match (done, found.is_sound()) {
            (true, _) => "the message log is repaired\n",
            (false, true) => "nothing is to be repaired\n",
            (false, false) => "nothing was changed\n",
        });
        text
    };
    output::write(text.as_bytes())?;
    if done || found.is_sound() {
        return Ok(());
    }
    Err(Failure::Failed("repairing gives up what is damaged: add --yes to do it".to_owned()))
}

fn report_json(report: &RecoveryReport) -> Value {
    let damage: Vec<Value> = report
        .damage
        .iter()
        .map(|damage| {
            json!({
                "file": damage.file.display().to_string(),
                "offset": damage.offset,
                "bytes": damage.bytes,
                "harmless": damage.copy.is_none(),
            })
        })
        .collect();
    let lost: Vec<Value> = report
        .lost
        .iter()
        .map(|LostRange { queue, first, last, certain }| {
            json!({ "queue": queue.0, "first": first, "last": last, "certain": certain })
        })
        .collect();
    let bodies: Vec<Value> = report
        .bodies
        .iter()
        .map(|body| {
            json!({ "file": body.file.display().to_string(), "offset": body.offset, "reason": body.reason })
        })
        .collect();
    json!({
        "messages": report.messages,
        "bytesRead": report.bytes_read,
        "torn": report.tear.is_some(),
        "damage": damage,
        "bodies": bodies,
        "lost": lost,
    })
}

fn report(report: &RecoveryReport, out: &mut String) {
    if let Some(tear) = &report.tear {
        let _ = writeln!(
            out,
            "the last write was interrupted at byte {} of {}; nothing in it was receipted as synced",
            tear.offset,
            tear.file.display()
        );
    }
    for damage in &report.damage {
        let _ = writeln!(
            out,
            "{} bytes at byte {} of {} are damaged{}",
            damage.bytes,
            damage.offset,
            damage.file.display(),
            if damage.copy.is_some() { "" } else { "; no live message is missing because of them" }
        );
    }
    for body in &report.bodies {
        let _ = writeln!(out, "{body}");
    }
    for LostRange { queue, first, last, .. } in &report.unsynced {
        let _ = writeln!(
            out,
            "messages {first} to {last} of queue {} had not reached the disk when the machine stopped; they were not receipted as synced",
            queue.0
        );
    }
    for LostRange { queue, first, last, certain } in &report.lost {
        let how = if *certain { "are" } else { "may be" };
        let _ = writeln!(out, "messages {first} to {last} of queue {} {how} lost", queue.0);
    }
}
