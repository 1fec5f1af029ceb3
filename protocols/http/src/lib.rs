//! Messaging over HTTP as pure translation: requests to commands, deliveries to replies and events.
