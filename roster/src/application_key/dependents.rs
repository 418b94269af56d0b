//! What would be of no use any more without the old application key.

use std::collections::{HashMap, HashSet};

use events::{
    Event, LinkPurpose, LinkRecord, Position, SessionEvent, SessionId, Timestamp, UserFact,
    subjects,
};
use serde::Serialize;
use service_kit::ambient;
use service_kit::event_log::EventLog;
use service_kit::mail_jobs::{MAIL_KEY_PURPOSE, MailJobs};
use uuid::Uuid;

use super::Finishing;
use crate::reading::Reading;

/// The records of links.
const LINKS_FILTER: &str = "lk.*.*";

/// How many there are of each.
#[derive(Debug, Default, Serialize)]
pub struct Dependents {
    /// Living sessions whose refresh token may be of the old key.
    sessions: usize,
    /// Links that are out in mails, at most.
    links: usize,
    /// Mails that wait, or are parked, and that the old key alone opens.
    mails: usize,
    /// When the last of the sessions and links is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

impl Dependents {
    /// Whether the old key has to stay.
    pub const fn blocks(&self, now: bool) -> bool {
        self.mails > 0 || (!now && (self.sessions > 0 || self.links > 0))
    }

    /// What they are, line by line.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut add = |count: usize, what: &str| {
            if count > 0 {
                lines.push(format!("{count} {what}"));
            }
        };
        add(self.sessions, "sessions were not refreshed since the new key seals");
        add(self.links, "links that were made with the old key may be in mailboxes");
        add(self.mails, "mails wait or are parked that the old key alone opens");
        if let Some(until) = self.until {
            lines.push(format!("the last of the sessions and links is over at {until}"));
        }
        lines
    }

    /// Why the old key stays, and what to do about it.
    pub const fn refusal(&self, now: bool) -> &'static str {
        if now || (self.sessions == 0 && self.links == 0) {
            return "the old key stays: let the reactor send the mails, and retry or drop what is parked (`roster parked`)";
        }
        "the old key stays until they are over. With --now it goes at once: those sessions have to log in again, and those \
         links are refused"
    }

    fn lasts(&mut self, until: Timestamp) {
        self.until = self.until.max(Some(until));
    }
}

/// Looks at sessions, links and mails.
pub async fn find<F>(finishing: &Finishing<'_, F>) -> anyhow::Result<Dependents>
where
    F: Fn(&'static str) -> EventLog,
{
    let mut found = Dependents::default();
    sessions(finishing, &mut found).await?;
    links(finishing, &mut found).await?;
    mails(finishing, &mut found).await?;
    Ok(found)
}

async fn sessions<F>(finishing: &Finishing<'_, F>, found: &mut Dependents) -> anyhow::Result<()>
where
    F: Fn(&'static str) -> EventLog,
{
    let log = (finishing.log)(subjects::SESSIONS_STREAM);
    let (end, now) = (log.end().await?, ambient::now());
    let mut former: HashMap<SessionId, Timestamp> = HashMap::new();
    let filters = [subjects::SESSION_EVENTS_FILTER];
    let mut reading = Reading::new(&log, &filters, Position(0), end);
    while let Some(message) = reading.next().await? {
        let Ok(event) = SessionEvent::from_json(&message.payload) else { continue };
        let session = event.after;
        let until = session.expires_at.min(session.ends_at);
        // A token is made with every event of a session that does not end it.
        if session.ended.is_none() && until > now && message.stored_at < finishing.settled {
            former.insert(session.id, until);
        } else {
            former.remove(&session.id);
        }
    }
    found.sessions = former.len();
    former.into_values().for_each(|until| found.lasts(until));
    Ok(())
}

/// Links are stored nowhere. What is known is which of a purpose was ordered last, and each change of an address, which one
/// comes with that undoes it.
async fn links<F>(finishing: &Finishing<'_, F>, found: &mut Dependents) -> anyhow::Result<()>
where
    F: Fn(&'static str) -> EventLog,
{
    let log = (finishing.log)(subjects::USERS_STREAM);
    let mail = &finishing.settings.mail;
    let now = ambient::now();
    // A link is made when its mail is sent, which may be long after it was ordered, and with the old key until then.
    let until = |ordered_at: Timestamp, life_s: u64| {
        let sent_last = ordered_at.plus_seconds(mail.give_up_s).min(finishing.settled);
        let until = sent_last.plus_seconds(life_s);
        (ordered_at < finishing.settled && until > now).then_some(until)
    };
    let mut out: HashMap<String, Timestamp> = HashMap::new();
    let mut undoing = HashSet::new();
    let end = log.end().await?;
    let filters = [LINKS_FILTER, subjects::USER_EVENTS_FILTER];
    let mut reading = Reading::new(&log, &filters, Position(0), end);
    while let Some(message) = reading.next().await? {
        if message.subject.starts_with("lk.") {
            let purpose = message.subject.split('.').nth(1).unwrap_or_default();
            let life_s = match LinkPurpose::ALL.into_iter().find(|one| one.as_str() == purpose) {
                Some(LinkPurpose::Password) => mail.set_password_link_s.max(mail.reset_link_s),
                Some(LinkPurpose::Verify) => mail.verify_link_s,
                Some(LinkPurpose::Email) => mail.email_link_s,
                None => continue,
            };
            let Ok(record) = serde_json::from_slice::<LinkRecord>(&message.payload) else {
                continue;
            };
            match record.serial.and_then(|_| until(record.ordered_at, life_s)) {
                Some(until) => drop(out.insert(message.subject, until)),
                None => drop(out.remove(&message.subject)),
            }
        } else if let Ok(event) = Event::from_json(&message.payload)
            && matches!(event.fact, UserFact::EmailChanged { .. })
            && let Some(until) = until(event.time, mail.undo_link_s)
        {
            found.lasts(until);
            undoing.insert(message.position);
        }
    }
    found.links = out.len() + undoing.len();
    out.into_values().for_each(|until| found.lasts(until));
    Ok(())
}

async fn mails<F>(finishing: &Finishing<'_, F>, found: &mut Dependents) -> anyhow::Result<()>
where
    F: Fn(&'static str) -> EventLog,
{
    let log = (finishing.log)(subjects::MAILS_STREAM);
    let newest = finishing.ring.clone().finished().derive(MAIL_KEY_PURPOSE);
    let orders = MailJobs::new(newest)?;
    for filter in subjects::MAILS_STREAM_SUBJECTS {
        let mut behind = Position(0);
        while let Some(message) = log.next(filter, behind).await? {
            behind = message.position;
            let id = message.subject.rsplit('.').next().and_then(|id| id.parse::<Uuid>().ok());
            found.mails +=
                usize::from(id.is_some_and(|id| !orders.is_current(id, &message.payload)));
        }
    }
    Ok(())
}
