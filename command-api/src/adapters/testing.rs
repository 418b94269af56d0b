//! One server for all tests of this process, and for each test an account with streams of its own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nats_access::{Account, Role, TestTrust};
use service_kit::event_log::{EventLog, Limits, SILENCE_DEFAULT};

fn trust() -> &'static TestTrust {
    static TRUST: OnceLock<TestTrust> = OnceLock::new();
    TRUST.get_or_init(|| TestTrust::with_accounts(48))
}

/// An account that no other test has.
pub fn account() -> &'static Account {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    trust().account(NEXT.fetch_add(1, Ordering::Relaxed))
}

pub async fn connect(account: &Account, role: Role) -> async_nats::Client {
    let server = local_stack::testing::nats(|| trust().server_config().unwrap());
    async_nats::ConnectOptions::with_credentials(&account.creds(role).unwrap())
        .unwrap()
        .custom_inbox_prefix(role.inbox_prefix())
        .connect(server.url())
        .await
        .unwrap()
}

pub fn log(client: &async_nats::Client, stream: &str) -> EventLog {
    let limits = Limits {
        request_timeout: Duration::from_secs(10),
        append_deadline: Duration::from_secs(20),
        silence_max: SILENCE_DEFAULT,
    };
    EventLog::new(client.clone(), stream, limits)
}
