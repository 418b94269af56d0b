//! Argon2id on a few threads of its own.
//!
//! A hash takes 16 ms and 19 MiB. On the async threads it would stop every other request; without a
//! bound, a burst of logins would take all memory. So: as many threads as cores, each with memory it
//! uses again and again (a third faster than fresh memory), and a queue with an end.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash as Phc, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use async_trait::async_trait;
use service_kit::config::Passwords;
use service_kit::keys::random;
use tokio::sync::oneshot;

use crate::domain::Password;
use crate::ports::{HashError, PasswordHash, PasswordHasher, Verified};

/// Bytes of salt, as RFC 9106 recommends.
const SALT_BYTES: usize = 16;
/// Bytes of the hash.
const OUTPUT_BYTES: usize = 32;
/// Most memory a stored hash may ask for, in KiB: one from elsewhere must not take the machine down.
const STORED_MEMORY_KIB_MAX: u32 = 1024 * 1024;

enum Work {
    Hash(Password, oneshot::Sender<Result<PasswordHash, HashError>>),
    Verify(Password, PasswordHash, oneshot::Sender<Result<Verified, HashError>>),
}

/// The pool. Its threads end when it is dropped.
pub struct HashPool {
    queue: SyncSender<Work>,
    /// What the password of nobody is compared with.
    nobody: PasswordHash,
}

impl HashPool {
    /// Starts the threads.
    pub fn start(settings: &Passwords) -> Result<Self, HashError> {
        let params = Params::new(settings.memory_kib, settings.passes, 1, Some(OUTPUT_BYTES))
            .map_err(failed)?;
        let threads = match settings.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let (queue, work) = sync_channel(settings.queue_max);
        let work = Arc::new(Mutex::new(work));
        for n in 0..threads {
            let (work, params) = (Arc::clone(&work), params.clone());
            thread::Builder::new()
                .name(format!("argon2-{n}"))
                .spawn(move || hash_until_closed(&work, &params))
                .map_err(failed)?;
        }
        let noise = random::<32>().map_err(failed)?;
        let nobody = Hasher::new(&params).hash(&noise)?;
        Ok(Self { queue, nobody })
    }

    async fn ask<T>(
        &self,
        work: Work,
        answer: oneshot::Receiver<Result<T, HashError>>,
    ) -> Result<T, HashError> {
        match self.queue.try_send(work) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(failed("a hashing thread ended"))),
            Err(TrySendError::Full(_)) => Err(HashError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(failed("the hashing threads ended")),
        }
    }
}

#[async_trait]
impl PasswordHasher for HashPool {
    async fn hash(&self, password: Password) -> Result<PasswordHash, HashError> {
        let (tell, answer) = oneshot::channel();
        self.ask(Work::Hash(password, tell), answer).await
    }

    async fn verify(
        &self,
        password: Password,
        hash: Option<PasswordHash>,
    ) -> Result<Verified, HashError> {
        let known = hash.is_some();
        let (tell, answer) = oneshot::channel();
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        let verified = self.ask(Work::Verify(password, hash, tell), answer).await?;
        Ok(Verified { matches: verified.matches && known, outdated: verified.outdated && known })
    }
}

fn hash_until_closed(work: &Mutex<Receiver<Work>>, params: &Params) {
    let mut hasher = Hasher::new(params);
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        // A caller that went away while it waited is not worth 16 ms.
        match next {
            Ok(Work::Hash(password, tell)) if !tell.is_closed() => {
                let _ = tell.send(hasher.hash(password.as_bytes()));
            }
            Ok(Work::Verify(password, hash, tell)) if !tell.is_closed() => {
                let _ = tell.send(hasher.verify(password.as_bytes(), &hash));
            }
            Ok(_) => {}
            Err(_) => return,
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

    fn raw(&mut self, params: &Params, password: &[u8], salt: &[u8]) -> Result<Vec<u8>, HashError> {
        let blocks = params.block_count();
        if self.memory.len() < blocks {
            self.memory.resize(blocks, Block::default());
        }
        let mut output = vec![0; params.output_len().unwrap_or(OUTPUT_BYTES)];
        let memory = self.memory.get_mut(..blocks).unwrap_or_default();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
            .hash_password_into_with_memory(password, salt, &mut output, memory)
            .map_err(failed)?;
        Ok(output)
    }

    fn hash(&mut self, password: &[u8]) -> Result<PasswordHash, HashError> {
        let salt = random::<SALT_BYTES>().map_err(failed)?;
        let params = self.params.clone();
        let output = self.raw(&params, password, &salt)?;
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
        let phc = Phc::new(&hash.0).map_err(failed)?;
        let params = Params::try_from(&phc).map_err(failed)?;
        let (Some(salt), Some(expected)) = (phc.salt, phc.hash) else {
            return Err(failed("a stored hash without salt or output"));
        };
        if phc.algorithm != Algorithm::Argon2id.ident() || params.m_cost() > STORED_MEMORY_KIB_MAX {
            return Err(failed("a stored hash of an unknown kind"));
        }
        let output = self.raw(&params, password, &salt)?;
        let matches =
            aws_lc_rs::constant_time::verify_slices_are_equal(&output, expected.as_bytes()).is_ok();
        let outdated = params.m_cost() < self.params.m_cost()
            || params.t_cost() < self.params.t_cost()
            || phc.version != Some(Version::V0x13.into());
        Ok(Verified { matches, outdated })
    }
}

fn failed(error: impl ToString) -> HashError {
    HashError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(queue_max: usize) -> Passwords {
        Passwords { length_min: 8, memory_kib: 19_456, passes: 2, threads: 1, queue_max }
    }

    fn password(text: &str) -> Password {
        Password::given(text).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_no_other() {
        let pool = HashPool::start(&settings(8)).unwrap();
        let hash = pool.hash(password("correct horse")).await.unwrap();
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.0);
        let verify = |text: &str, hash: Option<PasswordHash>| pool.verify(password(text), hash);
        let good = verify("correct horse", Some(hash.clone())).await.unwrap();
        assert_eq!(good, Verified { matches: true, outdated: false });
        for wrong in ["Correct horse", "correct horse ", ""] {
            assert!(!verify(wrong, Some(hash.clone())).await.unwrap().matches);
        }
        assert!(!verify("correct horse", None).await.unwrap().matches);
        assert_ne!(hash, pool.hash(password("correct horse")).await.unwrap(), "own salt each");
    }

    /// The reference implementation's hash, so that ours is Argon2id and not only like itself.
    #[tokio::test]
    async fn hashes_of_others_and_of_yesterday_are_read() {
        use argon2::PasswordHasher as _;
        let weak = Params::new(64, 1, 1, None).unwrap();
        let old: Phc = Argon2::from(weak).hash_password_with_salt(b"old", b"saltsalt").unwrap();
        let pool = HashPool::start(&settings(8)).unwrap();
        let verified = pool.verify(password("old"), Some(PasswordHash(old.to_string()))).await;
        assert_eq!(verified.unwrap(), Verified { matches: true, outdated: true });
        let garbage = pool.verify(password("x"), Some(PasswordHash("$nope$".to_owned()))).await;
        assert!(matches!(garbage, Err(HashError::Failed(_))));
    }

    #[tokio::test]
    async fn a_full_queue_sheds() {
        let pool = HashPool::start(&settings(1)).unwrap();
        let results =
            futures::future::join_all((0..20).map(|_| pool.hash(password("correct horse")))).await;
        let shed = results.iter().filter(|r| **r == Err(HashError::Overloaded)).count();
        let done = results.iter().filter(|r| r.is_ok()).count();
        assert!(shed > 0 && done > 0 && shed + done == 20, "{done} done, {shed} shed");
    }
}
