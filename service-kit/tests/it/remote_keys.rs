//! Keys from a URL: what is taken, how often is asked, and what becomes of them when nobody answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CACHE_CONTROL, LOCATION};
use service_kit::checking_keys::{CheckingKeys, Found};
use service_kit::problem::chain;
use service_kit::remote_keys::{Bounds, KeySource, RemoteKeys, RemoteKeysError};
use service_kit::signing_keys::{KeySet, SigningKey};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const WAIT_MAX: Duration = Duration::from_secs(20);

/// What the server says.
type Answer = Box<dyn Fn() -> Response + Send>;

/// A server of keys that says what a test wants.
#[derive(Clone)]
struct KeyServer {
    says: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
    url: String,
}

impl KeyServer {
    async fn that_says(says: impl Fn() -> Response + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let says: Arc<Mutex<Answer>> = Arc::new(Mutex::new(Box::new(says)));
        let server = Self { says, asked: Arc::default(), url };
        let answer = |State(server): State<Self>| async move {
            server.asked.fetch_add(1, Ordering::Relaxed);
            (server.says.lock().unwrap())()
        };
        let routes = Router::new().route("/jwks.json", get(answer)).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        server
    }

    fn says(&self, says: impl Fn() -> Response + Send + 'static) {
        *self.says.lock().unwrap() = Box::new(says);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn source(&self, bounds: Bounds) -> KeySource {
        KeySource { bounds, ..KeySource::at(&self.url) }
    }
}

fn key() -> SigningKey {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("signing.pem");
    SigningKey::parse(&SigningKey::generate_pem().unwrap(), &path).unwrap()
}

fn set(keys: &[&SigningKey]) -> String {
    let keys = keys.iter().map(|key| key.public()).collect();
    serde_json::to_string(&KeySet { keys }).unwrap()
}

/// An answer that is fresh for so many seconds.
fn fresh(set: &str, seconds: u64) -> impl Fn() -> Response + Send + 'static {
    let set = set.to_owned();
    move || ([(CACHE_CONTROL, format!("max-age={seconds}"))], set.clone()).into_response()
}

fn away() -> Response {
    StatusCode::BAD_GATEWAY.into_response()
}

fn knows(keys: &RemoteKeys, key: &SigningKey) -> bool {
    matches!(keys.find(&key.id), Found::Key(_))
}

async fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + WAIT_MAX;
    while !holds() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Bounds with which a test does not take minutes.
fn quick() -> Bounds {
    Bounds { start_wait: Duration::ZERO, fresh_min: Duration::from_millis(20), ..Bounds::default() }
}

#[tokio::test]
async fn a_start_without_keys_says_why_it_fails() {
    let server = KeyServer::that_says(away).await;
    let stop = CancellationToken::new();
    let elsewhere = KeyServer::that_says(fresh(&set(&[&key()]), 60)).await;
    let redirect = move || (StatusCode::FOUND, [(LOCATION, elsewhere.url.clone())]).into_response();
    let large = format!(r#"{{"keys": [], "more": "{}"}}"#, "x".repeat(100_000));
    let two = key();
    let says: [(Answer, &str); 6] = [
        (Box::new(away), "502"),
        (Box::new(redirect), "302"),
        (Box::new(fresh("keys", 60)), "is no set of keys"),
        (Box::new(fresh(&large, 60)), "is too large"),
        (Box::new(fresh(r#"{"keys": [{"kty": "RSA", "kid": "a"}]}"#, 60)), "no Ed25519 key"),
        (Box::new(fresh(&set(&[&two, &two]), 60)), "two keys of one id"),
    ];
    for (answer, wanted) in says {
        server.says(answer);
        let error = RemoteKeys::fetch(&server.source(quick()), &stop).await.err().unwrap();
        let text = chain(&error);
        assert!(text.contains(wanted) && text.contains(&server.url), "{wanted} in {text}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let source = KeySource { bounds: quick(), ..KeySource::at(format!("http://{nobody}/jwks")) };
    let error = RemoteKeys::fetch(&source, &stop).await.err().unwrap();
    assert!(chain(&error).contains("no answer"), "{}", chain(&error));
    let source = KeySource::at("http://id.example.com/jwks");
    let error = RemoteKeys::fetch(&source, &stop).await.err().unwrap();
    assert!(matches!(error, RemoteKeysError::Source(_)), "{error}");

    // A server that is up a little later is waited for.
    let key = key();
    let patient = Bounds { start_wait: WAIT_MAX, ..quick() };
    server.says(away);
    let source = server.source(patient);
    let asked = server.asked();
    let fetching = tokio::spawn(async move { RemoteKeys::fetch(&source, &stop).await });
    wait_for("a try", || server.asked() > asked).await;
    server.says(fresh(&set(&[&key]), 60));
    assert!(knows(&fetching.await.unwrap().unwrap(), &key));
}

#[tokio::test]
async fn ids_that_nobody_knows_are_no_storm_and_a_new_key_is_found_at_once() {
    let (old, new) = (key(), key());
    let server = KeyServer::that_says(fresh(&set(&[&old]), 3_600)).await;
    let (bounds, stop) =
        (Bounds { ask_pause: Duration::from_millis(500), ..quick() }, CancellationToken::new());
    let keys = RemoteKeys::fetch(&server.source(bounds), &stop).await.unwrap();
    sleep(bounds.ask_pause).await;

    let began = Instant::now();
    let asking = (0..500).map(|n| {
        let keys = keys.clone();
        async move { matches!(keys.ask_for(&format!("made up {n}")).await, Found::Unknown) }
    });
    assert!(futures::future::join_all(asking).await.into_iter().all(|unknown| unknown));
    let looks = began.elapsed().as_millis() / bounds.ask_pause.as_millis() + 1;
    let asked = server.asked() as u128;
    assert!((2..=1 + looks).contains(&asked), "asked {asked} times");

    server.says(fresh(&set(&[&old, &new]), 3_600));
    assert!(!knows(&keys, &new));
    sleep(bounds.ask_pause).await;
    // Whoever asks waits for the answer, and so does who comes meanwhile.
    let asking = (0..20).map(|_| keys.ask_for(&new.id));
    let found = futures::future::join_all(asking).await;
    assert!(found.iter().all(|found| matches!(found, Found::Key(_))));
    assert!(knows(&keys, &old));
}

#[tokio::test]
async fn keys_are_fetched_again_when_they_are_over_and_withdrawn_ones_go() {
    let (old, new) = (key(), key());
    let server = KeyServer::that_says(fresh(&set(&[&old]), 0)).await;
    let stop = CancellationToken::new();
    let keys = RemoteKeys::fetch(&server.source(quick()), &stop).await.unwrap();
    server.says(fresh(&set(&[&new]), 0));
    wait_for("the new key", || knows(&keys, &new)).await;
    assert!(!knows(&keys, &old));
    stop.cancel();
    // Nobody asks for anything after the end.
    let mut asked = usize::MAX;
    timeout(WAIT_MAX, async {
        while asked != server.asked() {
            asked = server.asked();
            sleep(Duration::from_millis(200)).await;
        }
    })
    .await
    .expect("an end");
}

#[tokio::test]
async fn keys_are_kept_while_the_server_is_away_but_not_for_ever() {
    let key = key();
    let server = KeyServer::that_says(fresh(&set(&[&key]), 0)).await;
    let bounds = Bounds { kept: Duration::from_millis(1_500), ..quick() };
    let stop = CancellationToken::new();
    let keys = RemoteKeys::fetch(&server.source(bounds), &stop).await.unwrap();
    server.says(away);
    let asked = server.asked();
    wait_for("a failure", || server.asked() > asked).await;
    assert!(knows(&keys, &key) && keys.check().is_ok(), "{:?}", keys.age());
    wait_for("the end of trust", || matches!(keys.find(&key.id), Found::Outdated)).await;
    assert!(keys.age().unwrap() >= bounds.kept);
    assert!(keys.check().unwrap_err().contains("were fetched"));
    assert!(matches!(keys.ask_for(&key.id).await, Found::Outdated));
    server.says(fresh(&set(&[&key]), 60));
    wait_for("trust again", || knows(&keys, &key)).await;
    assert!(keys.check().is_ok());
}
