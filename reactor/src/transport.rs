//! How mails go out: to a mail server, or into a folder.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use events::Timestamp;
use lettre::message::Mailbox;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use service_kit::config::{Mail, MailTransport};
use tokio::time::timeout;
use url::{Host, Url};
use uuid::Uuid;

use crate::gate::Permit;

/// One step of the conversation with the mail server.
const STEP_MAX: Duration = Duration::from_secs(10);
/// The whole of it. Less than the time in which an order must be acknowledged.
const SEND_MAX: Duration = Duration::from_secs(20);

/// The settings of mail cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The sender is no mailbox.
    #[error("mail.from is not a mailbox like `Name <name@example.com>`")]
    From,
    /// The address of the mail server is not understood. The text does not repeat it, since it may hold
    /// a password.
    #[error(
        "mail.smtp_url is not like smtps://USER:PASSWORD@HOST or smtp://USER:PASSWORD@HOST?tls=required"
    )]
    Url,
    /// The mails would cross a network in the clear.
    #[error(
        "mail.smtp_url would send without TLS: use smtps:// or ?tls=required; smtp:// alone is for the loopback"
    )]
    Plain,
    /// No folder is named.
    #[error("mail.folder must be set for the transport folder")]
    NoFolder,
    /// The folder cannot be made.
    #[error("cannot make the folder {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A mail was not taken. No variant repeats what the server said, since it likes to name the address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The server will never take this mail.
    #[error("the mail server refused it for good ({0})")]
    Refused(u16),
    /// The server is there and does not take this mail now.
    #[error("the mail server does not take it now ({0})")]
    NotNow(u16),
    /// No conversation came about, or it broke.
    #[error("the mail cannot be handed over: {0}")]
    Trouble(String),
}

/// Which mail of which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MailName {
    pub order: Uuid,
    pub number: usize,
}

pub(crate) enum Transport {
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
    Folder(PathBuf),
}

/// Reads the sender.
pub(crate) fn sender(mail: &Mail) -> Result<Mailbox, SetupError> {
    mail.from.parse().map_err(|_| SetupError::From)
}

/// Everything that is wrong with the settings of mail, without making anything.
#[must_use]
pub fn check_mail(mail: &Mail) -> Vec<SetupError> {
    let transport = match mail.transport {
        MailTransport::Smtp => smtp(&mail.smtp_url).map(drop),
        MailTransport::Folder if mail.folder.as_os_str().is_empty() => Err(SetupError::NoFolder),
        MailTransport::Folder => Ok(()),
    };
    [sender(mail).map(drop), transport].into_iter().filter_map(Result::err).collect()
}

impl Transport {
    /// Takes the transport of the settings. Nothing is connected yet.
    pub(crate) fn open(mail: &Mail) -> Result<Self, SetupError> {
        match mail.transport {
            MailTransport::Smtp => smtp(&mail.smtp_url),
            MailTransport::Folder => {
                let path = mail.folder.clone();
                if path.as_os_str().is_empty() {
                    return Err(SetupError::NoFolder);
                }
                let mut builder = fs::DirBuilder::new();
                builder.recursive(true);
                #[cfg(unix)]
                std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
                match builder.create(&path) {
                    Ok(()) => Ok(Self::Folder(path)),
                    Err(source) => Err(SetupError::Folder { path, source }),
                }
            }
        }
    }

    /// Hands a mail over that has a permit. `Ok`: somebody else answers for it now.
    pub(crate) async fn send(
        &self,
        _permit: Permit,
        name: MailName,
        message: Message,
        now: Timestamp,
    ) -> Result<(), SendError> {
        match self {
            Self::Smtp(server) => match timeout(SEND_MAX, server.send(message)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(judge(&error)),
                Err(_) => Err(SendError::Trouble("no answer in time".to_owned())),
            },
            Self::Folder(folder) => {
                let time = now.as_datetime().format("%Y%m%dT%H%M%S%3fZ");
                let file = format!("{time}-{}-{}.eml", name.order.hyphenated(), name.number);
                let (folder, content) = (folder.clone(), message.formatted());
                tokio::task::spawn_blocking(move || put(&folder, &file, &content))
                    .await
                    .map_err(|error| SendError::Trouble(error.to_string()))?
                    .map_err(|error| SendError::Trouble(error.to_string()))
            }
        }
    }
}

fn smtp(text: &str) -> Result<Transport, SetupError> {
    let url = Url::parse(text).map_err(|_| SetupError::Url)?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(SetupError::Url)?;
    // Behind a scheme that is not one of the web, the address of a host is text to the parser.
    let is_loopback = match Host::parse(host) {
        Ok(Host::Ipv4(address)) => address.is_loopback(),
        Ok(Host::Ipv6(address)) => address.is_loopback(),
        Ok(Host::Domain(name)) => name == "localhost",
        Err(_) => return Err(SetupError::Url),
    };
    let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value);
    match (url.scheme(), tls.as_deref()) {
        ("smtps", None | Some("required")) | ("smtp", Some("required")) => {}
        ("smtp", None) if is_loopback => {}
        ("smtp", None | Some("opportunistic")) => return Err(SetupError::Plain),
        _ => return Err(SetupError::Url),
    }
    let builder =
        AsyncSmtpTransport::<Tokio1Executor>::from_url(text).map_err(|_| SetupError::Url)?;
    Ok(Transport::Smtp(Box::new(builder.timeout(Some(STEP_MAX)).build())))
}

/// What is wrong with one mail, and what with the way to the server.
fn judge(error: &lettre::transport::smtp::Error) -> SendError {
    let Some(code) = error.status().map(u16::from) else {
        return SendError::Trouble(if error.is_response() {
            "the answer of the mail server cannot be read".to_owned()
        } else {
            error.to_string()
        });
    };
    match code {
        // Command not understood, no TLS, no or wrong credentials, this server takes no mail: nothing
        // that another recipient would cure, and everything that another setting would.
        500 | 502..=504 | 521 | 523 | 524 | 530 | 534 | 535 | 538 => {
            SendError::Trouble(format!("the mail server answered {code}"))
        }
        500.. => SendError::Refused(code),
        _ => SendError::NotNow(code),
    }
}

/// A file appears whole or not at all, and for its owner alone: it holds a link.
fn put(folder: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    let half = folder.join(format!(".{name}.tmp"));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&half)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&half, folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_out_in_the_clear_but_to_the_loopback() {
        for fine in [
            "smtps://user:secret@mail.example.com:465",
            "smtp://user:secret@mail.example.com:587?tls=required",
            "smtp://127.0.0.1:2525",
            "smtp://localhost:2525",
            "smtp://[::1]:2525",
            "smtp://127.0.0.1:2525?tls=required",
        ] {
            assert!(smtp(fine).is_ok(), "{fine}");
        }
        for plain in [
            "smtp://mail.example.com",
            "smtp://user:secret@mail.example.com:587",
            "smtp://mail.example.com?tls=opportunistic",
            "smtp://127.0.0.1.example.com",
            "smtp://10.0.0.1",
            "smtp://127.0.0.1?tls=opportunistic",
        ] {
            assert!(matches!(smtp(plain), Err(SetupError::Plain)), "{plain}");
        }
        for wrong in ["", "mail.example.com", "http://mail.example.com", "smtp://", "smtps://"] {
            let error = smtp(wrong).err().unwrap();
            assert!(matches!(error, SetupError::Url), "{wrong}: {error}");
        }
    }
}
