//! One server for all tests of this process, one account (so one stream of its own) for each.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use events::CommandId;
use nats_access::{Account, Role, ServiceUser, TestTrust};
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Guard, Limits, StreamSpec, Write, users_stream};

/// Room for one test's stream.
pub const BYTES_MAX: u64 = 1 << 20;

fn trust() -> &'static TestTrust {
    static TRUST: OnceLock<TestTrust> = OnceLock::new();
    TRUST.get_or_init(|| TestTrust::with_accounts(64))
}

pub fn account() -> &'static Account {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    trust().account(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Where the server is.
pub fn server_url() -> String {
    local_stack::testing::nats(|| trust().server_config().unwrap()).url()
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

pub async fn connect_service(account: &Account, user: &ServiceUser) -> async_nats::Client {
    let server = local_stack::testing::nats(|| trust().server_config().unwrap());
    async_nats::ConnectOptions::with_credentials(&account.service_creds(user).unwrap())
        .unwrap()
        .custom_inbox_prefix(user.inbox_prefix())
        .connect(server.url())
        .await
        .unwrap()
}

pub fn limits() -> Limits {
    Limits {
        request_timeout: Duration::from_secs(2),
        append_deadline: Duration::from_secs(5),
        silence_max: service_kit::event_log::SILENCE_DEFAULT,
    }
}

pub fn log(client: async_nats::Client) -> EventLog {
    EventLog::new(client, "USERS", limits())
}

pub fn spec() -> StreamSpec {
    let mut settings = Settings::merge("", []).unwrap();
    settings.log.bytes_max = BYTES_MAX;
    users_stream(&settings.log)
}

/// A log as a service has it, provisioned by the operator.
pub async fn provisioned() -> (EventLog, &'static Account) {
    let account = account();
    log(connect(account, Role::Operator).await).provision(&spec()).await.unwrap();
    (log(connect(account, Role::CommandApi).await), account)
}

pub fn command() -> CommandId {
    CommandId::from_uuid(ambient::new_uuid())
}

/// A message as the writers of its subject make it: on the subjects of events it is an event.
pub fn of_writer(subject: &str, guard: Guard, payload: impl Into<Vec<u8>>) -> Write {
    let write = Write::new(subject.to_owned(), guard, payload.into());
    if subject.starts_with("ev.") { write.event(ambient::new_uuid(), "user.x.v1") } else { write }
}
