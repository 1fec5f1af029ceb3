//! MQTT against the running server: each statement of the specifications that one codec or one session cannot show. What is
//! said and heard is in the words of the codec's transcripts; what is not polite is bytes. `docs/mqtt.md` lists which
//! test shows which statement.

pub(crate) mod auth;
mod connect;
mod crash;
mod crossing;
mod device;
mod flow;
mod malformed;
mod publish;
mod quality;
mod retain;
mod sessions;
mod shared;
mod subscribe;
mod websocket;
mod wills;
#[path = "../../../protocols/mqtt/tests/harness/words.rs"]
#[expect(unreachable_pub, reason = "it is the harness of the codec's tests, too")]
mod words;
