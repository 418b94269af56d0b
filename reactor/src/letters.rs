//! The texts of mails. Each is written once, as paragraphs and links, and rendered as text and as HTML.

use std::time::SystemTime;

use events::{EmailAddress, Timestamp};
use lettre::Message;
use lettre::address::{Address, Envelope};
use lettre::message::header::{
    ContentTransferEncoding, ContentType, Header, HeaderName, HeaderValue,
};
use lettre::message::{Body, Mailbox, MultiPart, SinglePart};
use service_kit::links::LinkKind;
use uuid::Uuid;

/// A link as shown in a mail.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    /// Its purpose.
    pub kind: LinkKind,
    /// Its token.
    pub token: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// One mail, without its envelope.
#[derive(Debug)]
pub(crate) enum Letter {
    /// A link to choose another password.
    ResetPassword(Way),
    /// A link to choose the first password.
    SetPassword(Way),
    /// A link to verify the address.
    VerifyEmail(Way),
    /// A link to confirm the new address, sent to that address.
    ConfirmEmail(Way),
    /// The notice to the present address, with a link to cancel the change.
    EmailWillChange(Way),
    /// The password was changed.
    PasswordChanged,
    /// Somebody tried to register with this address.
    AddressTaken,
    /// The address was changed; a link to undo it.
    EmailChanged(Way),
    /// A login from a new device, at that time.
    NewDevice(Timestamp),
    /// The roles were changed.
    RolesChanged,
    /// The user was disabled.
    Disabled,
    /// The user was enabled.
    Enabled,
    /// An administrator's account was created.
    Administrator,
}

/// The mail could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LetterError {
    /// The address cannot be used in a mail.
    #[error("the address cannot be written to")]
    Address,
    /// The library rejected the mail.
    #[error("the mail cannot be put together")]
    Build,
}

/// Builds mails.
#[derive(Debug, Clone)]
pub(crate) struct Letters {
    from: Mailbox,
    product: String,
    link_base: String,
}

/// RFC 3834: asks automatic responders not to reply.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

impl Letters {
    /// The mails name the product after the sender.
    pub(crate) fn new(from: Mailbox, link_base: &str) -> Self {
        let product = from.name.clone().unwrap_or_else(|| from.email.domain().to_owned());
        Self { from, product, link_base: link_base.to_owned() }
    }

    /// Mail number `number` of a job. Its Message-ID is the same each time, so that a recipient who gets it twice can
    /// tell.
    pub(crate) fn write(
        &self,
        letter: &Letter,
        to: &EmailAddress,
        order: Uuid,
        number: usize,
        now: Timestamp,
    ) -> Result<Message, LetterError> {
        let Content { subject, blocks } = self.content(letter);
        let part = |kind: ContentType, text: String| {
            let encoding = ContentTransferEncoding::QuotedPrintable;
            let body = Body::new_with_encoding(text, encoding).map_err(|_| LetterError::Build)?;
            Ok(SinglePart::builder().header(kind).body(body))
        };
        let text = part(ContentType::TEXT_PLAIN, text(&blocks))?;
        let html = part(ContentType::TEXT_HTML, html(subject, &blocks))?;
        let domain = self.from.email.domain();
        let to = address(to)?;
        // Given explicitly: the library would parse it from the headers by stricter rules than Roster's.
        let envelope = Envelope::new(Some(self.from.email.clone()), vec![to.clone()])
            .map_err(|_| LetterError::Build)?;
        Message::builder()
            .envelope(envelope)
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject)
            .date(SystemTime::from(now.as_datetime()))
            .message_id(Some(format!("<{}.{number}@{domain}>", order.simple())))
            .header(AutoSubmitted)
            .multipart(MultiPart::alternative().singlepart(text).singlepart(html))
            .map_err(|_| LetterError::Build)
    }

    fn content(&self, letter: &Letter) -> Content {
        let product = &self.product;
        let way = |way: &Way| {
            let Way { kind, token, expires_at } = way;
            let url = format!("{}/{}?token={token}", self.link_base, kind.path());
            let until = expires_at.as_datetime().format("%Y-%m-%d %H:%M UTC");
            [Block::Link(url), Block::text(format!("The link works once, until {until}."))]
        };
        let (subject, before, links, after): (_, _, Option<&Way>, _) = match letter {
            Letter::ResetPassword(link) => (
                "Choose a new password",
                format!(
                    "Somebody asked for a new password for your account at {product}. Choose it here:"
                ),
                Some(link),
                "If it was not you, you do not need to do anything: your password stays as it is.",
            ),
            Letter::SetPassword(link) => (
                "Choose your password",
                format!("You have an account at {product}. Choose a password for it here:"),
                Some(link),
                "Until then nobody can log in to it.",
            ),
            Letter::VerifyEmail(link) => (
                "Verify your e-mail address",
                format!(
                    "An account at {product} was made with this e-mail address. Show that it is yours:"
                ),
                Some(link),
                "If it was not you, do not follow the link: somebody else has the password of that account.",
            ),
            Letter::ConfirmEmail(link) => (
                "Confirm your new e-mail address",
                format!(
                    "Somebody wants to use this e-mail address for an account at {product}. Confirm it here:"
                ),
                Some(link),
                "If it was not you, you need do nothing: the account keeps the address it has.",
            ),
            Letter::EmailWillChange(link) => (
                "Your e-mail address is about to change",
                format!(
                    "Somebody who knows your password asked to change the e-mail address of your account at \
                     {product}. It changes when the new address is confirmed. If it was not you, stop it here, \
                     and then change your password:"
                ),
                Some(link),
                "If it was you, you need do nothing here.",
            ),
            Letter::PasswordChanged => (
                "Your password was changed",
                format!("The password of your account at {product} was changed."),
                None,
                "If it was not you, ask for a new password on the page where you log in: that ends every \
                 session. Do not follow links in mails that you did not ask for.",
            ),
            Letter::AddressTaken => (
                "You already have an account",
                format!(
                    "Somebody tried to register at {product} with this e-mail address, which has an account \
                     already."
                ),
                None,
                "If it was you, log in instead; whoever forgot the password can ask for a new one there. If \
                 it was not you, you need do nothing.",
            ),
            Letter::EmailChanged(link) => (
                "Your e-mail address was changed",
                format!(
                    "Your account at {product} does not use this e-mail address any more. If it was not you, take \
                     the account back here. That ends every session and makes the password invalid; then ask for a \
                     new password on the page where you log in:"
                ),
                Some(link),
                "If it was you, you need do nothing.",
            ),
            Letter::NewDevice(at) => (
                "Your account was used on a new device",
                format!(
                    "Somebody who knows your password logged in to your account at {product} on {}, from a device or a \
                     network that was not used for it in the last weeks.",
                    at.as_datetime().format("%Y-%m-%d at %H:%M UTC")
                ),
                None,
                "If it was you, you need do nothing. If not, ask for a new password on the page where you log in: that \
                 ends every session.",
            ),
            Letter::RolesChanged => (
                "Your roles were changed",
                format!("What your account at {product} may do was changed."),
                None,
                "If you did not expect that, ask whoever runs the service.",
            ),
            Letter::Disabled => (
                "Your account was disabled",
                format!("Your account at {product} was disabled. Nobody can log in to it."),
                None,
                "If you did not expect that, ask whoever runs the service.",
            ),
            Letter::Enabled => (
                "Your account was enabled",
                format!("Your account at {product} was enabled. You can log in to it again."),
                None,
                "If you did not expect that, ask whoever runs the service.",
            ),
            Letter::Administrator => (
                "You have an administrator's account",
                format!(
                    "An account at {product} was made with this e-mail address. It may do everything there: see and \
                     change every user."
                ),
                None,
                "If you did not expect that, ask whoever runs the service.",
            ),
        };
        let mut blocks = vec![Block::text(before)];
        blocks.extend(links.into_iter().flat_map(way));
        blocks.push(Block::text(after));
        Content { subject, blocks }
    }
}

struct Content {
    subject: &'static str,
    blocks: Vec<Block>,
}

enum Block {
    Text(String),
    Link(String),
}

impl Block {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

fn text(blocks: &[Block]) -> String {
    let mut text = String::new();
    for block in blocks {
        let (Block::Text(line) | Block::Link(line)) = block;
        text.push_str(line);
        text.push_str("\r\n\r\n");
    }
    text
}

fn html(title: &str, blocks: &[Block]) -> String {
    let mut html = format!(
        "<!doctype html>\r\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title></head><body>\r\n",
        escape(title)
    );
    for block in blocks {
        match block {
            Block::Text(text) => html.push_str(&format!("<p>{}</p>\r\n", escape(text))),
            Block::Link(url) => {
                let url = escape(url);
                html.push_str(&format!("<p><a href=\"{url}\">{url}</a></p>\r\n"));
            }
        }
    }
    html.push_str("</body></html>\r\n");
    html
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
        escaped
    })
}

/// The local part as its owner gave it, because some servers distinguish case, and the domain in the form that DNS
/// knows.
///
/// The library's own check is bypassed: it knows fewer letters than RFC 6531 allows (no Devanagari, no Thai, no
/// combining marks), and addresses were validated at registration.
fn address(email: &EmailAddress) -> Result<Address, LetterError> {
    let local = email.as_given().rsplit_once('@').map(|(local, _)| local);
    let domain = email.canonical().rsplit_once('@').map(|(_, domain)| domain);
    match (local, domain) {
        (Some(local), Some(domain)) => Ok(Address::new_dangerous(local, domain)),
        _ => Err(LetterError::Address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(kind: LinkKind) -> Way {
        let expires_at = Timestamp::from_unix_seconds(1_800_000_000).unwrap();
        Way { kind, token: "t0ken".to_owned(), expires_at }
    }

    fn letters(from: &str) -> Letters {
        Letters::new(from.parse().unwrap(), "https://id.example.com/links")
    }

    fn letter(from: &str, letter: &Letter, to: &str) -> String {
        let (to, now) = (EmailAddress::parse(to).unwrap(), way(LinkKind::VerifyEmail).expires_at);
        let mail = letters(from).write(letter, &to, Uuid::from_u128(7), 1, now).unwrap();
        String::from_utf8(mail.formatted()).unwrap()
    }

    #[test]
    fn a_mail_has_what_a_reader_and_a_robot_need() {
        let verify = Letter::VerifyEmail(way(LinkKind::VerifyEmail));
        let mail = letter("Acme <no-reply@acme.example>", &verify, "Ada@B\u{fc}cher.example");
        for part in [
            "From: Acme <no-reply@acme.example>\r\n",
            "To: Ada@xn--bcher-kva.example\r\n",
            "Subject: Verify your e-mail address\r\n",
            "Message-ID: <00000000000000000000000000000007.1@acme.example>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Date: Fri, 15 Jan 2027 08:00:00 +0000\r\n",
            "multipart/alternative",
            "text/plain",
            "text/html",
            "https://id.example.com/links/verify-email?token=3Dt0ken",
            "2027-01-15 08:00 UTC",
        ] {
            assert!(mail.contains(part), "{part} in {mail}");
        }
    }

    fn is_written_to(given: &str) {
        let to = EmailAddress::parse(given).unwrap();
        let now = way(LinkKind::VerifyEmail).expires_at;
        let letters = letters("no-reply@acme.example");
        let mail =
            letters.write(&Letter::PasswordChanged, &to, Uuid::from_u128(7), 1, now).unwrap();
        let (local, _) = to.as_given().rsplit_once('@').unwrap();
        let (_, domain) = to.canonical().rsplit_once('@').unwrap();
        let expected = format!("{local}@{domain}");
        let recipients: Vec<String> =
            mail.envelope().to().iter().map(ToString::to_string).collect();
        assert_eq!(recipients, [expected.as_str()]);
        let text = String::from_utf8(mail.formatted()).unwrap();
        assert!(text.contains(&format!("\r\nTo: {expected}\r\n")), "{text}");
    }

    #[test]
    fn every_script_is_written_to() {
        for given in [
            "zoe\u{308}.finch@example.com",
            "\u{905}\u{930}\u{94d}\u{91c}\u{941}\u{928}@example.com",
            "\u{e2a}\u{e21}\u{e0a}\u{e32}\u{e22}@example.com",
            "\u{bae}\u{bb2}\u{bb0}\u{bcd}@example.com",
            "\u{20ac}uro@example.com",
            "\u{1f980}@example.com",
            "o'hara!#$%&*+-/=?^_`{|}~@b\u{fc}cher.example",
        ] {
            is_written_to(given);
        }
    }

    proptest::proptest! {
        /// A mail to every accepted address can be built.
        #[test]
        fn every_accepted_address_is_written_to(given in "\\PC{1,20}@[a-zA-Z\u{e4}\u{e9}\u{df}]{1,8}\\.[a-z]{2,5}") {
            if EmailAddress::parse(&given).is_ok() {
                is_written_to(&given);
            }
        }
    }

    #[test]
    fn nothing_breaks_out_of_the_markup() {
        let letters = letters("\"<b>&\\\"Co\\\"</b>\" <no-reply@acme.example>");
        let content = letters.content(&Letter::PasswordChanged);
        let html = html(content.subject, &content.blocks);
        assert!(html.contains("&lt;b&gt;&amp;&quot;Co&quot;&lt;/b&gt;"), "{html}");
        assert!(text(&content.blocks).contains("<b>&\"Co\"</b>"));
    }

    #[test]
    fn every_link_leads_where_its_kind_says() {
        let letters = letters("no-reply@acme.example");
        for (letter, path) in [
            (Letter::ResetPassword(way(LinkKind::ResetPassword)), "reset-password"),
            (Letter::SetPassword(way(LinkKind::SetPassword)), "set-password"),
            (Letter::ConfirmEmail(way(LinkKind::ConfirmEmail)), "confirm-email"),
            (Letter::EmailWillChange(way(LinkKind::AbortEmail)), "abort-email-change"),
            (Letter::EmailChanged(way(LinkKind::UndoEmail)), "undo-email-change"),
        ] {
            let text = text(&letters.content(&letter).blocks);
            let link = format!("\r\nhttps://id.example.com/links/{path}?token=t0ken\r\n");
            assert!(text.contains(&link), "{text}");
            assert!(
                text.contains("acme.example"),
                "a sender without a name is called by its domain"
            );
        }
        for letter in [
            Letter::PasswordChanged,
            Letter::AddressTaken,
            Letter::NewDevice(way(LinkKind::VerifyEmail).expires_at),
            Letter::RolesChanged,
            Letter::Disabled,
            Letter::Enabled,
            Letter::Administrator,
        ] {
            assert!(!text(&letters.content(&letter).blocks).contains("token"), "{letter:?}");
        }
    }
}
