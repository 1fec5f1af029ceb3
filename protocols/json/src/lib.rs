//! The JSON form of a message, and the JSON protocol spoken over WebSocket (`sabir.json`).
