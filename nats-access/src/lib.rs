//! Who may do what on NATS: operator, account and user credentials with least privilege.
//!
//! # What
//!
//! * [`Role::permissions`] is the one table of subjects per service, each with its reason.
//! * [`ServiceUser`] is what a further service may do, derived from its names.
//! * [`Trust`] is the set of keys everything hangs from. It writes the configuration of a
//!   `nats-server` and the credentials of every service.
//! * [`TestTrust`] is the same with many isolated accounts on one server, for tests.
//!
//! # Why
//!
//! NATS runs in operator mode, on the machine of a developer just as in a cluster: the server
//! knows one operator and its accounts, and a user is whatever an account has signed. A further
//! subscriber gets credentials without a change to any server, and what a service may not do in
//! production it may not do while it is developed either. Users in the configuration of the
//! server were rejected: each new one would be a change to every server.
//!
//! A request that is denied looks like a timeout to the client that sent it. So whoever adds a
//! request to a service adds it to the table, and to the tests of this crate.
//!
//! # What not for
//!
//! Nothing here expires by time: credentials are valid until their user is revoked ([`Trust::revoke`]), until rights of its
//! account are narrowed and it holds a copy of before (`jwt.rs`), or until the account itself is replaced; each once the
//! servers have been told.
//! No TLS, which is the business of the configuration around this one.
//!
//! Subscribers of the feed live in an account of their own, which has no streams: it imports the few
//! requests they need from the account of the product. In one account with the log, a subscriber could ask
//! for the next message and name a subject of the log as the place for the answer, and the server would
//! store it there (tried).
//!
//! Peer services and verifiers live in a third account, which has no streams either and imports what they may ask under
//! the subjects that it has in the account of the product (ADR 28). So the same holds for them.
//!
//! For the services of Roster themselves the table is a fence against mistakes and against most of what a stolen service
//! could do, not against all of it. The server does not check where a requester wants its answer: whoever may
//! ask JetStream anything can have the answer of the server stored under a subject of the log.
//! `STREAM.MSG.GET` names the message it is after in the payload, where no permission reaches, and
//! so does a `CONSUMER.CREATE` whose permission leaves the filter open: whoever has them can read
//! the whole stream, credentials included. That is why those are sealed. A permission that ends in
//! a filter is another matter: the server holds the payload to it.

mod account;
mod creds;
mod crossing;
mod error;
mod files;
mod issued;
mod jwt;
mod permissions;
mod revoked;
mod service;
mod subscriber;
mod testing;
mod trust;

pub use account::Account;
pub use error::TrustError;
pub use issued::ISSUED_FILE;
pub use jwt::{SERVICE_CONNECTIONS_MAX, SUBSCRIBER_CONNECTIONS_MAX};
pub use permissions::{Direction, Permission, Role};
pub use revoked::{REVOKED_FILE, user_key};
pub use service::{ServicePermission, ServiceUser};
pub use subscriber::{API_PREFIX, InvalidName, SubscriberName};
pub use testing::TestTrust;
pub use trust::{CredsOutcome, NewCreds, Trust, WrittenCreds};
