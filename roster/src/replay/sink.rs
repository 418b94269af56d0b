//! Where replayed events go.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use events::UserId;
use service_kit::event_log::Followed;

use super::queue::Queue;

/// One place.
pub enum Sink {
    /// They are counted.
    Nowhere,
    /// One line each.
    Stdout(BufWriter<io::Stdout>),
    /// One line each, in a file that has its name once it is whole.
    File { file: BufWriter<File>, partial: PathBuf, path: PathBuf },
    /// What one subscriber alone can read.
    Queue(Box<Queue>),
}

/// Where they went, to be told.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    Nowhere,
    Stdout,
    File(PathBuf),
    Queue(String),
}

impl Sink {
    pub fn stdout() -> Self {
        Self::Stdout(BufWriter::new(io::stdout()))
    }

    /// Begins a file. What an interrupted try left begins anew, and a whole file stays until the new one is.
    pub fn file(path: &Path) -> anyhow::Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        match std::fs::remove_file(&partial) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| cannot_write(&partial));
            }
            _ => {}
        }
        let mut options = File::options();
        options.write(true).create_new(true);
        // It holds what is known of people.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&partial).with_context(|| cannot_write(&partial))?;
        Ok(Self::File { file: BufWriter::new(file), partial, path: path.to_owned() })
    }

    /// Takes a batch; `false` when nobody reads any more, as behind `head`.
    pub async fn take(&mut self, events: &[Followed]) -> anyhow::Result<bool> {
        match self {
            Self::Nowhere => Ok(true),
            Self::Stdout(out) => match lines(out, events) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
                written => written.map(|()| true).context("cannot write to standard output"),
            },
            Self::File { file, partial, .. } => {
                lines(file, events).map(|()| true).with_context(|| cannot_write(partial))
            }
            Self::Queue(queue) => queue.store(events).await.map(|()| true),
        }
    }

    /// Takes back what is there of users who are gone.
    pub async fn forget(&self, users: &[UserId]) -> anyhow::Result<()> {
        match self {
            Self::Queue(queue) => queue.forget(users).await,
            // What is written to a file or read by somebody is out of reach.
            Self::Nowhere | Self::Stdout(_) | Self::File { .. } => Ok(()),
        }
    }

    /// All of it is there.
    pub async fn finish(self) -> anyhow::Result<Place> {
        match self {
            Self::Nowhere => Ok(Place::Nowhere),
            Self::Stdout(_) => Ok(Place::Stdout),
            Self::File { file, partial, path } => {
                let whole = file.into_inner().map_err(io::IntoInnerError::into_error);
                whole
                    .and_then(|file| file.sync_all())
                    .and_then(|()| std::fs::rename(&partial, &path))
                    .with_context(|| cannot_write(&path))?;
                Ok(Place::File(path))
            }
            Self::Queue(queue) => Ok(Place::Queue(queue.subscriber)),
        }
    }
}

/// One line for each event: they are JSON without a line break, as the projector writes them.
fn lines(to: &mut impl Write, events: &[Followed]) -> io::Result<()> {
    for event in events {
        to.write_all(&event.payload)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
