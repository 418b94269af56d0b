//! The steps of a rebuild and of the way back. Each looks at what there is, and so may be the first of a command
//! that was killed before.

use std::time::Duration;

use anyhow::bail;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};
use views::{Phase, Standby, ViewSet};

use super::Rebuild;
use crate::cli::progress;
use crate::verify::{self, Report};

/// How many positions a generation may be behind when it joins: from then on commands wait for it, and that many
/// are written in some tens of milliseconds.
const NEAR: u64 = 200;
/// A generation that was live is kept for this many times `views.generations_known_s`, the age up to which query-api
/// relies on what it last read.
const GRACE_FACTOR: u64 = 3;
/// Time for a generation that has caught up to reach the end of the log once more.
const WAIT: Duration = Duration::from_secs(60);
/// Differences that are named.
const DIFFERENCES_MAX: usize = 100;

/// A generation that is to be live.
pub type Candidate = (ViewSet, u32);

/// What came of it.
pub enum Switched {
    /// It is live. What was seen on the way.
    Done(Map<String, Value>),
    /// It does not say what the log says.
    Refused(Box<Report>),
}

impl Rebuild {
    /// Fills new generations and switches to them.
    pub(super) async fn forward(&self, sets: &[ViewSet]) -> anyhow::Result<Switched> {
        let mut candidates = Vec::new();
        for set in sets {
            candidates.extend(self.begin(*set).await?);
        }
        let filling = Instant::now();
        self.near_the_end(&candidates, NEAR).await?;
        let filled_s = filling.elapsed().as_secs_f64();
        let switched = self.switch(&candidates).await?;
        Ok(match switched {
            Switched::Done(mut seen) => {
                seen.insert("filled_s".to_owned(), json!(filled_s));
                self.retire(sets).await?;
                Switched::Done(seen)
            }
            refused @ Switched::Refused(_) => refused,
        })
    }

    /// Switches back to what was live before.
    pub(super) async fn back(&self, sets: &[ViewSet]) -> anyhow::Result<Switched> {
        let generations = self.views.generations().await?;
        let mut candidates = Vec::new();
        for set in sets {
            let state = generations.state(*set);
            match state.standby {
                Some(Standby { number, phase })
                    if number < state.live && phase != Phase::Filling =>
                {
                    candidates.push((*set, number));
                }
                // The switch back was made, and the command killed behind it.
                Some(Standby { phase: Phase::Leaving, .. }) => {}
                Some(_) | None => bail!("there is no earlier generation of the {set}"),
            }
        }
        let switched = self.switch(&candidates).await?;
        if let Switched::Done(_) = switched {
            self.retire(sets).await?;
        }
        Ok(switched)
    }

    /// The generation to be filled: the one that is there already, or a new one. `None` when it is live, and only
    /// the one before it is still to be retired.
    async fn begin(&self, set: ViewSet) -> anyhow::Result<Option<Candidate>> {
        let mut candidate = None;
        self.change(|generations| {
            let state = generations.state(set).clone();
            candidate = match state.standby {
                None | Some(Standby { phase: Phase::Old, .. }) => Some(generations.begin(set)),
                Some(Standby { number, phase: Phase::Filling }) => Some(number),
                Some(Standby { number, phase: Phase::Joining }) if number > state.live => {
                    Some(number)
                }
                Some(Standby { number, phase: Phase::Leaving }) if number < state.live => None,
                Some(_) => bail!(
                    "a rollback of the {set} is under way: finish it with --rollback, or --discard"
                ),
            };
            Ok(())
        })
        .await?;
        self.views.sweep().await?;
        if let Some(number) = candidate {
            progress(&format!("the projector fills generation {number} of the {set}"));
        }
        Ok(candidate.map(|number| (set, number)))
    }

    /// Lets generations join, compares them with the log, and makes them live.
    async fn switch(&self, candidates: &[Candidate]) -> anyhow::Result<Switched> {
        if candidates.is_empty() {
            // It was, by a command that was killed behind the switch.
            let switched = ("switched".to_owned(), json!(true));
            return Ok(Switched::Done(Map::from_iter([switched])));
        }
        self.change(|generations| {
            for (set, number) in candidates {
                let standby = generations.state(*set).standby;
                let is_waited_for =
                    standby.is_some_and(|it| it.number == *number && it.phase.is_waited_for());
                if !is_waited_for {
                    generations.join(*set, *number)?;
                }
            }
            Ok(())
        })
        .await?;
        // What is announced from here on they have. What was announced before, the log had before: up to its
        // end as of now they must have all.
        self.at_the_end(candidates).await?;
        progress("comparing them with the log");
        let comparing = Instant::now();
        let report =
            verify::of_generations(&self.settings, candidates, self.sample, WAIT, DIFFERENCES_MAX)
                .await?;
        if report.total() > 0 {
            self.change(|generations| {
                candidates.iter().for_each(|(set, number)| generations.step_back(*set, *number));
                Ok(())
            })
            .await?;
            return Ok(Switched::Refused(Box::new(report)));
        }
        let seen = [
            ("switched", json!(true)),
            ("compared_s", json!(comparing.elapsed().as_secs_f64())),
            ("sample", json!(self.sample)),
            ("looked_at", json!(report.looked)),
            ("changed_meanwhile", json!(report.changed_meanwhile)),
            ("differences_elsewhere", json!(report.elsewhere)),
        ];
        let every = match self.sample {
            1 => "all users".to_owned(),
            sample => format!("every {sample}th user alone"),
        };
        progress(&format!("they say what the log says: {every} compared"));
        if report.elsewhere > 0 {
            progress("the log itself has differences: see `roster verify`");
        }
        self.change(|generations| {
            for (set, number) in candidates {
                generations.switch(*set, *number)?;
            }
            Ok(())
        })
        .await?;
        for (set, number) in candidates {
            progress(&format!("generation {number} of the {set} is live"));
        }
        Ok(Switched::Done(seen.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()))
    }

    /// Waits until nobody reads any more what was live, and says so.
    pub(super) async fn retire(&self, sets: &[ViewSet]) -> anyhow::Result<()> {
        let generations = self.views.generations().await?;
        let leaves = |set: &&ViewSet| {
            generations.state(**set).standby.is_some_and(|standby| standby.phase == Phase::Leaving)
        };
        if sets.iter().find(leaves).is_none() {
            return Ok(());
        }
        let seconds = GRACE_FACTOR * self.settings.views.generations_known_s;
        progress(&format!("waiting {seconds} s until nobody reads what was live before"));
        sleep(Duration::from_secs(seconds)).await;
        self.change(|generations| {
            for set in sets {
                if let Some(Standby { number, phase: Phase::Leaving }) =
                    generations.state(*set).standby
                {
                    generations.retire(*set, number)?;
                }
            }
            Ok(())
        })
        .await?;
        Ok(())
    }
}
