//! Recovery over arbitrary bytes, for `cargo fuzz` and for the corpus test: panics only on a bug.

use crate::fault_fs::FaultFs;
use crate::manifest::{self, Paths};
use crate::segment::{FRAME_HEADER, align, seal, stamp};
use crate::{Fs, Payload, PutMeta, ReadError, Recover, Store, StoreOptions, checkpoint};
use sabir_model::ids::{QueueId, Sequence};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const STORE_ID: u64 = 0x5ab1_5ab1_5ab1_5ab1;

#[derive(Default)]
struct Nobody {
    stage: u8,
    live: Vec<(QueueId, Sequence, Sequence)>,
}

impl Nobody {
    fn stage(&mut self, stage: u8) {
        assert!(self.stage <= stage, "recovery told things out of order");
        self.stage = stage;
    }
}

impl Recover for Nobody {
    fn meta(&mut self, _: u8, _: &[u8], _: &[u8]) {
        self.stage(0);
    }
    fn queue(&mut self, _: QueueId, _: Sequence, _: u64) {
        self.stage(1);
    }
    fn live(&mut self, queue: QueueId, first: Sequence, last: Sequence, _: u64) {
        assert!(first <= last, "a run has messages");
        assert!(self.live.last().is_none_or(|before| before.0 != queue || before.2 < first), "runs ascend");
        self.live.push((queue, first, last));
        self.stage(2);
    }
    fn attempts(&mut self, _: QueueId, _: Sequence, _: u32) {
        self.stage(3);
    }
}

/// Builds a store whose files hold `data`, opens it, appends to it, and opens it again. The first byte says
/// where the data goes: raw into a segment, as the ops of well-sealed frames (so that what is behind the
/// checksum is reached), as a well-sealed checkpoint, or raw with the checkpoint; its next bits whether
/// damage may go into quarantine, and whether large body 3 has a file, with the data in it.
pub fn fuzz_recovery(data: &[u8]) {
    let Some((&mode, data)) = data.split_first() else { return };
    let fs = Arc::new(FaultFs::new());
    let paths = Paths::new(Path::new("store"));
    if manifest::write(&*fs, &paths, STORE_ID).is_err() {
        return;
    }
    match mode & 3 {
        0 => fs.put(&paths.segment(1), data),
        1 => fs.put(&paths.segment(1), &frames(data)),
        2 => put_checkpoint(&fs, &paths, data),
        _ => {
            let (left, right) = data.split_at(data.len() / 2);
            put_checkpoint(&fs, &paths, left);
            fs.put(&paths.segment(1), &frames(right));
        }
    }
    if mode & 8 != 0 {
        fs.put(&paths.blob(3), data);
    }
    let options = StoreOptions {
        segment_bytes: 4096,
        quarantine: mode & 4 != 0,
        manual: true,
        ..StoreOptions::new(paths.root)
    };
    let disk: Arc<dyn Fs> = Arc::<FaultFs>::clone(&fs);
    let mut told = Nobody::default();
    let Ok((store, report)) = Store::open(options.clone(), Arc::clone(&disk), &mut told) else { return };
    assert!(!report.to_string().is_empty());
    read_all(&store, &told);
    let mut appender = store.begin();
    appender.put(&[(QueueId(1), Sequence(1 << 40))], PutMeta::default(), &[b"head"], b"body");
    let position = appender.finish(crate::Level::Fsync);
    assert!(store.sync().covers(position, crate::Level::Fsync), "a fresh disk takes a message");
    let closed = store.close();
    assert!(closed.is_ok(), "{closed:?}");
    let again = Store::open(options, disk, &mut Nobody::default());
    assert!(again.is_ok(), "what the store wrote, it reads: {:?}", again.err());
}

/// Whatever can be read is told once and in order, and the rest is lost: nothing is passed over.
fn read_all(store: &Store, told: &Nobody) {
    for &(queue, first, last) in &told.live {
        let mut before = None;
        let (mut read, mut last_read) = (0u64, None);
        let outcome =
            store.read(queue, &mut std::iter::once((first, last)), &mut |sequence, _, _, payload| {
                if let Payload::Blob(blob) = payload {
                    // Sound only by a checksum that was guessed.
                    let _ = blob.read_at(0, &mut [0; 4096]);
                }
                assert!((first..=last).contains(&sequence) && before < Some(sequence), "told in order");
                before = Some(sequence);
                (read, last_read) = (read + 1, Some(sequence));
                ControlFlow::Continue(())
            });
        let lost = match outcome {
            Ok(()) => 0,
            Err(ReadError::Damaged { lost, .. }) => lost.iter().map(|(from, to)| to.0 - from.0 + 1).sum(),
            Err(other) => unreachable!("{other}"),
        };
        assert_eq!(read + lost, last.0 - first.0 + 1, "what is not read is lost");
    }
}

/// Sound frames around the data: every length byte starts a frame with that many bytes of ops, cut into one
/// group.
fn frames(mut data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut lsn = 1;
    while let Some((&len, rest)) = data.split_first() {
        let (ops, rest) = rest.split_at(rest.len().min(usize::from(len)));
        data = rest;
        let mut frame = vec![0; FRAME_HEADER];
        frame.extend_from_slice(ops);
        frame.push(0);
        let groups = u32::try_from(
            crate::record::Ops::new(frame.get(FRAME_HEADER..).unwrap_or_default())
                .filter(|op| matches!(op, Ok(crate::record::Op::End)))
                .count(),
        )
        .unwrap_or(1);
        let offset = align(out.len() as u64);
        out.resize(usize::try_from(offset).unwrap_or(0), 0);
        seal(&mut frame, stamp(STORE_ID, 1), offset, lsn, lsn - 1, groups);
        out.extend_from_slice(&frame);
        lsn += u64::from(groups);
    }
    out
}

fn put_checkpoint(fs: &FaultFs, paths: &Paths, data: &[u8]) {
    let mut bytes = vec![0; checkpoint::HEADER];
    bytes.extend_from_slice(data);
    checkpoint::seal(&mut bytes, STORE_ID, 7, 0, 2);
    fs.put(&checkpoint::path(paths, 7), &bytes);
}
