//! Who runs a command: the user of the system, the host, and the user of NATS.

use async_nats::Client;
use serde::{Deserialize, Serialize};
use service_kit::nats;

/// Who runs a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The name that the host has for the user of the process, or its number where it has none, as in a container.
    pub os_user: String,
    /// The name of the host.
    pub host: String,
    /// Whom the server takes the connection for.
    pub nats_user: Option<String>,
}

impl Who {
    /// Of this process.
    pub async fn of(client: &Client) -> Self {
        let uid = rustix::process::getuid().as_raw();
        let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let os_user = name_of(uid, &known).unwrap_or_else(|| format!("uid {uid}"));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { os_user, host, nats_user: nats::user(client).await }
    }
}

/// The name that lines as in `/etc/passwd` have for a user.
fn name_of(uid: u32, known: &str) -> Option<String> {
    known.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_the_name_that_the_host_knows() {
        let known =
            "root:x:0:0:root:/root:/bin/bash\n\nbroken\nops:x:1000:1000::/home/ops:/bin/sh\n";
        assert_eq!(name_of(1000, known).as_deref(), Some("ops"));
        assert_eq!(name_of(0, known).as_deref(), Some("root"));
        assert_eq!(name_of(7, known), None);
    }
}
