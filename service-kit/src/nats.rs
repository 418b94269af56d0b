//! The connection to NATS: own credentials, own inbox, endless reconnection.

use std::time::Duration;

pub use async_nats::Client;
use async_nats::{ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use tokio::time::{Instant, sleep};

use crate::config::Nats;
use crate::preflight::{certificates, is_badly_encoded};

/// Longest pause between two attempts to reconnect. Short, because commands are rejected meanwhile.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Time limit of the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The credentials file is missing or contains no credentials.
    #[error("cannot use the NATS credentials file {0}")]
    Credentials(String, #[source] std::io::Error),
    /// The certificate authority is missing or invalid. Continuing without it could mean continuing without TLS.
    #[error("nats.ca_file: cannot use {0}: {1}")]
    Authority(String, std::io::Error),
    /// An address cannot be parsed. The text does not repeat it, because it may contain a password.
    #[error(
        "nats.url is not a list of addresses like tls://HOST:4222: what is no letter or digit in USER and PASSWORD is \
         percent-encoded"
    )]
    Url,
    /// No server answered, or it rejected the connection. The text contains the client's error, so it is not a source
    /// of this one.
    #[error("cannot connect to NATS: {}", explain(.0))]
    Connect(async_nats::ConnectError),
}

impl From<async_nats::ConnectError> for ConnectError {
    fn from(error: async_nats::ConnectError) -> Self {
        Self::Connect(error)
    }
}

/// Fragments of the client's errors, and what to do about them. The first match counts.
const ADVICE: [(&str, &str); 8] = [
    ("UnknownIssuer", NOT_TRUSTED),
    ("BadSignature", NOT_TRUSTED),
    ("not valid for name", "the certificate is for another name than the host in nats.url"),
    ("peer certificate", "the certificate is rejected; check its dates and its key usage"),
    ("corrupt message", NO_TLS),
    ("tls handshake eof", NO_TLS),
    (
        "authorization violation",
        "check nats.credentials_file and what nats/auth.conf of the server trusts",
    ),
    ("refused", "check that nats-server runs and that nats.url leads to it"),
];
const NOT_TRUSTED: &str =
    "the certificate is not trusted; let nats.ca_file name the authority that signed it";
const NO_TLS: &str =
    "the server does not speak TLS; set up TLS there, or remove tls:// and nats.ca_file";

/// The client's error, once, and what to do about it.
fn explain(error: &async_nats::ConnectError) -> String {
    let said = error.to_string();
    let advice = ADVICE.iter().find(|(part, _)| said.contains(part));
    advice.map_or_else(|| said.clone(), |(_, advice)| format!("{said}; {advice}"))
}

/// Connects as `service`. Waits for a server that is not available yet, as long as the settings permit; later losses
/// are repaired in the background, without end.
///
/// # Errors
/// [`ConnectError`] if there is no connection by then, or if a server rejects it.
pub async fn connect(settings: &Nats, service: &str) -> Result<Client, ConnectError> {
    // Somebody waits for a command of the operator.
    let wait_s = if service == "operator" { 0 } else { settings.start_wait_s };
    let deadline = Instant::now() + Duration::from_secs(wait_s);
    let mut told = false;
    loop {
        match connect_now(settings, service).await {
            Err(ConnectError::Connect(error))
                if is_absence(&error) && Instant::now() < deadline =>
            {
                if !told {
                    let error = explain(&error);
                    tracing::warn!(
                        service,
                        error,
                        wait_s,
                        "NATS is not available yet; waiting for it"
                    );
                    told = true;
                }
                sleep(RECONNECT_PAUSE_MAX).await;
            }
            connected => return connected,
        }
    }
}

/// Whether no server could be reached, as opposed to one that rejected the connection or failed the TLS handshake.
fn is_absence(error: &async_nats::ConnectError) -> bool {
    let is_io = matches!(
        error.kind(),
        ConnectErrorKind::Io | ConnectErrorKind::Dns | ConnectErrorKind::TimedOut
    );
    let said = error.to_string();
    is_io && !["peer certificate", "corrupt message"].iter().any(|part| said.contains(part))
}

async fn connect_now(settings: &Nats, service: &str) -> Result<Client, ConnectError> {
    let name = service.to_owned();
    let mut options = ConnectOptions::new()
        .name(format!("roster-{service}"))
        .custom_inbox_prefix(format!("_INBOX_{service}"))
        .request_timeout(Some(Duration::from_millis(settings.request_timeout_ms)))
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(Duration::from_secs(5))
        .reconnect_delay_callback(|attempt| {
            let exponent = u32::try_from(attempt.min(8)).unwrap_or(8);
            Duration::from_millis(4_u64 << exponent).min(RECONNECT_PAUSE_MAX)
        })
        .event_callback(move |event| {
            let service = name.clone();
            async move {
                match event {
                    // The output of an operator's command is not about its connection.
                    Event::Connected if service == "operator" => {
                        tracing::debug!(service, "connected to NATS");
                    }
                    Event::Connected => tracing::info!(service, "connected to NATS"),
                    Event::Closed | Event::Draining => {
                        tracing::debug!(service, "closes the connection to NATS");
                    }
                    Event::Disconnected => tracing::warn!(service, "lost the connection to NATS"),
                    other @ (Event::LameDuckMode
                    | Event::SlowConsumer(_)
                    | Event::ServerError(_)
                    | Event::ClientError(_)) => tracing::warn!(service, event = %other, "NATS"),
                }
            }
        });
    check_ca_file(settings)?;
    if !settings.ca_file.as_os_str().is_empty() {
        // A configured authority requires TLS, whatever the server offers.
        options = options.add_root_certificates(settings.ca_file.clone()).require_tls(true);
    }
    if !settings.credentials_file.as_os_str().is_empty() {
        let file = &settings.credentials_file;
        options = options
            .credentials_file(file)
            .await
            .map_err(|e| ConnectError::Credentials(file.display().to_string(), e))?;
    }
    Ok(options.connect(servers(&settings.url)?).await?)
}

/// The addresses in `nats.url`.
///
/// # Errors
/// [`ConnectError::Url`].
pub fn servers(url: &str) -> Result<Vec<ServerAddr>, ConnectError> {
    let server = |text: &str| {
        let server: Option<ServerAddr> = text.parse().ok();
        server.filter(|server| !is_badly_encoded(text) && !server.host().is_empty())
    };
    let servers: Option<Vec<_>> = url.split(',').map(|text| server(text.trim())).collect();
    servers.ok_or(ConnectError::Url)
}

/// Checks the certificate authority, if one is configured.
///
/// # Errors
/// [`ConnectError::Authority`].
pub(crate) fn check_ca_file(settings: &Nats) -> Result<(), ConnectError> {
    let file = &settings.ca_file;
    if file.as_os_str().is_empty() {
        return Ok(());
    }
    certificates(file).map_err(|e| ConnectError::Authority(file.display().to_string(), e))
}

/// Addresses without user and password, for display.
#[must_use]
pub fn shown(urls: &str) -> String {
    let shown = urls.split(',').map(|url| {
        let (scheme, rest) =
            url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
    });
    shown.collect::<Vec<_>>().join(",")
}

/// The user by which the server knows a connection: the public key of its credentials, or its name without keys. `None`
/// if the server does not tell.
#[expect(clippy::disallowed_methods, reason = "a question to the server; nothing is written")]
pub async fn user(client: &Client) -> Option<String> {
    let answer = client.request("$SYS.REQ.USER.INFO", "".into()).await.ok()?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).ok()?;
    answer.pointer("/data/user")?.as_str().map(str::to_owned)
}

/// Closes a connection before the process stops, so that a server that stops later is not reported as lost.
pub async fn disconnect(client: &Client) {
    // Otherwise it is closed already.
    let _ = client.drain().await;
}
