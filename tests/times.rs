//! Times of one kind of call, for benchmarks.

use std::time::{Duration, Instant};

/// How long calls took.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Makes a call and keeps its time.
    pub async fn take<T>(&mut self, call: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let answer = call.await;
        self.push(started.elapsed());
        answer
    }

    /// Keeps a time.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A quantile in milliseconds; 1 is the maximum.
    pub fn ms(&mut self, quantile: f64) -> f64 {
        self.0.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a list of a few thousand"
        )]
        let index = ((self.0.len() - 1) as f64 * quantile).round() as usize;
        self.0[index].as_secs_f64() * 1_000.0
    }

    /// How likely it is that two lists of times come from one distribution: the two-sample
    /// Kolmogorov-Smirnov test with the asymptotic distribution of its statistic (Numerical Recipes
    /// 14.3). A small number says that they do not.
    #[expect(clippy::cast_precision_loss, reason = "counts of a few thousand")]
    pub fn same_distribution(&mut self, other: &mut Self) -> f64 {
        self.0.sort_unstable();
        other.0.sort_unstable();
        let (n, m) = (self.0.len(), other.0.len());
        let (mut i, mut j, mut largest) = (0, 0, 0.0_f64);
        while i < n && j < m {
            let (here, there) = (self.0[i], other.0[j]);
            if here <= there {
                i += 1;
            }
            if there <= here {
                j += 1;
            }
            largest = largest.max((i as f64 / n as f64 - j as f64 / m as f64).abs());
        }
        let root = ((n * m) as f64 / (n + m) as f64).sqrt();
        let lambda = (root + 0.12 + 0.11 / root) * largest;
        let term = |k: i32| {
            let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
            sign * (-2.0 * lambda * lambda * f64::from(k * k)).exp()
        };
        if lambda < 0.2 { 1.0 } else { (1..=100).map(term).sum::<f64>().clamp(0.0, 1.0) }
    }
}
