//! A mail server that can reject mails, on a real socket.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use events::CommandId;
use reactor::{App, StartError};
use service_kit::config::MailTransport;
use service_kit::event_log::{Append, Guard, Write};
use service_kit::mail_jobs::Mail;
use service_kit::telemetry::Telemetry;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{ADA, Received, System, id, order, reset, wait_for};

/// What the mail server received and answers.
#[derive(Default)]
struct Conversations {
    /// Replies to the next recipients; 250 when there are none left.
    answers: VecDeque<&'static str>,
    mails: Vec<Received>,
    recipients: Vec<String>,
    /// The names in the client's greetings.
    greetings: Vec<String>,
    /// Finished conversations.
    over: usize,
}

pub struct MailServer {
    address: SocketAddr,
    conversations: Arc<Mutex<Conversations>>,
}

impl MailServer {
    async fn start(answers: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = answers.iter().copied().collect();
        let conversations =
            Arc::new(Mutex::new(Conversations { answers, ..Conversations::default() }));
        let server = Self { address, conversations: Arc::clone(&conversations) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let conversations = Arc::clone(&conversations);
                tokio::spawn(async move {
                    // The client may hang up at any time.
                    let _ = converse(stream, &conversations).await;
                    conversations.lock().unwrap().over += 1;
                });
            }
        });
        server
    }

    pub fn mails(&self) -> Vec<Received> {
        self.conversations.lock().unwrap().mails.clone()
    }

    fn over(&self) -> usize {
        self.conversations.lock().unwrap().over
    }
}

async fn converse(stream: TcpStream, conversations: &Mutex<Conversations>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 ready\r\n").await?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.split_whitespace().next().unwrap_or_default().to_uppercase();
        let answer = match verb.as_str() {
            "EHLO" => {
                conversations.lock().unwrap().greetings.push(line.trim_end().to_owned());
                "250 yes"
            }
            "RCPT" => {
                let mut conversations = conversations.lock().unwrap();
                conversations.recipients.push(line.trim_end().to_owned());
                conversations.answers.pop_front().unwrap_or("250 yes")
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let mut mail = String::new();
                while !mail.ends_with("\r\n.\r\n") {
                    stream.read_line(&mut mail).await?;
                }
                let mail = mail.trim_end_matches(".\r\n");
                conversations.lock().unwrap().mails.push(Received::read(mail));
                "250 taken"
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => "250 yes",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
}

pub async fn with_server(answers: &[&'static str], query: &str) -> (System, MailServer) {
    let mut system = System::start().await;
    let server = MailServer::start(answers).await;
    system.settings.mail.transport = MailTransport::Smtp;
    system.settings.mail.smtp_url = format!("smtp://{}{query}", server.address);
    system.user(ADA, "ada").await;
    (system, server)
}

#[tokio::test]
async fn a_temporarily_rejected_mail_is_sent_later_and_once() {
    let (system, server) = with_server(&["451 later"], "").await;
    let order = reset("ada");
    system.place(&order).await;
    let reactor = system.reactor().await;
    wait_for("the first refusal", || async { server.over() > 0 }).await;
    assert!(server.mails().is_empty() && system.is_waiting(&order).await);
    system.settled().await;
    reactor.end().await;
    let mails = server.mails();
    let [mail] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!(system.verified(mail).await.serial, id(&order));
    assert_eq!(system.parked().list().await.unwrap(), []);
    let recipients = server.conversations.lock().unwrap().recipients.clone();
    assert_eq!(recipients, ["RCPT TO:<Ada@example.com>"; 2], "the spelling of its owner");
}

#[tokio::test]
async fn a_permanently_rejected_mail_is_parked() {
    let (system, server) = with_server(&["550 never", "550 never"], "").await;
    let (one, other) = (reset("ada"), reset("ada"));
    let mut other = other;
    other.ordered_at = other.ordered_at.plus_seconds(1);
    let reactor = system.reactor().await;
    for order in [&one, &other] {
        system.place(order).await;
        system.settled().await;
    }
    let parked = system.parked();
    let listed: Vec<_> =
        parked.list().await.unwrap().into_iter().map(|mail| (mail.id, mail.kind)).collect();
    assert_eq!(listed, [&one, &other].map(|order| (id(order), Some("reset_password"))));
    assert!(server.mails().is_empty() && !system.is_waiting(&one).await);

    assert!(parked.retry(id(&other)).await.unwrap());
    system.settled().await;
    let mails = server.mails();
    let [mail] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!(system.verified(mail).await.serial, id(&other));
    assert!(!parked.retry(id(&other)).await.unwrap(), "it is no longer parked");

    // A newer link was requested in the meantime, so this one is not sent.
    assert!(parked.retry(id(&one)).await.unwrap());
    system.settled().await;
    assert_eq!(server.mails().len(), 1);
    assert!(!parked.drop(id(&one)).await.unwrap());
    assert_eq!(parked.list().await.unwrap(), []);
    reactor.end().await;
}

#[tokio::test]
async fn of_two_mails_only_the_rejected_one_is_sent_again() {
    let (system, server) = with_server(&["250 yes", "451 later"], "").await;
    let user = system.user("Bob@example.com", "bob").await;
    let new_email = "new@example.com".to_owned();
    system.place(&order(Mail::EmailChange { user, new_email, epoch: None, session: None })).await;
    let reactor = system.reactor().await;
    system.settled().await;
    reactor.end().await;
    let to: Vec<String> = server.mails().into_iter().map(|mail| mail.to).collect();
    assert_eq!(to, ["Bob@example.com", "new@example.com"], "the notice goes first");
}

#[tokio::test]
async fn an_unreadable_job_is_parked_and_can_be_dropped() {
    let (system, server) = with_server(&[], "").await;
    let order = reset("ada");
    let sealed = system.orders.seal(&order).unwrap();
    let stranger = reset("ada");
    // Sealed for another id: a job cannot be stored under another name.
    let write = Write::new(events::subjects::mail_order(stranger.id), Guard::absent(), sealed);
    system.mails.append(&Append::new(CommandId::from_uuid(stranger.id), write)).await;
    let reactor = system.reactor().await;
    system.settled().await;
    let parked = system.parked();
    let listed = parked.list().await.unwrap();
    let [mail] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((mail.id, mail.kind), (stranger.id, None));
    assert!(parked.drop(stranger.id).await.unwrap());
    assert_eq!(parked.list().await.unwrap(), []);
    assert!(server.mails().is_empty());
    reactor.end().await;
}

#[tokio::test]
async fn sends_nothing_without_tls_where_tls_is_required() {
    let (system, server) = with_server(&[], "?tls=required").await;
    let order = reset("ada");
    system.place(&order).await;
    let reactor = system.reactor().await;
    wait_for("a conversation to be over", || async { server.over() > 0 }).await;
    reactor.end().await;
    assert!(system.is_waiting(&order).await);
    assert!(server.conversations.lock().unwrap().recipients.is_empty());
}

#[tokio::test]
async fn rejects_settings_that_send_in_plain_text() {
    let mut system = System::start().await;
    system.settings.mail.transport = MailTransport::Smtp;
    system.settings.mail.smtp_url = "smtp://user:pa55word@mail.example.com".to_owned();
    let watch = Telemetry::start(&system.settings.telemetry, "test").unwrap();
    let refused = App::build(&system.settings, &watch).await.err().unwrap();
    assert!(matches!(refused, StartError::Setup(_)), "{refused}");
    assert!(!format!("{refused} {refused:?}").contains("pa55word"));
}

/// A server without SMTPUTF8 can never accept such a mail, but all others.
#[tokio::test]
async fn an_unsupported_address_is_parked_at_once_and_the_reactor_stays_ready() {
    let (system, server) = with_server(&[], "").await;
    system.user("j\u{f6}rg.falk@example.com", "joerg").await;
    let order = reset("joerg");
    system.place(&order).await;
    let reactor = system.reactor().await;
    system.settled().await;
    let listed = system.parked().list().await.unwrap();
    assert_eq!(listed.iter().map(|mail| mail.id).collect::<Vec<_>>(), [id(&order)]);
    system.place(&reset("ada")).await;
    system.settled().await;
    reactor.readiness.check().await.unwrap();
    reactor.end().await;
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn greets_the_mail_server_with_the_configured_name() {
    let (mut system, server) = with_server(&[], "").await;
    system.settings.mail.smtp_ehlo_name = "id.example.com".to_owned();
    system.place(&reset("ada")).await;
    let reactor = system.reactor().await;
    system.settled().await;
    reactor.end().await;
    assert_eq!(server.conversations.lock().unwrap().greetings, ["EHLO id.example.com"]);
}

/// The owner of the current address must learn of the change before the account can move away from it.
#[tokio::test]
async fn a_change_whose_notice_is_rejected_cannot_be_confirmed() {
    let (system, server) = with_server(&["550 never"], "").await;
    let user = system.user("bob@example.com", "bob").await;
    let new_email = "new@example.com".to_owned();
    let change = order(Mail::EmailChange { user, new_email, epoch: None, session: None });
    system.place(&change).await;
    let reactor = system.reactor().await;
    system.settled().await;
    reactor.end().await;
    let recipients = server.conversations.lock().unwrap().recipients.clone();
    assert_eq!(recipients, ["RCPT TO:<bob@example.com>"], "nothing goes to the new address");
    assert!(server.mails().is_empty());
    let listed = system.parked().list().await.unwrap();
    assert_eq!(listed.iter().map(|mail| mail.id).collect::<Vec<_>>(), [id(&change)]);
}
