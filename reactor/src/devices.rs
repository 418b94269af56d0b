//! Whether a login came from a device that its user has not used before.
//!
//! A device is the client's name for itself and the network that it comes from: the /16 of IPv4 or the /32 of IPv6, so
//! a phone that gets another address from its provider is the same device. Devices used before are found in the log of
//! sessions, which reaches back as far as a session can live, plus a day. Nothing else is kept about a user, so erasure
//! needs nothing more. Views are not read.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use events::{Position, Session, SessionEvent, SessionId, User, UserId, subjects};
use service_kit::event_log::{EventLog, ReadError};

/// Messages of one user's sessions that are read. A user with more of them has used many devices; the next one counts
/// as known.
const MESSAGES_MAX: usize = 2_000;
/// Known devices in memory, so that frequent logins of a user need no look-up.
const KNOWN_MAX: usize = 4_096;
/// The first login this soon after the registration, in seconds, is part of registering.
const FIRST_LOGIN_S: u64 = 3_600;

/// A device of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Device {
    user: UserId,
    user_agent: Option<String>,
    network: Option<Vec<u8>>,
}

impl Device {
    fn of(session: &Session) -> Self {
        let ip = session.ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
        Self {
            user: session.user_id,
            user_agent: session.user_agent.clone(),
            network: ip.map(network),
        }
    }
}

/// The device cannot be determined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("an event of a session cannot be read")]
    Unreadable,
}

/// Looks up the devices of users.
pub(crate) struct Devices {
    sessions: EventLog,
    known: Mutex<VecDeque<Device>>,
}

impl Devices {
    pub(crate) fn new(sessions: EventLog) -> Self {
        Self { sessions, known: Mutex::default() }
    }

    /// The session, if it was started from a device from which no earlier session was started.
    pub(crate) async fn is_new(
        &self,
        user: &User,
        session: SessionId,
    ) -> Result<Option<Session>, DeviceError> {
        let Some(last) = self.sessions.last(&subjects::session_events(user.id, session)).await?
        else {
            return Ok(None);
        };
        let session = read(&last.payload)?;
        let device = Device::of(&session);
        if self.known().contains(&device) {
            return Ok(None);
        }
        let filter = subjects::session_events_of(user.id);
        let (mut behind, mut has_others) = (Position::default(), false);
        for looked_at in 0.. {
            let Some(next) = self.sessions.next(&filter, behind).await? else { break };
            behind = next.position;
            if next.is_foreign() {
                continue;
            }
            let other = read(&next.payload)?;
            // Ids are ordered by time.
            let is_before = other.id != session.id && other.created_at <= session.created_at;
            has_others |= is_before;
            if (is_before && Device::of(&other) == device) || looked_at >= MESSAGES_MAX {
                self.remember(device);
                return Ok(None);
            }
        }
        // Not added to the known devices: the notice may have to be retried.
        let is_first =
            !has_others && session.created_at < user.created_at.plus_seconds(FIRST_LOGIN_S);
        Ok((!is_first).then_some(session))
    }

    fn remember(&self, device: Device) {
        let mut known = self.known();
        known.push_back(device);
        if known.len() > KNOWN_MAX {
            known.pop_front();
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, VecDeque<Device>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(payload: &[u8]) -> Result<Session, DeviceError> {
    SessionEvent::from_json(payload).map(|event| event.after).map_err(|_| DeviceError::Unreadable)
}

fn network(ip: IpAddr) -> Vec<u8> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.octets().into_iter().take(2).collect(),
        IpAddr::V6(ip) => ip.octets().into_iter().take(4).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_that_of_a_provider() {
        let of = |ip: &str| network(ip.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("192.0.200.9"));
        assert_ne!(of("192.0.2.1"), of("192.1.2.1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("2001:db8:1::1"), of("2001:db8:ffff::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db9::1"));
    }
}
