//! Who gets in: passwords, limits, access tokens, and the security record.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::seconds;
use crate::metrics::{Level, Metrics};
use crate::security::{Kind, Outcome as Outcomes};

impl Metrics {
    /// Watches the pool that hashes passwords.
    #[must_use]
    pub fn hashing(&self) -> HashMetrics {
        let duration = |operation: &'static str| {
            self.table().hash_duration.with([self.service(), operation.into()])
        };
        HashMetrics {
            queue: self.table().hash_queue.with([self.service()]),
            shed: self.table().hash_shed.with([self.service()]),
            hash: duration("hash"),
            verify: duration("verify"),
        }
    }

    /// Watches the limits on attempts.
    #[must_use]
    pub fn throttle(&self, policies: &[&'static str]) -> ThrottleMetrics {
        let metrics = ThrottleMetrics(self.clone());
        for policy in policies {
            metrics.refusals(policy);
        }
        metrics
    }

    /// Says for how long a feed of revocations has been silent.
    pub fn revocations_silence(&self, feed: &'static str, silence: Duration) {
        let level = self.table().revocations_silence.with([self.service(), feed.into()]);
        level.set(seconds(silence));
    }

    /// Says how long ago keys of access tokens were fetched.
    pub fn keys_age(&self, age: Duration) {
        self.table().keys_age.with([self.service()]).set(seconds(age));
    }

    /// Watches the security record.
    #[must_use]
    pub fn security(&self) -> SecurityMetrics {
        let table = self.table();
        let records =
            |outcome: &'static str| table.security_records.with([self.service(), outcome.into()]);
        let metrics = SecurityMetrics {
            metrics: self.clone(),
            stored: records("stored"),
            coalesced: records("coalesced"),
            dropped: records("dropped"),
        };
        for kind in Kind::ALL {
            for outcome in Outcomes::ALL {
                metrics.events(*kind, outcome);
            }
        }
        metrics
    }
}

/// Of the pool that hashes passwords.
#[derive(Clone)]
pub struct HashMetrics {
    queue: Level,
    shed: Counter,
    hash: Histogram,
    verify: Histogram,
}

impl HashMetrics {
    /// One more waits.
    pub fn queued(&self) {
        self.queue.inc();
    }

    /// One waits no more.
    pub fn taken(&self) {
        self.queue.dec();
    }

    /// One was turned away.
    pub fn shed(&self) {
        self.shed.inc();
    }

    /// A new password was hashed.
    pub fn hashed(&self, took: Duration) {
        self.hash.observe(seconds(took));
    }

    /// A password was compared.
    pub fn verified(&self, took: Duration) {
        self.verify.observe(seconds(took));
    }
}

/// Of the limits on attempts.
#[derive(Clone)]
pub struct ThrottleMetrics(Metrics);

impl ThrottleMetrics {
    /// An attempt was refused.
    pub fn refused(&self, policy: &'static str) {
        self.refusals(policy).inc();
    }

    fn refusals(&self, policy: &'static str) -> Counter {
        self.0.table().throttle_refusals.with([self.0.service(), policy.into()])
    }
}

/// Of the security record.
#[derive(Clone)]
pub struct SecurityMetrics {
    metrics: Metrics,
    stored: Counter,
    coalesced: Counter,
    dropped: Counter,
}

impl SecurityMetrics {
    /// Something happened that is worth a record.
    pub fn happened(&self, kind: Kind, outcome: Outcomes) {
        self.events(kind, outcome).inc();
    }

    /// So many were stored.
    pub fn stored(&self, records: u64) {
        self.stored.inc_by(records);
    }

    /// One was counted and not written for itself.
    pub fn coalesced(&self) {
        self.coalesced.inc();
    }

    /// So many are lost.
    pub fn dropped(&self, records: u64) {
        self.dropped.inc_by(records);
    }

    fn events(&self, kind: Kind, outcome: Outcomes) -> Counter {
        let (kind, outcome) = (kind.name().into(), outcome.name().into());
        self.metrics.table().security_events.with([self.metrics.service(), kind, outcome])
    }
}
