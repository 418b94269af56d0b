//! The mail loop: each mail job becomes mails, is retried later, or is parked.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::{
    CommandId, Cutoff, EmailAddress, EmailClaim, Event, LinkPurpose, LinkRecord, LinkStanding,
    Position, Revision, Snapshot, Status, Timestamp, UndoneChanges, User, UserId, UserRevocation,
    credential_position, subjects,
};
use serde_json::from_slice;
use service_kit::ambient;
use service_kit::config;
use service_kit::event_log::{
    Append, EventLog, Guard, Outcome, ReadError, Stored, Task, Top, Write,
};
use service_kit::links::{Binding, Link, LinkKind, Links, undo_serial};
use service_kit::mail_jobs::{Mail, MailJob, MailJobs};
use service_kit::metrics::MailMetrics;
use uuid::Uuid;

use crate::devices::{DeviceError, Devices};
use crate::gate::{Admission, Gate, GateError, MailKind, millis};
use crate::letters::{Letter, LetterError, Letters, Way};
use crate::quota::{Candidate, ResetState};
use crate::transport::{MailName, SendError, Transport};

/// First pause before a job is retried; doubles each time.
const PUT_OFF_FIRST: Duration = Duration::from_secs(5);
/// Longest such pause.
const PUT_OFF_MAX: Duration = Duration::from_secs(600);
/// Concurrent writes to a link record before a job is retried later.
const RECORD_TRIES_MAX: u32 = 5;
/// Handed-over mails in memory.
const HANDED_OVER_MAX: usize = 1_024;

/// Works on mail jobs.
pub(crate) struct Mailer {
    pub users: EventLog,
    pub mails: EventLog,
    pub orders: MailJobs,
    pub links: Links,
    pub letters: Letters,
    pub gate: Gate,
    pub devices: Devices,
    pub transport: Transport,
    pub settings: config::Mail,
    pub memory: Mutex<Memory>,
    pub metrics: MailMetrics,
}

/// State of one process. Losing it costs at most a mail that is sent twice.
#[derive(Default)]
pub(crate) struct Memory {
    /// Mails that were handed over. If the second mail of a job fails, the first one must not be sent again and again.
    handed_over: VecDeque<MailName>,
    /// Since when no mail can be handed over at all, and why.
    trouble: Option<(Timestamp, String)>,
}

/// Why a job did not become mails.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error("a message in the log cannot be read")]
    Unreadable,
    #[error("the record of links cannot be written: {0:?}")]
    Record(Outcome),
    #[error(transparent)]
    Letter(#[from] LetterError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("the mail waits for its quota")]
    Early(Duration),
    #[error("the mail job cannot be opened")]
    Sealed,
    #[error("the mail job waited too long")]
    TooOld,
}

impl Failure {
    /// Whether a retry may help.
    const fn may_pass(&self) -> bool {
        match self {
            Self::Log(_)
            | Self::Record(_)
            | Self::Gate(_)
            | Self::Device(DeviceError::Read(_))
            | Self::Early(_)
            | Self::Send(SendError::NotNow(_) | SendError::Broken(_) | SendError::Trouble(_)) => {
                true
            }
            Self::Unreadable
            | Self::Device(DeviceError::Unreadable)
            | Self::Letter(_)
            | Self::Send(SendError::Refused(_) | SendError::Unfit(_))
            | Self::Sealed
            | Self::TooOld => false,
        }
    }
}

/// The recipient of a mail, according to the log.
struct Recipient {
    user: User,
    address: EmailAddress,
    /// Position of the credential.
    credential: Position,
    /// The last end of the user's access.
    cutoff: Cutoff,
}

/// One mail of a job, before it is known whether it may be sent.
struct Draft {
    kind: MailKind,
    to: EmailAddress,
    /// The link in it, and its lifetime in seconds.
    link: Option<(LinkKind, u64)>,
    /// The address that the link leads to: the new one, or the one before.
    new_email: Option<String>,
    /// Revision of the change that the link undoes.
    undoes: Option<Revision>,
    /// When the reported event happened, if the mail states it.
    at: Option<Timestamp>,
}

impl Draft {
    fn notice(kind: MailKind, to: &EmailAddress) -> Self {
        Self { kind, to: to.clone(), link: None, new_email: None, undoes: None, at: None }
    }

    fn link(kind: MailKind, to: &EmailAddress, link: LinkKind, life_s: u64) -> Self {
        Self { link: Some((link, life_s)), ..Self::notice(kind, to) }
    }
}

impl Mailer {
    /// Works on one job as far as possible now.
    pub(crate) async fn carry_out(&self, task: Task) {
        let id = task.subject().rsplit('.').next().and_then(|id| id.parse::<Uuid>().ok());
        // Only Roster writes there; an unreadable message cannot be opened, and is parked as such.
        let id = id.unwrap_or_else(ambient::new_uuid);
        let position = task.position;
        let failure = match self.attempt(id, &task).await {
            Ok(()) => {
                self.acknowledge(task.ack().await, position);
                return;
            }
            Err(Failure::Early(pause)) => {
                tracing::debug!(order = %id, pause_s = pause.as_secs(), "a notice waits for its quota");
                self.acknowledge(task.nak(pause).await, position);
                return;
            }
            Err(failure) => failure,
        };
        let waited = age(task.stored_at);
        if failure.may_pass() && waited < Duration::from_secs(self.settings.give_up_s) {
            let pause = pause(task.deliveries);
            tracing::warn!(order = %id, error = %failure, pause_s = pause.as_secs(), "a mail cannot be sent now; retrying later");
            self.metrics.nak();
            self.acknowledge(task.nak(pause).await, position);
            return;
        }
        match self.park(id, &task).await {
            Outcome::Stored(_) | Outcome::Conflict | Outcome::Duplicate => {
                tracing::error!(order = %id, error = %failure, "a mail is parked; see `roster parked`");
                self.metrics.parked();
                self.acknowledge(task.ack().await, position);
            }
            outcome @ (Outcome::Unknown
            | Outcome::Full
            | Outcome::Unavailable
            | Outcome::Refused(..)) => {
                tracing::error!(order = %id, error = %failure, ?outcome, "a mail cannot be parked");
                self.metrics.failed();
                let pause = pause(task.deliveries);
                self.acknowledge(task.nak(pause).await, position);
            }
        }
    }

    /// Since when nothing can be handed over, and why.
    pub(crate) fn trouble(&self) -> Option<(Timestamp, String)> {
        self.memory().trouble.clone()
    }

    fn acknowledge(&self, acknowledged: Result<(), impl std::fmt::Display>, position: Position) {
        if let Err(error) = acknowledged {
            tracing::warn!(%error, %position, "cannot acknowledge a mail job; it may be delivered again");
        }
    }

    async fn park(&self, id: Uuid, task: &Task) -> Outcome {
        let payload = task.payload().to_vec();
        let write = Write::new(subjects::parked_mail(id), Guard::absent(), payload);
        self.mails.append(&Append::new(CommandId::from_uuid(id), write)).await
    }

    async fn attempt(&self, id: Uuid, task: &Task) -> Result<(), Failure> {
        let order = self.orders.open(id, task.payload()).map_err(|_| Failure::Sealed)?;
        if age(task.stored_at) >= Duration::from_secs(self.settings.give_up_s) {
            return Err(Failure::TooOld);
        }
        let Some(recipient) = self.recipient_of(&order.mail).await? else {
            tracing::debug!(order = %id, kind = order.mail.kind(), "a mail job has no recipient");
            return Ok(());
        };
        let mut drafts = self.drafts(&order, &recipient)?;
        if let Mail::LoggedIn { session, .. } = order.mail
            && !drafts.is_empty()
        {
            let Some(session) = self.devices.is_new(&recipient.user, session).await? else {
                return Ok(());
            };
            for draft in &mut drafts {
                draft.at = Some(session.created_at);
            }
        }
        for (number, draft) in (1..).zip(drafts) {
            let name = MailName { order: id, number };
            if self.memory().handed_over.contains(&name) {
                continue;
            }
            // A slow mail server must not cause the job to be delivered to another reactor before this mail is sent.
            if task.in_progress().await.is_err() {
                return Err(
                    ReadError::Unavailable("the connection to NATS is gone".to_owned()).into()
                );
            }
            // Mails after one that is not sent are not sent, either.
            if !Box::pin(self.dispatch(&order, name, &draft, &recipient)).await? {
                break;
            }
        }
        Ok(())
    }

    /// Passes one mail through the gate and hands it over; `false` if it must not be sent.
    async fn dispatch(
        &self,
        order: &MailJob,
        name: MailName,
        draft: &Draft,
        recipient: &Recipient,
    ) -> Result<bool, Failure> {
        let now = ambient::now();
        let mut reset = None;
        if let Some((link, life_s)) = draft.link {
            // Jobs that lead to no mail must not use up a cap.
            let (is_void, record) = match (link.purpose(), draft.undoes) {
                (None, Some(change)) => (self.is_undone(recipient.user.id, change).await?, None),
                (None, None) => return Err(Failure::Unreadable),
                (Some(purpose), _) => {
                    let record = self.link_record(purpose, recipient.user.id).await?.0;
                    let standing = LinkRecord::standing(record, order.id, order.ordered_at);
                    (standing == LinkStanding::Void, record)
                }
            };
            if is_void {
                tracing::info!(order = %order.id, "a link was used or a newer one ordered: no mail");
                return Ok(false);
            }
            reset = (link == LinkKind::ResetPassword).then(|| ResetState {
                serial: record.and_then(|record| record.serial),
                bound_to: recipient.credential.max(recipient.cutoff.position),
                life_ms: life_s.saturating_mul(1_000),
            });
        }
        let candidate =
            Candidate { order: order.id, ordered_at_ms: millis(order.ordered_at), reset };
        let permit = match self.gate.admit(draft.kind, &draft.to, &candidate, now).await? {
            Admission::Go(permit) => permit,
            Admission::Later(pause) => return Err(Failure::Early(pause)),
            Admission::Never => {
                let kind = order.mail.kind();
                tracing::info!(order = %order.id, kind, "the quota of an address is used up: no mail");
                self.metrics.capped();
                return Ok(false);
            }
        };
        let way = match draft.link {
            None => None,
            Some((kind, life_s)) => {
                let serial = match draft.undoes {
                    Some(change) => undo_serial(change),
                    None => permit.repeat().unwrap_or(order.id),
                };
                if let Some(purpose) = kind.purpose()
                    && !self.link_stands(order, purpose, recipient.user.id, serial).await?
                {
                    return Ok(false);
                }
                let expires_at = now.plus_seconds(life_s);
                Some(self.way(kind, serial, recipient, expires_at, draft.new_email.as_deref()))
            }
        };
        let letter = letter(draft, way).ok_or(LetterError::Build)?;
        let message = self.letters.write(&letter, permit.to(), order.id, name.number, now)?;
        let sent = self.transport.send(permit, name, message, now).await;
        self.remember(name, &sent);
        sent?;
        let (kind, number) = (order.mail.kind(), name.number);
        tracing::info!(order = %order.id, kind, number, "a mail was handed over");
        self.metrics.sent();
        Ok(true)
    }

    fn remember(&self, name: MailName, sent: &Result<(), SendError>) {
        let mut memory = self.memory();
        match sent {
            Err(SendError::Trouble(why)) => {
                let since = memory.trouble.take().map_or_else(ambient::now, |(since, _)| since);
                memory.trouble = Some((since, why.clone()));
            }
            // About one mail: the others are sent.
            Err(
                SendError::NotNow(_)
                | SendError::Refused(_)
                | SendError::Unfit(_)
                | SendError::Broken(_),
            ) => memory.trouble = None,
            Ok(()) => {
                memory.trouble = None;
                memory.handed_over.push_back(name);
                if memory.handed_over.len() > HANDED_OVER_MAX {
                    memory.handed_over.pop_front();
                }
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The recipient of a job's mails, if there is one.
    async fn recipient_of(&self, mail: &Mail) -> Result<Option<Recipient>, Failure> {
        let user = match mail {
            Mail::ResetPassword { claim } | Mail::AddressTaken { claim } => {
                self.holder(claim).await?
            }
            Mail::SetPassword { user }
            | Mail::VerifyEmail { user }
            | Mail::EmailChange { user, .. }
            | Mail::PasswordChanged { user }
            | Mail::EmailChanged { user, .. }
            | Mail::LoggedIn { user, .. }
            | Mail::RolesChanged { user }
            | Mail::Disabled { user }
            | Mail::Enabled { user }
            | Mail::Administrator { user } => Some(*user),
        };
        match user {
            Some(user) => self.recipient(user).await,
            None => Ok(None),
        }
    }

    /// The mails of a job in the order of sending; none if nobody is to be written to.
    fn drafts(&self, order: &MailJob, to: &Recipient) -> Result<Vec<Draft>, Failure> {
        let is_active = to.user.status == Status::Active;
        let (address, life) = (&to.address, &self.settings);
        let drafts = match &order.mail {
            Mail::ResetPassword { .. } => {
                let link = (LinkKind::ResetPassword, life.reset_link_s);
                vec![Draft::link(MailKind::ResetPassword, address, link.0, link.1)]
            }
            Mail::SetPassword { .. } => {
                let link = (LinkKind::SetPassword, life.set_password_link_s);
                vec![Draft::link(MailKind::SetPassword, address, link.0, link.1)]
            }
            Mail::VerifyEmail { .. } if to.user.email_verified => Vec::new(),
            Mail::VerifyEmail { .. } => {
                let link = (LinkKind::VerifyEmail, life.verify_link_s);
                vec![Draft::link(MailKind::VerifyEmail, address, link.0, link.1)]
            }
            Mail::EmailChange { epoch: Some(epoch), .. } if *epoch != to.cutoff.position => {
                // A mail server that was slow, or made to be, must not apply a change after the owner's recovery.
                Vec::new()
            }
            Mail::EmailChange { new_email, .. } => {
                let new = EmailAddress::parse(new_email).map_err(|_| LetterError::Address)?;
                let life_s = life.email_link_s;
                let confirm =
                    Draft::link(MailKind::ConfirmEmail, &new, LinkKind::ConfirmEmail, life_s);
                let notice =
                    Draft::link(MailKind::EmailWillChange, address, LinkKind::AbortEmail, life_s);
                // The notice comes first. If the present address cannot receive it, its owner cannot know, and the link
                // that would take over the account is not sent.
                vec![notice, Draft { new_email: Some(new_email.clone()), ..confirm }]
            }
            Mail::PasswordChanged { .. } => {
                vec![Draft::notice(MailKind::PasswordChanged, address)]
            }
            Mail::AddressTaken { .. } => vec![Draft::notice(MailKind::AddressTaken, address)],
            Mail::EmailChanged { old_email, revision, .. } => {
                let old = EmailAddress::parse(old_email).map_err(|_| LetterError::Address)?;
                let link = (LinkKind::UndoEmail, life.undo_link_s);
                let way_back = Draft::link(MailKind::EmailChanged, &old, link.0, link.1);
                // Another spelling, or the user has the address again: there is nothing to undo.
                if old.canonical() == address.canonical() {
                    Vec::new()
                } else {
                    let new_email = Some(old_email.clone());
                    vec![Draft { new_email, undoes: Some(*revision), ..way_back }]
                }
            }
            Mail::LoggedIn { .. } => vec![Draft::notice(MailKind::NewDevice, address)],
            Mail::RolesChanged { .. } => vec![Draft::notice(MailKind::RolesChanged, address)],
            Mail::Disabled { .. } if is_active => Vec::new(),
            Mail::Disabled { .. } => vec![Draft::notice(MailKind::Disabled, address)],
            Mail::Enabled { .. } if !is_active => Vec::new(),
            Mail::Enabled { .. } => vec![Draft::notice(MailKind::Enabled, address)],
            Mail::Administrator { .. } => vec![Draft::notice(MailKind::Administrator, address)],
        };
        // A disabled user follows no link, but may be enabled again while the undo link is still valid. A notice to an
        // unverified address would be a mail to a stranger.
        let may_go = |draft: &Draft| {
            (is_active || draft.link.is_none() || draft.undoes.is_some())
                && (to.user.email_verified || !draft.kind.is_notice())
        };
        Ok(drafts.into_iter().filter(may_go).collect())
    }

    /// The user who holds a claim.
    async fn holder(&self, claim: &str) -> Result<Option<UserId>, Failure> {
        let Some(claim) = self.users.last(&subjects::email_claim(claim)).await? else {
            return Ok(None);
        };
        let claim: EmailClaim = from_slice(&claim.payload).map_err(|_| Failure::Unreadable)?;
        Ok(claim.holder())
    }

    async fn recipient(&self, id: UserId) -> Result<Option<Recipient>, Failure> {
        let Some(last) = self.users.last(&subjects::user_events(id)).await? else {
            return Ok(None);
        };
        let event = Event::from_json(&last.payload).map_err(|_| Failure::Unreadable)?;
        let Snapshot::Present(user) = event.after else { return Ok(None) };
        let address = EmailAddress::parse(&user.email).map_err(|_| LetterError::Address)?;
        let credential = self.users.last(&subjects::user_credential(id)).await?;
        let set_at = |stored: Stored| credential_position(&stored.payload, stored.position);
        let credential = credential.map(set_at).unwrap_or_default();
        let cutoff = self.cutoff(id).await?;
        Ok(Some(Recipient { user, address, credential, cutoff }))
    }

    async fn cutoff(&self, id: UserId) -> Result<Cutoff, Failure> {
        let Some(last) = self.users.last(&subjects::user_revocation(id)).await? else {
            return Ok(Cutoff::default());
        };
        let revocation: UserRevocation =
            from_slice(&last.payload).map_err(|_| Failure::Unreadable)?;
        Ok(Cutoff::of(revocation, last.position))
    }

    /// Whether a change of address was undone already.
    async fn is_undone(&self, user: UserId, change: Revision) -> Result<bool, Failure> {
        let stored = self.users.last(&subjects::undone_email_changes(user)).await?;
        let record = stored.map(|stored| from_slice::<UndoneChanges>(&stored.payload)).transpose();
        Ok(record.map_err(|_| Failure::Unreadable)?.unwrap_or_default().covers(change))
    }

    /// The record of the valid link for a purpose, with its guard.
    async fn link_record(
        &self,
        purpose: LinkPurpose,
        user: UserId,
    ) -> Result<(Option<LinkRecord>, Guard), Failure> {
        let Top { last, guard } = self.users.top(&subjects::link(purpose, user)).await?;
        let record = last.as_ref().map(|stored| from_slice::<LinkRecord>(&stored.payload));
        Ok((record.transpose().map_err(|_| Failure::Unreadable)?, guard))
    }

    /// Makes the link of a job the valid one, unless it is void. The serial is that of the job, so that a job that runs
    /// twice makes the same link, or that of the valid link, which is mailed once more.
    async fn link_stands(
        &self,
        order: &MailJob,
        purpose: LinkPurpose,
        user: UserId,
        serial: Uuid,
    ) -> Result<bool, Failure> {
        let subject = subjects::link(purpose, user);
        let mut outcome = Outcome::Conflict;
        for _ in 0..RECORD_TRIES_MAX {
            let (record, guard) = self.link_record(purpose, user).await?;
            if record.is_some_and(|record| record.serial == Some(serial)) {
                return Ok(true);
            }
            let is_repeated = serial != order.id;
            if is_repeated
                || LinkRecord::standing(record, serial, order.ordered_at) == LinkStanding::Void
            {
                tracing::info!(order = %order.id, "a link was used or a newer one ordered: no mail");
                return Ok(false);
            }
            let (ordered_at, session) = (order.ordered_at, order.mail.session());
            let record = LinkRecord { serial: Some(serial), ordered_at, session };
            let record = serde_json::to_vec(&record).map_err(|_| Failure::Unreadable)?;
            // A command of its own: a retried job is certain about its own record.
            let command = CommandId::from_uuid(ambient::new_uuid());
            let write = Write::new(subject.clone(), guard, record);
            outcome = self.users.append(&Append::new(command, write)).await;
            match outcome {
                Outcome::Stored(_) => return Ok(true),
                Outcome::Conflict => {}
                Outcome::Duplicate
                | Outcome::Unknown
                | Outcome::Full
                | Outcome::Unavailable
                | Outcome::Refused(..) => break,
            }
        }
        Err(Failure::Record(outcome))
    }

    fn way(
        &self,
        kind: LinkKind,
        serial: Uuid,
        to: &Recipient,
        expires_at: Timestamp,
        new_email: Option<&str>,
    ) -> Way {
        let link = Link {
            kind,
            user: to.user.id,
            serial,
            expires_at,
            new_email: new_email.map(str::to_owned),
        };
        let binding =
            Binding { email: to.address.canonical(), credential: to.credential, cutoff: to.cutoff };
        Way { kind, token: self.links.token(&link, &binding), expires_at }
    }
}

/// The letter of a draft; `None` if a required link is missing.
fn letter(draft: &Draft, way: Option<Way>) -> Option<Letter> {
    Some(match draft.kind {
        MailKind::ResetPassword => Letter::ResetPassword(way?),
        MailKind::SetPassword => Letter::SetPassword(way?),
        MailKind::VerifyEmail => Letter::VerifyEmail(way?),
        MailKind::ConfirmEmail => Letter::ConfirmEmail(way?),
        MailKind::EmailWillChange => Letter::EmailWillChange(way?),
        MailKind::PasswordChanged => Letter::PasswordChanged,
        MailKind::AddressTaken => Letter::AddressTaken,
        MailKind::EmailChanged => Letter::EmailChanged(way?),
        MailKind::NewDevice => Letter::NewDevice(draft.at?),
        MailKind::RolesChanged => Letter::RolesChanged,
        MailKind::Disabled => Letter::Disabled,
        MailKind::Enabled => Letter::Enabled,
        MailKind::Administrator => Letter::Administrator,
    })
}

/// How long ago a time was.
pub(crate) fn age(since: Timestamp) -> Duration {
    (ambient::now().as_datetime() - since.as_datetime()).to_std().unwrap_or_default()
}

fn pause(deliveries: u64) -> Duration {
    let exponent = u32::try_from(deliveries.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    (PUT_OFF_FIRST * 2_u32.pow(exponent)).min(PUT_OFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_ten_minutes() {
        let pauses: Vec<u64> = [1, 2, 3, 7, 8, 1_000].map(|n| pause(n).as_secs()).to_vec();
        assert_eq!(pauses, [5, 10, 20, 320, 600, 600]);
    }
}
