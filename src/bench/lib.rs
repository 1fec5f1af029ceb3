//! The load generator behind sabir bench.
