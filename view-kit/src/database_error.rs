//! Errors of the database driver as one sentence for an operator, with what to do.
//!
//! The driver's own text is a dump of labels, topology and the server's answer. It helps nobody who reads `/readyz`,
//! and it may repeat a document, so it goes into no log line and no answer.

use std::fmt;

use mongodb::error::{Error, ErrorKind, WriteFailure};

/// An error of the driver that is displayed with [`describe`]. It has no source, so that no chain of errors repeats the
/// driver's text.
#[derive(Clone)]
pub struct DatabaseError(Error);

impl DatabaseError {
    /// The driver's error.
    #[must_use]
    pub const fn driver_error(&self) -> &Error {
        &self.0
    }
}

impl From<Error> for DatabaseError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe(&self.0))
    }
}

impl fmt::Debug for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseError({})", describe(&self.0))
    }
}

impl std::error::Error for DatabaseError {}

/// Fragments of the driver's description of a server that it cannot use, and what they mean. The first match counts.
const CAUSES: [(&str, &str); 12] = [
    ("RsGhost", NEVER_INITIATED),
    ("does not match actual name <none>", NEVER_INITIATED),
    ("does not match actual name", OTHER_SET),
    ("UnknownIssuer", NOT_TRUSTED),
    ("BadSignature", NOT_TRUSTED),
    ("not valid for name", OTHER_NAME),
    ("NotValidForName", OTHER_NAME),
    ("peer certificate", "its certificate is rejected; check its dates and its key usage"),
    (
        "tls handshake eof",
        "it does not speak TLS; set up TLS in mongod, or remove tls=true from mongodb.url",
    ),
    (
        "unexpected end of file",
        "it closes the connection; if mongod requires TLS, add tls=true and tlsCAFile to mongodb.url",
    ),
    (
        "failed to lookup address",
        "its host name cannot be resolved here; check the hosts in mongodb.url",
    ),
    (
        "Connection refused",
        "nothing listens there; check that mongod runs and that mongodb.url leads to it",
    ),
];
const NEVER_INITIATED: &str =
    "its replica set was never initiated; run `rs.initiate()` there once, also for one member";
const NOT_TRUSTED: &str = "its certificate is not trusted; let tlsCAFile in mongodb.url name the authority that signed it";
const OTHER_SET: &str =
    "it is not a member of the replica set that mongodb.url names; check replicaSet";
const OTHER_NAME: &str = "its certificate is for another name than the host in mongodb.url";
const CREDENTIALS: &str =
    "MongoDB rejects the user or password of mongodb.url; check them, and authSource";
const NO_PRIMARY: &str =
    "the replica set of MongoDB has no primary now; look at `rs.status()` if it stays so";

/// Codes of the server, for commands or writes.
mod code {
    pub(super) const UNAUTHORIZED: i32 = 13;
    pub(super) const AUTHENTICATION_FAILED: i32 = 18;
    pub(super) const NOT_YET_INITIALIZED: i32 = 94;
    /// The server steps down, shuts down, recovers, or is not primary.
    pub(super) const NO_PRIMARY: [i32; 7] = [91, 189, 10107, 11600, 11602, 13435, 13436];
}

/// What is wrong and what to do about it, in one sentence that repeats no document and no password.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "the driver's list is open, and long")]
pub fn describe(error: &Error) -> String {
    match error.kind.as_ref() {
        ErrorKind::ServerSelection { message, .. }
        | ErrorKind::ConnectionPoolCleared { message, .. } => of_server(message),
        ErrorKind::Io(cause) => of_server(&cause.to_string()),
        ErrorKind::Authentication { .. } => CREDENTIALS.to_owned(),
        ErrorKind::Command(refused) => of_code(refused.code, &refused.code_name),
        ErrorKind::Write(WriteFailure::WriteError(refused)) => {
            of_code(refused.code, refused.code_name.as_deref().unwrap_or_default())
        }
        ErrorKind::Write(WriteFailure::WriteConcernError(refused)) => {
            of_code(refused.code, &refused.code_name)
        }
        ErrorKind::DnsResolve { .. } => {
            "the hosts of mongodb.url are not found in the DNS; check its name".to_owned()
        }
        ErrorKind::InvalidTlsConfig { .. } => {
            "the TLS files that mongodb.url names cannot be used; check tlsCAFile".to_owned()
        }
        ErrorKind::IncompatibleServer { .. } => {
            "this MongoDB version is not supported; docs/production.md lists the supported ones"
                .to_owned()
        }
        ErrorKind::Bson(_)
        | ErrorKind::BsonDeserialization(_)
        | ErrorKind::InvalidResponse { .. } => "a document in MongoDB cannot be read; run `roster \
                                                verify`, and `roster rebuild` if it finds something"
            .to_owned(),
        _ => "MongoDB failed to execute a command; look at the log of mongod".to_owned(),
    }
}

/// Describes an error code of the server.
#[must_use]
pub fn of_code(code: i32, name: &str) -> String {
    match code {
        code::UNAUTHORIZED => {
            "MongoDB does not allow it; give the user of mongodb.url its role on \
                               mongodb.database"
                .to_owned()
        }
        code::AUTHENTICATION_FAILED => CREDENTIALS.to_owned(),
        code::NOT_YET_INITIALIZED => format!("MongoDB cannot be used: {NEVER_INITIATED}"),
        code if code::NO_PRIMARY.contains(&code) => NO_PRIMARY.to_owned(),
        code => {
            let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
            format!("MongoDB rejects a command with code {code}{name}; look at the log of mongod")
        }
    }
}

/// Describes what is wrong with a server, according to the driver.
fn of_server(seen: &str) -> String {
    let has = |part: &str| seen.contains(part);
    if has("SCRAM failure") || has("Authentication failed") {
        return CREDENTIALS.to_owned();
    }
    if has("Type: RsSecondary") {
        return NO_PRIMARY.to_owned();
    }
    let cause = CAUSES.iter().find(|(part, _)| has(part)).map(|(_, cause)| *cause);
    // The driver drops servers that belong to another replica set.
    let is_empty = has("Topology: ") && !has("Servers: ");
    let cause = cause.or(is_empty.then_some(OTHER_SET));
    let cause = cause.unwrap_or("check that mongod runs and that mongodb.url leads to it");
    let place = seen.split_once("Address: ").and_then(|(_, rest)| rest.split(',').next());
    let place = place.map(|address| format!(" at {address}")).unwrap_or_default();
    format!("MongoDB{place} cannot be used: {cause}")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn codes_say_what_to_do() {
        for (code, name, part) in [
            (13, "Unauthorized", "its role on mongodb.database"),
            (18, "AuthenticationFailed", "user or password of mongodb.url"),
            (94, "NotYetInitialized", "`rs.initiate()`"),
            (10_107, "NotWritablePrimary", "no primary now"),
            (14_031, "OutOfDiskSpace", "code 14031 (OutOfDiskSpace); look at the log of mongod"),
        ] {
            let said = of_code(code, name);
            assert!(said.contains(part), "{said}");
        }
    }

    /// The text of rustls. The other causes are tried on real servers in `tests/it/database_errors.rs`.
    #[test]
    fn a_certificate_for_another_name_is_named() {
        let seen = "Address: 10.0.0.7:27017, Type: Unknown, Error: Kind: I/O error: invalid peer certificate: \
                    certificate not valid for name \"10.0.0.7\"; certificate is only valid for DnsName(\"mongod\")";
        let said = of_server(seen);
        assert!(
            said.starts_with("MongoDB at 10.0.0.7:27017 ") && said.contains(OTHER_NAME),
            "{said}"
        );
    }

    #[test]
    fn nothing_of_a_document_or_of_the_drivers_dump_is_repeated() {
        let io = Error::from(io::Error::other("ada@example.com"));
        let custom = Error::custom("ada@example.com".to_owned());
        for error in [io, custom] {
            let wrapped = DatabaseError::from(error);
            let said = format!("{wrapped} {wrapped:?}");
            let dumped = ["ada@example.com", "labels", "Kind:"];
            assert!(dumped.iter().all(|part| !said.contains(part)), "{said}");
        }
    }
}
