//! Frames inside segment files.

/// Bytes of a frame's header.
pub(crate) const FRAME_HEADER: usize = 48;
