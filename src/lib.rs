//! Sabir, a multi-protocol message broker.
