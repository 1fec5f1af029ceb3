//! What only one side may say.

use crate::error::DecodeError;
use crate::packet::{AckKind, Disconnect, Packet, Publish};
use crate::reason::Reason;

impl Packet<'_> {
    /// That a client may send this.
    ///
    /// # Errors
    /// Only a server may.
    pub fn check_from_client(&self) -> Result<(), DecodeError> {
        match self {
            Self::Publish(publish) => publish.check_from_client(),
            Self::Disconnect(disconnect) => disconnect.check_from_client(),
            // 3.15.2.1
            Self::Auth(auth) if auth.reason == Reason::Success => {
                Err(DecodeError::protocol("only servers say in AUTH that it succeeded"))
            }
            Self::Connack(_) | Self::Suback(_) | Self::Unsuback(_) | Self::Pingresp => {
                Err(DecodeError::protocol("only servers send this packet"))
            }
            Self::Connect(_)
            | Self::Ack(_)
            | Self::Subscribe(_)
            | Self::Unsubscribe(_)
            | Self::Pingreq
            | Self::Auth(_) => Ok(()),
        }
    }

    /// That a server may send this.
    ///
    /// # Errors
    /// Only a client may.
    pub fn check_from_server(&self) -> Result<(), DecodeError> {
        match self {
            Self::Disconnect(disconnect) => disconnect.check_from_server(),
            // 3.15.2.1
            Self::Auth(auth) if auth.reason == Reason::Reauthenticate => {
                Err(DecodeError::protocol("only clients ask in AUTH to start over"))
            }
            Self::Connect(_) | Self::Subscribe(_) | Self::Unsubscribe(_) | Self::Pingreq => {
                Err(DecodeError::protocol("only clients send this packet"))
            }
            Self::Connack(_)
            | Self::Publish(_)
            | Self::Ack(_)
            | Self::Suback(_)
            | Self::Unsuback(_)
            | Self::Pingresp
            | Self::Auth(_) => Ok(()),
        }
    }
}

impl Publish<'_> {
    /// That a client may send this.
    ///
    /// # Errors
    /// Only a server may.
    #[inline]
    pub fn check_from_client(&self) -> Result<(), DecodeError> {
        // [5: 3.3.4-6]
        if self.subscription_ids.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::protocol("only servers send subscription identifiers in PUBLISH"))
        }
    }
}

impl Disconnect<'_> {
    /// That a client may send this.
    ///
    /// # Errors
    /// Only a server may.
    pub fn check_from_client(&self) -> Result<(), DecodeError> {
        // 3.14.2.1
        if !self.reason.client_may_leave_with() {
            return Err(DecodeError::protocol("only servers disconnect for this reason"));
        }
        // 3.14.2.2.5
        if self.server_reference.is_some() {
            return Err(DecodeError::protocol("only servers refer to another server"));
        }
        Ok(())
    }

    /// That a server may send this.
    ///
    /// # Errors
    /// Only a client may.
    pub fn check_from_server(&self) -> Result<(), DecodeError> {
        // 3.14.2.1
        if self.reason == Reason::DisconnectWithWill {
            return Err(DecodeError::protocol("only clients disconnect for this reason"));
        }
        // [5: 3.14.2-2]
        if self.session_expiry_s.is_some() {
            return Err(DecodeError::protocol("only clients change how long the session is kept"));
        }
        Ok(())
    }
}

impl AckKind {
    /// Whether it comes from the receiver of the message; PUBREL comes from its sender.
    #[must_use]
    pub const fn is_from_receiver(self) -> bool {
        match self {
            Self::Puback | Self::Pubrec | Self::Pubcomp => true,
            Self::Pubrel => false,
        }
    }
}
