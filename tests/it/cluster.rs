//! The log on three nodes, run from the configuration that production has.

use e2e::{Fold, System};
use futures::future::join_all;

use crate::failures::nothing_is_lost;
use crate::workload::Workload;

/// The node that leads the log.
async fn leader(system: &System) -> String {
    let context = async_nats::jetstream::new(system.operator().await);
    let stream = context.get_stream("USERS").await.unwrap();
    let config = &stream.cached_info().config;
    assert_eq!(config.num_replicas, 3);
    stream.cached_info().cluster.as_ref().unwrap().leader.clone().unwrap()
}

/// On three replicas a lost race has other codes than on one, and a leader can go while it decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_have_one_winner_and_a_killed_leader_takes_nothing_with_it() {
    let mut system = System::cluster().await;
    let commands = system.commands();
    let answers = join_all((0..100).map(|_| commands.register("Ada@Example.com"))).await;
    let count = |status: u16| answers.iter().filter(|a| a.status == status).count();
    assert_eq!((count(201), count(409)), (1, 99));
    assert_eq!(Fold::registrations(&system.events().await, "ada@example.com"), 1);

    let workload = Workload::start(&system).await;
    for _ in 0..2 {
        workload.more(20).await;
        let leader = leader(&system).await;
        let node = system.nodes().node(&leader);
        system.nodes().kill(node);
        // The two that are left elect a leader and go on.
        workload.more(20).await;
        system.nodes().restart(node);
        workload.more(20).await;
    }
    let acknowledged = workload.finish().await;
    system.ready().await;
    nothing_is_lost(&system, &acknowledged).await;
}
