//! A reader as somebody wrote it for the first release of the feed, from its schemas and without this crate. It
//! stays as it is: whatever is published today must be good for it.

use serde::Deserialize;
use serde_json::Value;

use crate::feed_contract::published;

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: String,
    revision: u32,
    position: String,
    actor: String,
    data: Value,
}

#[derive(Deserialize)]
struct User {
    id: String,
    email: String,
    email_verified: bool,
    full_name: Option<String>,
    roles: Vec<String>,
    status: String,
    metadata: serde_json::Map<String, Value>,
    created_at: String,
    updated_at: String,
}

#[derive(Deserialize)]
struct Session {
    id: String,
    user_id: String,
    epoch: u64,
    created_at: String,
    ends_at: String,
    ended: Option<Ended>,
}

#[derive(Deserialize)]
struct Ended {
    reason: String,
    at: String,
}

#[derive(Deserialize)]
struct AllEnded {
    user_id: String,
    epoch: u64,
    except: Option<String>,
}

fn part<T: for<'de> Deserialize<'de>>(event: &Event, name: &str) -> T {
    serde_json::from_value(event.data[name].clone())
        .unwrap_or_else(|error| panic!("{} {name}: {error}", event.kind))
}

#[test]
fn the_reader_of_the_first_release_reads_todays_events() {
    let mut read = 0;
    for (file, event) in published() {
        let event: Event = serde_json::from_value(event).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(event.position.parse::<u64>().is_ok() && event.revision > 0);
        assert!(!event.id.is_empty() && !event.time.is_empty() && !event.actor.is_empty());
        match event.kind.as_str() {
            "users.v1.deleted" => {
                assert_eq!(event.data["user"]["id"], event.subject.as_str());
            }
            kind if kind.starts_with("users.v1.") => {
                let user: User = part(&event, "user");
                assert_eq!(user.id, event.subject);
                assert!(user.email.contains('@') && matches!(&*user.status, "active" | "disabled"));
                let _ = (user.email_verified, user.full_name, user.roles, user.metadata);
                assert!(user.created_at <= user.updated_at);
            }
            "sessions.v1.all_ended" => {
                let ended: AllEnded = part(&event, "sessions");
                assert_eq!(ended.user_id, event.subject);
                assert!(ended.epoch > 0 && ended.except.is_some());
            }
            kind if kind.starts_with("sessions.v1.") => {
                let session: Session = part(&event, "session");
                assert_eq!(session.id, event.subject);
                assert!(!session.user_id.is_empty() && session.created_at < session.ends_at);
                let _ = session.epoch;
                let is_start = kind == "sessions.v1.started";
                assert_eq!(session.ended.is_none(), is_start);
                assert!(
                    session.ended.is_none_or(|end| !end.reason.is_empty() && !end.at.is_empty())
                );
            }
            // A type that came later, which this reader passes over.
            _ => continue,
        }
        read += 1;
    }
    assert!(read >= 15, "only {read} events were read");
}
