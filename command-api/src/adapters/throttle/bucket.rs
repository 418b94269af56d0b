//! Records in a bucket, changed by compare-and-set.

use std::time::Duration;

use events::CommandId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service_kit::ambient;
use service_kit::event_log::{
    Append, EventLog, Guard, Outcome, THROTTLE_CLOSED_SUBJECT_PREFIX,
    THROTTLE_COUNTS_SUBJECT_PREFIX, THROTTLE_RECORD_LIFE, THROTTLE_SUBJECT_PREFIX, Top, Write,
};
use tokio::time::sleep;

use super::{Buckets, LEAVING, NatsThrottle, between, failed};
use crate::ports::throttle::ThrottleError;

/// Changes of one record that may be lost to other processes.
const CHANGES_MAX: usize = 64;
/// Longest pause after a lost change, in milliseconds; the shortest is none.
const CHANGE_PAUSE_MAX_MS: u64 = 16;

impl NatsThrottle {
    /// Reads a record, lets it be changed, and writes it if it has a new life in milliseconds; again when
    /// another process was faster. One that is not in its bucket is looked for in `before`. Whoever calls has the turn
    /// at the record.
    pub(super) async fn change<R, T>(
        &self,
        bucket: Bucket<'_>,
        before: Option<Bucket<'_>>,
        key: &str,
        decide: impl Fn(&mut R) -> (T, Option<u64>),
    ) -> Result<T, ThrottleError>
    where
        R: Default + Clone + Serialize + DeserializeOwned,
    {
        let fallback = before.unwrap_or(bucket);
        self.change_copied(bucket, fallback, key, decide, |_| false).await
    }

    /// The same, with a copy in another bucket of a record that must not be forgotten. The copy is written first.
    pub(super) async fn change_copied<R, T>(
        &self,
        bucket: Bucket<'_>,
        other: Bucket<'_>,
        key: &str,
        decide: impl Fn(&mut R) -> (T, Option<u64>),
        is_copied: impl Fn(&R) -> bool,
    ) -> Result<T, ThrottleError>
    where
        R: Default + Clone + Serialize + DeserializeOwned,
    {
        // Whether the copy may be that of a change which was not stored.
        let mut in_doubt = false;
        for _ in 0..CHANGES_MAX {
            let (found, guard) = bucket.read::<R>(key).await?;
            let before = match found {
                Some(record) => record,
                None if other.prefix == bucket.prefix => R::default(),
                None => other.read(key).await?.0.unwrap_or_default(),
            };
            let mut after = before.clone();
            let (told, life_ms) = decide(&mut after);
            let life = life_ms.map(|life_ms| Duration::from_secs(life_ms.div_ceil(1_000)));
            let (record, kept) = match life {
                Some(life) => (&after, life),
                None => (&before, THROTTLE_RECORD_LIFE),
            };
            if in_doubt || (life.is_some() && (is_copied(&before) || is_copied(record))) {
                in_doubt = true;
                let (_, guard) = other.read::<R>(key).await?;
                let nothing = (&R::default(), LEAVING);
                let (copy, kept) = if is_copied(record) { (record, kept) } else { nothing };
                // Whoever was faster there changes the same record: the guard of the first bucket decides, and
                // whoever loses there comes by again.
                other.write(key, copy, guard, kept).await?;
            }
            if life.is_none() || bucket.write(key, record, guard, kept).await? {
                return Ok(told);
            }
            sleep(Duration::from_millis(between(0, CHANGE_PAUSE_MAX_MS))).await;
        }
        Err(failed("others changed a record too often"))
    }
}

/// One of the buckets, with what its subjects begin with.
#[derive(Clone, Copy)]
pub(super) struct Bucket<'a> {
    log: &'a EventLog,
    prefix: &'static str,
}

impl<'a> Bucket<'a> {
    pub(super) const fn attempts(buckets: &'a Buckets) -> Self {
        Self { log: &buckets.attempts, prefix: THROTTLE_SUBJECT_PREFIX }
    }

    pub(super) const fn closed(buckets: &'a Buckets) -> Self {
        Self { log: &buckets.closed, prefix: THROTTLE_CLOSED_SUBJECT_PREFIX }
    }

    pub(super) const fn counts(buckets: &'a Buckets) -> Self {
        Self { log: &buckets.counts, prefix: THROTTLE_COUNTS_SUBJECT_PREFIX }
    }

    fn subject(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// A record, and the guard of the next write.
    pub(super) async fn read<R: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<(Option<R>, Guard), ThrottleError> {
        let Top { last, guard } = self.log.top(&self.subject(key)).await.map_err(failed)?;
        let Some(stored) = last else { return Ok((None, guard)) };
        let record = serde_json::from_slice(&stored.payload)
            .map_err(|error| failed(format!("{key} cannot be read: {error}")))?;
        Ok((Some(record), guard))
    }

    /// Writes a record; `false` when somebody else was faster.
    pub(super) async fn write<R: Serialize>(
        &self,
        key: &str,
        record: &R,
        guard: Guard,
        life: Duration,
    ) -> Result<bool, ThrottleError> {
        let payload = serde_json::to_vec(record).map_err(failed)?;
        let write = Write::new(self.subject(key), guard, payload).expiring_after(life);
        let command = CommandId::from_uuid(ambient::new_uuid());
        match self.log.append(&Append::new(command, write)).await {
            Outcome::Stored(_) => Ok(true),
            Outcome::Conflict | Outcome::Duplicate => Ok(false),
            Outcome::Unknown | Outcome::Unavailable => Err(failed("no answer to a write")),
            outcome @ (Outcome::Full | Outcome::Refused(..)) => {
                Err(failed(format!("a write was refused: {outcome:?}")))
            }
        }
    }
}
