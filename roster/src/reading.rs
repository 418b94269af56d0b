//! Reading a stream from one position to another, or on and on, for commands that look and change nothing.
//!
//! The server drops a reader that pauses for too long, as one does that waits for a database, and a busy server misses
//! heartbeats. Then it begins again behind what it has, and says so, as long as the silence is not longer than
//! `log.silence_max_s`.

use std::process::ExitCode;
use std::time::Duration;

use events::Position;
use futures::StreamExt;
use futures::stream::BoxStream;
use service_kit::event_log::{EventLog, FollowError, Followed, Start};
use tokio::time::{Instant, sleep, timeout};

use crate::cli::progress;

/// Pause before it begins again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a message may take to come. One that was erased under way never does.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// Follows what comes after a position until `show` answers `false`: nobody reads any more.
///
/// # Errors
/// The stream cannot be read, and trying again for as long as a silence may last did not help.
pub async fn follow(
    log: &EventLog,
    filters: &[impl AsRef<str>],
    mut after: Position,
    show: impl Fn(&Followed) -> bool,
) -> anyhow::Result<ExitCode> {
    let filters: Vec<&str> = filters.iter().map(AsRef::as_ref).collect();
    let mut silence = Silence::new(log.silence_max());
    loop {
        let began = Instant::now();
        let mut messages = match log.follow(&filters, Start::Behind(after)).await {
            Ok(following) => following.messages,
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        };
        while let Some(message) = messages.next().await {
            match message {
                Ok(event) => {
                    silence.end();
                    after = event.position;
                    if event.is_foreign {
                        passed_over(1, log.stream());
                    } else if !show(&event) {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                Err(error) => {
                    // A quiet log that was followed for longer did answer.
                    if began.elapsed() >= log.silence_max() {
                        silence.end();
                    }
                    silence.wait(error, after).await?;
                }
            }
        }
    }
}

/// The messages on some filters up to a position, in order.
pub struct Reading {
    log: EventLog,
    filters: Vec<String>,
    /// The last position that came.
    position: Position,
    end: Position,
    messages: Option<BoxStream<'static, Result<Followed, FollowError>>>,
    /// Whether the consumer counted nothing behind the last message.
    is_drained: bool,
    is_over: bool,
    /// Foreign messages that were passed over; `None` where they are given out too.
    passed_over: Option<u64>,
}

/// Says what was left out of a list.
fn passed_over(count: u64, stream: &str) {
    let messages = if count == 1 { "message" } else { "messages" };
    progress(&format!(
        "{count} {messages} of {stream} that Roster did not write: passed over (see `roster doctor`)"
    ));
}

impl Reading {
    /// Everything on `filters` behind one position and up to another.
    pub fn new(
        log: &EventLog,
        filters: &[impl AsRef<str>],
        behind: Position,
        end: Position,
    ) -> Self {
        Self {
            log: log.clone(),
            filters: filters.iter().map(|filter| filter.as_ref().to_owned()).collect(),
            position: behind,
            end,
            messages: None,
            is_drained: false,
            is_over: behind >= end,
            passed_over: None,
        }
    }

    /// The same without messages that Roster did not write. At the end standard error says how many these were.
    pub fn of_roster(self) -> Self {
        Self { passed_over: Some(0), ..self }
    }

    /// The next message; `None` behind the last.
    ///
    /// # Errors
    /// The stream cannot be read, and trying again for as long as a silence may last did not help.
    pub async fn next(&mut self) -> Result<Option<Followed>, FollowError> {
        loop {
            let next = self.next_of_anybody().await?;
            match &mut self.passed_over {
                Some(count) if next.as_ref().is_some_and(|next| next.is_foreign) => *count += 1,
                Some(count @ 1..) if next.is_none() => {
                    passed_over(std::mem::take(count), self.log.stream());
                    return Ok(None);
                }
                Some(_) | None => return Ok(next),
            }
        }
    }

    async fn next_of_anybody(&mut self) -> Result<Option<Followed>, FollowError> {
        let mut silence = Silence::new(self.log.silence_max());
        while !self.is_over {
            match self.attempt().await {
                Ok(Some(message)) => {
                    self.position = message.position;
                    self.is_over = message.position >= self.end;
                    self.is_drained = message.pending == 0;
                    return Ok((message.position <= self.end).then_some(message));
                }
                Ok(None) => match self.is_complete().await {
                    Ok(true) => self.is_over = true,
                    Ok(false) => {
                        let error = FollowError::Disturbed("its node is still catching up".into());
                        self.begin_again(error, &mut silence).await?;
                    }
                    Err(error) => self.begin_again(error, &mut silence).await?,
                },
                Err(error) => self.begin_again(error, &mut silence).await?,
            }
        }
        Ok(None)
    }

    async fn begin_again(
        &mut self,
        error: FollowError,
        silence: &mut Silence,
    ) -> Result<(), FollowError> {
        self.messages = None;
        silence.wait(error, self.position).await
    }

    /// Whether the leader of the stream has nothing more up to the end either: a consumer may run on a node that is still
    /// catching up.
    async fn is_complete(&mut self) -> Result<bool, FollowError> {
        for filter in &self.filters {
            let next = self.log.next(filter, self.position).await;
            let next = next.map_err(|error| FollowError::Disturbed(error.to_string()))?;
            if next.is_some_and(|next| next.position <= self.end) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next message of the consumer; `None` when it counts none.
    async fn attempt(&mut self) -> Result<Option<Followed>, FollowError> {
        let messages = match &mut self.messages {
            Some(_) if self.is_drained => return Ok(None),
            Some(messages) => messages,
            none => {
                let filters: Vec<&str> = self.filters.iter().map(String::as_str).collect();
                let following = self.log.follow(&filters, Start::Behind(self.position)).await?;
                if following.pending == 0 {
                    return Ok(None);
                }
                self.is_drained = false;
                none.insert(following.messages)
            }
        };
        let next = timeout(ARRIVAL_MAX, messages.next()).await;
        next.map_err(|_| FollowError::Disturbed("no message comes".to_owned()))?.transpose()
    }

    /// The same as a stream.
    pub fn into_stream(self) -> BoxStream<'static, Result<Followed, FollowError>> {
        futures::stream::try_unfold(self, |mut reading| async move {
            Ok(reading.next().await?.map(|message| (message, reading)))
        })
        .boxed()
    }
}

/// A time in which a log does not answer.
pub struct Silence {
    max: Duration,
    since: Option<Instant>,
}

impl Silence {
    /// None yet.
    pub const fn new(max: Duration) -> Self {
        Self { max, since: None }
    }

    /// Pauses before another try behind a position.
    ///
    /// # Errors
    /// The error again, when the silence has lasted too long.
    pub async fn wait(&mut self, error: FollowError, behind: Position) -> Result<(), FollowError> {
        match self.since {
            Some(since) if since.elapsed() >= self.max => return Err(error),
            Some(_) => {}
            None => {
                self.since = Some(Instant::now());
                let max_s = self.max.as_secs();
                progress(&format!(
                    "{error}; going on behind position {behind}, trying for {max_s} s (log.silence_max_s)"
                ));
            }
        }
        sleep(PAUSE).await;
        Ok(())
    }

    /// It is over.
    pub const fn end(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disturbed() -> FollowError {
        FollowError::Disturbed("missed idle heartbeat".to_owned())
    }

    #[tokio::test]
    async fn a_silence_is_waited_out_as_long_as_it_may_last() {
        let mut silence = Silence::new(Duration::from_secs(60));
        for _ in 0..3 {
            assert!(silence.wait(disturbed(), Position(17)).await.is_ok());
        }
        let mut silence = Silence::new(Duration::ZERO);
        assert!(silence.wait(disturbed(), Position(17)).await.is_ok(), "one try in any case");
        let error = silence.wait(disturbed(), Position(17)).await.unwrap_err();
        assert!(error.to_string().contains("heartbeat"), "{error}");
        silence.end();
        assert!(silence.wait(disturbed(), Position(18)).await.is_ok(), "another silence");
    }
}
