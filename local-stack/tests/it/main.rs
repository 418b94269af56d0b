//! The real servers: started, stopped, killed and orphaned.
//!
//! `Binaries::obtain` finds the executables; only the first run on a machine needs the network.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail as tests do; clippy.toml only covers the test functions"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a second process gets its role from its environment"
)]

mod obtaining;
mod running;
mod supervised_process;
mod support;
