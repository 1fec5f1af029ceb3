//! Reason codes of MQTT 5: what they are called, who may carry them, and what they become in older versions.

use crate::packet::Kind;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, [$($kind:ident)*];)*) => {
        /// A reason code of MQTT 5.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $name = $code,)*
        }

        impl Reason {
            /// Every code, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason with this code.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Its name in the specification, in small letters with hyphens.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Whether packets of this kind may carry it, from whichever side (2.4).
            #[must_use]
            pub const fn allowed_in(self, kind: Kind) -> bool {
                match self {
                    $(Self::$name => matches!(kind, $(Kind::$kind)|*),)*
                }
            }
        }
    };
}

reasons! {
    /// Success; a normal end; QoS 0 granted.
    Success = 0x00, "success", [Connack Puback Pubrec Pubrel Pubcomp Suback Unsuback Disconnect Auth];
    /// QoS 1 granted.
    GrantedQos1 = 0x01, "granted-qos-1", [Suback];
    /// QoS 2 granted.
    GrantedQos2 = 0x02, "granted-qos-2", [Suback];
    /// The client leaves and wants its will sent.
    DisconnectWithWill = 0x04, "disconnect-with-will", [Disconnect];
    /// Taken, but nobody listens.
    NoMatchingSubscribers = 0x10, "no-matching-subscribers", [Puback Pubrec];
    /// There was nothing to end.
    NoSubscriptionExisted = 0x11, "no-subscription-existed", [Unsuback];
    /// Go on with the next step.
    ContinueAuthentication = 0x18, "continue-authentication", [Auth];
    /// The client starts over.
    Reauthenticate = 0x19, "re-authenticate", [Auth];
    /// No reason is given.
    UnspecifiedError = 0x80, "unspecified-error", [Connack Puback Pubrec Suback Unsuback Disconnect];
    /// The bytes are no packet.
    MalformedPacket = 0x81, "malformed-packet", [Connack Disconnect];
    /// A packet that must not come, or not now.
    ProtocolError = 0x82, "protocol-error", [Connack Disconnect];
    /// Valid, but not here.
    ImplementationSpecificError = 0x83, "implementation-specific-error", [Connack Puback Pubrec Suback Unsuback Disconnect];
    /// No such version here.
    UnsupportedProtocolVersion = 0x84, "unsupported-protocol-version", [Connack];
    /// The client id is not allowed.
    ClientIdentifierNotValid = 0x85, "client-identifier-not-valid", [Connack];
    /// Not let in.
    BadUsernameOrPassword = 0x86, "bad-user-name-or-password", [Connack];
    /// Not allowed.
    NotAuthorized = 0x87, "not-authorized", [Connack Puback Pubrec Suback Unsuback Disconnect];
    /// Not now.
    ServerUnavailable = 0x88, "server-unavailable", [Connack];
    /// Try again later.
    ServerBusy = 0x89, "server-busy", [Connack Disconnect];
    /// Kept out by an administrator.
    Banned = 0x8a, "banned", [Connack];
    /// The server ends.
    ServerShuttingDown = 0x8b, "server-shutting-down", [Disconnect];
    /// No such method, or another than at first.
    BadAuthenticationMethod = 0x8c, "bad-authentication-method", [Connack Disconnect];
    /// Nothing came for too long.
    KeepAliveTimeout = 0x8d, "keep-alive-timeout", [Disconnect];
    /// Another connection has the client id now.
    SessionTakenOver = 0x8e, "session-taken-over", [Disconnect];
    /// The filter is not accepted.
    TopicFilterInvalid = 0x8f, "topic-filter-invalid", [Suback Unsuback Disconnect];
    /// The topic name is not accepted.
    TopicNameInvalid = 0x90, "topic-name-invalid", [Connack Puback Pubrec Disconnect];
    /// The packet id is not free.
    PacketIdentifierInUse = 0x91, "packet-identifier-in-use", [Puback Pubrec Suback Unsuback];
    /// The packet id is not known.
    PacketIdentifierNotFound = 0x92, "packet-identifier-not-found", [Pubrel Pubcomp];
    /// More in flight than allowed.
    ReceiveMaximumExceeded = 0x93, "receive-maximum-exceeded", [Disconnect];
    /// An alias of zero or above the maximum.
    TopicAliasInvalid = 0x94, "topic-alias-invalid", [Disconnect];
    /// Larger than the maximum.
    PacketTooLarge = 0x95, "packet-too-large", [Connack Disconnect];
    /// Too much in too short a time.
    MessageRateTooHigh = 0x96, "message-rate-too-high", [Disconnect];
    /// A limit of the server is reached.
    QuotaExceeded = 0x97, "quota-exceeded", [Connack Puback Pubrec Suback Disconnect];
    /// Somebody closed it.
    AdministrativeAction = 0x98, "administrative-action", [Disconnect];
    /// The payload is not what it says it is.
    PayloadFormatInvalid = 0x99, "payload-format-invalid", [Connack Puback Pubrec Disconnect];
    /// Nothing is retained here.
    RetainNotSupported = 0x9a, "retain-not-supported", [Connack Disconnect];
    /// No such QoS here.
    QosNotSupported = 0x9b, "qos-not-supported", [Connack Disconnect];
    /// Another server, for now.
    UseAnotherServer = 0x9c, "use-another-server", [Connack Disconnect];
    /// Another server, for good.
    ServerMoved = 0x9d, "server-moved", [Connack Disconnect];
    /// No shared subscriptions here.
    SharedSubscriptionsNotSupported = 0x9e, "shared-subscriptions-not-supported", [Suback Disconnect];
    /// Too many connections in too short a time.
    ConnectionRateExceeded = 0x9f, "connection-rate-exceeded", [Connack Disconnect];
    /// Connected for as long as allowed.
    MaximumConnectTime = 0xa0, "maximum-connect-time", [Disconnect];
    /// No subscription identifiers here.
    SubscriptionIdentifiersNotSupported = 0xa1, "subscription-identifiers-not-supported", [Suback Disconnect];
    /// No wildcards here.
    WildcardSubscriptionsNotSupported = 0xa2, "wildcard-subscriptions-not-supported", [Suback Disconnect];
}

impl Reason {
    /// The code as it is written.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether it says that something failed.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        self.code() >= 0x80
    }

    /// Whether a client may say it in DISCONNECT (table of 3.14.2.1); a server may not say what only clients do.
    #[must_use]
    pub const fn client_may_leave_with(self) -> bool {
        matches!(
            self,
            Self::Success
                | Self::DisconnectWithWill
                | Self::UnspecifiedError
                | Self::MalformedPacket
                | Self::ProtocolError
                | Self::ImplementationSpecificError
                | Self::TopicNameInvalid
                | Self::ReceiveMaximumExceeded
                | Self::TopicAliasInvalid
                | Self::PacketTooLarge
                | Self::MessageRateTooHigh
                | Self::QuotaExceeded
                | Self::AdministrativeAction
                | Self::PayloadFormatInvalid
        )
    }

    /// The return code of a 3.1 or 3.1.1 CONNACK that comes nearest.
    #[must_use]
    pub const fn connack_return_code(self) -> u8 {
        match self {
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUsernameOrPassword => 4,
            Self::NotAuthorized => 5,
            reason if reason.is_failure() => 3,
            _ => 0,
        }
    }

    /// What a return code of a 3.1 or 3.1.1 CONNACK means.
    #[must_use]
    pub const fn from_connack_return_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUsernameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}
