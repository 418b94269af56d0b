//! The command side: REST commands, decided against the event log and stored as events.
//!
//! `routes -> application -> domain`, and `adapters -> ports`; only [`app`] sees adapters. The command side depends
//! on NATS alone: no decision reads a view, so a projection that lags cannot make a login fail.

mod adapters;
pub mod app;
mod application;
mod domain;
mod ports;
mod restore_reconciler;
mod routes;

pub use adapters::{LookError, Resealer, begin_lineage};
pub use app::{
    App, Made, NewAdministrator, PrepareError, PreparedAdministrator, SERVICE, StartError,
    Unverified,
};
pub use application::Removal;
pub use domain::Admins;
pub use restore_reconciler::{Lost, RestoreReconciler};
pub use routes::{Report, openapi};
