//! A subscriber of the feed: takes the events of one durable consumer, in order, and says which are handled.
//!
//! ```no_run
//! use events::client::{Settings, Subscriber};
//! use events::feed::Happened;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn greet(_: &str) -> Result<(), std::io::Error> { Ok(()) }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::new("nats://127.0.0.1:4222", "mailer", "mailer.creds", "state");
//! let mut subscriber = Subscriber::connect(settings).await?;
//! let stop = CancellationToken::new();
//! subscriber
//!     .run(stop, |event| async move {
//!         match event.happened {
//!             Happened::Registered(data) => greet(&data.user.email).await,
//!             _ => Ok(()),
//!         }
//!     })
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it holds
//!
//! - **Order.** Events of one user come in their order, one after the other. As the consumer is made by
//!   default (`max_ack_pending` 1) this holds across crashes of either side. With more in flight the order
//!   is given up where a message has to come again; then "the highest revision wins" is what holds.
//! - **Nothing is skipped.** An event is acknowledged when the handler succeeded, or when the event lies
//!   parked on this disk. It comes again until the server has confirmed that it heard so.
//! - **One bad event holds up one user.** What the handler refuses for [`Settings::retry_for`] is parked, and
//!   later events of the same user wait behind it; everybody else's go on. [`Parked`] shows what waits, and
//!   lets it be tried again in its order.
//! - **Handled once, but for one gap.** See [`Revisions`] for what is promised, and [`Mark`] for what it takes
//!   to leave no gap.
//! - **The deleted are gone from here too.** At `users.v1.deleted` whatever is parked of the user is
//!   removed, then the handler is called. A consumer with a filter must let that type through.
//!
//! # What it keeps on disk
//!
//! One folder per subscriber, for one process at a time: parked events (personal data: mode 0600), and the
//! last revision of each user and session (ids and counters). A subscriber has no right to publish
//! anything, so there is no place on the server for it.
//!
//! # Why not the consumers of `async-nats`
//!
//! They can be bound with the rights of a subscriber (`get_consumer_from_stream` asks for `CONSUMER.INFO`
//! alone). But they fetch ahead, which keeps messages away from others when one stops; and they take any
//! answer to an acknowledgement for a confirmation, also "nobody is there". So this asks for as much as it
//! can work on, and gives back what it has not begun.

mod attempts;
mod error;
mod files;
mod flow;
mod keeper;
mod lanes;
mod parked;
mod revisions;
mod settings;
mod subscriber;
mod wire;

pub use error::ClientError;
pub use parked::{Parked, ParkedEvent};
pub use revisions::{Mark, Revisions, SESSION_MARKS_MAX};
pub use settings::Settings;
pub use subscriber::Subscriber;

/// So that what the guide shows in Rust is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/feed.md")]
struct Guide;
