//! The `sabir` binary.
fn main() {}
