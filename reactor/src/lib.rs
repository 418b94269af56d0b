//! The reactor: sends the mails, and erases who is deleted.
//!
//! # Four loops
//! The last one erases (`eraser.rs`, ADR 15). Of the three of the mails the first reads the events of users and turns
//! them into orders for mails; the second carries out the orders of mails that somebody waits for, the third those of
//! notices, so that a reset never waits behind them. Orders come from the first loop and from the command side. An
//! order waits in the work queue `MAILS` until its mail was taken by the mail server, so that a mail server that is
//! down loses nothing and holds up no command.
//!
//! # How many mails go out
//! Every mail passes one gate, which counts by address and kind (`gate.rs`, `quota.rs`, ADR 26).
//!
//! # How often a mail goes out
//! At least once, and nearly always exactly once. A mail goes out twice when the reactor dies, or loses
//! the bus, between the moment the mail server took it and the moment its order was acknowledged. The
//! same holds for an event whose acknowledgement was lost after its order had been placed, carried out
//! and removed: it places the order anew. The two mails then have one Message-ID and, where they carry a
//! link, the same serial: it is one link, and it works once. A link that was used meanwhile is not sent
//! again.
//!
//! # What is not kept
//! Orders are sealed and hold no link. A link is made when its mail is sent and stands in that mail
//! alone; the log holds the serial of the one that is good ([`events::LinkRecord`]).
//!
//! # What nobody is told
//! An order for an address that nobody has leads to no mail and to no trace in the log of the process
//! above its debug level, and neither an address nor a link is ever logged.

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
