//! What the log should hold: an obviously right model of the operations, and a recorder of what recovery told.

use crate::{
    Appender, BLOB_PIECE_BYTES, Blob, FaultFs, Fs, Level, Payload, PutMeta, ReadError, Recover,
    RecoveryReport, Store, StoreError, StoreOptions,
};
use sabir_model::ids::{Position, QueueId, Sequence};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

pub(super) type Key = (u64, u64);

/// Everything that recovery tells, in a form that compares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) meta: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    pub(super) next: BTreeMap<u64, u64>,
    pub(super) messages: BTreeMap<Key, Vec<u8>>,
    pub(super) attempts: BTreeMap<Key, u32>,
    /// What recovery told to be alive; empty once it is read into `messages`.
    live: BTreeMap<u64, Vec<(Sequence, Sequence)>>,
}

impl Recover for State {
    fn meta(&mut self, table: u8, key: &[u8], value: &[u8]) {
        assert!(self.next.is_empty() && self.messages.is_empty(), "metadata comes first");
        assert!(self.meta.insert((table, key.to_vec()), value.to_vec()).is_none());
    }
    fn queue(&mut self, queue: QueueId, next: Sequence, _: u64) {
        assert!(self.messages.is_empty(), "queues come before messages");
        assert!(self.next.insert(queue.0, next.0).is_none());
    }
    fn live(&mut self, queue: QueueId, first: Sequence, last: Sequence, _: u64) {
        assert!(self.attempts.is_empty(), "messages come before attempts");
        assert!(first <= last);
        let runs = self.live.entry(queue.0).or_default();
        assert!(runs.last().is_none_or(|before| before.1 < first), "runs ascend and are disjoint");
        runs.push((first, last));
    }
    fn attempts(&mut self, queue: QueueId, sequence: Sequence, count: u32) {
        assert!(self.attempts.insert((queue.0, sequence.0), count).is_none());
    }
}

/// One op of a group.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Put {
        targets: Vec<Key>,
        body: Vec<u8>,
    },
    /// With the body in a file of its own.
    PutBlob {
        targets: Vec<Key>,
        body: Vec<u8>,
    },
    /// What is alive under a name is put under others, wherever its body is.
    Again {
        targets: Vec<Key>,
        from: Key,
    },
    Reference {
        to: Key,
        from: Key,
    },
    Acknowledge {
        queue: u64,
        first: u64,
        count: u64,
    },
    Attempts {
        key: Key,
        count: u32,
    },
    Delete {
        queue: u64,
    },
    Set {
        key: u8,
        value: Vec<u8>,
    },
    Remove {
        key: u8,
    },
}

const META: PutMeta = PutMeta { priority: 4, flags: 1, expires_ms: 1_700_000_000_000 };

fn content(body: &[u8]) -> Vec<u8> {
    let mut content = vec![META.priority, META.flags];
    content.extend_from_slice(&META.expires_ms.to_le_bytes());
    content.extend_from_slice(b"head|");
    content.extend_from_slice(body);
    content
}

/// A body that a group needs besides what its ops say.
enum Prepared {
    Nothing,
    Blob(Blob),
    Inline(Vec<u8>),
}

impl Op {
    /// What is done before the group is begun; `None` if the disk does not allow it.
    fn prepare(&self, store: &Store, level: Level) -> Option<Prepared> {
        match self {
            Self::PutBlob { body, .. } => {
                let mut writer = store.blob(body.len() as u64 / 2).ok()?;
                for piece in body.chunks(700) {
                    writer.write(piece).ok()?;
                }
                writer.finish(level).ok().map(Prepared::Blob)
            }
            Self::Again { from, .. } => {
                let mut found = None;
                let mut wanted = std::iter::once((Sequence(from.1), Sequence(from.1)));
                let read = store.read(QueueId(from.0), &mut wanted, &mut |_, _, _, payload| {
                    found = Some(match payload {
                        Payload::Inline(body) => Prepared::Inline(body.to_vec()),
                        Payload::Blob(blob) => Prepared::Blob(blob),
                    });
                    ControlFlow::Continue(())
                });
                read.ok().and(found)
            }
            _ => Some(Prepared::Nothing),
        }
    }

    /// For what needs no preparation.
    pub(super) fn append(&self, to: &mut Appender<'_>) {
        self.append_prepared(&Prepared::Nothing, to);
    }

    fn append_prepared(&self, prepared: &Prepared, to: &mut Appender<'_>) {
        let names =
            |keys: &[Key]| keys.iter().map(|key| (QueueId(key.0), Sequence(key.1))).collect::<Vec<_>>();
        match self {
            Self::PutBlob { targets, .. } | Self::Again { targets, .. } => match prepared {
                Prepared::Blob(blob) => to.put_blob(&names(targets), META, &[b"he", b"ad"], blob),
                Prepared::Inline(body) => to.put(&names(targets), META, &[b"head"], body),
                Prepared::Nothing => unreachable!("it was prepared"),
            },
            Self::Put { targets, body } => {
                let targets: Vec<_> = targets.iter().map(|key| (QueueId(key.0), Sequence(key.1))).collect();
                to.put(&targets, META, &[b"he", b"ad"], body);
            }
            Self::Reference { to: t, from } => {
                to.reference((QueueId(t.0), Sequence(t.1)), (QueueId(from.0), Sequence(from.1)));
            }
            Self::Acknowledge { queue, first, count } => {
                to.acknowledge(QueueId(*queue), Sequence(*first), *count)
            }
            Self::Attempts { key, count } => to.attempts(QueueId(key.0), Sequence(key.1), *count),
            Self::Delete { queue } => to.delete_queue(QueueId(*queue)),
            Self::Set { key, value } => to.set(3, &[*key], value),
            Self::Remove { key } => to.remove(3, &[*key]),
        }
    }
}

impl State {
    /// Reads everything that recovery told to be alive.
    pub(super) fn load(&mut self, store: &Store) -> Result<(), ReadError> {
        for (queue, runs) in std::mem::take(&mut self.live) {
            let count: u64 = runs.iter().map(|(first, last)| last.0 - first.0 + 1).sum();
            let read = read_back(store, queue, &mut runs.into_iter())?;
            assert_eq!(read.len() as u64, count, "queue {queue}: what is alive is read");
            for (sequence, content) in read {
                self.messages.insert((queue, sequence), content);
            }
        }
        Ok(())
    }

    pub(super) fn apply(&mut self, group: &[Op]) {
        for op in group {
            match op {
                Op::Put { targets, body } | Op::PutBlob { targets, body } => {
                    for key in targets {
                        self.number(*key);
                        self.messages.insert(*key, content(body));
                    }
                }
                Op::Again { targets, from } => {
                    let message = self.messages[from].clone();
                    for key in targets {
                        self.number(*key);
                        self.messages.insert(*key, message.clone());
                    }
                }
                Op::Reference { to, from } => {
                    self.number(*to);
                    if let Some(message) = self.messages.get(from).cloned() {
                        self.messages.insert(*to, message);
                    }
                }
                Op::Acknowledge { queue, first, count } => {
                    for sequence in *first..first + count {
                        self.messages.remove(&(*queue, sequence));
                        self.attempts.remove(&(*queue, sequence));
                    }
                }
                Op::Attempts { key, count } => {
                    if self.messages.contains_key(key) {
                        self.attempts.insert(*key, *count);
                    }
                }
                Op::Delete { queue } => {
                    self.next.remove(queue);
                    self.messages.retain(|key, _| key.0 != *queue);
                    self.attempts.retain(|key, _| key.0 != *queue);
                }
                Op::Set { key, value } => {
                    self.meta.insert((3, vec![*key]), value.clone());
                }
                Op::Remove { key } => {
                    self.meta.remove(&(3, vec![*key]));
                }
            }
        }
    }

    fn number(&mut self, key: Key) {
        let next = self.next.entry(key.0).or_insert(1);
        *next = (*next).max(key.1 + 1);
    }
}

pub(super) fn options() -> StoreOptions {
    StoreOptions {
        segment_bytes: 4096,
        journal_bytes_max: 16 << 10,
        manual: true,
        ..StoreOptions::new("store")
    }
}

pub(super) fn open(
    fs: &FaultFs,
    options: StoreOptions,
) -> Result<(Store, State, RecoveryReport), StoreError> {
    let disk: Arc<dyn Fs> = Arc::new(fs.clone());
    let mut state = State::default();
    let (store, report) = Store::open(options, disk, &mut state)?;
    match state.load(&store) {
        Ok(()) => Ok((store, state, report)),
        // As if it were found at once.
        Err(ReadError::Damaged { file, offset, lost }) => {
            Err(StoreError::Corrupt { file, offset, reason: format!("{lost:?} cannot be read") })
        }
        Err(ReadError::Io { file, source }) => Err(StoreError::Io { what: "read", file, source }),
        Err(other) => panic!("{other}"),
    }
}

/// Everything of a queue that is alive among `wanted`, as it was put.
pub(super) fn read_back(
    store: &Store,
    queue: u64,
    wanted: &mut dyn Iterator<Item = (Sequence, Sequence)>,
) -> Result<BTreeMap<u64, Vec<u8>>, ReadError> {
    let mut read = BTreeMap::new();
    let mut unreadable = None;
    store.read(QueueId(queue), wanted, &mut |sequence, meta, head, payload| {
        let mut content = vec![meta.priority, meta.flags];
        content.extend_from_slice(&meta.expires_ms.to_le_bytes());
        content.extend_from_slice(head);
        content.push(b'|');
        match payload {
            Payload::Inline(body) => content.extend_from_slice(body),
            Payload::Blob(blob) => match whole(&blob) {
                Ok(body) => content.extend_from_slice(&body),
                Err(error) => {
                    unreadable = Some(error);
                    return ControlFlow::Break(());
                }
            },
        }
        assert!(read.last_key_value().is_none_or(|(before, _)| *before < sequence.0), "in ascending order");
        read.insert(sequence.0, content);
        ControlFlow::Continue(())
    })?;
    match unreadable {
        Some(source) => Err(ReadError::Io { file: "a blob".into(), source }),
        None => Ok(read),
    }
}

/// A handle to the large body of some message that is alive, and the message.
pub(super) fn take_handle(store: &Store, scenario: &mut Scenario) -> Option<(Blob, Vec<u8>)> {
    let key = scenario.alive()?;
    let op = Op::Again { targets: Vec::new(), from: key };
    match op.prepare(store, Level::Os)? {
        Prepared::Blob(blob) => Some((blob, scenario.state.messages[&key].clone())),
        _ => None,
    }
}

/// A large body, read in two goes.
pub(super) fn whole(blob: &Blob) -> io::Result<Vec<u8>> {
    let mut body = vec![0; usize::try_from(blob.len()).unwrap()];
    let middle = body.len() / 3;
    let (first, second) = body.split_at_mut(middle);
    assert_eq!(blob.read_at(middle as u64, second)?, second.len());
    assert_eq!(blob.read_at(0, first)?, first.len());
    Ok(body)
}

pub(super) fn append(store: &Store, group: &[Op], level: Level) -> Position {
    try_append(store, group, level).unwrap()
}

/// `None` if a large body could not be written, or read to be put again; then nothing was appended.
pub(super) fn try_append(store: &Store, group: &[Op], level: Level) -> Option<Position> {
    let prepared: Option<Vec<_>> = group.iter().map(|op| op.prepare(store, level)).collect();
    let prepared = prepared?;
    let mut appender = store.begin();
    for (op, prepared) in group.iter().zip(&prepared) {
        op.append_prepared(prepared, &mut appender);
    }
    Some(appender.finish(level))
}

/// A small deterministic source of numbers.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }
}

/// Makes sound groups: numbers ascend, references and acknowledgements name what is alive.
pub(super) struct Scenario {
    pub(super) random: Random,
    pub(super) state: State,
    pub(super) given: BTreeMap<u64, u64>,
    pub(super) queues: u64,
    pub(super) deleted: BTreeSet<u64>,
    /// Whether some bodies are in files of their own.
    blobs: bool,
}

impl Scenario {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            state: State::default(),
            given: BTreeMap::new(),
            queues: 4,
            deleted: BTreeSet::new(),
            blobs: false,
        }
    }

    pub(super) fn with_blobs(seed: u64) -> Self {
        Self { blobs: true, ..Self::new(seed) }
    }

    fn number(&mut self, queue: u64) -> Key {
        let next = self.given.entry(queue).or_insert(1);
        // Now and then a non-persistent message takes a number that is never logged.
        *next += u64::from(self.random.below(20) == 0);
        let key = (queue, *next);
        *next += 1;
        key
    }

    fn alive(&mut self) -> Option<Key> {
        let n = self.state.messages.len() as u64;
        let at = usize::try_from(self.random.below(n)).unwrap();
        self.state.messages.keys().nth(at).copied()
    }

    fn queue(&mut self) -> u64 {
        loop {
            let queue = 1 + self.random.below(self.queues);
            if !self.deleted.contains(&queue) {
                return queue;
            }
        }
    }

    /// The next group, applied to the model.
    pub(super) fn group(&mut self) -> Vec<Op> {
        let mut group = Vec::new();
        for _ in 0..=self.random.below(3) {
            let op = if group.is_empty() && self.blobs && self.random.below(12) == 0 {
                self.blob_op()
            } else {
                self.op()
            };
            self.state.apply(std::slice::from_ref(&op));
            group.push(op);
        }
        group
    }

    fn blob_op(&mut self) -> Op {
        let first = self.queue();
        let mut targets = vec![self.number(first)];
        if self.random.below(3) == 0 {
            let second = self.queue();
            targets.push(self.number(second));
        }
        if self.random.below(3) == 0
            && let Some(from) = self.alive()
        {
            return Op::Again { targets, from };
        }
        let len = usize::try_from(self.random.below(3 * BLOB_PIECE_BYTES as u64)).unwrap();
        let body = format!("{targets:?}").bytes().cycle().take(len).collect();
        Op::PutBlob { targets, body }
    }

    fn op(&mut self) -> Op {
        match self.random.below(20) {
            0..=7 => {
                let first = self.queue();
                let mut targets = vec![self.number(first)];
                if self.random.below(3) == 0 {
                    let second = self.queue();
                    targets.push(self.number(second));
                }
                let len = usize::try_from(10 + self.random.below(120)).unwrap();
                let body = format!("{targets:?}").bytes().cycle().take(len).collect();
                Op::Put { targets, body }
            }
            // Some stay for ever, so that there is something to evacuate.
            8..=14 => match self.alive().filter(|key| key.1 % 11 != 0) {
                Some((queue, first)) => Op::Acknowledge { queue, first, count: 1 + self.random.below(2) },
                None => Op::Remove { key: 1 },
            },
            15 => match self.alive() {
                Some(from) => {
                    let queue = self.queue();
                    Op::Reference { to: self.number(queue), from }
                }
                None => Op::Remove { key: 2 },
            },
            16 => match self.alive() {
                Some(key) => Op::Attempts { key, count: 1 + u32::try_from(self.random.below(9)).unwrap() },
                None => Op::Remove { key: 3 },
            },
            17 if self.random.below(10) == 0 && self.queues < 12 => {
                let queue = self.queue();
                self.deleted.insert(queue);
                self.queues += 1;
                Op::Delete { queue }
            }
            18 => Op::Remove { key: u8::try_from(self.random.below(6)).unwrap() },
            _ => Op::Set { key: u8::try_from(self.random.below(6)).unwrap(), value: vec![7; 5] },
        }
    }
}
