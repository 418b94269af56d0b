//! Who is behind a request, as far as that is known by now. Filled in by the layers that find out, and read by whatever
//! records who did something.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use events::{SessionId, UserId};

/// Where a client is and what it calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientDevice {
    /// Its address, as far as proxies can be believed.
    pub ip: IpAddr,
    /// What it calls itself, bounded.
    pub user_agent: Option<String>,
}

/// Who is behind a request. Its clones are the same; what is known once stays.
#[derive(Debug, Clone, Default)]
pub struct Requester(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    device: OnceLock<ClientDevice>,
    caller: OnceLock<(UserId, SessionId)>,
}

impl Requester {
    /// It comes from there.
    pub fn comes_from(&self, device: ClientDevice) {
        // Whoever came first has said the same.
        let _ = self.0.device.set(device);
    }

    /// It has a token of this user and this session.
    pub fn is(&self, user: UserId, session: SessionId) {
        // A request has one token.
        let _ = self.0.caller.set((user, session));
    }

    /// Where it comes from.
    #[must_use]
    pub fn device(&self) -> Option<&ClientDevice> {
        self.0.device.get()
    }

    /// Whose token it has, and of which session.
    #[must_use]
    pub fn caller(&self) -> Option<(UserId, SessionId)> {
        self.0.caller.get().copied()
    }
}
