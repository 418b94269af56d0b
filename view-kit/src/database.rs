//! The connection to MongoDB, the same for writers and readers of views.

use std::time::Duration;

use events::Position;
use mongodb::bson::{Document, doc};
use mongodb::error::Error;
use mongodb::options::{
    ClientOptions, ConnectionString, HostInfo, ReadConcern, ServerAddress, Tls, WriteConcern,
};
use mongodb::{Client, Collection, Database};

use service_kit::preflight::{DatabaseTarget, is_badly_encoded};

use crate::parked_document::{PARKED, ParkedDocument};

/// Collection with one document per projection: `{_id, position}`.
pub const CHECKPOINTS: &str = "checkpoints";

/// Time to find a primary. Rejecting a request is better than a longer wait.
const SELECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A database cannot be opened. The texts repeat nothing of the connection string, because it may hold a password. The
/// driver's texts do, so they are not sources of these errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The connection string cannot be parsed.
    #[error(
        "mongodb.url is not a connection string like mongodb://USER:PASSWORD@HOST:27017/?replicaSet=rs0: what is no letter \
         or digit in USER and PASSWORD is percent-encoded"
    )]
    Url,
    /// The servers behind a host name cannot be found.
    #[error("mongodb.url: the name of the servers cannot be resolved")]
    Name,
    /// The driver rejects the options, for example because a TLS file cannot be read.
    #[error("mongodb.url: its options cannot be used, for example a file that is not there")]
    Options,
}

/// The hosts of a connection string, without any connection.
///
/// # Errors
/// [`OpenError::Url`].
pub fn database_target(url: &str) -> Result<DatabaseTarget, OpenError> {
    if is_badly_encoded(url) {
        return Err(OpenError::Url);
    }
    let parsed = ConnectionString::parse(url).map_err(|_| OpenError::Url)?;
    let (hosts, is_srv) = match parsed.host_info {
        HostInfo::HostIdentifiers(hosts) => (hosts.iter().map(host_of).collect(), false),
        HostInfo::DnsRecord(name) => (vec![name], true),
        // A form of address that the driver may know in a later version.
        _ => return Err(OpenError::Url),
    };
    let (has_tls, files) = match parsed.tls {
        Some(Tls::Enabled(options)) => {
            let files = [options.ca_file_path, options.cert_key_file_path];
            (true, files.into_iter().flatten().collect())
        }
        Some(Tls::Disabled) => (false, Vec::new()),
        // Host names that are looked up as SRV records imply TLS.
        None => (is_srv, Vec::new()),
    };
    let has_user = parsed.credential.is_some();
    Ok(DatabaseTarget { hosts, has_tls, has_user, believes_anybody: believes_anybody(url), files })
}

/// Whether an option of a connection string turns off the check of the server's certificate. It is parsed here because
/// the driver knows some of these options only with another TLS library. Like the driver, it ignores the case of names.
fn believes_anybody(url: &str) -> bool {
    const OPTIONS: [&str; 3] =
        ["tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames"];
    let options = url.split_once('?').map_or("", |(_, options)| options);
    options.split(['&', ';']).any(|option| {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let name = name.trim().to_lowercase().replacen("ssl", "tls", 1);
        OPTIONS.contains(&name.as_str()) && !value.trim().eq_ignore_ascii_case("false")
    })
}

fn host_of(address: &ServerAddress) -> String {
    match address {
        ServerAddress::Tcp { host, .. } => host.clone(),
        // A socket is on this machine.
        ServerAddress::Unix { .. } | _ => "localhost".to_owned(),
    }
}

/// A database with views, their checkpoints, and what is parked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ViewDatabase(Database);

impl ViewDatabase {
    /// Opens a database. `service` is the client name that the server sees. The driver connects, and reconnects, as
    /// needed.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(url: &str, database: &str, service: &str) -> Result<Self, OpenError> {
        database_target(url)?;
        // The string itself is valid: what can fail now is the look-up of the servers behind a host name.
        let mut options = ClientOptions::parse(url).await.map_err(|_| OpenError::Name)?;
        options.app_name = Some(service.to_owned());
        options.server_selection_timeout = Some(SELECT_TIMEOUT);
        options.connect_timeout = Some(SELECT_TIMEOUT);
        // Data that was read must not be rolled back, and data that was written must not be lost.
        options.write_concern = Some(WriteConcern::majority());
        options.read_concern = Some(ReadConcern::local());
        let client = Client::with_options(options).map_err(|_| OpenError::Options)?;
        Ok(Self(client.database(database)))
    }

    /// Pings the server.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn ping(&self) -> Result<(), Error> {
        self.0.run_command(doc! {"ping": 1}).await.map(drop)
    }

    /// The checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> Collection<Document> {
        self.0.collection(CHECKPOINTS)
    }

    /// The parked aggregates.
    #[must_use]
    pub fn parked(&self) -> Collection<ParkedDocument> {
        self.0.collection(PARKED)
    }

    /// The database itself.
    #[must_use]
    pub const fn database(&self) -> &Database {
        &self.0
    }

    /// The position of a checkpoint; 0 if there is none.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn position(&self, checkpoint: &str) -> Result<Position, Error> {
        Ok(self.checkpoint(checkpoint).await?.unwrap_or_default())
    }

    /// The position of a checkpoint; `None` if there is none.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn checkpoint(&self, checkpoint: &str) -> Result<Option<Position>, Error> {
        let found = self.checkpoints().find_one(doc! {"_id": checkpoint}).await?;
        let position = |found: Document| found.get_i64("position").unwrap_or(0).unsigned_abs();
        Ok(found.map(|found| Position(position(found))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_tells_where_it_leads() {
        let target = |url: &str| database_target(url).unwrap();
        let here = target("mongodb://127.0.0.1:27017/?replicaSet=rs0");
        assert_eq!(here.hosts, ["127.0.0.1"]);
        assert!(!here.has_tls && !here.has_user);
        let there =
            target("mongodb://u:p%40ss@a:1,b:2/?tls=true&tlsCAFile=/ca.pem&authSource=admin");
        assert_eq!(there.hosts, ["a", "b"]);
        assert!(there.has_tls && there.has_user);
        assert_eq!(there.files, [std::path::Path::new("/ca.pem")]);
        assert!(target("mongodb+srv://cluster.example.com").has_tls);
        assert!(!target("mongodb+srv://cluster.example.com/?tls=false").has_tls);
    }

    #[test]
    fn an_option_that_turns_the_check_of_certificates_off_is_seen_in_every_spelling() {
        let url = |options: &str| format!("mongodb://u:p@a/?tls=true&{options}");
        for options in [
            "tlsInsecure=true",
            "TLSINSECURE=TRUE",
            "tlsAllowInvalidCertificates=true",
            "appName=x&tlsallowinvalidcertificates=true",
            "tlsAllowInvalidHostnames=true",
            "sslAllowInvalidHostnames=true",
        ] {
            assert!(believes_anybody(&url(options)), "{options}");
        }
        for options in
            ["tlsInsecure=false", "appName=tlsInsecure", "tlsCAFile=/tlsInsecure=true.pem"]
        {
            assert!(!believes_anybody(&url(options)), "{options}");
        }
        assert!(database_target(&url("tlsInsecure=true")).unwrap().believes_anybody);
    }

    /// Each of them contains the password as a person would write it who does not know about percent-encoding.
    #[tokio::test]
    async fn no_error_repeats_a_password() {
        for url in [
            "mongodb://roster:Kestrel?42x@host/",
            "mongodb://roster:Kestrel/42x@host/",
            "mongodb://roster:Kestrel#42x@host/",
            "mongodb://roster:Kestrel@42x@host/",
            "mongodb://roster:Kestrel%42%zz@host/",
            "mongodb://roster:42?Kestrel=1@host/",
            "mongodb://roster:Kestrel:42x@host/",
            "mongodb+srv://roster:Kestrel?42x@host/",
            "mongodb://roster:Kestrel@host:port/",
            "mongodb://roster:Kestrel@host/?tls=Kestrel",
            "Kestrel",
        ] {
            let Err(error) = ViewDatabase::open(url, "roster", "roster").await else {
                panic!("{url} was taken");
            };
            let said = format!("{error} {error:?}");
            assert!(said.contains("mongodb.url") && said.contains("percent-encoded"), "{said}");
            assert!(!said.contains("Kestrel") && !said.contains("42x"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_file_of_tls_that_is_not_there_is_an_error_of_the_setting() {
        let url = "mongodb://host/?tls=true&tlsCAFile=/nowhere/ca.pem";
        let Err(error) = ViewDatabase::open(url, "roster", "roster").await else {
            panic!("it was taken");
        };
        assert_eq!(error, OpenError::Options);
    }
}
