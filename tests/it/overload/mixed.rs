//! x
/// What a broker needs beside what it is told to bound: code, threads, buffers, 40 KiB for each connection.
pub(super) const BESIDE: u64 = 96 << 20;
