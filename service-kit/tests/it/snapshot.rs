//! Snapshots of the server and what becomes of them elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use events::Position;
use nats_access::Role;
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{
    Append, EventLog, Guard, Outcome, ProvisionError, Snapshot, SnapshotHead, StreamSpec, Unpacker,
    beginning, users_stream,
};
use tokio::task::JoinSet;

use crate::support::{account, command, connect, log, of_writer};

/// Writers of batches at once.
const WRITERS: usize = 12;
/// Snapshots until one must have ended within a batch; 3 of 40 did when it was tried.
const SNAPSHOTS_MAX: usize = 400;

fn roomy() -> StreamSpec {
    let mut settings = Settings::merge("", []).unwrap();
    settings.log.bytes_max = 32 << 20;
    users_stream(&settings.log)
}

/// A log in an account of its own, as the operator has it, and as a service has it.
async fn logs() -> (EventLog, EventLog) {
    let account = account();
    let operator = log(connect(account, Role::Operator).await);
    (operator, log(connect(account, Role::CommandApi).await))
}

async fn whole(mut snapshot: Snapshot) -> (SnapshotHead, Vec<u8>) {
    let mut bytes = Vec::new();
    while let Some(piece) = snapshot.next().await.unwrap() {
        bytes.extend(piece);
    }
    (snapshot.head, bytes)
}

async fn restore(to: &EventLog, head: &SnapshotHead, bytes: &[u8]) {
    let restoring = to.restore(&roomy(), head, ambient::now()).await.unwrap();
    let mut unpacker = Unpacker::default();
    restoring.send(beginning().to_vec()).await.unwrap();
    for frame in unpacker.take(bytes).unwrap() {
        restoring.send(frame).await.unwrap();
    }
    restoring.send(unpacker.end().unwrap()).await.unwrap();
    restoring.end().await.unwrap();
}

fn batch(key: &str, guard: Guard) -> Append {
    let write = |kind: &str| of_writer(&format!("{kind}.{key}"), guard, format!("{kind} of {key}"));
    Append::new(command(), write("ev.user")).with(write("uq.email")).with(write("sec.user"))
}

#[tokio::test]
async fn a_snapshot_keeps_positions_times_and_gaps_and_is_another_log() {
    let (from, writer) = logs().await;
    from.provision(&roomy()).await.unwrap();
    for n in 0..20 {
        let stored = writer.append(&batch(&format!("u{n}"), Guard::absent())).await;
        assert!(matches!(stored, Outcome::Stored(_)), "{stored:?}");
    }
    for position in [3, 4, 31] {
        assert!(from.erase(Position(position)).await.unwrap());
    }
    let (head, bytes) = whole(from.snapshot().await.unwrap()).await;
    assert_eq!((head.first(), head.last(), head.messages()), (Position(1), Position(60), 57));

    let (to, service) = logs().await;
    restore(&to, &head, &bytes).await;
    for position in (1..=60).map(Position) {
        let (before, after) = (from.at(position).await.unwrap(), to.at(position).await.unwrap());
        assert_eq!(before.is_some(), after.is_some(), "{position}");
        let known = |stored: service_kit::event_log::Stored| {
            (stored.subject.clone(), stored.stored_at, stored.payload.clone(), stored.command_id)
        };
        assert_eq!(before.map(known), after.map(known), "{position}");
    }
    // Nobody takes it, and the operator's command leaves it alone, until all is done.
    for refused in [service.verify(&roomy()).await, to.provision(&roomy()).await] {
        let Err(ProvisionError::Different { faults, .. }) = refused else { panic!("it is taken") };
        assert!(faults.iter().any(|fault| fault.contains("roster restore")), "{faults:?}");
    }
    to.finish_restore().await.unwrap();
    service.verify(&roomy()).await.unwrap();
    assert!(to.differences(&roomy()).await.unwrap().is_empty());
    let [was, is] =
        [from.standing().await.unwrap().unwrap(), to.standing().await.unwrap().unwrap()];
    assert!(was.lineage.is_some() && is.lineage.is_some() && was.lineage != is.lineage);
    assert!(!is.unfinished);
    // A change of configuration leaves the lineage as it is.
    to.provision(&users_stream(&Settings::merge("", []).unwrap().log)).await.unwrap();
    assert_eq!(to.standing().await.unwrap().unwrap().lineage, is.lineage);
    // Guards hold where they held.
    let taken = service.append(&batch("u7", Guard::absent())).await;
    assert_eq!(taken, Outcome::Conflict);
    let Outcome::Stored(next) = service.append(&batch("new", Guard::absent())).await else {
        panic!("nothing is stored")
    };
    assert_eq!(next, Position(63));
    // One that is there is not overwritten.
    let again = to.restore(&roomy(), &head, ambient::now()).await;
    assert!(again.err().unwrap().to_string().contains("already in use"));
}

#[tokio::test]
async fn an_empty_stream_comes_back_as_one() {
    let (from, _) = logs().await;
    from.provision(&roomy()).await.unwrap();
    let (head, bytes) = whole(from.snapshot().await.unwrap()).await;
    assert_eq!((head.last(), head.messages()), (Position(0), 0));
    let (to, service) = logs().await;
    restore(&to, &head, &bytes).await;
    assert_eq!(to.drop_half_batch().await.unwrap(), 0);
    to.finish_restore().await.unwrap();
    let stored = service.append(&batch("first", Guard::absent())).await;
    assert_eq!(stored, Outcome::Stored(Position(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_a_batch_at_the_end_of_a_snapshot_goes() {
    let (from, writer) = logs().await;
    from.provision(&roomy()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for n in 0..WRITERS {
        let (writer, stop) = (writer.clone(), Arc::clone(&stop));
        writers.spawn(async move {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                writer.append(&batch(&format!("w{n}-{count}"), Guard::absent())).await;
                count += 1;
            }
        });
    }
    let mut torn = None;
    for _ in 0..SNAPSHOTS_MAX {
        let (head, bytes) = whole(from.snapshot().await.unwrap()).await;
        if head.messages() == 0 {
            continue;
        }
        let Some(last) = from.at(head.last()).await.unwrap() else { continue };
        if last.header("Nats-Batch-Commit").is_none() {
            torn = Some((head, bytes, last));
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    while writers.join_next().await.is_some() {}
    let (head, bytes, last) = torn.expect("a snapshot that ends within a batch");

    let (to, service) = logs().await;
    restore(&to, &head, &bytes).await;
    assert_eq!(to.end().await.unwrap(), head.last());
    let dropped = to.drop_half_batch().await.unwrap();
    assert!((1..=2).contains(&dropped), "{dropped}");
    assert_eq!(to.drop_half_batch().await.unwrap(), 0, "again there is nothing");
    to.finish_restore().await.unwrap();
    let whole = Position(head.last().0 - dropped);
    let before = to.at(whole).await.unwrap().unwrap();
    assert!(before.header("Nats-Batch-Commit").is_some());
    assert_eq!(to.end().await.unwrap(), head.last(), "positions are not given twice");
    // Whoever was about to be stored is as if never heard of.
    let key = last.subject.rsplit('.').next().unwrap();
    for kind in ["uq.email", "sec.user", "ev.user"] {
        assert!(to.last(&format!("{kind}.{key}")).await.unwrap().is_none(), "{kind}");
    }
    let stored = service.append(&batch(key, Guard::absent())).await;
    assert!(matches!(stored, Outcome::Stored(_)), "{stored:?}");
}
