//! Writers that behave as the contract asks of clients: a key on every command, and the same command
//! again when told to come back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::{Answer, Client, System, rename};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Writers at once.
const WRITERS: usize = 8;
/// Pause of a client that was told to come back; shorter than `Retry-After`, to be a nuisance.
const PAUSE: Duration = Duration::from_millis(50);

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// Address and id of each registration.
    pub users: Vec<(String, String)>,
    /// Id and last name of each change.
    pub names: Vec<(String, String)>,
    /// Answers by code that were no success.
    pub refusals: Vec<String>,
}

pub struct Workload {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    acknowledged: Arc<Mutex<Acknowledged>>,
    writers: JoinSet<()>,
}

impl Workload {
    pub async fn start(system: &System) -> Self {
        let (admin, _) = system.as_administrator().await;
        let mut workload = Self {
            stop: Arc::default(),
            done: Arc::default(),
            acknowledged: Arc::default(),
            writers: JoinSet::new(),
        };
        for writer in 0..WRITERS {
            let (commands, admin) = (system.commands(), admin.clone());
            let (stop, done) = (Arc::clone(&workload.stop), Arc::clone(&workload.done));
            let acknowledged = Arc::clone(&workload.acknowledged);
            workload.writers.spawn(async move {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    one_user(&commands, &admin, &format!("w{writer}-{n}"), &acknowledged).await;
                    done.fetch_add(1, Ordering::Relaxed);
                    n += 1;
                }
            });
        }
        workload
    }

    /// How many users were made so far.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until so many more users were made.
    pub async fn more(&self, users: usize) {
        let until = self.done() + users;
        e2e::wait_for("the writers to go on", || async { self.done() >= until }).await;
    }

    /// Lets every writer finish what it has begun.
    pub async fn finish(mut self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(writer) = self.writers.join_next().await {
            writer.unwrap();
        }
        std::mem::take(&mut self.acknowledged.lock().unwrap())
    }
}

/// Registers a user and renames it.
async fn one_user(commands: &Client, admin: &Client, name: &str, seen: &Mutex<Acknowledged>) {
    let email = format!("{name}@example.com");
    let with_key = commands.with_header("idempotency-key", &format!("register {name}"));
    let user = until_told(seen, || with_key.register(&email)).await.expect(201);
    let id = user.body["id"].as_str().unwrap().to_owned();
    seen.lock().unwrap().users.push((email, id.clone()));

    let with_key = admin.with_header("idempotency-key", &format!("rename {name}"));
    let path = format!("/api/v1/users/{id}");
    let renamed = until_told(seen, || async { with_key.patch(&path, &rename(name)).await }).await;
    assert_eq!(renamed.expect(200).body["full_name"], name);
    seen.lock().unwrap().names.push((id, name.to_owned()));
}

/// Repeats a command under its key until the answer is final. Every answer that is not must be a 503
/// with a time to come back.
async fn until_told<F, Fut>(seen: &Mutex<Acknowledged>, command: F) -> Answer
where
    F: Fn() -> Fut,
    Fut: Future<Output = Answer>,
{
    loop {
        let answer = command().await;
        if answer.status != 503 {
            return answer;
        }
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        let code = answer.code();
        assert!(matches!(code, "unavailable" | "overloaded" | "outcome-unknown"), "{answer:?}");
        seen.lock().unwrap().refusals.push(code.to_owned());
        sleep(PAUSE).await;
    }
}
