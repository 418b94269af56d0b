//! Argon2id, and estimates of strength, on a few threads of their own.
//!
//! A hash takes 16 ms and 19 MiB, an estimate up to a few milliseconds. On the async threads they would stop
//! every other request; without a bound, a burst of logins would take all memory. So: as many threads as cores,
//! each with memory it uses again and again (a third faster than fresh memory), and a queue with an end.
//!
//! New hashes are Argon2id with the configured numbers. Stored ones may be of other kinds and numbers
//! ([`stored`]); they count as outdated, and the next login replaces them where it knows the whole password.

mod queue;
mod stored;

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash as Phc, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use async_trait::async_trait;
use service_kit::config::Passwords;
use service_kit::keys::random;
use service_kit::metrics::{HashMetrics, Metrics};
use tokio::sync::oneshot;

use crate::domain::{Candidate, Password, Violation};
use crate::ports::{HashClient, HashError, PasswordHash, PasswordHasher, Verified};
use queue::{FairQueue, Pushed};
pub use stored::check_foreign_hash;
use stored::{Kind, Stored, bcrypt_output, pbkdf2_output};

/// Bytes of salt, as RFC 9106 recommends.
const SALT_BYTES: usize = 16;
/// Bytes of the hash.
const OUTPUT_BYTES: usize = 32;

enum Work {
    Rate(Candidate, oneshot::Sender<Result<Result<Password, Violation>, HashError>>),
    Hash(Password, oneshot::Sender<Result<PasswordHash, HashError>>),
    Verify(Password, PasswordHash, oneshot::Sender<Result<Verified, HashError>>),
}

impl Work {
    /// Answers the caller that waits for it: it was turned away.
    fn turn_away(self) {
        match self {
            Self::Rate(_, tell) => drop(tell.send(Err(HashError::Overloaded))),
            Self::Hash(_, tell) => drop(tell.send(Err(HashError::Overloaded))),
            Self::Verify(_, _, tell) => drop(tell.send(Err(HashError::Overloaded))),
        }
    }
}

/// The pool. Its threads end when it is dropped.
pub struct HashPool {
    queue: Arc<FairQueue<Work>>,
    /// Comparisons with hashes that need more memory than ours: one at a time in the process, so that hashes from
    /// elsewhere can neither take all memory together nor keep the other threads from their work.
    large: Arc<FairQueue<Work>>,
    /// Memory of one of our hashes.
    memory_kib: u64,
    /// What the password of nobody is compared with.
    nobody: PasswordHash,
    metrics: HashMetrics,
}

impl HashPool {
    /// Starts the threads.
    pub fn start(settings: &Passwords, metrics: &Metrics) -> Result<Self, HashError> {
        let metrics = metrics.hashing();
        let params = Params::new(settings.memory_kib, settings.passes, 1, Some(OUTPUT_BYTES))
            .map_err(failed)?;
        let threads = match settings.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let noise = random::<32>().map_err(failed)?;
        let pool = Self {
            queue: Arc::new(FairQueue::new(settings.queue_max)),
            large: Arc::new(FairQueue::new(settings.large_queue_max)),
            memory_kib: u64::from(settings.memory_kib),
            nobody: Hasher::new(&params).hash(&noise)?,
            metrics: metrics.clone(),
        };
        let spawn = |name: String, queue: &Arc<FairQueue<Work>>| {
            let (queue, hasher, metrics) =
                (Arc::clone(queue), Hasher::new(&params), metrics.clone());
            let work = move || hash_until_closed(&queue, hasher, &metrics);
            thread::Builder::new().name(name).spawn(work).map(drop).map_err(failed)
        };
        for n in 0..threads {
            spawn(format!("argon2-{n}"), &pool.queue)?;
        }
        spawn("argon2-large".to_owned(), &pool.large)?;
        Ok(pool)
    }

    /// The queue that a comparison waits in.
    fn queue_for(&self, hash: &PasswordHash) -> &FairQueue<Work> {
        let is_large =
            Stored::parse(&hash.0).is_ok_and(|stored| stored.memory_kib() > self.memory_kib);
        if is_large { &self.large } else { &self.queue }
    }

    async fn ask<T>(
        &self,
        queue: &FairQueue<Work>,
        client: HashClient,
        work: Work,
        answer: oneshot::Receiver<Result<T, HashError>>,
    ) -> Result<T, HashError> {
        self.metrics.queued();
        if let Pushed::InsteadOf(turned_away) | Pushed::Refused(turned_away) =
            queue.push(client, work)
        {
            self.metrics.taken();
            self.metrics.shed();
            turned_away.turn_away();
        }
        answer.await.unwrap_or_else(|_| Err(failed("a hashing thread ended")))
    }
}

impl Drop for HashPool {
    fn drop(&mut self) {
        self.queue.close();
        self.large.close();
    }
}

#[async_trait]
impl PasswordHasher for HashPool {
    async fn rate(
        &self,
        client: HashClient,
        candidate: Candidate,
    ) -> Result<Result<Password, Violation>, HashError> {
        let (tell, answer) = oneshot::channel();
        self.ask(&self.queue, client, Work::Rate(candidate, tell), answer).await
    }

    async fn hash(
        &self,
        client: HashClient,
        password: Password,
    ) -> Result<PasswordHash, HashError> {
        let (tell, answer) = oneshot::channel();
        self.ask(&self.queue, client, Work::Hash(password, tell), answer).await
    }

    async fn verify(
        &self,
        client: HashClient,
        password: Password,
        hash: Option<PasswordHash>,
    ) -> Result<Verified, HashError> {
        let known = hash.is_some();
        let (tell, answer) = oneshot::channel();
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        let queue = self.queue_for(&hash);
        let work = Work::Verify(password, hash, tell);
        let verified = self.ask(queue, client, work, answer).await?;
        Ok(Verified { matches: verified.matches && known, outdated: verified.outdated && known })
    }

    fn check_foreign(&self, hash: &PasswordHash) -> Result<(), Violation> {
        check_foreign_hash(&hash.0)
    }
}

fn hash_until_closed(queue: &FairQueue<Work>, mut hasher: Hasher, metrics: &HashMetrics) {
    while let Some(work) = queue.pop() {
        metrics.taken();
        let started = Instant::now();
        // A caller that went away while it waited is not worth 16 ms.
        match work {
            Work::Rate(candidate, tell) if !tell.is_closed() => {
                let _ = tell.send(Ok(candidate.rate()));
            }
            Work::Hash(password, tell) if !tell.is_closed() => {
                let hashed = hasher.hash(password.as_bytes());
                metrics.hashed(started.elapsed());
                let _ = tell.send(hashed);
            }
            Work::Verify(password, hash, tell) if !tell.is_closed() => {
                let verified = hasher.verify(password.as_bytes(), &hash);
                metrics.verified(started.elapsed());
                let _ = tell.send(verified);
            }
            Work::Rate(..) | Work::Hash(..) | Work::Verify(..) => {}
        }
    }
}

/// One thread's hasher with the memory it reuses.
struct Hasher {
    params: Params,
    memory: Vec<Block>,
}

impl Hasher {
    fn new(params: &Params) -> Self {
        Self { params: params.clone(), memory: Vec::new() }
    }

    fn raw(
        &mut self,
        argon2: &Argon2<'_>,
        password: &[u8],
        salt: &[u8],
        output_bytes: usize,
    ) -> Result<Vec<u8>, HashError> {
        let blocks = argon2.params().block_count();
        if self.memory.len() < blocks {
            self.memory.resize(blocks, Block::default());
        }
        let mut output = vec![0; output_bytes];
        let memory = self.memory.get_mut(..blocks).unwrap_or_default();
        argon2
            .hash_password_into_with_memory(password, salt, &mut output, memory)
            .map_err(failed)?;
        Ok(output)
    }

    fn hash(&mut self, password: &[u8]) -> Result<PasswordHash, HashError> {
        let salt = random::<SALT_BYTES>().map_err(failed)?;
        let params = self.params.clone();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
        let output = self.raw(&argon2, password, &salt, OUTPUT_BYTES)?;
        let phc = Phc {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params).map_err(failed)?,
            salt: Some(Salt::new(&salt).map_err(failed)?),
            hash: Some(Output::new(&output).map_err(failed)?),
        };
        Ok(PasswordHash(phc.to_string()))
    }

    fn verify(&mut self, password: &[u8], hash: &PasswordHash) -> Result<Verified, HashError> {
        let stored = Stored::parse(&hash.0).map_err(refused)?;
        let outdated = !stored.is_made_with(&self.params, OUTPUT_BYTES);
        if outdated && let Err((_, why)) = stored.check_cost() {
            // Stored when more was allowed. Nobody logs in with it: its owner has to reset the password.
            tracing::warn!(why, "a stored hash is not compared");
            return Ok(Verified { matches: false, outdated });
        }
        let output = self.output(password, &stored)?;
        // What another system's hash took beyond our own need is given back.
        let blocks = self.params.block_count();
        if self.memory.len() > blocks {
            self.memory.truncate(blocks);
            self.memory.shrink_to_fit();
        }
        let matches = output.is_some_and(|output| {
            aws_lc_rs::constant_time::verify_slices_are_equal(&output, &stored.expected).is_ok()
        });
        // What would be made of an ambiguous password is the hash of another one.
        Ok(Verified { matches, outdated: outdated && !stored.is_ambiguous(password) })
    }

    /// What the stored hash would be if it were of this password; `None` when it cannot be.
    fn output(&mut self, password: &[u8], stored: &Stored) -> Result<Option<Vec<u8>>, HashError> {
        let (salt, bytes) = (&stored.salt, stored.expected.len());
        Ok(match &stored.kind {
            Kind::Argon2(algorithm, version, params) => {
                let argon2 = Argon2::new(*algorithm, *version, params.clone());
                Some(self.raw(&argon2, password, salt, bytes)?)
            }
            Kind::Scrypt(cost) => Some(cost.output(password, salt, bytes).map_err(failed)?),
            Kind::Pbkdf2(algorithm, iterations) => {
                Some(pbkdf2_output(*algorithm, *iterations, password, salt, bytes))
            }
            Kind::Bcrypt(cost) => bcrypt_output(*cost, password, salt),
        })
    }
}

fn refused((_, why): Violation) -> HashError {
    HashError::Failed(format!("a stored hash {why}"))
}

fn failed(error: impl ToString) -> HashError {
    HashError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn settings(queue_max: usize) -> Passwords {
        let settings = service_kit::config::Settings::merge("", []).unwrap();
        Passwords { threads: 1, queue_max, ..settings.passwords }
    }

    fn started(settings: &Passwords) -> HashPool {
        HashPool::start(settings, &Metrics::new("test")).unwrap()
    }

    const ME: HashClient = HashClient::Operator;

    fn password(text: &str) -> Password {
        Password::given(text).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_no_other() {
        let pool = started(&settings(8));
        let hash = pool.hash(ME, password("correct horse")).await.unwrap();
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.0);
        let verify = |text: &str, hash: Option<PasswordHash>| pool.verify(ME, password(text), hash);
        let good = verify("correct horse", Some(hash.clone())).await.unwrap();
        assert_eq!(good, Verified { matches: true, outdated: false });
        for wrong in ["Correct horse", "correct horse ", ""] {
            assert!(!verify(wrong, Some(hash.clone())).await.unwrap().matches);
        }
        assert!(!verify("correct horse", None).await.unwrap().matches);
        assert_ne!(hash, pool.hash(ME, password("correct horse")).await.unwrap(), "own salt each");
    }

    /// Made by the reference implementation (argon2-cffi), OpenSSL (hashlib of Python), passlib and
    /// bcrypt of the Python Cryptographic Authority. All of "correct horse".
    const FOREIGN: [&str; 11] = [
        "$argon2i$v=16$m=256,t=2,p=4$c2FsdHNhbHRzYWx0c2FsdA$9eK9SimEgTZJGJMEDzNJUXxQARsUSOxkoi51B7KZdm4",
        "$argon2i$v=19$m=256,t=2,p=4$c2FsdHNhbHRzYWx0c2FsdA$bpP1dxvb7VRN8POyXp97l49bj7z7ThHNmFAU9i/FfD0",
        "$argon2id$m=256,t=2,p=4$c2FsdHNhbHRzYWx0c2FsdA$aD/wozI5i1oAgkEFMwQadkOCrd3e/RiH2oSnBt3LNac",
        "$argon2id$v=19$m=256,t=2,p=4$c2FsdHNhbHRzYWx0c2FsdA$or7UQIfreo80CHrs2AmlBnx8rS7V6PjKEY176PKL2cc",
        "$argon2id$v=19$m=64,t=3,p=1$c2FsdHNhbHRzYWx0c2FsdA$rbM5aiptZnO4PP51qx7n5+i56mA0sqk60dw2fwnlnN9MUeikLBTjOORVA9FHi9Ee01ILfqHg210N7CttBLgODw",
        "$scrypt$ln=10,r=8,p=2$MDEyMzQ1Njc4OWFiY2RlZg$I4YuHpx/6xJJ4+sk74hQU+KhW++gPE8aHzXbHijxgzhet4gKwegovoqCb9QsHkDEaosVKghxVfzE3nyq3Ska2w",
        "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$6g3umF+uVrJsObaTZhIbbTlgrvOEFcCItdwSjtPF67M",
        "$pbkdf2-sha256$i=29000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$uHVoxjLD1v3uqpdY8ehNPGUYMiKj8ROQSRwMSE033NY",
        "$pbkdf2-sha512$i=1000$MDEyMzQ1Njc4OWFiY2RlZg$OM0FAoIqCVK1sWtxDiffVlBejtLa+ks4TP71JiecwuSZCG8iLbnlIEPOMoVX+i2B2wkSxjQ8CRGR9OkNGuIPMQ",
        "$2a$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2",
        "$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2",
    ];

    async fn verify(pool: &HashPool, text: &str, hash: &str) -> Verified {
        pool.verify(ME, password(text), Some(PasswordHash(hash.to_owned()))).await.unwrap()
    }

    #[tokio::test]
    async fn hashes_of_other_systems_are_known_and_to_be_replaced() {
        let pool = started(&settings(8));
        for hash in FOREIGN {
            assert_eq!(check_foreign_hash(hash), Ok(()), "{hash}");
            let good = verify(&pool, "correct horse", hash).await;
            assert_eq!(good, Verified { matches: true, outdated: true }, "{hash}");
            for wrong in ["Correct horse", "correct horse ", "correct hors", ""] {
                assert!(!verify(&pool, wrong, hash).await.matches, "{wrong}: {hash}");
            }
        }
        // Its own hash is still its own, whatever was hashed in between.
        let own = pool.hash(ME, password("correct horse")).await.unwrap();
        let good = verify(&pool, "correct horse", &own.0).await;
        assert_eq!(good, Verified { matches: true, outdated: false });
    }

    #[tokio::test]
    async fn other_numbers_than_todays_are_outdated() {
        let today = started(&settings(8));
        let tomorrow = started(&Passwords { passes: 3, ..settings(8) });
        let hash = today.hash(ME, password("correct horse")).await.unwrap();
        let verified = verify(&tomorrow, "correct horse", &hash.0).await;
        assert_eq!(verified, Verified { matches: true, outdated: true });
    }

    /// The hashes are of Python's bcrypt 4.0.1, which cut after 72 bytes without a word.
    #[tokio::test]
    async fn bcrypt_sees_72_bytes_and_no_nul() {
        let pool = started(&settings(8));
        let of_72 = "$2b$04$CCCCCCCCCCCCCCCCCCCCC.ug0A3dTXhy5U.dFjx/qguZ8I4CB77BC";
        let of_71 = "$2b$04$CCCCCCCCCCCCCCCCCCCCC.mwrsLq6gtszNEQrpvY85c8XKy5rgdwW";
        let of_none = "$2b$04$CCCCCCCCCCCCCCCCCCCCC.Cg0ly9t/KVBCBYYDfOmZKwry9JuXClC";
        let of_unicode = "$2y$06$CCCCCCCCCCCCCCCCCCCCC.Nnnej32.e8fn/7CLrky6Q4wVKM77f56";
        for (text, hash, matches) in [
            ("x".repeat(72), of_72, true),
            ("x".repeat(80), of_72, true),
            ("x".repeat(71), of_72, false),
            ("x".repeat(71), of_71, true),
            ("x".repeat(72), of_71, false),
            (String::new(), of_none, true),
            // The same key to bcrypt.
            ("\0".to_owned(), of_none, false),
            ("pässwörd 日本".to_owned(), of_unicode, true),
        ] {
            let verified = verify(&pool, &text, hash).await;
            assert_eq!(verified.matches, matches, "{text:?} {hash}");
            // A tail that bcrypt does not see must not become the password.
            assert_eq!(verified.outdated, text.len() < 72, "{text:?} {hash}");
        }
    }

    #[test]
    fn hashes_that_protect_nothing_are_not_taken_over() {
        let (salt, hash) =
            ("MDEyMzQ1Njc4OWFiY2RlZg", "uHVoxjLD1v3uqpdY8ehNPGUYMiKj8ROQSRwMSE033NY");
        for (weak, fine) in [
            (
                "$2b$04$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2".to_owned(),
                FOREIGN[10],
            ),
            (format!("$pbkdf2-sha256$i=999${salt}${hash}"), FOREIGN[8]),
            (format!("$scrypt$ln=9,r=8,p=1${salt}${hash}"), FOREIGN[6]),
            (format!("$argon2id$v=19$m=32,t=3,p=1${salt}${hash}"), FOREIGN[4]),
        ] {
            assert_eq!(check_foreign_hash(&weak).unwrap_err().0, "hash-too-weak", "{weak}");
            assert_eq!(check_foreign_hash(fine), Ok(()));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_taken_over_is_refused_with_a_reason() {
        let salt = "MDEyMzQ1Njc4OWFiY2RlZg";
        let hash = "uHVoxjLD1v3uqpdY8ehNPGUYMiKj8ROQSRwMSE033NY";
        let pool = started(&settings(8));
        for (text, code) in [
            ("".to_owned(), "hash-malformed"),
            ("secret".to_owned(), "hash-malformed"),
            ("$nope$".to_owned(), "hash-malformed"),
            ("$".repeat(10_000), "hash-malformed"),
            (format!("$argon2d$v=19$m=256,t=2,p=4${salt}${hash}"), "hash-unknown"),
            (format!("$md5${salt}${hash}"), "hash-unknown"),
            (format!("$argon2id$v=17$m=256,t=2,p=4${salt}${hash}"), "hash-malformed"),
            (format!("$argon2id$v=19$m=256,t=2,p=4${salt}"), "hash-malformed"),
            (format!("$argon2id$v=19$m=256,t=2,p=4,keyid=AAAA${salt}${hash}"), "hash-malformed"),
            (format!("$argon2id$v=19$m=1048577,t=1,p=1${salt}${hash}"), "hash-too-costly"),
            (format!("$argon2id$v=19$m=65536,t=4000000000,p=1${salt}${hash}"), "hash-too-costly"),
            (format!("$scrypt$ln=10,r=8${salt}${hash}"), "hash-malformed"),
            (format!("$scrypt$ln=64,r=8,p=1${salt}${hash}"), "hash-malformed"),
            (format!("$scrypt$ln=10,r=0,p=1${salt}${hash}"), "hash-malformed"),
            (format!("$scrypt$ln=63,r=8,p=1${salt}${hash}"), "hash-too-costly"),
            (format!("$scrypt$ln=17,r=8,p=1000${salt}${hash}"), "hash-too-costly"),
            (format!("$scrypt$ln=1,r=4000000000,p=1${salt}${hash}"), "hash-too-costly"),
            (format!("$pbkdf2-sha256$i=0,l=32${salt}${hash}"), "hash-malformed"),
            (format!("$pbkdf2-sha256$i=1000,l=31${salt}${hash}"), "hash-malformed"),
            (format!("$pbkdf2-sha256$i=4000000000${salt}${hash}"), "hash-too-costly"),
            (format!("$2x$05${}", "a".repeat(53)), "hash-unknown"),
            (format!("$2b$5${}", "a".repeat(53)), "hash-malformed"),
            (format!("$2b$05${}", "a".repeat(52)), "hash-malformed"),
            (format!("$2b$05${}", "=".repeat(53)), "hash-malformed"),
            (format!("$2b$05${}ä", "a".repeat(21)), "hash-malformed"),
            (format!("$2b$05${}$", "a".repeat(53)), "hash-malformed"),
            (format!("$2b$32${}", "a".repeat(53)), "hash-malformed"),
            (format!("$2b$16${}", "a".repeat(53)), "hash-too-costly"),
        ] {
            let refusal = check_foreign_hash(&text).unwrap_err();
            assert_eq!(refusal.0, code, "{text:.80}: {}", refusal.1);
            let verified = pool.verify(ME, password("x"), Some(PasswordHash(text))).await;
            // One that was stored when more was allowed lets nobody in, and is no fault.
            let is_refused = match code {
                "hash-too-costly" => verified == Ok(Verified { matches: false, outdated: true }),
                _ => matches!(verified, Err(HashError::Failed(_))),
            };
            assert!(is_refused, "{code}: {verified:?}");
        }
    }

    #[tokio::test]
    async fn a_full_queue_sheds() {
        let pool = started(&settings(1));
        let results =
            futures::future::join_all((0..20).map(|_| pool.hash(ME, password("correct horse"))))
                .await;
        let shed = results.iter().filter(|r| **r == Err(HashError::Overloaded)).count();
        let done = results.iter().filter(|r| r.is_ok()).count();
        assert!(shed > 0 && done > 0 && shed + done == 20, "{done} done, {shed} shed");
    }

    /// A client that sends without end waits behind its own work, and not in front of others.
    #[tokio::test]
    async fn one_client_keeps_no_other_one_waiting() {
        let pool = started(&settings(8));
        let network = |n: u8| HashClient::network(std::net::IpAddr::from([192, 0, 2, n]));
        let hashed = AtomicUsize::new(0);
        let flood = (0..40).map(async |_| {
            let hash = pool.hash(network(1), password("correct horse")).await;
            hashed.fetch_add(usize::from(hash.is_ok()), Ordering::Relaxed);
            hash.is_err()
        });
        let flood = futures::future::join_all(flood);
        let other = async {
            // After the flood, which has filled the queue by then.
            tokio::task::yield_now().await;
            let hash = pool.hash(network(2), password("correct horse")).await;
            hash.map(|_| hashed.load(Ordering::Relaxed))
        };
        let (flood, before) = futures::join!(flood, other);
        let before = before.expect("there is room for another client");
        let shed = flood.iter().filter(|is_shed| **is_shed).count();
        assert!(shed >= 28, "{shed} of 40 shed");
        assert!(before + shed < 39, "{before} hashes of the flood came first, all but {shed}");
    }

    /// Hashes from elsewhere that need much memory have a thread of their own.
    #[tokio::test]
    async fn large_hashes_keep_nobody_waiting() {
        let pool = started(&settings(8));
        let large = "$argon2id$v=19$m=131072,t=3,p=1$c2FsdHNhbHRzYWx0c2FsdA$\
                     or7UQIfreo80CHrs2AmlBnx8rS7V6PjKEY176PKL2cc";
        assert_eq!(check_foreign_hash(large), Ok(()));
        let slow = (0..4).map(|_| verify(&pool, "correct horse", large));
        let slow = std::pin::pin!(futures::future::join_all(slow));
        let own = std::pin::pin!(pool.hash(ME, password("correct horse")));
        match futures::future::select(slow, own).await {
            futures::future::Either::Left(_) => panic!("the large ones came first"),
            futures::future::Either::Right((own, slow)) => {
                own.unwrap();
                assert!(slow.await.iter().all(|verified| !verified.matches));
            }
        }
    }

    #[test]
    fn foreign_memory_is_bounded() {
        for (memory_kib, fine) in [(262_144, true), (262_145, false)] {
            let hash = format!(
                "$argon2id$v=19$m={memory_kib},t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$\
                 or7UQIfreo80CHrs2AmlBnx8rS7V6PjKEY176PKL2cc"
            );
            assert_eq!(check_foreign_hash(&hash).is_ok(), fine, "{memory_kib}");
        }
    }
}
