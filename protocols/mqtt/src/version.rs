//! The versions of the protocol and how they name themselves.

/// A version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 3.1 (IBM and Eurotech, 2010): lenient about bits it does not use.
    V31,
    /// 3.1.1 (OASIS, 2014).
    #[default]
    V311,
    /// 5.0 (OASIS, 2019): properties, reason codes, aliases, shared subscriptions.
    V5,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 3] = [Self::V31, Self::V311, Self::V5];

    /// `3.1`, `3.1.1` or `5.0`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        }
    }

    /// The protocol's name for logs and metrics.
    #[must_use]
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::V31 => "MQTT 3.1",
            Self::V311 => "MQTT 3.1.1",
            Self::V5 => "MQTT 5.0",
        }
    }

    /// The protocol name in CONNECT.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V31 => "MQIsdp",
            Self::V311 | Self::V5 => "MQTT",
        }
    }

    /// The protocol level in CONNECT.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::V31 => 3,
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }

    /// The version that a CONNECT with this name and level speaks.
    #[must_use]
    pub fn of(name: &str, level: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name && version.level() == level)
    }

    /// Whether packets carry properties and reason codes.
    #[must_use]
    pub const fn has_properties(self) -> bool {
        matches!(self, Self::V5)
    }

    /// Characters that a client id may have, where the specification bounds them: servers of today take more.
    #[must_use]
    pub const fn client_id_chars_max(self) -> Option<usize> {
        match self {
            Self::V31 => Some(23),
            Self::V311 | Self::V5 => None,
        }
    }
}
