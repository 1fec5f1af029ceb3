//! The scrub's way through large bodies, behind that through old segments (`scrub.rs`).

use crate::blob_file::{BLOB_PIECE_BYTES, OpenBlob};
use crate::shared::Shared;
use std::io;

#[derive(Default)]
pub(crate) struct BlobScrub {
    current: Option<Current>,
    /// Blobs below this were read in this pass.
    next: u64,
}

struct Current {
    id: u64,
    file: OpenBlob,
    len: u64,
    offset: u64,
}

impl BlobScrub {
    /// Whether this pass is not over.
    pub(crate) fn has_more(&self, shared: &Shared) -> bool {
        self.current.is_some() || shared.index.lock().blobs.live_from(self.next).next().is_some()
    }

    /// Whether anything was looked at in this pass.
    pub(crate) fn has_begun(&self) -> bool {
        self.next > 0
    }

    /// Begins anew.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Reads a piece; returns its bytes, or `None` if there is no more.
    pub(crate) fn step(&mut self, shared: &Shared) -> Option<u64> {
        let Some(mut current) = self.current.take() else {
            let name = shared.index.lock().blobs.live_from(self.next).next()?;
            self.next = name.id + 1;
            match OpenBlob::open(&*shared.fs, shared.paths.blob(name.id), shared.store_id, &name) {
                Ok(file) => self.current = Some(Current { id: name.id, file, len: name.len, offset: 0 }),
                Err(error) => tell(shared, name.id, &error),
            }
            return Some(0);
        };
        let mut piece = vec![0; BLOB_PIECE_BYTES];
        match current.file.read_at(current.offset, &mut piece) {
            Ok(read) => {
                let read = read as u64;
                current.offset += read;
                self.current = (current.offset < current.len).then_some(current);
                Some(read)
            }
            Err(error) => {
                tell(shared, current.id, &error);
                Some(0)
            }
        }
    }
}

fn tell(shared: &Shared, id: u64, error: &io::Error) {
    if shared.index.lock().blobs.live(id).is_none() {
        // It was let go meanwhile.
        return;
    }
    if crate::blob_file::damage_of(error).is_some() {
        shared.note_blob_damage(id, error);
    } else {
        let file = shared.paths.blob(id);
        tracing::error!(file = %file.display(), %error, "a large message cannot be read");
    }
}
