use std::collections::HashMap;

use async_nats::jetstream;
use events::UserId;
use nats_access::{Account, Role};
use service_kit::config::Settings;
use service_kit::event_log::{sessions_stream, users_stream};

use super::*;
use crate::adapters::testing::{account, connect, log};

/// The two streams as the operator made them, and a client of the command side.
struct Logs {
    account: &'static Account,
    operator: async_nats::Client,
    client: async_nats::Client,
    stop: CancellationToken,
}

impl Logs {
    async fn new() -> Self {
        let account = account();
        let operator = connect(account, Role::Operator).await;
        let settings = Settings::merge("", []).unwrap();
        log(&operator, "USERS").provision(&users_stream(&settings.log)).await.unwrap();
        let sessions = sessions_stream(&settings.log, &settings.sessions);
        log(&operator, "SESSIONS").provision(&sessions).await.unwrap();
        let client = connect(account, Role::CommandApi).await;
        Self { account, operator, client, stop: CancellationToken::new() }
    }

    fn users(&self) -> EventLog {
        log(&self.client, "USERS")
    }

    /// A process of the command side that has just started.
    fn process(&self) -> Keeper {
        let revocations = Revocations::follow(&self.client, Duration::from_secs(5), &self.stop);
        Keeper::new((self.users(), log(&self.client, "SESSIONS")), revocations, Reached::default())
    }

    /// What is written of the history now.
    async fn record(&self) -> LineageRecord {
        let stored = log(&self.client, "SESSIONS").last(subjects::LINEAGE).await.unwrap().unwrap();
        serde_json::from_slice(&stored.payload).unwrap()
    }

    /// Writes the record of now with how far the log is, as a keeper does once a minute.
    async fn milestone(&self) {
        let streams = Streams { users: self.users(), sessions: log(&self.client, "SESSIONS") };
        let stored = streams.stored().await.unwrap();
        let end = streams.standing().await.unwrap().end;
        let milestone = streams.milestone(end).await.unwrap();
        let record = LineageRecord { milestone, ..stored.known.unwrap().record };
        streams.write(&record, stored.guard).await.unwrap();
    }

    /// So many ends of access.
    async fn grow(&self, count: usize) {
        for _ in 0..count {
            let user = UserId::from_uuid(ambient::new_uuid());
            let write = Write::new(subjects::user_revocation(user), Guard::absent(), "{}");
            let command = CommandId::from_uuid(ambient::new_uuid());
            let outcome = self.users().append(&Append::new(command, write)).await;
            assert!(matches!(outcome, Outcome::Stored(_)), "{outcome:?}");
        }
    }

    /// The stream of users is put back to where it was empty, as `nats stream restore` would: the name of the log that
    /// is noted on it is the same.
    async fn put_back(&self) {
        self.empty("USERS").await;
    }

    async fn empty(&self, stream: &str) {
        let context = jetstream::new(self.operator.clone());
        let config = context.get_stream(stream).await.unwrap().cached_info().config.clone();
        context.delete_stream(stream).await.unwrap();
        context.create_stream(config).await.unwrap();
    }
}

#[tokio::test]
async fn processes_agree_on_one_history_and_keep_it() {
    let logs = Logs::new().await;
    let (mut one, mut other) = (logs.process(), logs.process());
    let (first, second) = tokio::join!(one.look(), other.look());
    first.unwrap();
    second.unwrap();
    let record = logs.record().await;
    for keeper in [&one, &other] {
        assert_eq!(keeper.revocations.lineage(), Some(record.clone()));
    }
    for _ in 0..3 {
        logs.grow(2).await;
        one.look().await.unwrap();
        logs.milestone().await;
        other.look().await.unwrap();
        logs.process().look().await.unwrap();
        assert_eq!(logs.record().await.lineage, record.lineage);
    }
}

#[tokio::test]
async fn a_log_that_ends_before_what_it_had_is_another_history() {
    let logs = Logs::new().await;
    let mut keeper = logs.process();
    keeper.look().await.unwrap();
    let before = logs.record().await;
    logs.grow(5).await;
    keeper.look().await.unwrap();
    logs.put_back().await;
    logs.grow(1).await;
    keeper.look().await.unwrap();
    let after = logs.record().await;
    assert_ne!(after.lineage, before.lineage);
    assert_eq!(keeper.revocations.lineage(), Some(after.clone()));
    assert!(!after.admits(Some(before.lineage)));
    // It stays that one while the log grows past where it was.
    logs.grow(10).await;
    keeper.look().await.unwrap();
    assert_eq!(logs.record().await.lineage, after.lineage);
}

/// Each of them remembers the log as it was.
#[tokio::test]
async fn processes_begin_one_history_together_when_the_log_went_back() {
    let logs = Logs::new().await;
    let mut processes = [logs.process(), logs.process(), logs.process()];
    for process in &mut processes {
        process.look().await.unwrap();
    }
    logs.grow(5).await;
    for process in &mut processes {
        process.look().await.unwrap();
    }
    let before = logs.record().await;
    logs.put_back().await;
    logs.grow(1).await;
    let [one, two, three] = &mut processes;
    let looks = tokio::join!(one.look(), two.look(), three.look());
    for look in [looks.0, looks.1, looks.2] {
        look.unwrap();
    }
    let after = logs.record().await;
    assert_ne!(after.lineage, before.lineage);
    for _ in 0..2 {
        for process in &mut processes {
            process.look().await.unwrap();
        }
        logs.grow(1).await;
    }
    assert_eq!(logs.record().await.lineage, after.lineage);
    assert!(processes.iter().all(|it| it.revocations.lineage().unwrap().lineage == after.lineage));
}

#[tokio::test]
async fn a_position_that_a_session_knows_of_and_the_log_never_had_is_enough() {
    let logs = Logs::new().await;
    let mut keeper = logs.process();
    logs.grow(3).await;
    keeper.look().await.unwrap();
    let before = logs.record().await;
    let heard = HeardLineage::new(keeper.revocations.clone(), keeper.reached.clone());
    heard.knows_of(before.lineage, Position(3));
    keeper.look().await.unwrap();
    assert_eq!(logs.record().await.lineage, before.lineage, "it has this one");
    heard.knows_of(before.lineage, Position(9));
    keeper.look().await.unwrap();
    let after = logs.record().await;
    assert_ne!(after.lineage, before.lineage);
    // What one of the history before knows of says nothing about this one.
    keeper.look().await.unwrap();
    heard.knows_of(before.lineage, Position(99));
    keeper.look().await.unwrap();
    assert_eq!(logs.record().await.lineage, after.lineage);
}

/// Nothing is remembered by a process that starts later, when the log has grown past where it was.
#[tokio::test]
async fn a_process_that_starts_later_finds_out_by_the_record() {
    let logs = Logs::new().await;
    logs.process().look().await.unwrap();
    logs.grow(3).await;
    logs.milestone().await;
    let before = logs.record().await;
    assert_eq!(before.milestone.unwrap().position, Position(3));
    logs.process().look().await.unwrap();
    assert_eq!(logs.record().await.lineage, before.lineage);
    logs.put_back().await;
    logs.grow(7).await;
    let mut later = logs.process();
    later.look().await.unwrap();
    assert_ne!(logs.record().await.lineage, before.lineage);
    assert_eq!(later.revocations.lineage(), Some(logs.record().await));
}

/// Sessions that had ended are open in it again. The record of a history of before is there.
#[tokio::test]
async fn a_log_of_sessions_that_went_back_begins_another_history() {
    let logs = Logs::new().await;
    let (mut keeper, mut other) = (logs.process(), logs.process());
    keeper.look().await.unwrap();
    let first = logs.record().await;
    begin_lineage(&|stream: &str| log(&logs.operator, stream), false).await.unwrap();
    keeper.look().await.unwrap();
    other.look().await.unwrap();
    let second = logs.record().await;
    logs.empty("SESSIONS").await;
    let streams = Streams { users: logs.users(), sessions: log(&logs.client, "SESSIONS") };
    streams.write(&first, Guard::absent()).await.unwrap();
    assert_eq!(logs.record().await, first);
    keeper.look().await.unwrap();
    let third = logs.record().await;
    assert!(third.lineage != first.lineage && third.lineage != second.lineage);
    for process in [&mut keeper, &mut other] {
        process.look().await.unwrap();
        process.look().await.unwrap();
    }
    assert_eq!(logs.record().await.lineage, third.lineage, "all of them take it over");
}

#[tokio::test]
async fn a_stream_with_another_name_is_another_history() {
    let logs = Logs::new().await;
    logs.process().look().await.unwrap();
    let before = logs.record().await;
    let context = jetstream::new(logs.operator.clone());
    let mut config = context.get_stream("USERS").await.unwrap().cached_info().config.clone();
    context.delete_stream("USERS").await.unwrap();
    config.metadata = HashMap::from([("roster-lineage".to_owned(), "another".to_owned())]);
    context.create_stream(config).await.unwrap();
    logs.process().look().await.unwrap();
    let after = logs.record().await;
    assert_ne!(after.lineage, before.lineage);
    assert_eq!(after.log.as_deref(), Some("another"));
}

#[tokio::test]
async fn the_operator_begins_a_history_with_or_without_the_sessions_of_before() {
    let logs = Logs::new().await;
    logs.process().look().await.unwrap();
    let operator = |stream: &str| log(&logs.operator, stream);
    let first = logs.record().await;
    begin_lineage(&operator, true).await.unwrap();
    let second = logs.record().await;
    assert_ne!(second.lineage, first.lineage);
    assert!(second.admits(Some(first.lineage)), "as after `roster restore --keep-sessions`");
    begin_lineage(&operator, false).await.unwrap();
    let third = logs.record().await;
    assert!(!third.admits(Some(first.lineage)) && !third.admits(Some(second.lineage)));
    logs.process().look().await.unwrap();
    assert_eq!(logs.record().await, third, "a process takes it as it is");
}

/// Whoever checks tokens and starts later, with the rights of the query side.
#[tokio::test]
async fn a_verifier_that_starts_later_hears_the_history() {
    let logs = Logs::new().await;
    logs.process().look().await.unwrap();
    let before = logs.record().await.lineage;
    begin_lineage(&|stream: &str| log(&logs.operator, stream), false).await.unwrap();
    let client = connect(logs.account, Role::QueryApi).await;
    let verifier = Revocations::follow(&client, Duration::from_secs(5), &logs.stop);
    assert!(verifier.caught_up(Duration::from_secs(30)).await);
    assert!(verifier.is_of_another_lineage(Some(before)));
    assert!(!verifier.is_of_another_lineage(Some(logs.record().await.lineage)));
    assert!(!verifier.is_of_another_lineage(None), "a token of before tokens named it");
}

/// The stream keeps a few messages of each subject, and a service can have answers stored on any.
#[tokio::test]
async fn foreign_messages_that_push_the_record_out_begin_no_history() {
    let logs = Logs::new().await;
    let mut keeper = logs.process();
    keeper.look().await.unwrap();
    let before = logs.record().await;
    let sessions = log(&logs.client, "SESSIONS");
    for _ in 0..20 {
        // Without what every append has.
        let foreign = Sequel {
            subject: subjects::LINEAGE.to_owned(),
            payload: "{}".into(),
            headers: Vec::new(),
            kept: None,
        };
        let end = sessions.end().await.unwrap();
        let outcome = sessions.append_behind(end, &[foreign]).await;
        assert!(matches!(outcome, Outcome::Stored(_)), "{outcome:?}");
    }
    assert!(sessions.last(subjects::LINEAGE).await.unwrap().is_none(), "it is pushed out");
    // One that remembers nothing begins none, and one that remembers writes it again.
    logs.process().look().await.unwrap();
    assert!(sessions.last(subjects::LINEAGE).await.unwrap().is_none());
    keeper.look().await.unwrap();
    assert_eq!(logs.record().await.lineage, before.lineage);
    logs.grow(1).await;
    keeper.look().await.unwrap();
    assert_eq!(logs.record().await.lineage, before.lineage);
}
