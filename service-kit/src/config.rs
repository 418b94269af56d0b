//! Configuration: defaults, then a file, then the environment.
//!
//! `defaults.toml` holds every key with its documentation and is compiled in. A key or a `ROSTER_`
//! variable that it does not know is refused, so that a slip of the pen is never a silent default, and
//! all faults are reported together before a socket opens.

mod checks;
mod deployment;
mod source;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use deployment::{AllowPlain, Deployment, PlainConnection};
pub use service::{
    SERVICE_DEFAULTS, ServiceLog, ServiceProjector, ServiceSecrets, ServiceSettings, ServiceTokens,
    ServiceViews,
};
pub use source::{Checked, Examined, Source, secret_in};

/// The documented defaults.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// Variables with another meaning than a key of the configuration.
const OTHER_VARIABLES: [&str; 7] = [
    "ROSTER_ADMIN_EMAIL",
    "ROSTER_ADMIN_PASSWORD",
    "ROSTER_ADMIN_PASSWORD_FILE",
    "ROSTER_CONFIG",
    "ROSTER_CACHE_DIR",
    "ROSTER_NATS_SERVER_BIN",
    "ROSTER_MONGOD_BIN",
];

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }
    };
}

mod service;

section! {
    /// All settings; see `defaults.toml` for each.
    Settings {
        /// What this runs for.
        deployment: Deployment,
        /// Connections that may go without TLS in production.
        allow_plain: String,
        /// Listeners.
        http: Http,
        /// The connection to NATS.
        nats: Nats,
        /// The event log.
        log: Log,
        /// What other services are told.
        feed: Feed,
        /// What operators did.
        audit: Audit,
        /// Who tried to get in.
        security: Security,
        /// The database of the views.
        mongodb: MongoDb,
        /// Keys.
        secrets: Secrets,
        /// Access tokens.
        tokens: Tokens,
        /// Sessions.
        sessions: Sessions,
        /// The feed of what ended.
        revocations: Revocations,
        /// Roles and what they allow.
        access: AccessSettings,
        /// Who may register, and what that tells.
        registration: Registration,
        /// Password rules and hashing.
        passwords: Passwords,
        /// Limits on attempts.
        throttle: Throttle,
        /// Read your writes.
        views: Views,
        /// The projector.
        projector: Projector,
        /// Mail.
        mail: Mail,
        /// Erasure of deleted users.
        erasure: Erasure,
        /// Logs.
        telemetry: TelemetrySettings,
    }
}
section! {
    /// `[http]`
    Http {
        /// Public listener.
        listen: SocketAddr,
        /// Private listener.
        private_listen: SocketAddr,
        /// Networks of trusted proxies, separated by commas.
        trusted_proxies: String,
        /// Origins whose pages may call, separated by commas.
        cors_origins: String,
        /// Whether changes of a user must name the revision they are made for.
        if_match_required: bool,
        /// Connections in all.
        connections_max: u64,
        /// Connections from one client network.
        connections_per_network_max: u64,
        /// Time without a request, in seconds.
        idle_timeout_s: u64,
        /// Time for a head to arrive, in seconds.
        head_timeout_s: u64,
        /// Time for a client to take an answer, in seconds.
        answer_timeout_s: u64,
        /// Time between not being ready and not taking requests, when stopping, in milliseconds.
        stop_delay_ms: u64,
    }
}
section! {
    /// `[nats]`
    Nats {
        /// Servers, separated by commas.
        url: String,
        /// File with the same; empty for none.
        url_file: PathBuf,
        /// Credentials file; empty for none.
        credentials_file: PathBuf,
        /// Certificate authority; empty for the system's.
        ca_file: PathBuf,
        /// One request, in milliseconds.
        request_timeout_ms: u64,
        /// Wait for the servers at the start, in seconds.
        start_wait_s: u64,
    }
}
section! {
    /// `[log]`
    Log {
        /// Copies of the stream.
        replicas: u8,
        /// Whether one copy is enough in production.
        allow_single_replica: bool,
        /// Bound of the stream in bytes.
        bytes_max: u64,
        /// Bound of the stream of sessions.
        sessions_bytes_max: u64,
        /// Bound of the stream of mails.
        mails_bytes_max: u64,
        /// Part of each stream that is reserved for what ends access, in percent.
        reserve_percent: u8,
        /// Bound of the bucket with the counts of attempts.
        throttle_bytes_max: u64,
        /// Bound of the bucket with accounts that are delayed or closed.
        throttle_closed_bytes_max: u64,
        /// Bound of the bucket with mails, requests and what users do rightly.
        throttle_counts_bytes_max: u64,
        /// An append with its retries, in milliseconds.
        append_deadline_ms: u64,
        /// Longest silence that a command of the operator waits out, in seconds.
        silence_max_s: u64,
    }
}
section! {
    /// `[feed]`
    Feed {
        /// Bound of the stream that other services read.
        bytes_max: u64,
        /// Bound of the stream with the states that subscribers begin with.
        snapshots_bytes_max: u64,
        /// How long events of sessions stay in the feed, in seconds.
        sessions_kept_s: u64,
    }
}
section! {
    /// `[audit]`
    Audit {
        /// Bound of the stream with what operators did.
        bytes_max: u64,
        /// How long it is kept, in seconds.
        kept_s: u64,
    }
}
section! {
    /// `[security]`
    Security {
        /// Bound of the stream of security records.
        bytes_max: u64,
        /// How long they are kept, in seconds.
        kept_s: u64,
        /// Records that may wait to be stored.
        queue_max: usize,
        /// Records a minute that anonymous clients can cause in one process.
        anonymous_per_minute_max: u32,
    }
}
section! {
    /// `[mongodb]`
    MongoDb {
        /// Connection string.
        url: String,
        /// File with the same; empty for none.
        url_file: PathBuf,
        /// Database of the views.
        database: String,
        /// One operation, in milliseconds.
        operation_timeout_ms: u64,
    }
}
section! {
    /// `[secrets]`
    Secrets {
        /// Folder with this service's keys.
        dir: PathBuf,
        /// Whether the group of a secret's file may read it.
        allow_group_read: bool,
        /// Folder with the keys that NATS users are signed with; empty for `nats` in `dir`.
        trust_dir: PathBuf,
    }
}
section! {
    /// `[tokens]`
    Tokens {
        /// `iss`.
        issuer: String,
        /// `aud`.
        audience: String,
        /// Life of an access token in seconds.
        access_lifetime_s: u32,
    }
}
section! {
    /// `[sessions]`
    Sessions {
        /// Longest pause between two refreshes, in seconds.
        idle_s: u64,
        /// Longest life, in seconds.
        absolute_s: u64,
        /// How long a replaced refresh token gets the same successor, in seconds.
        reuse_window_s: u64,
        /// Most sessions of one user.
        per_user_max: usize,
    }
}
section! {
    /// `[revocations]`
    Revocations {
        /// Longest silence of the feed before administrators are refused, in milliseconds.
        silence_max_ms: u64,
    }
}
section! {
    /// `[access]`
    AccessSettings {
        /// Roles beside those that are always there, with their permissions.
        roles: String,
    }
}
section! {
    /// `[registration]`
    Registration {
        /// Whether a registration tells nobody that an address has an account.
        conceal_existing: bool,
        /// Whether users may log in before the address is verified.
        login_unverified: bool,
        /// Days after which `roster users remove-unverified` deletes who registered alone, has not verified the address and
        /// has not come since; 0 for never.
        unverified_kept_days: u64,
    }
}
section! {
    /// `[passwords]`
    Passwords {
        /// Shortest password in code points.
        length_min: usize,
        /// Least estimate of strength, 0 to 4.
        strength_min: u8,
        /// Words that a password must not consist of, separated by commas.
        context_words: String,
        /// Argon2id memory in KiB.
        memory_kib: u32,
        /// Argon2id passes.
        passes: u32,
        /// Hashing threads; 0 for the number of cores.
        threads: usize,
        /// Hashes that may wait.
        queue_max: usize,
        /// Comparisons with larger hashes of other systems that may wait.
        large_queue_max: usize,
        /// Whole steps after which a refusal is answered, in milliseconds.
        refusal_step_ms: u64,
    }
}
section! {
    /// `[throttle]`
    Throttle {
        /// Whether there are limits at all.
        enabled: bool,
        /// Wrong passwords of one account before there are delays.
        account_failures_free: u32,
        /// Longest delay of an account in seconds.
        account_delay_max_s: u64,
        /// Wrong passwords of one account in a row before its password is closed.
        account_failures_max: u32,
        /// Wrong passwords from one address before there are delays.
        address_failures_free: u32,
        /// Longest delay of an address in seconds.
        address_delay_max_s: u64,
        /// Time in which the failures of an address halve, in seconds.
        address_halving_s: u64,
        /// How long an attempt waits for others under way, in milliseconds.
        wait_max_ms: u64,
        /// Mails with a link of one kind to one address at once, and within `mails_window_s` after that.
        mails_max: u32,
        /// In seconds.
        mails_window_s: u64,
        /// Registrations from one address within `requests_window_s`, and as many reset requests.
        requests_max: u32,
        /// In seconds.
        requests_window_s: u64,
        /// Times the allowance of a /64 of IPv6 that its /56 has.
        ipv6_56_factor: u32,
        /// Its /48.
        ipv6_48_factor: u32,
        /// Its /32.
        ipv6_32_factor: u32,
        /// Changes that one user makes to the own account within a minute.
        writes_per_minute_max: u32,
        /// Within a day.
        writes_per_day_max: u32,
        /// Refreshes of one user's tokens within a minute.
        refreshes_per_minute_max: u32,
        /// Within a day.
        refreshes_per_day_max: u32,
        /// Logins of one user within a minute.
        logins_per_minute_max: u32,
        /// Within a day.
        logins_per_day_max: u32,
        /// Right passwords that one user repeats while logged in, within a minute.
        password_checks_per_minute_max: u32,
        /// Within a day.
        password_checks_per_day_max: u32,
    }
}
section! {
    /// `[views]`
    Views {
        /// Wait of a command's answer, in milliseconds.
        command_wait_ms: u64,
        /// Wait of a query, in milliseconds.
        query_wait_ms: u64,
        /// Work of the database on one page of the list, in milliseconds.
        list_work_ms: u64,
        /// Largest total that is counted.
        list_total_max: u64,
        /// How long query-api relies on the live generation that it last read, in seconds.
        generations_known_s: u64,
    }
}
section! {
    /// `[projector]`
    Projector {
        /// Events per write to the database.
        batch_events_max: usize,
        /// Aggregates that may be parked.
        parked_max: usize,
        /// Pause before each user that is checked, in milliseconds; 0 for none.
        check_pause_ms: u64,
        /// Oldest event that the views may lack, in milliseconds.
        lag_max_ms: u64,
    }
}
section! {
    /// `[mail]`
    Mail {
        /// How mails go out.
        transport: MailTransport,
        /// Folder for files.
        folder: PathBuf,
        /// Server that takes mails.
        smtp_url: String,
        /// File with the same; empty for none.
        smtp_url_file: PathBuf,
        /// Private certificate authority of that server; empty for the system's.
        smtp_ca_file: PathBuf,
        /// How Roster names itself to that server; empty for the name of the host.
        smtp_ehlo_name: String,
        /// Whether a server that is not on the loopback may be talked to without TLS.
        smtp_allow_plain: bool,
        /// Sender.
        from: String,
        /// What links begin with; empty for Roster's own pages. See [`Settings::link_base`].
        link_base: String,
        /// Life of a link to a new password, in seconds.
        reset_link_s: u64,
        /// Life of a link to a first password, in seconds.
        set_password_link_s: u64,
        /// Life of a link to verify an address, in seconds.
        verify_link_s: u64,
        /// Life of the links of a change of address, in seconds.
        email_link_s: u64,
        /// Life of a link to take an address back that was changed, in seconds.
        undo_link_s: u64,
        /// Time in which one notice of a kind stands for all, in seconds.
        notice_interval_s: u64,
        /// Age at which an order is parked, in seconds.
        give_up_s: u64,
    }
}
section! {
    /// `[erasure]`
    Erasure {
        /// Credentials file of the eraser's NATS user; empty for `eraser.creds` beside that of `[nats]`.
        credentials_file: PathBuf,
        /// How long after a deletion its user is looked for once more, in seconds.
        second_look_s: u64,
        /// Share of the time in which NATS may be busy with erasing while the log is in use, in percent.
        busy_percent: u64,
    }
}
section! {
    /// `[telemetry]`
    TelemetrySettings {
        /// Filter.
        log: String,
        /// Format.
        format: LogFormat,
        /// Receiver of spans; empty for none.
        otlp_endpoint: String,
        /// Share of the traces begun here that are recorded.
        trace_sample_ratio: f64,
        /// What the name of a service in a trace begins with.
        service_name: String,
    }
}

/// How mails go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTransport {
    /// To a mail server.
    Smtp,
    /// As files, for development.
    Folder,
}

impl Passwords {
    /// The words that a password must not consist of.
    #[must_use]
    pub fn context_words(&self) -> Vec<String> {
        listed(&self.context_words).map(str::to_owned).collect()
    }
}

/// The items of a list in one string, separated by commas.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Everything that is wrong with a configuration, all at once.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(Vec<String>);

impl From<Vec<String>> for ConfigError {
    fn from(faults: Vec<String>) -> Self {
        Self(faults)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is not valid:")?;
        for fault in &self.0 {
            write!(f, "\n  - {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Where the settings of Roster come from.
const SOURCE: Source<'_> =
    Source { defaults: DEFAULTS, prefix: "ROSTER_", others: &OTHER_VARIABLES };

impl Settings {
    /// Reads defaults, file and the process's environment.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        SOURCE.load(file)
    }

    /// The same, with faults beside the settings, and the keys that were set.
    ///
    /// # Errors
    /// [`ConfigError`]: no settings can be made at all.
    pub fn examine(file: Option<&Path>) -> Result<Examined<Self>, ConfigError> {
        SOURCE.read(file)
    }

    /// What links in mails begin with: the pages of Roster itself, unless another place is set.
    #[must_use]
    pub fn link_base(&self) -> String {
        match self.mail.link_base.as_str() {
            "" => format!("{}/links", self.tokens.issuer.trim_end_matches('/')),
            given => given.to_owned(),
        }
    }

    /// Merges defaults, the text of a file and variables.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    pub fn merge(
        file: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        SOURCE.merge(file, variables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
        let file = "[nats]\nurl = 'nats://file:1'\n[views]\ncommand_wait_ms = 7\n";
        let settings =
            Settings::merge(file, variables(&[("ROSTER_NATS_URL", "nats://env:1")])).unwrap();
        assert_eq!(settings.nats.url, "nats://env:1");
        assert_eq!(settings.views.command_wait_ms, 7);
        assert_eq!(settings.views.query_wait_ms, 5000);
        assert!(settings.throttle.enabled);
        let open = variables(&[("ROSTER_THROTTLE_ENABLED", "false")]);
        assert!(!Settings::merge("", open).unwrap().throttle.enabled);
    }

    #[test]
    fn all_faults_are_reported_together() {
        let file = "[nats]\nurll = 'x'\n[log]\nreplicas = 2\n[nope]\na = 1\n";
        let given = variables(&[
            ("ROSTER_NATS_URLL", "x"),
            ("ROSTER_PASSWORDS_QUEUE_MAX", "many"),
            ("ROSTER_PASSWORDS_MEMORY_KIB", "1"),
            ("ROSTER_HTTP_TRUSTED_PROXIES", "10.0.0.0/8,everyone"),
            ("ROSTER_THROTTLE_ENABLED", "yes"),
            ("ROSTER_TELEMETRY_OTLP_ENDPOINT", "http://user:word@collector:4318"),
            ("ROSTER_TELEMETRY_TRACE_SAMPLE_RATIO", "1.5"),
            ("ROSTER_THROTTLE_ACCOUNT_FAILURES_FREE", "100"),
            ("ROSTER_PROJECTOR_CHECK_PAUSE_MS", "9"),
            ("ROSTER_ADMIN_EMAIL", "a@example.com"),
        ]);
        let text = Settings::merge(file, given).unwrap_err().to_string();
        for part in [
            "unknown key nats.urll",
            "unknown key nope",
            "unknown variable ROSTER_NATS_URLL",
            "ROSTER_PASSWORDS_QUEUE_MAX",
            "passwords.memory_kib is 1",
            "http.trusted_proxies: \"everyone\"",
            "log.replicas is 2",
            "telemetry.otlp_endpoint must be",
            "telemetry.trace_sample_ratio must be",
            "ROSTER_THROTTLE_ENABLED (throttle.enabled) must be true or false",
            "throttle.account_failures_free is 100 and must be in 1..99",
            "projector.check_pause_ms is 9 and must be in 10..3600000",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("ADMIN"));
    }

    #[test]
    fn every_default_is_documented() {
        let lines: Vec<&str> = DEFAULTS.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            if line.contains(" = ") && !line.starts_with('#') {
                let before = lines.get(n.wrapping_sub(1)).unwrap();
                assert!(before.starts_with('#') || before.contains(" = "), "{line}");
            }
        }
    }
}
