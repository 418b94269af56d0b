//! Sends mails to a mail server, or writes them to a folder.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use events::Timestamp;
use lettre::message::Mailbox;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use service_kit::config::{Mail, MailTransport};
use tokio::time::timeout;
use url::{Host, Url};
use uuid::Uuid;

use crate::gate::Permit;

/// Time limit of one step of the SMTP dialogue.
const STEP_MAX: Duration = Duration::from_secs(10);
/// Time limit of the whole dialogue. Together with the probe after a failure it is shorter than the time in which a job
/// must be acknowledged.
const SEND_MAX: Duration = Duration::from_secs(20);
/// Time limit of that probe.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// The settings of mail cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The sender is not a valid mailbox.
    #[error("mail.from is not a mailbox like `Name <name@example.com>`")]
    From,
    /// The address of the mail server cannot be parsed. The text does not repeat it, because it may hold a password.
    #[error(
        "mail.smtp_url is not like smtps://USER:PASSWORD@HOST or smtp://USER:PASSWORD@HOST?tls=required"
    )]
    Url,
    /// The mails would cross a network unencrypted.
    #[error(
        "mail.smtp_url would send without TLS: use smtps:// or ?tls=required; smtp:// alone is for the loopback, or \
         with mail.smtp_allow_plain for a relay on a private network"
    )]
    Plain,
    /// The EHLO name is invalid.
    #[error("mail.smtp_ehlo_name is neither a host name nor an IP address")]
    EhloName,
    /// The certificate authority cannot be used.
    #[error("mail.smtp_ca_file {path} does not hold a certificate in PEM: {why}")]
    Authority {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// No folder is configured.
    #[error("mail.folder must be set for the transport folder")]
    NoFolder,
    /// The folder cannot be created.
    #[error("cannot create the folder {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A mail was not accepted. No variant repeats the server's text, which often contains the address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The server will never accept this mail.
    #[error("the mail server rejected it permanently ({0})")]
    Refused(u16),
    /// The server works and does not accept this mail now.
    #[error("the mail server does not accept it now ({0})")]
    NotNow(u16),
    /// The server accepts other mails, but this one cannot be handed to it at all.
    #[error("the mail server does not support such a mail: {0}")]
    Unfit(String),
    /// The dialogue about this mail broke off, and the server works.
    #[error("the dialogue with the mail server broke off: {0}")]
    Broken(String),
    /// No dialogue is possible.
    #[error("the mail cannot be handed over: {0}")]
    Trouble(String),
}

/// One mail of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MailName {
    pub order: Uuid,
    pub number: usize,
}

pub(crate) enum Transport {
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
    Folder(PathBuf),
}

/// Parses the sender.
pub(crate) fn sender(mail: &Mail) -> Result<Mailbox, SetupError> {
    mail.from.parse().map_err(|_| SetupError::From)
}

/// Everything that is wrong with the mail settings. Creates nothing.
#[must_use]
pub fn check_mail(mail: &Mail) -> Vec<SetupError> {
    let transport = match mail.transport {
        MailTransport::Smtp => smtp(mail).map(drop),
        MailTransport::Folder if mail.folder.as_os_str().is_empty() => Err(SetupError::NoFolder),
        MailTransport::Folder => Ok(()),
    };
    [sender(mail).map(drop), transport].into_iter().filter_map(Result::err).collect()
}

impl Transport {
    /// Creates the transport of the settings, without connecting.
    pub(crate) fn open(mail: &Mail) -> Result<Self, SetupError> {
        match mail.transport {
            MailTransport::Smtp => smtp(mail),
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

    /// Hands over a mail that has a permit. `Ok`: the mail server is responsible for it now.
    pub(crate) async fn send(
        &self,
        _permit: Permit,
        name: MailName,
        message: Message,
        now: Timestamp,
    ) -> Result<(), SendError> {
        match self {
            Self::Smtp(server) => {
                let failure = match timeout(SEND_MAX, server.send(message)).await {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(error)) => classify(&error),
                    Err(_) => Failure::Unknown("no answer in time".to_owned()),
                };
                Err(match failure {
                    Failure::Answered(error) => error,
                    // A dialogue without the mail shows which side failed.
                    Failure::Impossible(why) if is_there(server).await => SendError::Unfit(why),
                    Failure::Unknown(why) if is_there(server).await => SendError::Broken(why),
                    Failure::Impossible(why) | Failure::Unknown(why) => SendError::Trouble(why),
                })
            }
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

fn smtp(mail: &Mail) -> Result<Transport, SetupError> {
    let text = &mail.smtp_url;
    let url = Url::parse(text).map_err(|_| SetupError::Url)?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(SetupError::Url)?;
    // With a scheme that is not one of the web, the parser treats the host as text.
    let is_loopback = match Host::parse(host) {
        Ok(Host::Ipv4(address)) => address.is_loopback(),
        Ok(Host::Ipv6(address)) => address.is_loopback(),
        Ok(Host::Domain(name)) => name == "localhost",
        Err(_) => return Err(SetupError::Url),
    };
    let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value);
    let in_tls = match (url.scheme(), tls.as_deref()) {
        ("smtps", None | Some("required")) => Some(Tls::Wrapper as fn(TlsParameters) -> Tls),
        ("smtp", Some("required")) => Some(Tls::Required as fn(TlsParameters) -> Tls),
        ("smtp", None) if is_loopback || mail.smtp_allow_plain => None,
        ("smtp", None | Some("opportunistic")) => return Err(SetupError::Plain),
        _ => return Err(SetupError::Url),
    };
    let mut builder =
        AsyncSmtpTransport::<Tokio1Executor>::from_url(text).map_err(|_| SetupError::Url)?;
    if let (Some(in_tls), Some(parameters)) = (in_tls, authority(&mail.smtp_ca_file, host)?) {
        builder = builder.tls(in_tls(parameters));
    }
    if !mail.smtp_ehlo_name.is_empty() {
        builder = builder.hello_name(ehlo_name(&mail.smtp_ehlo_name)?);
    }
    Ok(Transport::Smtp(Box::new(builder.timeout(Some(STEP_MAX)).build())))
}

/// TLS that trusts a private certificate authority and no other; `None` for the system's.
fn authority(path: &Path, host: &str) -> Result<Option<TlsParameters>, SetupError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let refused = |why: String| SetupError::Authority { path: path.to_owned(), why };
    let pem = fs::read(path).map_err(|error| refused(error.to_string()))?;
    let certificate = Certificate::from_pem(&pem).map_err(|error| refused(error.to_string()))?;
    TlsParameters::builder(host.to_owned())
        .certificate_store(CertificateStore::None)
        .add_root_certificate(certificate)
        .build()
        .map(Some)
        .map_err(|error| refused(error.to_string()))
}

/// Roster's name in EHLO.
fn ehlo_name(text: &str) -> Result<ClientId, SetupError> {
    match Host::parse(text) {
        Ok(Host::Ipv4(address)) => Ok(ClientId::Ipv4(address)),
        Ok(Host::Domain(name)) if !name.ends_with('.') => Ok(ClientId::Domain(name)),
        _ => match text.parse() {
            Ok(address) => Ok(ClientId::Ipv6(address)),
            Err(_) => Err(SetupError::EhloName),
        },
    }
}

/// Why a mail was not accepted, as far as the error tells.
enum Failure {
    /// The server answered so.
    Answered(SendError),
    /// It was not tried: the server lacks a feature that the mail, or the connection, needs.
    Impossible(String),
    /// The dialogue broke off, or there was none.
    Unknown(String),
}

/// Distinguishes problems of one mail from those of the server.
fn classify(error: &lettre::transport::smtp::Error) -> Failure {
    let Some(code) = error.status().map(u16::from) else {
        let why = explain(&error.to_string());
        return match (error.is_response(), error.is_client()) {
            (true, _) => {
                Failure::Unknown("the answer of the mail server cannot be read".to_owned())
            }
            (false, true) => Failure::Impossible(why),
            (false, false) => Failure::Unknown(why),
        };
    };
    Failure::Answered(match code {
        // Command not understood, no TLS, no or wrong credentials, this server accepts no mail: another recipient would
        // not help, and another setting would.
        500 | 502..=504 | 521 | 523 | 524 | 530 | 534 | 535 | 538 => {
            SendError::Trouble(format!("the mail server answered {code}"))
        }
        500.. => SendError::Refused(code),
        _ => SendError::NotNow(code),
    })
}

/// The client's error text, with the setting to check.
fn explain(said: &str) -> String {
    let advice = if said.contains("not valid for name") {
        "; the certificate is for another name than the host in mail.smtp_url"
    } else if said.contains("certificate") {
        "; let mail.smtp_ca_file name the authority that signed the certificate, or leave it empty for those of the system"
    } else if said.contains("corrupt message") || said.contains("handshake eof") {
        "; the server does not speak TLS from the first byte: use ?tls=required in mail.smtp_url, or another port"
    } else {
        ""
    };
    format!("{said}{advice}")
}

/// Whether the server can be used: connection, TLS and credentials.
async fn is_there(server: &AsyncSmtpTransport<Tokio1Executor>) -> bool {
    matches!(timeout(PROBE_MAX, server.test_connection()).await, Ok(Ok(true)))
}

/// The file appears whole or not at all, and is readable for its owner only: it contains a link.
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
    use service_kit::config::Settings;

    use super::*;

    fn settings(url: &str) -> Mail {
        Mail { smtp_url: url.to_owned(), ..Settings::merge("", []).unwrap().mail }
    }

    fn opened(url: &str) -> Result<Transport, SetupError> {
        smtp(&settings(url))
    }

    #[test]
    fn a_relay_without_tls_must_be_allowed() {
        let plain = settings("smtp://relay.internal:25");
        assert!(matches!(smtp(&plain), Err(SetupError::Plain)));
        assert!(smtp(&Mail { smtp_allow_plain: true, ..plain }).is_ok());
        // A fallback to no TLS is rejected in any case: nobody would notice it.
        let falls_back = settings("smtp://relay.internal:25?tls=opportunistic");
        let falls_back = smtp(&Mail { smtp_allow_plain: true, ..falls_back });
        assert!(matches!(falls_back, Err(SetupError::Plain)));
    }

    #[test]
    fn the_name_for_the_mail_server_is_a_host() {
        for (text, name) in [
            ("mail.example.com", ClientId::Domain("mail.example.com".to_owned())),
            ("192.0.2.1", ClientId::Ipv4([192, 0, 2, 1].into())),
            ("2001:db8::1", ClientId::Ipv6("2001:db8::1".parse().unwrap())),
        ] {
            assert_eq!(ehlo_name(text).unwrap(), name);
        }
        for wrong in ["", "two words", "a\r\nMAIL FROM:<x@example.com>", "mail.example.com."] {
            assert!(ehlo_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_authority_that_is_none_is_refused() {
        let mut mail = settings("smtps://mail.example.com");
        mail.smtp_ca_file = PathBuf::from("/nowhere/ca.pem");
        assert!(matches!(smtp(&mail), Err(SetupError::Authority { .. })));
    }

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
            assert!(opened(fine).is_ok(), "{fine}");
        }
        for plain in [
            "smtp://mail.example.com",
            "smtp://user:secret@mail.example.com:587",
            "smtp://mail.example.com?tls=opportunistic",
            "smtp://127.0.0.1.example.com",
            "smtp://10.0.0.1",
            "smtp://127.0.0.1?tls=opportunistic",
        ] {
            assert!(matches!(opened(plain), Err(SetupError::Plain)), "{plain}");
        }
        for wrong in ["", "mail.example.com", "http://mail.example.com", "smtp://", "smtps://"] {
            let error = opened(wrong).err().unwrap();
            assert!(matches!(error, SetupError::Url), "{wrong}: {error}");
        }
    }
}
