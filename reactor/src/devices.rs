//! Whether a login came from a device that its user has not used before.
//!
//! A device is what a client calls itself, and the network it comes from: the /16 of IPv4, the /32 of IPv6, so that a
//! phone that gets another address of its provider is the same device. What was used before is in the log of
//! sessions, which remembers as long as a session can live and a day; nothing else is kept about anybody, and erasure
//! needs nothing more. Views are not asked.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use events::{Position, Session, SessionEvent, SessionId, User, UserId, subjects};
use service_kit::event_log::{EventLog, ReadError};

/// Messages of one user's sessions that are looked at. Whoever has more has used many devices; the next one is
/// taken as known.
const MESSAGES_MAX: usize = 2_000;
/// Devices remembered as known, so that a user who logs in often is not looked up each time.
const KNOWN_MAX: usize = 4_096;
/// The first login that comes so soon after the registration is the one that everybody makes, in seconds.
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

/// It cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("an event of a session cannot be read")]
    Unreadable,
}

/// Looks at the devices of users.
pub(crate) struct Devices {
    sessions: EventLog,
    known: Mutex<VecDeque<Device>>,
}

impl Devices {
    pub(crate) fn new(sessions: EventLog) -> Self {
        Self { sessions, known: Mutex::default() }
    }

    /// Whether a session was started from a device that no session before it was started from; the session, if so.
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
        // Not remembered as known: the notice may have to be tried again.
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
