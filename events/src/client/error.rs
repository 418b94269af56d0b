//! Why a subscriber cannot start or go on.

use std::io;
use std::path::PathBuf;

/// A subscriber cannot start or go on. Nothing is lost by it: what was not acknowledged comes again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The name is none that a subscriber can have.
    #[error("{0:?} is no name of a subscriber: 2 to 32 of a-z, 0-9 and -, a letter first")]
    Name(String),
    /// The file with the credentials cannot be used.
    #[error("the credentials {path} cannot be read", path = path.display())]
    Creds {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No connection at the start; once there was one it is made again for ever.
    #[error("no connection to {server}")]
    Connect {
        /// The server that was asked for.
        server: String,
        /// What went wrong.
        source: async_nats::ConnectError,
    },
    /// The server has no such consumer: the operator removed the subscriber, or never added it.
    #[error("the stream {stream} has no consumer {name}: ask the operator of Roster to add it")]
    NoConsumer {
        /// The stream.
        stream: &'static str,
        /// The name of the subscriber.
        name: String,
    },
    /// The server does not answer, or not with what it should. A request that is not allowed looks like
    /// this too. Start again later.
    #[error("the server does not answer as it should: {0}")]
    Server(String),
    /// The client of NATS was closed.
    #[error("the connection was closed for good")]
    Closed,
    /// Another process works with the state folder.
    #[error("another process uses the state folder {path}", path = path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The state folder cannot be used. Make room, or give the rights; then start again.
    #[error("the state folder cannot be used: {path}", path = path.display())]
    State {
        /// What was read or written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// So much is parked that no more may be: retry or drop what lies there, then start again.
    #[error("{0} events are parked, and no more may be")]
    ParkedFull(usize),
}

impl ClientError {
    /// Names the file that went wrong.
    pub(super) fn state(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::State { path, source }
    }
}
