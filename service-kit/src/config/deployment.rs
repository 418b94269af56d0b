//! Whether a process runs for real users, and what of that an operator has decided otherwise.

use std::str::FromStr;

use serde::Deserialize;

use super::listed;

/// What a process runs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deployment {
    /// For a developer: insecure settings are warned of.
    Development,
    /// For real users: insecure settings are refused.
    Production,
}

/// What may cross a network without TLS although the deployment is production.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainConnection {
    /// The connection to NATS.
    Nats,
    /// The connection to MongoDB.
    MongoDb,
    /// The public URL.
    Issuer,
    /// Links in mails.
    Links,
}

impl PlainConnection {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nats, Self::MongoDb, Self::Issuer, Self::Links];

    /// As `allow_plain` names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::MongoDb => "mongodb",
            Self::Issuer => "issuer",
            Self::Links => "links",
        }
    }
}

/// The setting `allow_plain`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowPlain(Vec<PlainConnection>);

impl AllowPlain {
    /// Whether a connection may go without TLS.
    #[must_use]
    pub fn contains(&self, connection: PlainConnection) -> bool {
        self.0.contains(&connection)
    }
}

impl FromStr for AllowPlain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = |item: &str| PlainConnection::ALL.into_iter().find(|c| c.as_str() == item);
        let parsed: Option<Vec<_>> = listed(text).map(known).collect();
        parsed.map(Self).ok_or_else(|| {
            let all = PlainConnection::ALL.map(PlainConnection::as_str).join(", ");
            format!("allow_plain must be a list of these, separated by commas: {all}")
        })
    }
}
