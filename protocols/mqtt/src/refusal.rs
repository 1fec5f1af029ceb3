//! What the broker's refusals are called on the wire, packet by packet, and what the codec's are called in the log.

use sabir_model::error::{Code, Refusal};

use crate::error::DecodeError;
use crate::reason::Reason;

/// In CONNACK: why a client is not let in.
pub(crate) fn connack(code: Code) -> Reason {
    match code {
        Code::MalformedFrame => Reason::MalformedPacket,
        Code::TooLarge => Reason::PacketTooLarge,
        Code::InvalidHeader | Code::MissingHeader | Code::UnknownCommand | Code::UnexpectedFrame => {
            Reason::ProtocolError
        }
        Code::UnsupportedVersion => Reason::UnsupportedProtocolVersion,
        Code::InvalidDestination | Code::UnknownDestination => Reason::TopicNameInvalid,
        Code::AuthenticationFailed => Reason::BadUsernameOrPassword,
        Code::TooManyAttempts => Reason::ConnectionRateExceeded,
        Code::AccessDenied => Reason::NotAuthorized,
        Code::InvalidClientId | Code::ClientIdInUse => Reason::ClientIdentifierNotValid,
        Code::UnsupportedMechanism => Reason::BadAuthenticationMethod,
        Code::InvalidBody => Reason::PayloadFormatInvalid,
        Code::Unsupported => Reason::ImplementationSpecificError,
        Code::LimitReached | Code::DestinationFull | Code::StorageFull | Code::MemoryFull => {
            Reason::QuotaExceeded
        }
        Code::ShuttingDown | Code::TakenOver => Reason::ServerUnavailable,
        _ => Reason::UnspecifiedError,
    }
}

/// In PUBACK and PUBREC: why a message is not taken.
pub(crate) fn publish(code: Code) -> Reason {
    match code {
        Code::AccessDenied => Reason::NotAuthorized,
        Code::InvalidDestination | Code::UnknownDestination => Reason::TopicNameInvalid,
        Code::InvalidBody => Reason::PayloadFormatInvalid,
        Code::TooLarge
        | Code::LimitReached
        | Code::DestinationFull
        | Code::StorageFull
        | Code::MemoryFull => Reason::QuotaExceeded,
        Code::Unsupported => Reason::ImplementationSpecificError,
        _ => Reason::UnspecifiedError,
    }
}

/// In SUBACK: why a subscription is not granted.
pub(crate) fn subscribe(code: Code) -> Reason {
    match code {
        Code::AccessDenied => Reason::NotAuthorized,
        Code::InvalidDestination | Code::UnknownDestination => Reason::TopicFilterInvalid,
        Code::LimitReached | Code::DestinationFull | Code::StorageFull | Code::MemoryFull => {
            Reason::QuotaExceeded
        }
        Code::Unsupported => Reason::ImplementationSpecificError,
        _ => Reason::UnspecifiedError,
    }
}

/// In UNSUBACK: why a subscription is not ended.
pub(crate) fn unsubscribe(code: Code) -> Reason {
    match code {
        Code::UnknownSubscription => Reason::NoSubscriptionExisted,
        Code::AccessDenied => Reason::NotAuthorized,
        Code::InvalidDestination | Code::UnknownDestination => Reason::TopicFilterInvalid,
        _ => Reason::UnspecifiedError,
    }
}

/// In DISCONNECT: why the broker ends a connection that has broken no rule.
pub(crate) fn closing(code: Code) -> Reason {
    match code {
        Code::TakenOver => Reason::SessionTakenOver,
        Code::ShuttingDown => Reason::ServerShuttingDown,
        Code::SlowConsumer
        | Code::LimitReached
        | Code::DestinationFull
        | Code::StorageFull
        | Code::MemoryFull => Reason::QuotaExceeded,
        Code::AccessDenied | Code::AuthenticationFailed => Reason::NotAuthorized,
        Code::Internal => Reason::UnspecifiedError,
        _ => Reason::AdministrativeAction,
    }
}

/// A rule is broken: what to tell the client, and what to write down.
#[derive(Debug)]
pub(crate) struct Breach {
    pub(crate) reason: Reason,
    pub(crate) refusal: Refusal,
}

impl Breach {
    /// A packet that must not come, or not now.
    pub(crate) fn protocol(sentence: &'static str) -> Self {
        Self::new(Reason::ProtocolError, sentence)
    }

    pub(crate) fn new(reason: Reason, sentence: &'static str) -> Self {
        let code = match reason {
            Reason::MalformedPacket => Code::MalformedFrame,
            Reason::PacketTooLarge => Code::TooLarge,
            Reason::UnsupportedProtocolVersion => Code::UnsupportedVersion,
            Reason::TopicNameInvalid | Reason::TopicFilterInvalid => Code::InvalidDestination,
            Reason::PayloadFormatInvalid => Code::InvalidBody,
            Reason::BadAuthenticationMethod => Code::UnsupportedMechanism,
            Reason::ClientIdentifierNotValid => Code::InvalidClientId,
            Reason::KeepAliveTimeout => Code::HeartbeatTimeout,
            Reason::TopicAliasInvalid => Code::InvalidHeader,
            Reason::ReceiveMaximumExceeded => Code::LimitReached,
            _ => Code::UnexpectedFrame,
        };
        Self { reason, refusal: Refusal::new(code, sentence) }
    }
}

impl From<DecodeError> for Breach {
    fn from(error: DecodeError) -> Self {
        Self::new(error.reason, error.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Kind;

    #[test]
    fn every_code_has_an_answer_that_the_packet_may_carry_mqtt_2_4() {
        for &code in Code::ALL {
            for (reason, kind) in [
                (connack(code), Kind::Connack),
                (publish(code), Kind::Puback),
                (publish(code), Kind::Pubrec),
                (subscribe(code), Kind::Suback),
                (unsubscribe(code), Kind::Unsuback),
                (closing(code), Kind::Disconnect),
            ] {
                assert!(reason.allowed_in(kind), "{code}: {} in {kind:?}", reason.as_str());
            }
            assert!(connack(code).is_failure() && publish(code).is_failure() && subscribe(code).is_failure());
        }
    }
}
