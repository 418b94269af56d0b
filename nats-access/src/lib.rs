//! NATS credentials with least privilege for the operator, accounts and users.
//!
//! # Contents
//!
//! * [`Role::permissions`] is the only table of subjects per service, each with its reason.
//! * [`ServiceUser`] has the permissions of a peer service, derived from its names.
//! * [`Trust`] has the keys at the root of everything. It writes the configuration of a `nats-server` and the
//!   credentials of every service.
//! * [`TestTrust`] is the same with many isolated accounts on one server, for tests.
//!
//! # Reasons
//!
//! NATS runs in operator mode, on a developer's machine as in a cluster: the server knows one operator and its
//! accounts, and a user is whatever an account has signed. A new subscriber gets credentials without a change to any
//! server, and what is denied to a service in production is also denied during development. Users in the servers'
//! configuration were rejected, because each new one would be a change to every server.
//!
//! A denied request looks like a timeout to the client. When you add a request to a service, add it to the table and to
//! the tests of this crate.
//!
//! # Limits
//!
//! Credentials do not expire by time. They are valid until their user is revoked ([`Trust::revoke`]), until permissions
//! of the account are removed and they are a copy from before (`jwt.rs`), or until the account itself is replaced; each
//! once the servers have loaded the new configuration. TLS is a matter of the configuration around this one.
//!
//! Subscribers of the feed have an account of their own without streams, which imports the few requests that they need
//! from the product's account. In one account with the log, a subscriber could request the next message and name a
//! subject of the log as the reply subject, and the server would store the answer there (tried).
//!
//! Peer services and verifiers have a third account without streams, which imports their requests under the subjects of
//! the product's account (ADR 28). So the same holds for them.
//!
//! For Roster's own services, the table protects against mistakes and against most of what a stolen service could do,
//! but not against all of it. The server does not check reply subjects: a user with any permission on JetStream can
//! have the server's answer stored under a subject of the log. `STREAM.MSG.GET` names the requested message in the
//! payload, which no permission restricts, and so does a `CONSUMER.CREATE` whose permission leaves the filter open:
//! users with these permissions can read the whole stream, including credentials. That is why credentials are sealed. A
//! permission that ends in a filter is different: the server compares the payload with it.

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
