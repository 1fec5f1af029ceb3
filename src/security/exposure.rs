//! The rule that keeps an open server off the network.

use std::net::SocketAddr;

/// Checks that no listener invites other machines to a server on which anybody may do anything.
///
/// `listeners` are pairs of configuration key and address; Unix sockets need not be named, they are local.
///
/// # Errors
/// One sentence (naming the first such listener and both ways out) if one of them listens beyond loopback while there
/// are no users and anonymous access from elsewhere has not been allowed.
pub fn check_exposure(
    listeners: &[(&str, SocketAddr)],
    users_exist: bool,
    allow_anonymous_remote: bool,
) -> Result<(), String> {
    if users_exist || allow_anonymous_remote {
        return Ok(());
    }
    let open = listeners.iter().find(|(_, address)| !address.ip().to_canonical().is_loopback());
    open.map_or(Ok(()), |(key, address)| {
        Err(format!(
            "{key} is {address}, which other machines can reach, and there are no users yet: \
             add one with `sabir user add NAME`, or let everybody in with security.allow_anonymous_remote = true"
        ))
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_loopback_may_be_open_without_users() {
        let check = |address: &str, users, allow| {
            check_exposure(&[("listeners.stomp", address.parse().unwrap())], users, allow)
        };
        for local in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(check(local, false, false).is_ok(), "{local}");
        }
        for open in ["0.0.0.0:61613", "[::]:61613", "192.168.1.7:61613", "[2001:db8::1]:61613"] {
            assert!(check(open, false, false).is_err(), "{open}");
            assert!(check(open, true, false).is_ok(), "{open}");
            assert!(check(open, false, true).is_ok(), "{open}");
        }
        assert_eq!(
            check("0.0.0.0:61613", false, false).unwrap_err(),
            "listeners.stomp is 0.0.0.0:61613, which other machines can reach, and there are no users yet: add one \
             with `sabir user add NAME`, or let everybody in with security.allow_anonymous_remote = true"
        );
    }
}
