//! Watching the projector fill a generation.

use std::fmt;
use std::time::Duration;

use anyhow::bail;
use events::Position;
use indicatif::{ProgressBar, ProgressStyle};
use projector::View;
use service_kit::event_log::EventLog;
use tokio::time::{Instant, sleep};
use views::{ViewSet, states_begun_checkpoint};

use super::Rebuild;
use super::steps::Candidate;

/// Pause between two looks. Each asks the log for its last event, which is work for a log of many users.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause between two looks when it must be soon.
const SOON: Duration = Duration::from_millis(200);
/// How long nothing may change before it is given up.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// Nothing is to be waited for any more.
#[derive(Debug)]
struct Discarded {
    set: ViewSet,
    number: u32,
}

impl fmt::Display for Discarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} of the {} was discarded meanwhile", self.number, self.set)
    }
}

impl std::error::Error for Discarded {}

/// How far candidates are.
struct Standing {
    /// Whether somebody follows for each of them.
    begun: bool,
    /// The sum of their positions.
    position: u64,
    /// The sum of the positions that they must reach.
    end: u64,
    /// By how many positions the one is behind that is farthest behind.
    behind: u64,
    /// Documents of those whose positions stand still while the last states are written.
    documents: u64,
    /// Up to where those are written.
    states: u64,
}

impl Rebuild {
    /// Waits until candidates are near the end of the log.
    pub(super) async fn near_the_end(
        &self,
        candidates: &[Candidate],
        near: u64,
    ) -> anyhow::Result<()> {
        let bar = bar()?;
        let mut last = (0, 0, 0);
        let mut patience = Patience::new();
        loop {
            match self.standing(candidates).await {
                Ok(standing) => {
                    bar.set_length(standing.end);
                    bar.set_position(standing.position);
                    bar.set_message(match standing.position {
                        0 => format!("{} documents", standing.documents),
                        _ => "events".to_owned(),
                    });
                    if standing.begun && standing.behind <= near {
                        bar.finish_and_clear();
                        return Ok(());
                    }
                    let now = (standing.position, standing.documents, standing.states);
                    if now != last {
                        last = now;
                        patience = Patience::new();
                    }
                }
                Err(error) => patience.failed(error),
            }
            patience.is_left()?;
            sleep(PAUSE).await;
        }
    }

    /// Waits until candidates lack nothing that the log has now.
    pub(super) async fn at_the_end(&self, candidates: &[Candidate]) -> anyhow::Result<()> {
        let mut left = Vec::new();
        for (view, number) in views_of(candidates) {
            left.push((view, number, self.end(view).await?));
        }
        let mut patience = Patience::new();
        while let Some((view, number, end)) = left.last().copied() {
            match self.lacks(candidates, view, number, end).await {
                Ok(false) => {
                    left.pop();
                    patience = Patience::new();
                    continue;
                }
                Ok(true) => {}
                Err(error) => patience.failed(error),
            }
            patience.is_left()?;
            sleep(SOON).await;
        }
        Ok(())
    }

    /// Somebody else may have discarded them.
    async fn are_there(&self, candidates: &[Candidate]) -> anyhow::Result<()> {
        let generations = self.views.generations().await?;
        for (set, number) in candidates {
            if generations.state(*set).all().all(|there| there != *number) {
                return Err(Discarded { set: *set, number: *number }.into());
            }
        }
        Ok(())
    }

    async fn standing(&self, candidates: &[Candidate]) -> anyhow::Result<Standing> {
        self.are_there(candidates).await?;
        let mut standing =
            Standing { begun: true, position: 0, end: 0, behind: 0, documents: 0, states: 0 };
        for (view, number) in views_of(candidates) {
            let end = self.end(view).await?.0;
            let checkpoint = self.views.checkpoint(&view.checkpoint(number)).await?;
            standing.begun &= checkpoint.is_some();
            let position = checkpoint.unwrap_or_default().0;
            standing.end += end;
            standing.position += position.min(end);
            standing.behind = standing.behind.max(end.saturating_sub(position));
            if view == View::Users && position == 0 {
                standing.documents += self.views.users(number).estimated_document_count().await?;
                let states = self.views.position(&states_begun_checkpoint(number)).await?;
                standing.states = states.0;
            }
        }
        Ok(standing)
    }

    const fn log(&self, view: View) -> &EventLog {
        match view {
            View::Users => &self.users,
            View::Logins | View::Sessions => &self.sessions,
        }
    }

    /// The last position of what leads to a view.
    async fn end(&self, view: View) -> anyhow::Result<Position> {
        let mut end = Position(0);
        for filter in view.filters() {
            let last = self.log(view).last(filter).await?;
            end = end.max(last.map_or(Position(0), |last| last.position));
        }
        Ok(end)
    }

    /// Whether a view lacks anything up to a position. What was last there may be erased, and never come.
    async fn lacks(
        &self,
        candidates: &[Candidate],
        view: View,
        number: u32,
        end: Position,
    ) -> anyhow::Result<bool> {
        self.are_there(candidates).await?;
        let position = self.views.position(&view.checkpoint(number)).await?;
        for filter in view.filters() {
            let next = self.log(view).next(filter, position).await?;
            if next.is_some_and(|next| next.position <= end) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn views_of(candidates: &[Candidate]) -> impl Iterator<Item = (View, u32)> {
    let of = |set: ViewSet| View::ALL.into_iter().filter(move |view| view.set() == set);
    candidates.iter().flat_map(move |(set, number)| of(*set).map(|view| (view, *number)))
}

/// How long it is waited for something to move. A log or a database that does not answer only takes time.
struct Patience {
    since: Instant,
    trouble: Option<anyhow::Error>,
}

impl Patience {
    fn new() -> Self {
        Self { since: Instant::now(), trouble: None }
    }

    fn failed(&mut self, error: anyhow::Error) {
        self.trouble = Some(error);
    }

    fn is_left(&mut self) -> anyhow::Result<()> {
        if self.trouble.as_ref().is_some_and(|trouble| trouble.is::<Discarded>()) {
            return self.trouble.take().map_or(Ok(()), Err);
        }
        if self.since.elapsed() < STALLED_AFTER {
            return Ok(());
        }
        let stalled = format!(
            "the projector has not gone on with it for {} s: is it running? Its log says why it stands still. \
             Repeat this command to go on, or give it up with --discard",
            STALLED_AFTER.as_secs()
        );
        match self.trouble.take() {
            Some(trouble) => Err(trouble.context(stalled)),
            None => bail!(stalled),
        }
    }
}

fn bar() -> anyhow::Result<ProgressBar> {
    let style =
        ProgressStyle::with_template("{wide_bar} {percent}%  {per_sec}  {eta} left  {msg}")?;
    Ok(ProgressBar::new(0).with_style(style))
}
