//! Writing page files: what is old and alive of one queue, copied out of the journal in bulk, in frames like those
//! of a segment, under a number like those of segments. So whoever reads segments reads pages.
//!
//! Records are gathered per *stream* and written when all streams together hold a window full. A stream is a
//! queue; queues that share many messages (the subscribers of a topic) share a stream, so that the message is
//! written once and nobody's numbers are scattered over two files. Nothing points into a page before
//! [`Pages::sync`]; what then has to be logged is in [`Written`].

use crate::fs::FsFile;
use crate::record::{self, Body, END};
use crate::segment::{FRAME_HEADER, NUMBER_MAX, align, seal, stamp};
use crate::shared::Shared;
use crate::stats::Counters;
use crate::{PutMeta, index::RECORD_BYTES};
use foldhash::fast::FixedState;
use sabir_model::ids::{QueueId, Sequence};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// Bytes of a frame: what is read, and what is lost to rot, with one message.
const FRAME_BYTES: usize = if cfg!(test) { 400 } else { 64 << 10 };
/// Bytes that all streams together gather.
const WINDOW_BYTES: usize = if cfg!(test) { 3 << 10 } else { 16 << 20 };
/// Bytes of one file that are synced at the latest: the disk's other users wait for no more than that.
const SYNC_BYTES: u64 = if cfg!(test) { 1 << 10 } else { 8 << 20 };
/// Queues that get page files at once: as many files are open.
pub(crate) const STREAMS_MAX: usize = if cfg!(test) { 8 } else { 256 };
/// How often a queue's messages may go into another one's stream before both become one: so often, and once for so
/// many of its own. Each time its run of numbers is cut.
const SHARED_MAX: u64 = if cfg!(test) { 2 } else { 32 };
const SHARED_SHARE: u64 = 32;
/// Messages of frames that are logged in one piece: applying them keeps the index locked.
const LOGGED_MAX: u64 = if cfg!(test) { 20 } else { 4096 };

pub(crate) fn file_name(number: u64) -> String {
    format!("{number:012}.p")
}

pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".p")?;
    let is_name = digits.len() >= 12 && digits.bytes().all(|b| b.is_ascii_digit());
    let number = is_name.then(|| digits.parse().ok())??;
    (number < NUMBER_MAX).then_some(number)
}

/// One copied message, in the bytes of its stream.
struct Record {
    start: usize,
    end: usize,
    bytes: u64,
    /// Where its targets are in the list of the stream.
    targets: (usize, usize),
}

/// A page file being written.
struct Open {
    number: u64,
    file: Arc<dyn FsFile>,
    offset: u64,
    /// Position of its next group: pages count their own.
    lsn: u64,
    /// Up to where it is synced.
    synced: u64,
}

#[derive(Default)]
struct Stream {
    records: Vec<Record>,
    targets: Vec<(QueueId, Sequence)>,
    bytes: Vec<u8>,
    page: Option<Open>,
    /// Where its queues went when it became one with another.
    into: Option<usize>,
    /// Others went here: of several queues only the order in which they were written is everybody's.
    joined: bool,
}

/// A queue that gets pages.
#[derive(Default)]
struct Member {
    stream: usize,
    messages: u64,
    elsewhere: u64,
}

/// Frames that are on the disk, as groups of ops of the log: each of at most [`LOGGED_MAX`] messages, about.
#[derive(Default)]
pub(crate) struct Written {
    ops: Vec<u8>,
    ends: Vec<usize>,
    /// Messages behind the last end.
    messages: u64,
}

impl Written {
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ends = self.ends.iter().copied().chain(std::iter::once(self.ops.len()));
        starts.zip(ends).filter_map(|(start, end)| self.ops.get(start..end)).filter(|piece| !piece.is_empty())
    }
}

/// Page files in the making.
pub(crate) struct Pages<'a> {
    shared: &'a Shared,
    members: HashMap<u64, Member, FixedState>,
    streams: Vec<Stream>,
    gathered: usize,
    /// Numbers and sizes of the files that were made.
    made: Vec<(u64, u64)>,
    written: Written,
    /// A file could not even be made: for want of handles, say. That is no reason to distrust the disk.
    pub(crate) refused: bool,
}

impl<'a> Pages<'a> {
    /// For these queues, [`STREAMS_MAX`] at most.
    pub(crate) fn new(shared: &'a Shared, queues: &[u64]) -> Self {
        let members =
            queues.iter().enumerate().map(|(stream, &queue)| (queue, Member { stream, ..Member::default() }));
        Self {
            shared,
            members: members.collect(),
            streams: queues.iter().map(|_| Stream::default()).collect(),
            gathered: 0,
            made: Vec::new(),
            written: Written::default(),
            refused: false,
        }
    }

    /// Takes a message; false if none of its queues gets pages.
    pub(crate) fn take(
        &mut self,
        targets: &[(QueueId, Sequence)],
        meta: PutMeta,
        head: &[u8],
        body: Body<'_>,
    ) -> bool {
        let Some(to) = self.stream_of(targets) else { return false };
        let Some(stream) = self.streams.get_mut(to) else { return false };
        let (start, first) = (stream.bytes.len(), stream.targets.len());
        record::put(&mut stream.bytes, true, targets, meta, &[head], body);
        stream.bytes.push(END);
        stream.targets.extend_from_slice(targets);
        stream.records.push(Record {
            start,
            end: stream.bytes.len(),
            bytes: (head.len() + body.inline_len()) as u64 + RECORD_BYTES,
            targets: (first, stream.targets.len()),
        });
        self.gathered += stream.bytes.len() - start;
        true
    }

    /// Whether it is time for [`Pages::write`].
    pub(crate) fn is_full(&self) -> bool {
        self.gathered >= WINDOW_BYTES
    }

    /// The stream of the first target that has one. Whoever meets others' streams too often joins them.
    fn stream_of(&mut self, targets: &[(QueueId, Sequence)]) -> Option<usize> {
        let mut to = None;
        for (queue, _) in targets {
            let Some(member) = self.members.get_mut(&queue.0) else { continue };
            while let Some(next) = self.streams.get(member.stream).and_then(|stream| stream.into) {
                member.stream = next;
            }
            member.messages += 1;
            let Some(to) = to else {
                to = Some(member.stream);
                continue;
            };
            if member.stream == to {
                continue;
            }
            member.elsewhere += 1;
            if member.elsewhere > SHARED_MAX + member.messages / SHARED_SHARE {
                let from = std::mem::replace(&mut member.stream, to);
                self.join(from, to);
            }
        }
        to
    }

    fn join(&mut self, from: usize, to: usize) {
        let Some(stream) = self.streams.get_mut(from) else { return };
        let old = std::mem::replace(stream, Stream { into: Some(to), ..Stream::default() });
        let Some(stream) = self.streams.get_mut(to) else { return };
        let (bytes, targets) = (stream.bytes.len(), stream.targets.len());
        stream.joined = true;
        stream.bytes.extend_from_slice(&old.bytes);
        stream.targets.extend_from_slice(&old.targets);
        stream.records.extend(old.records.into_iter().map(|record| Record {
            start: record.start + bytes,
            end: record.end + bytes,
            targets: (record.targets.0 + targets, record.targets.1 + targets),
            ..record
        }));
        // A file that was begun stays as it is; the two go on in one.
        if stream.page.is_none() {
            stream.page = old.page;
        } else if let Some(page) = old.page {
            self.streams.push(Stream { page: Some(page), ..Stream::default() });
        }
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    /// Of the disk; one that is full, too. What was written counts for nothing.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        for at in 0..self.streams.len() {
            let Some(slot) = self.streams.get_mut(at) else { continue };
            let mut stream = std::mem::take(slot);
            let outcome = self.write_stream(&mut stream);
            if let Some(slot) = self.streams.get_mut(at) {
                *slot = stream;
            }
            outcome?;
        }
        self.gathered = 0;
        Ok(())
    }

    fn write_stream(&mut self, stream: &mut Stream) -> io::Result<()> {
        let mut records = std::mem::take(&mut stream.records);
        // In the order of their numbers; what was copied forward before comes behind what it was before.
        let first = |record: &Record| stream.targets.get(record.targets.0).copied();
        if !stream.joined && !records.is_sorted_by_key(first) {
            records.sort_by_key(first);
        }
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |record: &&Record| {
                let before = bytes;
                bytes += record.end - record.start;
                before < FRAME_BYTES && (before == 0 || bytes <= FRAME_BYTES)
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            self.write_frame(stream, now)?;
            rest = later;
        }
        if let Some(page) = stream.page.as_mut().filter(|page| page.offset - page.synced >= SYNC_BYTES) {
            page.file.sync_data()?;
            page.synced = page.offset;
        }
        let (page, into, joined) = (stream.page.take(), stream.into, stream.joined);
        *stream = Stream { page, into, joined, ..Stream::default() };
        Ok(())
    }

    fn write_frame(&mut self, stream: &mut Stream, records: &[Record]) -> io::Result<()> {
        let mut frame = vec![0; FRAME_HEADER];
        let (mut ranges, mut messages, mut bytes): (Vec<(u64, u64, u64)>, u64, u64) = (Vec::new(), 0, 0);
        for record in records {
            frame.extend_from_slice(stream.bytes.get(record.start..record.end).unwrap_or_default());
            let targets = stream.targets.get(record.targets.0..record.targets.1).unwrap_or_default();
            bytes += record.bytes * targets.len() as u64;
            messages += targets.len() as u64;
            for &(QueueId(queue), Sequence(sequence)) in targets {
                match ranges.last_mut() {
                    Some((same, first, count)) if *same == queue && *first + *count == sequence => {
                        *count += 1
                    }
                    _ => ranges.push((queue, sequence, 1)),
                }
            }
        }
        let len = frame.len() as u64;
        let page = match &mut stream.page {
            Some(page) if page.offset + len <= self.shared.options.segment_bytes => page,
            slot => {
                if let Some(full) = slot.take().filter(|full| full.synced < full.offset) {
                    full.file.sync_data()?;
                }
                let number = self.shared.pool.next_number();
                self.made.push((number, 0));
                let made = self.shared.fs.create(&self.shared.paths.page(number));
                self.refused |= made.is_err();
                let file = made?;
                slot.insert(Open { number, file, offset: 0, lsn: 1, synced: 0 })
            }
        };
        let groups = records.len() as u32;
        seal(&mut frame, stamp(self.shared.store_id, page.number), page.offset, page.lsn, 0, groups);
        let (start, end) = (page.offset, page.offset + len);
        if let Some((_, size)) = self.made.iter_mut().rev().find(|(number, _)| *number == page.number) {
            self.shared.take_space(end - *size)?;
            *size = end;
        }
        page.file.write_at(&frame, start)?;
        page.offset = align(end);
        page.lsn += u64::from(groups);
        Counters::add(&self.shared.counters.paged_bytes, end - start);
        // Shared messages lie one behind the other in the record, and not in the numbers of one queue.
        ranges.sort_unstable();
        ranges.dedup_by(|next, before| {
            let continues = before.0 == next.0 && before.1 + before.2 == next.1;
            if continues {
                before.2 += next.2;
            }
            continues
        });
        let written = &mut self.written;
        record::paged(&mut written.ops, page.number, (start, end), bytes, &ranges);
        written.messages += messages;
        if written.messages >= LOGGED_MAX {
            written.messages = 0;
            written.ends.push(written.ops.len());
        }
        Ok(())
    }

    /// Writes the rest and syncs everything; from then on the log may point there.
    ///
    /// # Errors
    /// As [`Pages::write`].
    pub(crate) fn sync(&mut self) -> io::Result<Written> {
        self.write()?;
        for stream in &mut self.streams {
            if let Some(page) = stream.page.take().filter(|page| page.synced < page.offset) {
                page.file.sync_data()?;
            }
        }
        if !self.made.is_empty() {
            self.shared.fs.sync_dir(&self.shared.paths.pages)?;
        }
        Counters::add(&self.shared.counters.pages, self.made.len() as u64);
        Ok(std::mem::take(&mut self.written))
    }

    /// As if there had been nothing: nothing points into these files.
    pub(crate) fn abandon(self) {
        drop(self.streams);
        for (number, size) in self.made {
            if let Err(error) = self.shared.fs.remove(&self.shared.paths.page(number))
                && error.kind() != io::ErrorKind::NotFound
            {
                // The next start will.
                tracing::warn!(page = number, %error, "an unfinished page file could not be removed");
            }
            self.shared.give_space(size);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn page_names_sort_and_parse_and_are_not_those_of_segments() {
        assert_eq!(parse_name(&file_name(17)), Some(17));
        for bad in ["17.p", "000000000017.j", ".p", "0000000000x7.p"] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }
}
