//! The reactor: sends mails and erases deleted users.
//!
//! # Four loops
//! One loop erases (`eraser.rs`, ADR 15). Three loops send mails: the first reads the events of users and stores mail
//! jobs for them; the second works on jobs for mails that somebody waits for; the third works on jobs for notices, so
//! that a reset never waits behind them. Jobs come from the first loop and from the command side. A job stays in the
//! work queue `MAILS` until the mail server has accepted its mail, so a mail server that is down loses nothing and
//! delays no command.
//!
//! # How many mails are sent
//! Every mail passes one gate, which counts by address and kind (`gate.rs`, `quota.rs`, ADR 26).
//!
//! # How often a mail is sent
//! At least once, and nearly always exactly once. A mail is sent twice if the reactor crashes, or loses its connection
//! to NATS, after the mail server accepted the mail and before its job was acknowledged. The same holds for an event
//! whose acknowledgement was lost after its job was stored, done and removed: it stores the job again. Both mails then
//! have the same Message-ID and, if they carry a link, the same serial: it is one link, and it works once. A link that
//! was used in the meantime is not sent again.
//!
//! # What is not stored
//! Jobs are sealed and contain no link. A link is made when its mail is sent, and exists only in that mail; the log has
//! the serial of the valid one ([`events::LinkRecord`]).
//!
//! # What is not disclosed
//! A job for an address without a user leads to no mail and to no log line above the debug level. Addresses and links
//! are never logged.

mod app;
mod devices;
mod eraser;
mod gate;
mod letters;
mod mailer;
mod orders;
mod parked;
mod quota;
mod residue;
mod transport;
mod turns;

pub use app::{App, ERASER_CREDS_FILE, SERVICE, StartError, eraser_credentials};
pub use orders::{OrderedBy, orders_for};
pub use parked::{ParkedError, ParkedMail, ParkedMails};
pub use residue::{ResidualMessage, ResidueError, Standing, Streams};
pub use transport::{SetupError, check_mail};
