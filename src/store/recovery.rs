//! Opening: the newest checkpoint, then the frames behind it. No other segment is read, however long the backlog:
//! that each is there and long enough is all that is looked at. Damage in them is found by who reads them
//! (`read.rs`, `verify.rs`); only with quarantine is every segment examined here.
//!
//! What a bad frame means follows from the highest `durable_lsn` found anywhere. Above it the frame was never
//! promised to anybody: a torn end, cut off and reported, together with whatever later frames the disk kept.
//! At or below it, acknowledged data is damaged: the store does not open, unless it may put the damage into
//! quarantine.

use crate::Recover;
use crate::blob_recovery::BlobFiles;
use crate::checkpoint;
use crate::error::{Damage, LostRange, RecoveryReport, StoreError, Tear};
use crate::fs::Fs;
use crate::index::Index;
use crate::manifest::Paths;
use crate::record::{Op, Ops};
use crate::segment::{Reader, parse_name, stamp};
use crate::verify::Found;
use sabir_model::ids::{Position, QueueId, Sequence};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

/// What opening goes on with.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) checkpoint: u64,
    pub(crate) next_segment: u64,
    /// Files that hold nothing once the checkpoint that opening writes is durable.
    pub(crate) dead: Vec<u64>,
    pub(crate) disk_bytes: u64,
    /// Segment files by number, and their sizes.
    pub(crate) files: BTreeMap<u64, u64>,
    /// Segments of which frames were replayed: nobody knows whether these are synced.
    pub(crate) replayed: BTreeSet<u64>,
    /// The files of large bodies.
    pub(crate) blobs: BlobFiles,
    pub(crate) report: RecoveryReport,
}

struct Recovery<'a> {
    fs: &'a dyn Fs,
    paths: &'a Paths,
    store_id: u64,
    quarantine: bool,
    files: BTreeMap<u64, u64>,
    index: Index,
    replayed: BTreeSet<u64>,
    blobs: BlobFiles,
    report: RecoveryReport,
    gap: Option<Gap>,
}

/// Where replay is.
struct Cursor {
    /// Position of the next group.
    expected: u64,
    /// The highest watermark seen.
    durable: u64,
    /// Where the next frame should start.
    offset: u64,
}

/// After damage: the next numbers the queues had before it, to tell which are missing behind it.
struct Gap {
    next: HashMap<u64, u64>,
    seen: HashSet<u64>,
}

fn io_error(what: &'static str, file: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let file = file.to_owned();
    move |source| StoreError::Io { what, file, source }
}

pub(crate) fn recover(
    fs: &dyn Fs,
    paths: &Paths,
    store_id: u64,
    quarantine: bool,
    to: &mut dyn Recover,
) -> Result<Recovered, StoreError> {
    let mut files = BTreeMap::new();
    for name in fs.list(&paths.journal).map_err(io_error("list", &paths.journal))? {
        let Some(number) = parse_name(&name) else { continue };
        let path = paths.segment(number);
        let len = fs.open(&path).and_then(|file| file.len()).map_err(io_error("open", &path))?;
        files.insert(number, len);
    }
    let mut recovery = Recovery {
        fs,
        paths,
        store_id,
        quarantine,
        files,
        index: Index::default(),
        replayed: BTreeSet::new(),
        blobs: BlobFiles::find(fs, paths)?,
        report: RecoveryReport::default(),
        gap: None,
    };
    let (checkpoint, next_segment) = recovery.start()?;
    recovery.replay()?;
    recovery.deliver(to)?;
    Ok(recovery.finish(checkpoint, next_segment))
}

impl Recovery<'_> {
    /// Loads the checkpoint; returns its number and the next segment number it knew.
    fn start(&mut self) -> Result<(u64, u64), StoreError> {
        let mut newest_lost = 0;
        loop {
            match checkpoint::load(self.fs, self.paths, self.store_id) {
                Ok(Some(found)) => {
                    self.report.bytes_read += found.bytes;
                    self.report.checkpoint = Position(found.index.lsn);
                    self.index = found.index;
                    self.index.salvage = newest_lost > 0;
                    return Ok((found.number.max(newest_lost), found.next_segment));
                }
                Ok(None) => {
                    self.index.salvage = newest_lost > 0;
                    return Ok((newest_lost, 1));
                }
                Err(StoreError::Corrupt { file, offset, reason }) => {
                    if !self.quarantine {
                        return Err(StoreError::Corrupt { file, offset, reason });
                    }
                    let name = file.file_name().unwrap_or_default();
                    let number =
                        name.to_str().and_then(|n| n.strip_suffix(".ckpt")?.parse().ok()).unwrap_or(0);
                    newest_lost = newest_lost.max(number);
                    self.fs
                        .create_dir_all(&self.paths.quarantine)
                        .map_err(io_error("make", &self.paths.quarantine))?;
                    let aside = self.paths.quarantine.join(name);
                    let bytes = self.fs.open(&file).and_then(|f| f.len()).unwrap_or(0);
                    self.fs.rename(&file, &aside).map_err(io_error("move aside", &file))?;
                    self.fs
                        .sync_dir(&self.paths.checkpoints)
                        .map_err(io_error("sync", &self.paths.checkpoints))?;
                    self.report.damage.push(Damage { file, offset: 0, bytes, copy: Some(aside) });
                }
                Err(other) => return Err(other),
            }
        }
    }

    fn reader(&self, number: u64, limit: Option<u64>) -> Result<Reader, StoreError> {
        let path = self.paths.segment(number);
        let file = self.fs.open(&path).map_err(io_error("open", &path))?;
        Reader::new(file, stamp(self.store_id, number), limit).map_err(io_error("read", &path))
    }

    /// Applies the frames behind the checkpoint.
    fn replay(&mut self) -> Result<(), StoreError> {
        let active = self.index.active;
        let known = self.index.segments.get(&active).map_or(0, |info| info.end);
        let present = self.files.get(&active).copied();
        if known > present.unwrap_or(0) && !self.quarantine {
            let reason = match present {
                Some(len) => format!("the file should have {known} bytes at least and has {len}"),
                None => "the file is missing".to_owned(),
            };
            return Err(StoreError::Corrupt {
                file: self.paths.segment(active),
                offset: present.unwrap_or(0),
                reason,
            });
        }
        if self.index.salvage {
            self.begin_gap();
        }
        let chain: Vec<u64> = self.files.range(active..).map(|(number, _)| *number).collect();
        let mut at =
            Cursor { expected: self.index.lsn.saturating_add(1), durable: self.index.lsn, offset: 0 };
        let mut i = 0;
        if chain.first() == Some(&active) {
            at.offset = known;
        }
        while let Some(&number) = chain.get(i) {
            let later = chain.get(i + 1..).unwrap_or_default();
            let mut reader = self.reader(number, None)?;
            self.read_on(&mut reader, number, &mut at)?;
            // A file that holds nothing may lie between: one whose making failed.
            let mut next = None;
            for (skipped, later) in later.iter().enumerate() {
                if self.first_position(Some(later))? == Some(at.expected) {
                    next = Some(skipped);
                    break;
                }
            }
            if let Some(skipped) = next {
                i += 1 + skipped;
                at.offset = 0;
                continue;
            }
            // Here the readable log ends. Is something missing that was promised?
            let recognised = self.look_behind(&mut reader, number, later, &mut at)?;
            let path = self.paths.segment(number);
            if at.durable < at.expected {
                if recognised > 0 {
                    let position = Position(at.expected);
                    self.report.tear =
                        Some(Tear { file: path, offset: at.offset, bytes_cut: recognised, position });
                }
                break;
            }
            if !self.quarantine {
                let reason = format!(
                    "the operations from position {} on cannot be read, although everything up to position {} was synced",
                    at.expected, at.durable
                );
                return Err(StoreError::Corrupt { file: path, offset: at.offset, reason });
            }
            match self.skip(&mut reader, number, at.offset, at.expected)? {
                Some((offset, position)) => (at.offset, at.expected) = (offset, position),
                None => {
                    i += 1;
                    at.offset = 0;
                    if let Some(position) = self.first_position(later.first())? {
                        at.expected = at.expected.max(position);
                    }
                }
            }
        }
        self.index.salvage = false;
        Ok(())
    }

    /// Applies good frames in order, as far as they go.
    fn read_on(&mut self, reader: &mut Reader, number: u64, at: &mut Cursor) -> Result<(), StoreError> {
        let path = self.paths.segment(number);
        loop {
            let start = reader.place(at.offset, at.expected).map_err(io_error("read", &path))?;
            let Some((header, body)) = reader.frame(start).map_err(io_error("read", &path))? else { break };
            if header.lsn != at.expected {
                break;
            }
            let end = header.end(start);
            if let Some(gap) = &mut self.gap {
                gap.look(body, &mut self.report.lost);
            }
            self.index.apply(number, start, end, &header, body);
            self.replayed.insert(number);
            at.durable = at.durable.max(header.durable);
            at.expected = header.last() + 1;
            at.offset = end;
            self.report.frames += 1;
        }
        self.report.bytes_read += std::mem::take(&mut reader.read);
        Ok(())
    }

    /// Searches everything behind the cursor for watermarks; returns how many bytes there look like frames.
    fn look_behind(
        &self,
        reader: &mut Reader,
        number: u64,
        later: &[u64],
        at: &mut Cursor,
    ) -> Result<u64, StoreError> {
        let here = reader.tail(at.offset).map_err(io_error("read", &self.paths.segment(number)))?;
        let mut recognised = here.end.saturating_sub(at.offset);
        at.durable = at.durable.max(here.durable);
        for &later in later {
            let tail =
                self.reader(later, None)?.tail(0).map_err(io_error("read", &self.paths.segment(later)))?;
            at.durable = at.durable.max(tail.durable);
            recognised += tail.end;
        }
        Ok(recognised)
    }

    fn first_position(&self, number: Option<&u64>) -> Result<Option<u64>, StoreError> {
        let Some(&number) = number else { return Ok(None) };
        let mut reader = self.reader(number, None)?;
        let frame = reader.frame(0).map_err(io_error("read", &self.paths.segment(number)))?;
        Ok(frame.map(|(header, _)| header.lsn))
    }

    fn begin_gap(&mut self) {
        let next = self.index.queues.iter().map(|(id, queue)| (*id, queue.next)).collect();
        self.gap = Some(Gap { next, seen: HashSet::new() });
    }

    /// Copies damage aside; returns where the next good frame with a later position is, and that position.
    fn skip(
        &mut self,
        reader: &mut Reader,
        number: u64,
        offset: u64,
        expected: u64,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let path = self.paths.segment(number);
        let failed = |e| io_error("read", &path)(e);
        let mut from = offset;
        let found = loop {
            let Some(at) = reader.resync(from).map_err(failed)? else { break None };
            match reader.frame(at).map_err(failed)? {
                Some((header, _)) if header.lsn >= expected => break Some((at, header.lsn)),
                Some((header, _)) => from = header.end(at),
                None => break None,
            }
        };
        let end = match found {
            Some((at, _)) => at,
            None => reader.tail(offset).map_err(failed)?.end.max(offset),
        };
        self.begin_gap();
        if end > offset {
            let copy = self.copy_aside(reader, number, offset, end)?;
            self.report.damage.push(Damage { file: path, offset, bytes: end - offset, copy: Some(copy) });
        }
        Ok(found)
    }

    fn copy_aside(
        &self,
        reader: &mut Reader,
        number: u64,
        from: u64,
        to: u64,
    ) -> Result<PathBuf, StoreError> {
        let dir = &self.paths.quarantine;
        self.fs.create_dir_all(dir).map_err(io_error("make", dir))?;
        let copy = dir.join(format!("{number:012}-{from}.bin"));
        let mut write = || {
            let file = self.fs.create(&copy)?;
            let mut at = from;
            while at < to {
                let piece = reader.raw(at, usize::try_from(to - at).unwrap_or(1 << 20).min(1 << 20))?;
                if piece.is_empty() {
                    break;
                }
                file.write_at(piece, at - from)?;
                at += piece.len() as u64;
            }
            file.sync_data()?;
            self.fs.sync_dir(dir)
        };
        write().map_err(io_error("write", &copy))?;
        Ok(copy)
    }

    /// Tells `to` what is alive, and finds what should be there and is not.
    fn deliver(&mut self, to: &mut dyn Recover) -> Result<(), StoreError> {
        for ((table, key), value) in &self.index.meta {
            to.meta(*table, key, value);
        }
        for (&id, queue) in &self.index.queues {
            to.queue(QueueId(id), Sequence(queue.next.max(1)), queue.expires);
        }
        let segments: Vec<u64> =
            self.index.segments.iter().filter(|(_, info)| info.live > 0).map(|(number, _)| *number).collect();
        self.report.segments = segments.len() as u64;
        for number in segments {
            if self.quarantine { self.examine(number)? } else { self.look_at(number)? }
        }
        let lost = self.blobs.examine(
            self.fs,
            self.paths,
            self.store_id,
            &self.index,
            self.quarantine,
            &mut self.report,
        )?;
        for lost in lost {
            self.index.acknowledge(lost.queue, lost.first, (lost.last - lost.first).saturating_add(1));
        }
        self.blobs.settle(&mut self.index, &mut self.report);
        for (&id, queue) in &self.index.queues {
            for (last, run) in queue.runs() {
                self.report.messages += run.count(last);
                for (low, high) in run.live(run.first, last) {
                    let bytes = run.bytes_of(high - low + 1);
                    to.live(QueueId(id), Sequence(low), Sequence(high), bytes);
                }
            }
        }
        for ((queue, sequence), name) in self.index.blobs.holders() {
            to.blob(QueueId(queue), Sequence(sequence), name.len);
        }
        for (&id, queue) in &self.index.queues {
            for (&sequence, &count) in &queue.attempts {
                to.attempts(QueueId(id), Sequence(sequence), count);
            }
        }
        Ok(())
    }

    /// Looks whether a segment with live messages is there as a whole.
    fn look_at(&self, number: u64) -> Result<(), StoreError> {
        let end = self.index.segments.get(&number).map_or(0, |info| info.end);
        let present = self.files.get(&number).copied();
        let reason = match present {
            Some(len) if len >= end => return Ok(()),
            Some(len) => format!("the file should have {end} bytes at least and has {len}"),
            None => "the file is missing".to_owned(),
        };
        Err(StoreError::Corrupt { file: self.paths.segment(number), offset: present.unwrap_or(0), reason })
    }

    /// Reads a whole segment; copies aside what is damaged, and gives up what is lost with it.
    fn examine(&mut self, number: u64) -> Result<(), StoreError> {
        let path = self.paths.segment(number);
        let end = self.index.segments.get(&number).map_or(0, |info| info.end);
        if !self.files.contains_key(&number) {
            let missing = Found::default().missing(&self.index, number);
            self.give_up(missing);
            return Ok(());
        }
        let mut reader = self.reader(number, Some(end))?;
        let found = Found::examine(&mut reader, end).map_err(io_error("read", &path))?;
        self.report.bytes_read += std::mem::take(&mut reader.read);
        let missing = found.missing(&self.index, number);
        // A file that was cut off is as long as it is from now on.
        let len = self.files.get(&number).copied().unwrap_or(0);
        if let Some(info) = self.index.segments.get_mut(&number) {
            info.end = info.end.min(len);
        }
        let harmless = missing.is_empty() && end <= len;
        for &(from, until) in &found.damaged {
            let copy =
                if harmless { None } else { Some(self.copy_aside(&mut reader, number, from, until)?) };
            let damage = Damage { file: path.clone(), offset: from, bytes: until - from, copy };
            let known = |d: &Damage| d.file == damage.file && d.offset == damage.offset;
            if damage.copy.is_some() || !self.report.damage.iter().any(known) {
                self.report.damage.push(damage);
            }
        }
        self.give_up(missing);
        Ok(())
    }

    /// Lost messages count as settled, so that the next start does not miss them again.
    fn give_up(&mut self, missing: Vec<LostRange>) {
        for lost in &missing {
            self.index.acknowledge(lost.queue, lost.first, (lost.last - lost.first).saturating_add(1));
        }
        self.report.lost.extend(missing);
    }

    fn finish(mut self, checkpoint: u64, next_segment: u64) -> Recovered {
        self.report.position = Position(self.index.lsn);
        self.report.queues = self.index.queues.len() as u64;
        self.report.entries = self.index.meta.len() as u64;
        self.index.segments.retain(|_, info| info.live > 0);
        let highest = self.files.last_key_value().map_or(0, |(number, _)| *number);
        let next_segment =
            next_segment.max(highest.saturating_add(1)).max(self.index.active.saturating_add(1));
        // Frames that were cut off must never be read again: the log goes on in a segment with a new number.
        self.index.active = next_segment;
        let dead =
            self.files.keys().filter(|number| !self.index.segments.contains_key(number)).copied().collect();
        Recovered {
            checkpoint,
            next_segment,
            dead,
            disk_bytes: self.files.values().sum(),
            replayed: self.replayed,
            blobs: self.blobs,
            files: self.files,
            report: self.report,
            index: self.index,
        }
    }
}

impl Gap {
    /// The first number of a queue that is seen behind the damage shows what is missing before it.
    fn look(&mut self, body: &[u8], lost: &mut Vec<LostRange>) {
        for op in Ops::new(body) {
            let Ok(Op::Put { moved: false, targets, .. }) = op else { continue };
            for (queue, Sequence(sequence)) in targets {
                if !self.seen.insert(queue.0) {
                    continue;
                }
                let next = self.next.get(&queue.0).copied().unwrap_or(1).max(1);
                if sequence > next {
                    lost.push(LostRange { queue, first: next, last: sequence - 1, certain: false });
                }
            }
        }
    }
}
