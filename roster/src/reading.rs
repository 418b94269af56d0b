//! Reading a stream from one position to another, or on and on, for commands that look and change nothing.
//!
//! The server drops a reader that pauses for too long, as one does that waits for a database. Then it begins
//! again behind what it has.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use events::Position;
use futures::StreamExt;
use futures::stream::BoxStream;
use service_kit::event_log::{EventLog, FollowError, Followed, Start};
use tokio::time::{sleep, timeout};

use crate::cli::progress;

/// How often in a row it begins again without having got anything.
const TRIES_MAX: u32 = 5;
/// How long a message may take to come. One that was erased under way never does.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// How often in a row following begins again without having got anything.
const FOLLOW_TRIES_MAX: u32 = 60;
/// Pause before following begins again.
const FOLLOW_PAUSE: Duration = Duration::from_secs(1);

/// Follows what comes after a position until `show` answers `false`: nobody reads any more.
///
/// # Errors
/// The stream cannot be read, and trying again for a minute did not help.
pub async fn follow(
    log: &EventLog,
    filters: &[impl AsRef<str>],
    mut behind: Position,
    show: impl Fn(&Followed) -> bool,
) -> anyhow::Result<ExitCode> {
    let filters: Vec<&str> = filters.iter().map(AsRef::as_ref).collect();
    let mut tries = 0;
    loop {
        let mut messages = match log.follow(&filters, Start::Behind(behind)).await {
            Ok(following) => following.messages,
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        };
        while let Some(message) = messages.next().await {
            match message {
                Ok(event) => {
                    (behind, tries) = (event.position, 0);
                    if !show(&event) {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                Err(error) if tries < FOLLOW_TRIES_MAX => {
                    tries += 1;
                    progress(&format!("{error}; going on behind {behind}"));
                    sleep(FOLLOW_PAUSE).await;
                }
                Err(error) => bail!(error),
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
    is_over: bool,
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
            is_over: behind >= end,
        }
    }

    /// The next message; `None` behind the last.
    ///
    /// # Errors
    /// The stream cannot be read, and trying again did not help.
    pub async fn next(&mut self) -> Result<Option<Followed>, FollowError> {
        let mut tries = 0;
        while !self.is_over {
            match self.attempt().await {
                Ok(Some(message)) => {
                    self.position = message.position;
                    self.is_over = message.pending == 0 || message.position >= self.end;
                    return Ok((message.position <= self.end).then_some(message));
                }
                Ok(None) => self.is_over = true,
                Err(_) if tries < TRIES_MAX => {
                    tries += 1;
                    self.messages = None;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn attempt(&mut self) -> Result<Option<Followed>, FollowError> {
        let messages = match &mut self.messages {
            Some(messages) => messages,
            none => {
                let filters: Vec<&str> = self.filters.iter().map(String::as_str).collect();
                let following = self.log.follow(&filters, Start::Behind(self.position)).await?;
                if following.pending == 0 {
                    return Ok(None);
                }
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
