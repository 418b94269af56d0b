//! What was handled is not handled again.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use events::client::{Mark, Revisions, SESSION_MARKS_MAX};
use events::feed::{AllEnded, EndedSessions, FEED_STREAM, Happened, PublicSession, SessionData};
use events::{Position, Revision, SessionId, Timestamp};
use local_stack::testing::temp_dir;
use uuid::Uuid;

use super::support::{Bus, Consumers, Log, Running, deleted, event, told, user};

/// An event that comes a second time, as another message.
#[tokio::test]
async fn the_file_drops_duplicates_and_without_it_they_come() {
    for keeps in [true, false] {
        let bus = Bus::new(Consumers::default()).await;
        for event in [told(1, 1), told(1, 2), told(1, 1), told(1, 2), told(2, 1)] {
            bus.publish(&event).await;
        }
        let log = Log::new();
        let settings = bus.settings();
        let settings = if keeps { settings } else { settings.without_revisions() };
        let running = Running::start(settings, {
            let log = log.clone();
            move |event| {
                log.add(&event);
                async { Ok(()) }
            }
        })
        .await;
        bus.is_done(FEED_STREAM).await;
        running.stop().await.unwrap();
        if keeps {
            assert_eq!(log.all(), [(1, 1), (1, 2), (2, 1)]);
        } else {
            assert_eq!(log.all(), [(1, 1), (1, 2), (1, 1), (1, 2), (2, 1)]);
        }
    }
}

#[test]
fn a_mark_tells_news_from_what_is_known() {
    let mark = Mark::of(&told(1, 5));
    assert!(mark.is_news(None));
    assert!(mark.is_news(Some(Revision(4))));
    assert!(!mark.is_news(Some(Revision(5))));
    assert!(!mark.is_news(Some(Revision(6))));
}

#[test]
fn the_file_survives_a_line_that_was_cut_off_and_nothing_worse() {
    let folder = temp_dir();
    let path = folder.path().join("revisions");
    let mut revisions = Revisions::open(&path).unwrap();
    for revision in [1, 2, 3] {
        assert!(revisions.is_news(&told(1, revision)));
        revisions.record(&told(1, revision)).unwrap();
        assert!(!revisions.is_news(&told(1, revision)));
    }
    revisions.record(&told(2, 9)).unwrap();
    drop(revisions);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(format!("user.{} 1", user(1)).as_bytes()).unwrap();

    let revisions = Revisions::open(&path).unwrap();
    assert_eq!(revisions.last(&told(1, 1).aggregate()), Some(Revision(3)));
    assert_eq!(revisions.last(&told(2, 1).aggregate()), Some(Revision(9)));
    assert_eq!(revisions.last(&told(3, 1).aggregate()), None);
    drop(revisions);
    // One line for each, and none that is cut off.
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);

    fs::write(&path, "user.x 1 -\nnonsense\nuser.y 1 -\n").unwrap();
    let error = Revisions::open(&path).unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
}

#[test]
fn the_file_does_not_grow_without_end() {
    let folder = temp_dir();
    let path = folder.path().join("revisions");
    let mut revisions = Revisions::open(&path).unwrap();
    for revision in 1..=1_200 {
        revisions.record(&told(1, revision)).unwrap();
    }
    let lines = fs::read_to_string(&path).unwrap().lines().count();
    assert!(lines < 1_010, "{lines}");
    assert_eq!(revisions.last(&told(1, 1).aggregate()), Some(Revision(1_200)));
    drop(revisions);

    // Sessions have no end, so only the last ones are kept; users all are.
    let sessions: String = (0..=SESSION_MARKS_MAX)
        .map(|n| format!("session.{} 1 {}\n", Uuid::from_u128(n as u128), user(1)))
        .collect();
    fs::write(&path, format!("user.{} 7 {}\n{sessions}", user(1), user(1))).unwrap();
    let revisions = Revisions::open(&path).unwrap();
    assert_eq!(revisions.last(&told(1, 1).aggregate()), Some(Revision(7)));
    let kept = fs::read_to_string(&path).unwrap();
    assert_eq!(kept.lines().count(), SESSION_MARKS_MAX + 1);
    assert!(!kept.contains(&format!("session.{} ", Uuid::from_u128(0))));
}

#[test]
fn the_sessions_of_a_user_who_is_gone_are_forgotten() {
    let at = Timestamp::try_from("2026-01-31T12:00:00.250Z".to_owned()).unwrap();
    let started = |of, n| {
        let session = PublicSession {
            id: SessionId::from_uuid(Uuid::from_u128(n)),
            user_id: user(of),
            epoch: Position(0),
            created_at: at,
            refreshed_at: at,
            ends_at: at,
            user_agent: None,
            ip: None,
            ended: None,
        };
        event(1, Happened::SessionStarted(SessionData { session }))
    };
    let sessions =
        EndedSessions { user_id: user(1), epoch: Position(9), except: None, reason: None };
    let all_ended = event(4, Happened::AllSessionsEnded(AllEnded { sessions }));
    let folder = temp_dir();
    let path = folder.path().join("revisions");
    let mut revisions = Revisions::open(&path).unwrap();
    let gone = deleted(1, 8);
    for event in [&started(1, 1), &started(2, 2), &all_ended, &gone] {
        revisions.record(event).unwrap();
    }
    revisions.forget_sessions(user(1)).unwrap();
    for _ in 0..2 {
        assert!(revisions.is_news(&started(1, 1)));
        assert!(revisions.is_news(&all_ended));
        assert!(!revisions.is_news(&started(2, 2)));
        // Nothing that comes late brings the user back.
        assert!(!revisions.is_news(&told(1, 7)));
        drop(revisions);
        revisions = Revisions::open(&path).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
}
