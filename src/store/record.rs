//! Ops: what the log says happened. Encoding into a buffer, and decoding that never trusts a length.
//!
//! A group is a run of ops closed by [`END`]; integers are LEB128 unless a width is given.
//!
//! | code | op | fields |
//! | --- | --- | --- |
//! | 0 | end of group | |
//! | 1 | put | priority u8, flags u8, expires, n, n × (queue, seq), head length, body length, head, body |
//! | 2 | moved | as put: the same message again, copied forward out of an old segment |
//! | 3 | reference | to queue, to seq, from queue, from seq |
//! | 4 | acknowledge | queue, first, count |
//! | 5 | acknowledge on | zigzag(first − end of the previous run of the same queue in this group), count |
//! | 6 | attempts | queue, seq, count |
//! | 7 | delete queue | queue |
//! | 8 | set | table u8, key length, value length, key, value |
//! | 9 | remove | table u8, key length, key |
//! | 16 | paged | file, frame start, frame end, bytes of its records, n, n × (zigzag(queue − the one before), zigzag(first − end of the range before), count): what is alive of these messages lies in that frame of a page file now; a range of another queue counts its first from 0 |
//! | 17–23 | reserved for page files | |
//! | 24 | put with a blob | priority u8, flags u8, expires, n, n × (queue, seq), head length, blob, blob's length, its table's CRC, 1 if its file was synced before, head |
//! | 25 | moved with a blob | as 24 |
//! | 26–31 | reserved for blobs | |
//! | 32–47 | reserved for two-phase transactions | |

use crate::PutMeta;
use crate::blob_file::BlobName;
use crate::segment::NUMBER_MAX;
use sabir_model::ids::{QueueId, Sequence};

pub(crate) const END: u8 = 0;
const PUT: u8 = 1;
const MOVED: u8 = 2;
const REFERENCE: u8 = 3;
const ACKNOWLEDGE: u8 = 4;
const ACKNOWLEDGE_ON: u8 = 5;
const ATTEMPTS: u8 = 6;
const DELETE_QUEUE: u8 = 7;
const SET: u8 = 8;
const REMOVE: u8 = 9;
const PAGED: u8 = 16;
const PUT_BLOB: u8 = 24;
const MOVED_BLOB: u8 = 25;

/// The bytes are no op of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The body of a message as its record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    Inline(&'a [u8]),
    /// In a file of its own.
    Blob(BlobName),
}

impl Body<'_> {
    /// Bytes of it in the record.
    pub(crate) fn inline_len(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Blob(_) => 0,
        }
    }

    /// Where it is, if not in the record.
    pub(crate) fn blob(&self) -> Option<BlobName> {
        match self {
            Self::Inline(_) => None,
            Self::Blob(name) => Some(*name),
        }
    }
}

/// One decoded op, borrowing the frame.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op<'a> {
    End,
    Put { moved: bool, targets: Targets<'a>, meta: PutMeta, head: &'a [u8], body: Body<'a> },
    Reference { to: (QueueId, Sequence), from: (QueueId, Sequence) },
    Acknowledge { queue: QueueId, first: u64, count: u64 },
    Attempts { queue: QueueId, sequence: u64, count: u32 },
    DeleteQueue { queue: QueueId },
    Set { table: u8, key: &'a [u8], value: &'a [u8] },
    Remove { table: u8, key: &'a [u8] },
    Paged(Paged<'a>),
}

/// Messages that were copied into a frame of a page file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Paged<'a> {
    pub(crate) file: u64,
    /// Where the frame lies in it.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Bytes of its records, about.
    pub(crate) bytes: u64,
    /// Still encoded; checked when the op was decoded.
    rest: &'a [u8],
    count: u64,
}

impl Paged<'_> {
    /// Queue, first number, and how many.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (QueueId, u64, u64)> {
        let (mut rest, mut before) = (self.rest, (0, 0));
        (0..self.count).map_while(move |_| take_range(&mut rest, &mut before))
    }
}

/// `before` is the queue and the end of the range before, and is kept up to date here.
fn take_range(rest: &mut &[u8], before: &mut (u64, u64)) -> Option<(QueueId, u64, u64)> {
    let step = unzigzag(take_varint(rest)?);
    let from = if step == 0 { before.1 } else { 0 };
    let queue = before.0.wrapping_add(step);
    let first = from.wrapping_add(unzigzag(take_varint(rest)?));
    let count = take_varint(rest)?;
    *before = (queue, first.checked_add(count)?);
    Some((QueueId(queue), first, count))
}

/// The target list of a put, still encoded; checked when the op was decoded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Targets<'a> {
    rest: &'a [u8],
}

impl Iterator for Targets<'_> {
    type Item = (QueueId, Sequence);

    fn next(&mut self) -> Option<Self::Item> {
        let queue = take_varint(&mut self.rest)?;
        let sequence = take_varint(&mut self.rest)?;
        Some((QueueId(queue), Sequence(sequence)))
    }
}

/// Reads ops until the bytes end or make no sense.
#[derive(Clone, Debug)]
pub(crate) struct Ops<'a> {
    rest: &'a [u8],
    previous: Option<(QueueId, u64)>,
    broken: bool,
}

impl<'a> Ops<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, previous: None, broken: false }
    }

    /// Bytes not read yet.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    fn decode(&mut self, code: u8) -> Option<Op<'a>> {
        let rest = &mut self.rest;
        Some(match code {
            END => {
                self.previous = None;
                Op::End
            }
            PUT | MOVED | PUT_BLOB | MOVED_BLOB => {
                let priority = take_u8(rest)?;
                let flags = take_u8(rest)?;
                let expires_ms = take_varint(rest)?;
                let count = take_varint(rest)?;
                let start = *rest;
                // Every target takes two bytes at least, so a lying count ends the loop soon.
                for _ in 0..count {
                    take_varint(rest)?;
                    take_varint(rest)?;
                }
                let targets = Targets { rest: start.get(..start.len() - rest.len())? };
                let head_len = take_varint(rest)?;
                let (head, body) = if matches!(code, PUT | MOVED) {
                    let body_len = take_varint(rest)?;
                    let head = take(rest, head_len)?;
                    (head, Body::Inline(take(rest, body_len)?))
                } else {
                    let name = take_blob(rest)?;
                    (take(rest, head_len)?, Body::Blob(name))
                };
                Op::Put {
                    moved: matches!(code, MOVED | MOVED_BLOB),
                    targets,
                    meta: PutMeta { priority, flags, expires_ms },
                    head,
                    body,
                }
            }
            REFERENCE => {
                let to = (QueueId(take_varint(rest)?), Sequence(take_varint(rest)?));
                let from = (QueueId(take_varint(rest)?), Sequence(take_varint(rest)?));
                Op::Reference { to, from }
            }
            ACKNOWLEDGE => {
                let queue = QueueId(take_varint(rest)?);
                let first = take_varint(rest)?;
                let count = take_varint(rest)?;
                self.previous = Some((queue, first.saturating_add(count)));
                Op::Acknowledge { queue, first, count }
            }
            ACKNOWLEDGE_ON => {
                let (queue, end) = self.previous?;
                let first = end.wrapping_add(unzigzag(take_varint(rest)?));
                let count = take_varint(rest)?;
                self.previous = Some((queue, first.saturating_add(count)));
                Op::Acknowledge { queue, first, count }
            }
            ATTEMPTS => {
                let queue = QueueId(take_varint(rest)?);
                let sequence = take_varint(rest)?;
                let count = u32::try_from(take_varint(rest)?).ok()?;
                Op::Attempts { queue, sequence, count }
            }
            DELETE_QUEUE => Op::DeleteQueue { queue: QueueId(take_varint(rest)?) },
            SET => {
                let table = take_u8(rest)?;
                let key_len = take_varint(rest)?;
                let value_len = take_varint(rest)?;
                Op::Set { table, key: take(rest, key_len)?, value: take(rest, value_len)? }
            }
            REMOVE => {
                let table = take_u8(rest)?;
                let key_len = take_varint(rest)?;
                Op::Remove { table, key: take(rest, key_len)? }
            }
            PAGED => {
                let (file, start, end) = (take_varint(rest)?, take_varint(rest)?, take_varint(rest)?);
                let (bytes, count) = (take_varint(rest)?, take_varint(rest)?);
                if start > end {
                    return None;
                }
                let (whole, mut before) = (*rest, (0, 0));
                for _ in 0..count {
                    take_range(rest, &mut before)?;
                }
                let ranges = whole.get(..whole.len() - rest.len())?;
                Op::Paged(Paged { file, start, end, bytes, rest: ranges, count })
            }
            _ => return None,
        })
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<Op<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.broken {
            return None;
        }
        let code = take_u8(&mut self.rest)?;
        let op = self.decode(code).ok_or(Malformed);
        self.broken = op.is_err();
        Some(op)
    }
}

/// Whether `body` is exactly `groups` well-formed groups. Asked before anything of a frame is applied.
pub(crate) fn is_well_formed(body: &[u8], groups: u32) -> bool {
    let (mut ends, mut open) = (0u32, false);
    for op in Ops::new(body) {
        match op {
            Ok(Op::End) => {
                ends = ends.saturating_add(1);
                open = false;
            }
            Ok(_) => open = true,
            Err(Malformed) => return false,
        }
    }
    !open && ends == groups
}

pub(crate) fn put(
    out: &mut Vec<u8>,
    moved: bool,
    targets: &[(QueueId, Sequence)],
    meta: PutMeta,
    head: &[&[u8]],
    body: Body<'_>,
) {
    let head_len: usize = head.iter().map(|piece| piece.len()).sum();
    out.reserve(64 + targets.len() * 20 + head_len + body.inline_len());
    let code = match (&body, moved) {
        (Body::Inline(_), false) => PUT,
        (Body::Inline(_), true) => MOVED,
        (Body::Blob(_), false) => PUT_BLOB,
        (Body::Blob(_), true) => MOVED_BLOB,
    };
    out.extend_from_slice(&[code, meta.priority, meta.flags]);
    put_varint(out, meta.expires_ms);
    put_varint(out, targets.len() as u64);
    for (queue, sequence) in targets {
        put_varint(out, queue.0);
        put_varint(out, sequence.0);
    }
    put_varint(out, head_len as u64);
    match body {
        Body::Inline(bytes) => put_varint(out, bytes.len() as u64),
        Body::Blob(name) => {
            for value in [name.id, name.len, u64::from(name.check), u64::from(name.synced)] {
                put_varint(out, value);
            }
        }
    }
    for piece in head {
        out.extend_from_slice(piece);
    }
    if let Body::Inline(bytes) = body {
        out.extend_from_slice(bytes);
    }
}

fn take_blob(rest: &mut &[u8]) -> Option<BlobName> {
    let (id, len) = (take_varint(rest)?, take_varint(rest)?);
    let check = u32::try_from(take_varint(rest)?).ok()?;
    let synced = take_varint(rest)? & 1 == 1;
    (id < NUMBER_MAX).then_some(BlobName { id, len, check, synced })
}

pub(crate) fn reference(out: &mut Vec<u8>, to: (QueueId, Sequence), from: (QueueId, Sequence)) {
    out.push(REFERENCE);
    for number in [to.0.0, to.1.0, from.0.0, from.1.0] {
        put_varint(out, number);
    }
}

/// `previous` is the queue and end of the last run in this group; it is kept up to date here.
pub(crate) fn acknowledge(
    out: &mut Vec<u8>,
    previous: &mut Option<(QueueId, u64)>,
    queue: QueueId,
    first: u64,
    count: u64,
) {
    match *previous {
        Some((same, end)) if same == queue => {
            out.push(ACKNOWLEDGE_ON);
            put_varint(out, zigzag(first.wrapping_sub(end)));
        }
        _ => {
            out.push(ACKNOWLEDGE);
            put_varint(out, queue.0);
            put_varint(out, first);
        }
    }
    put_varint(out, count);
    *previous = Some((queue, first.saturating_add(count)));
}

pub(crate) fn attempts(out: &mut Vec<u8>, queue: QueueId, sequence: u64, count: u32) {
    out.push(ATTEMPTS);
    put_varint(out, queue.0);
    put_varint(out, sequence);
    put_varint(out, u64::from(count));
}

pub(crate) fn delete_queue(out: &mut Vec<u8>, queue: QueueId) {
    out.push(DELETE_QUEUE);
    put_varint(out, queue.0);
}

pub(crate) fn set(out: &mut Vec<u8>, table: u8, key: &[u8], value: &[u8]) {
    out.extend_from_slice(&[SET, table]);
    put_varint(out, key.len() as u64);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

pub(crate) fn remove(out: &mut Vec<u8>, table: u8, key: &[u8]) {
    out.extend_from_slice(&[REMOVE, table]);
    put_varint(out, key.len() as u64);
    out.extend_from_slice(key);
}

/// `ranges`: queue, first number, and how many.
pub(crate) fn paged(
    out: &mut Vec<u8>,
    file: u64,
    (start, end): (u64, u64),
    bytes: u64,
    ranges: &[(u64, u64, u64)],
) {
    out.push(PAGED);
    for value in [file, start, end, bytes, ranges.len() as u64] {
        put_varint(out, value);
    }
    let mut before = (0, 0);
    for &(queue, first, count) in ranges {
        let from = if queue == before.0 { before.1 } else { 0 };
        put_varint(out, zigzag(queue.wrapping_sub(before.0)));
        put_varint(out, zigzag(first.wrapping_sub(from)));
        put_varint(out, count);
        before = (queue, first.saturating_add(count));
    }
}

fn zigzag(difference: u64) -> u64 {
    let signed = difference.cast_signed();
    ((signed << 1) ^ (signed >> 63)).cast_unsigned()
}

fn unzigzag(encoded: u64) -> u64 {
    (encoded >> 1) ^ (encoded & 1).wrapping_neg()
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub(crate) fn take_u8(rest: &mut &[u8]) -> Option<u8> {
    let (&byte, tail) = rest.split_first()?;
    *rest = tail;
    Some(byte)
}

#[inline]
pub(crate) fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let (&first, tail) = rest.split_first()?;
    if first < 0x80 {
        *rest = tail;
        return Some(u64::from(first));
    }
    let mut value = 0u64;
    for (i, &byte) in rest.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if i == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte < 0x80 {
            *rest = rest.get(i + 1..)?;
            return Some(value);
        }
    }
    None
}

#[inline]
pub(crate) fn take<'a>(rest: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (piece, tail) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = tail;
    Some(piece)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum OwnedBody {
        Inline(Vec<u8>),
        Blob(BlobName),
    }

    impl OwnedBody {
        fn body(&self) -> Body<'_> {
            match self {
                Self::Inline(bytes) => Body::Inline(bytes),
                Self::Blob(name) => Body::Blob(*name),
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Owned {
        Put(bool, Vec<(u64, u64)>, u8, u8, u64, Vec<u8>, OwnedBody),
        Reference([u64; 4]),
        Acknowledge(u64, u64, u64),
        Attempts(u64, u64, u32),
        Delete(u64),
        Set(u8, Vec<u8>, Vec<u8>),
        Remove(u8, Vec<u8>),
        Paged([u64; 4], Vec<(u64, u64, u64)>),
        End,
    }

    fn op() -> impl Strategy<Value = Owned> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        let number = || prop_oneof![0u64..300, any::<u64>()];
        let targets = proptest::collection::vec((number(), number()), 0..4);
        let blob = (0..NUMBER_MAX, number(), any::<u32>(), any::<bool>())
            .prop_map(|(id, len, check, synced)| OwnedBody::Blob(BlobName { id, len, check, synced }));
        let body = prop_oneof![bytes().prop_map(OwnedBody::Inline), blob];
        prop_oneof![
            (any::<bool>(), targets, any::<u8>(), any::<u8>(), number(), bytes(), body)
                .prop_map(|(m, t, p, f, e, h, b)| Owned::Put(m, t, p, f, e, h, b)),
            [number(), number(), number(), number()].prop_map(Owned::Reference),
            (0u64..3, number(), 0u64..1000).prop_map(|(q, f, c)| Owned::Acknowledge(q, f, c)),
            (number(), number(), any::<u32>()).prop_map(|(q, s, c)| Owned::Attempts(q, s, c)),
            number().prop_map(Owned::Delete),
            (any::<u8>(), bytes(), bytes()).prop_map(|(t, k, v)| Owned::Set(t, k, v)),
            (any::<u8>(), bytes()).prop_map(|(t, k)| Owned::Remove(t, k)),
            (
                (number(), 0u64..300, 300u64..1 << 40, number()),
                proptest::collection::vec((0u64..3, number(), 0u64..90), 0..6),
            )
                .prop_map(|((file, start, end, bytes), mut ranges)| {
                    let place = [file, start, end, bytes];
                    ranges.retain(|(_, first, count)| first.checked_add(*count).is_some());
                    Owned::Paged(place, ranges)
                }),
            Just(Owned::End),
        ]
    }

    proptest! {
        #[test]
        fn ops_are_read_back_as_they_were_written(ops in proptest::collection::vec(op(), 0..30)) {
            let mut out = Vec::new();
            let mut previous = None;
            for op in &ops {
                match op {
                    Owned::Put(moved, targets, priority, flags, expires_ms, head, body) => {
                        let targets: Vec<_> = targets.iter().map(|t| (QueueId(t.0), Sequence(t.1))).collect();
                        let meta = PutMeta { priority: *priority, flags: *flags, expires_ms: *expires_ms };
                        let (left, right) = head.split_at(head.len() / 2);
                        put(&mut out, *moved, &targets, meta, &[left, right], body.body());
                    }
                    Owned::Reference([a, b, c, d]) =>
                        reference(&mut out, (QueueId(*a), Sequence(*b)), (QueueId(*c), Sequence(*d))),
                    Owned::Acknowledge(q, f, c) => acknowledge(&mut out, &mut previous, QueueId(*q), *f, *c),
                    Owned::Attempts(q, s, c) => attempts(&mut out, QueueId(*q), *s, *c),
                    Owned::Delete(q) => delete_queue(&mut out, QueueId(*q)),
                    Owned::Set(t, k, v) => set(&mut out, *t, k, v),
                    Owned::Remove(t, k) => remove(&mut out, *t, k),
                    Owned::Paged([f, a, b, n], r) => paged(&mut out, *f, (*a, *b), *n, r),
                    Owned::End => { out.push(END); previous = None; }
                }
            }
            let read: Vec<_> = Ops::new(&out).map(|op| op.unwrap()).collect();
            prop_assert_eq!(read.len(), ops.len());
            for (read, wrote) in read.iter().zip(&ops) {
                let same = match (read, wrote) {
                    (Op::Put { moved, targets, meta, head, body }, Owned::Put(m, t, p, f, e, h, b)) => {
                        let targets: Vec<_> = targets.clone().map(|(q, s)| (q.0, s.0)).collect();
                        moved == m && &targets == t && (meta.priority, meta.flags, meta.expires_ms) == (*p, *f, *e)
                            && head == h && *body == b.body()
                    }
                    (Op::Reference { to, from }, Owned::Reference(n)) => [to.0.0, to.1.0, from.0.0, from.1.0] == *n,
                    (Op::Acknowledge { queue, first, count }, Owned::Acknowledge(q, f, c)) =>
                        (queue.0, *first, *count) == (*q, *f, *c),
                    (Op::Attempts { queue, sequence, count }, Owned::Attempts(q, s, c)) =>
                        (queue.0, *sequence, *count) == (*q, *s, *c),
                    (Op::DeleteQueue { queue }, Owned::Delete(q)) => queue.0 == *q,
                    (Op::Set { table, key, value }, Owned::Set(t, k, v)) => table == t && key == k && value == v,
                    (Op::Remove { table, key }, Owned::Remove(t, k)) => table == t && key == k,
                    (Op::Paged(op), Owned::Paged(p, r)) =>
                        [op.file, op.start, op.end, op.bytes] == *p
                            && op.ranges().map(|(q, f, n)| (q.0, f, n)).eq(r.iter().copied()),
                    (Op::End, Owned::End) => true,
                    _ => false,
                };
                prop_assert!(same, "{:?} was read as {:?}", wrote, read);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = is_well_formed(&bytes, 1);
            for op in Ops::new(&bytes) {
                match op {
                    Ok(Op::Put { targets, .. }) => targets.for_each(drop),
                    Ok(Op::Paged(op)) => op.ranges().for_each(drop),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn neighbouring_acknowledgements_of_one_queue_take_three_bytes() {
        let (mut out, mut previous) = (Vec::new(), None);
        acknowledge(&mut out, &mut previous, QueueId(7), 1_000_000, 1);
        let first = out.len();
        acknowledge(&mut out, &mut previous, QueueId(7), 1_000_003, 1);
        acknowledge(&mut out, &mut previous, QueueId(7), 999_990, 1);
        assert_eq!(out.len() - first, 6);
    }
}
