//! The store against an in-memory model, over a disk that crashes, fills up and rots on request. No test
//! sleeps; those of crashes run without threads, so that every I/O is at a known place.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod blob_damage;
mod blobs;
mod corruption;
mod crash;
mod fixtures;
mod model;
mod offline;
mod reading;
mod scrub;
mod space;
mod threads;

/// How many scenarios to try: one here, more at night (`SABIR_CRASH_ROUNDS=50`).
fn rounds() -> u64 {
    std::env::var("SABIR_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
