//! Blob files at a start: which are there, which are missing, which nobody names.
//!
//! One that was synced before it was named is only looked at: it is there, and as long as it should be; who reads it
//! checks the rest, as with old segments. One that was not is read, for a loss of power may have taken any part of it:
//! then its messages are lost, which nobody was promised to keep. With quarantine all are read, and the messages
//! of those that are damaged are given up.

use crate::blob_file::{self, OpenBlob, file_bytes};
use crate::error::{LostRange, RecoveryReport, StoreError};
use crate::fs::Fs;
use crate::index::Index;
use crate::manifest::Paths;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// Blob files by number, and their sizes.
#[derive(Debug, Default)]
pub(crate) struct BlobFiles {
    present: BTreeMap<u64, u64>,
    /// Those that no live message names.
    orphans: BTreeSet<u64>,
    /// Orphans are moved into quarantine: the log that may have named them is damaged.
    keep: bool,
    next: u64,
}

fn io_error(what: &'static str, file: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let file = file.to_owned();
    move |source| StoreError::Io { what, file, source }
}

impl BlobFiles {
    pub(crate) fn find(fs: &dyn Fs, paths: &Paths) -> Result<Self, StoreError> {
        let mut present = BTreeMap::new();
        for name in fs.list(&paths.blobs).map_err(io_error("list", &paths.blobs))? {
            let Some(id) = blob_file::parse_name(&name) else { continue };
            let path = paths.blob(id);
            let len = fs.open(&path).and_then(|file| file.len()).map_err(io_error("open", &path))?;
            present.insert(id, len);
        }
        Ok(Self { present, ..Self::default() })
    }

    /// Looks at the file of every live blob; returns the messages that are lost.
    pub(crate) fn examine(
        &self,
        fs: &dyn Fs,
        paths: &Paths,
        store_id: u64,
        index: &Index,
        quarantine: bool,
        report: &mut RecoveryReport,
    ) -> Result<Vec<LostRange>, StoreError> {
        let (mut damaged, mut never_synced) = (BTreeSet::new(), BTreeSet::new());
        for name in index.blobs.all_live() {
            let path = paths.blob(name.id);
            let present = self.present.get(&name.id).copied();
            if name.synced && !quarantine && present == Some(file_bytes(name.len)) {
                continue;
            }
            let examined = OpenBlob::open(fs, path.clone(), store_id, &name)
                .and_then(|file| file.examine(&mut |bytes| report.bytes_read += bytes));
            let Err(error) = examined else { continue };
            let Some(damage) = blob_file::damage_of(&error) else {
                return Err(StoreError::Io { what: "read", file: path, source: error });
            };
            if !name.synced {
                never_synced.insert(name.id);
                continue;
            }
            if !quarantine {
                let reason = damage.reason.to_owned();
                return Err(StoreError::Corrupt { file: path, offset: damage.offset, reason });
            }
            report.bodies.push(damage.clone());
            damaged.insert(name.id);
        }
        let mut lost = Vec::new();
        if !damaged.is_empty() {
            lost.extend(index.blobs.holders_of(&damaged));
            report.lost.extend(lost.iter().copied());
        }
        if !never_synced.is_empty() {
            let unsynced = index.blobs.holders_of(&never_synced);
            report.unsynced.extend(unsynced.iter().copied());
            lost.extend(unsynced);
        }
        Ok(lost)
    }

    /// What is lost is given up: who is left without a name?
    pub(crate) fn settle(&mut self, index: &mut Index, report: &mut RecoveryReport) {
        let dead = index.blobs.dead();
        index.blobs.forget(&dead);
        self.orphans = self.present.keys().copied().filter(|id| !index.blobs.is_known(*id)).collect();
        let highest = self.present.last_key_value().map_or(0, |(id, _)| *id);
        self.next = index.blobs.next.max(highest.saturating_add(1));
        self.keep = !(report.damage.is_empty() && report.bodies.is_empty());
        report.blobs = index.blobs.all_live().count() as u64;
        report.orphans = self.orphans.len() as u64;
    }

    /// The next number.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many there are, and their bytes.
    pub(crate) fn count(&self) -> (u64, u64) {
        (self.present.len() as u64, self.present.values().sum())
    }

    /// Lets go of what nobody names, once a durable checkpoint says so: until then an older state of the log may come back
    /// that does.
    pub(crate) fn remove_orphans(&mut self, fs: &dyn Fs, paths: &Paths) {
        if self.keep
            && !self.orphans.is_empty()
            && let Err(error) = fs.create_dir_all(&paths.quarantine)
        {
            tracing::warn!(dir = %paths.quarantine.display(), %error, "message bodies of a damaged log could not be put into quarantine; they stay where they are");
            return;
        }
        for id in std::mem::take(&mut self.orphans) {
            let path = paths.blob(id);
            let outcome = if self.keep {
                fs.rename(&path, &paths.quarantine.join(blob_file::file_name(id)))
            } else {
                fs.remove(&path)
            };
            match outcome {
                Ok(()) => {
                    self.present.remove(&id);
                }
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "a message body that nobody needs could not be removed; the next start tries again");
                }
            }
        }
    }
}
