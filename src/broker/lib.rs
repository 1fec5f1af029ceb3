//! The destination core.
