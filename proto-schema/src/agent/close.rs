//! Why a socket of the channel is closed, as a WebSocket close code. Each is said to the other side and
//! logged once; from 4400 on they are Purser's own and read like HTTP's.

use super::noise::ChannelError;

macro_rules! close_codes {
    ($($(#[$docs:meta])* $name:ident = $code:literal, $reason:literal;)*) => {
        /// A close code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum CloseCode {
            $($(#[$docs])* $name,)*
        }

        impl CloseCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The number on the wire.
            #[must_use]
            pub fn number(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// What is said with it: for people, at most 123 bytes.
            #[must_use]
            pub fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason,)* }
            }
        }
    };
}

close_codes! {
    /// The agent's process ends.
    AgentStops = 1000, "the agent stops";
    /// The server's process ends; another replica may serve.
    ServerStops = 1001, "the server is stopping";
    /// A text frame, where all frames are binary.
    NotBinary = 1003, "not the agent protocol: a frame that is not binary";
    /// A message over the limit, which before the end of the handshake is a small one.
    TooLong = 1009, "a message is too long";
    /// What was inside is not what belongs there.
    Malformed = 4400, "a message has another form than the protocol says";
    /// A frame that does not open, or comes out of order.
    Undecryptable = 4401, "a message did not open under the session's keys";
    /// No session; the sealed answer said why.
    Refused = 4403, "refused";
    /// The handshake takes too long, or there was no sign of life.
    TooSlow = 4408, "no answer in time";
    /// A newer session of the same identity stands.
    Superseded = 4409, "superseded by a newer session of this agent";
    /// The server row was removed.
    Removed = 4410, "this server was removed";
    /// The database knows no right of this session any more, but not to this process's knowledge why.
    NotInForce = 4411, "superseded by a newer session of this agent, or its server was removed";
    /// Too many handshakes at once.
    Busy = 4429, "too many handshakes at once";
}

impl CloseCode {
    /// The code of a number; `None` for one that this version does not know.
    #[must_use]
    pub fn of_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.number() == number)
    }

    /// What the other side is told of an error that it made; `None` where there is nobody to tell.
    #[must_use]
    pub fn about(error: &ChannelError) -> Option<Self> {
        match error {
            ChannelError::Unexpected => Some(Self::NotBinary),
            ChannelError::TooLong => Some(Self::TooLong),
            ChannelError::Noise(_) => Some(Self::Undecryptable),
            ChannelError::Malformed => Some(Self::Malformed),
            ChannelError::Silent => Some(Self::TooSlow),
            ChannelError::Displaced => Some(Self::Busy),
            ChannelError::Wire(_)
            | ChannelError::Closed { .. }
            | ChannelError::ClosedHere(_)
            | ChannelError::Stalled
            | ChannelError::Ended
            | ChannelError::AnotherServer { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_found_by_its_number_and_fits_a_frame() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::of_number(code.number()), Some(*code));
            assert!(code.reason().len() <= 123);
        }
        assert_eq!(CloseCode::of_number(4000), None);
    }
}
