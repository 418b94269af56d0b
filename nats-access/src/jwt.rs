//! NATS tokens: JWT v2, signed with nkeys.
//!
//! A token depends only on the keys and the claims, so the same input gives the same text: comparing strings shows
//! whether a stored token is up to date.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde::Serialize;

use crate::crossing::{Request, without_overlaps};
use crate::error::TrustError;
use crate::permissions::{Direction, Role};
use crate::service::{self, ServiceUser};
use crate::subscriber::{self, SubscriberName};

const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
const VERSION: u8 = 2;
/// Issue time of the tokens of operator and accounts, 2026-01-01T00:00:00Z. With the real time, a token would differ
/// each time.
const ISSUED_AT_UNIX_SECONDS: u64 = 1_767_225_600;
/// Issue time of user tokens: the day on which permissions of each account's users were last removed. The account
/// rejects older tokens, so a copy of an old file becomes invalid together with the permissions in it. Adding a
/// permission needs no new day: older files may stay.
const OWN_RIGHTS_SINCE_UNIX_SECONDS: u64 = 1_795_996_800; // 2026-11-30
const SERVICE_RIGHTS_SINCE_UNIX_SECONDS: u64 = 1_795_996_800; // 2026-11-30
const SUBSCRIBER_RIGHTS_SINCE_UNIX_SECONDS: u64 = ISSUED_AT_UNIX_SECONDS;
/// A revoked user stays revoked, whatever issue time its next token has: 2100-01-01T00:00:00Z.
const REVOKED_THROUGH_UNIX_SECONDS: u64 = 4_102_444_800;
/// "Every user" in the revocations of an account.
const EVERYBODY: &str = "*";
/// The server treats a missing limit as zero: nothing allowed.
const NO_LIMIT: i64 = -1;
/// Connections of all subscribers together. A server accepts 1,024 in total (`nats/server.conf`). The limits of these
/// two accounts leave 384 to Roster's own services, so that a restarted one can always connect.
pub const SUBSCRIBER_CONNECTIONS_MAX: i64 = 256;
/// Connections of all peer services and verifiers together.
pub const SERVICE_CONNECTIONS_MAX: i64 = 384;
/// Subscriptions of one connection of a subscriber: an inbox, and one for each running request.
const SUBSCRIBER_SUBSCRIPTIONS_MAX: i64 = 64;
/// Bytes of one message of a subscriber: it sends only requests and acknowledgements.
const SUBSCRIBER_PAYLOAD_BYTES_MAX: i64 = 64 * 1024;
/// Subscriptions of one connection of a peer service or verifier.
const SERVICE_SUBSCRIPTIONS_MAX: i64 = 1_024;
/// The name of the messages that services receive, in both accounts.
const INBOUND_MESSAGES_NAME: &str = "services-parked";

#[derive(Serialize)]
struct Claims<'a, T> {
    jti: &'a str,
    iat: u64,
    iss: &'a str,
    name: &'a str,
    sub: &'a str,
    nats: &'a T,
}

#[derive(Serialize)]
struct OperatorClaims<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u8,
    system_account: &'a str,
}

#[derive(Serialize)]
struct AccountClaims {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u8,
    limits: AccountLimits,
    /// Users whose tokens from this time or earlier are invalid.
    revocations: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exports: Vec<Export>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    imports: Vec<Import>,
}

/// Requests that other accounts may send here, or messages that they may receive.
#[derive(Serialize)]
struct Export {
    name: &'static str,
    subject: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Whether one request may have many answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_type: Option<&'static str>,
}

/// Requests that are sent to another account, or messages that are received from it.
#[derive(Serialize)]
struct Import {
    name: &'static str,
    subject: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_subject: Option<&'static str>,
    account: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct AccountLimits {
    subs: i64,
    data: i64,
    payload: i64,
    imports: i64,
    exports: i64,
    wildcards: bool,
    conn: i64,
    leaf: i64,
    #[serde(flatten)]
    jetstream: Option<JetStreamLimits>,
}

#[derive(Serialize)]
struct JetStreamLimits {
    mem_storage: i64,
    disk_storage: i64,
    streams: i64,
    consumer: i64,
    max_ack_pending: i64,
    mem_max_stream_bytes: i64,
    disk_max_stream_bytes: i64,
}

#[derive(Serialize)]
struct UserClaims {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u8,
    #[serde(rename = "pub")]
    publish: Subjects,
    #[serde(rename = "sub")]
    subscribe: Subjects,
    subs: i64,
    data: i64,
    payload: i64,
}

#[derive(Serialize)]
struct Subjects {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
}

impl Subjects {
    fn only(
        allow: impl IntoIterator<Item = impl Into<String>>,
        deny: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let allow: Vec<String> = allow.into_iter().map(Into::into).collect();
        // The server treats an empty list of allowed subjects as every subject.
        let deny = match allow.is_empty() {
            true => vec![">".to_owned()],
            false => deny.into_iter().map(Into::into).collect(),
        };
        Self { allow, deny }
    }
}

/// The operator's token, self-signed.
pub(crate) fn operator(
    operator: &KeyPair,
    name: &str,
    system_account: &KeyPair,
) -> Result<String, TrustError> {
    let system_account = system_account.public_key();
    let claims =
        OperatorClaims { kind: "operator", version: VERSION, system_account: &system_account };
    encode(operator, operator, name, &claims)
}

/// The token of the account that the server itself uses. It must not have JetStream.
pub(crate) fn system_account(
    operator: &KeyPair,
    account: &KeyPair,
    name: &str,
) -> Result<String, TrustError> {
    let refused = Refused { before: ISSUED_AT_UNIX_SECONDS, users: &BTreeSet::new() };
    account_with(operator, account, name, LIMITLESS, (Vec::new(), Vec::new()), refused)
}

/// The token of the account of the subscribers. It has no streams: the requests of its users go to the product's
/// account, and the answers come back here. So an answer can never be stored under a subject of the log or of the feed,
/// whatever reply subject a subscriber names.
pub(crate) fn subscribers_account(
    operator: &KeyPair,
    account: &KeyPair,
    product: &KeyPair,
    name: &str,
    revoked: &BTreeSet<String>,
) -> Result<String, TrustError> {
    let imports = imports(&subscriber::REQUESTS, product);
    let refused = Refused { before: SUBSCRIBER_RIGHTS_SINCE_UNIX_SECONDS, users: revoked };
    account_with(operator, account, name, SUBSCRIBER_LIMITS, (Vec::new(), imports), refused)
}

/// The token of the account of peer services and verifiers. It has no streams, either: their streams, and those that
/// they follow, are in the product's account.
pub(crate) fn services_account(
    operator: &KeyPair,
    account: &KeyPair,
    product: &KeyPair,
    name: &str,
    revoked: &BTreeSet<String>,
) -> Result<String, TrustError> {
    let mut imports = imports(&service::REQUESTS, product);
    imports.push(Import {
        name: INBOUND_MESSAGES_NAME,
        subject: service::HEARD,
        local_subject: None,
        account: product.public_key(),
        kind: "stream",
    });
    let refused = Refused { before: SERVICE_RIGHTS_SINCE_UNIX_SECONDS, users: revoked };
    account_with(operator, account, name, SERVICE_LIMITS, (Vec::new(), imports), refused)
}

fn imports(requests: &[Request], product: &KeyPair) -> Vec<Import> {
    let import = |request: &Request| Import {
        name: request.name,
        subject: request.subject,
        local_subject: request.local,
        account: product.public_key(),
        kind: "service",
    };
    requests.iter().map(import).collect()
}

/// The token of an account with streams.
pub(crate) fn account(
    operator: &KeyPair,
    account: &KeyPair,
    name: &str,
    revoked: &BTreeSet<String>,
) -> Result<String, TrustError> {
    let jetstream = JetStreamLimits {
        mem_storage: NO_LIMIT,
        disk_storage: NO_LIMIT,
        streams: NO_LIMIT,
        consumer: NO_LIMIT,
        max_ack_pending: NO_LIMIT,
        mem_max_stream_bytes: NO_LIMIT,
        disk_max_stream_bytes: NO_LIMIT,
    };
    let requests = without_overlaps(&[&service::REQUESTS, &subscriber::REQUESTS]);
    let requests = requests.into_iter().map(|request| Export {
        name: request.name,
        subject: request.subject,
        kind: "service",
        response_type: Some(if request.many_answers { "Stream" } else { "Singleton" }),
    });
    let heard = Export {
        name: INBOUND_MESSAGES_NAME,
        subject: service::HEARD,
        kind: "stream",
        response_type: None,
    };
    let crossing = (requests.chain([heard]).collect(), Vec::new());
    let refused = Refused { before: OWN_RIGHTS_SINCE_UNIX_SECONDS, users: revoked };
    let limits = Limits { jetstream: Some(jetstream), ..LIMITLESS };
    account_with(operator, account, name, limits, crossing, refused)
}

/// Limits of an account's users, in total (connections) or per connection.
struct Limits {
    connections: i64,
    subscriptions: i64,
    payload: i64,
    jetstream: Option<JetStreamLimits>,
}

const LIMITLESS: Limits =
    Limits { connections: NO_LIMIT, subscriptions: NO_LIMIT, payload: NO_LIMIT, jetstream: None };
const SUBSCRIBER_LIMITS: Limits = Limits {
    connections: SUBSCRIBER_CONNECTIONS_MAX,
    subscriptions: SUBSCRIBER_SUBSCRIPTIONS_MAX,
    payload: SUBSCRIBER_PAYLOAD_BYTES_MAX,
    jetstream: None,
};
const SERVICE_LIMITS: Limits = Limits {
    connections: SERVICE_CONNECTIONS_MAX,
    subscriptions: SERVICE_SUBSCRIPTIONS_MAX,
    payload: NO_LIMIT,
    jetstream: None,
};

/// Users that an account rejects.
struct Refused<'a> {
    /// All users with an older token.
    before: u64,
    /// Users, whatever token they have.
    users: &'a BTreeSet<String>,
}

fn account_with(
    operator: &KeyPair,
    account: &KeyPair,
    name: &str,
    Limits { connections, subscriptions, payload, jetstream }: Limits,
    (exports, imports): (Vec<Export>, Vec<Import>),
    refused: Refused<'_>,
) -> Result<String, TrustError> {
    let limits = AccountLimits {
        subs: subscriptions,
        data: NO_LIMIT,
        payload,
        imports: NO_LIMIT,
        exports: NO_LIMIT,
        wildcards: true,
        conn: connections,
        leaf: NO_LIMIT,
        jetstream,
    };
    let users = refused.users.iter().map(|user| (user.clone(), REVOKED_THROUGH_UNIX_SECONDS));
    let everybody = (EVERYBODY.to_owned(), refused.before.saturating_sub(1));
    let revocations = users.chain([everybody]).collect();
    let claims =
        AccountClaims { kind: "account", version: VERSION, limits, revocations, exports, imports };
    encode(operator, account, name, &claims)
}

/// The token of a user of an account, with exactly the permissions of the role.
pub(crate) fn user(account: &KeyPair, user: &KeyPair, role: Role) -> Result<String, TrustError> {
    let publish =
        Subjects::only(role.subjects(Direction::Publish), role.subjects(Direction::NeverPublish));
    let subscribe = Subjects::only(role.subjects(Direction::Subscribe), [""; 0]);
    let claims = user_claims(publish, subscribe, &LIMITLESS);
    encode_at(OWN_RIGHTS_SINCE_UNIX_SECONDS, account, user, role.name(), &claims)
}

/// The token of a peer service, with exactly the permissions that its names imply.
pub(crate) fn service(
    account: &KeyPair,
    user: &KeyPair,
    service: &ServiceUser,
) -> Result<String, TrustError> {
    let publish = Subjects::only(
        service.subjects(Direction::Publish),
        service.subjects(Direction::NeverPublish),
    );
    let subscribe = Subjects::only(service.subjects(Direction::Subscribe), [""; 0]);
    let claims = user_claims(publish, subscribe, &SERVICE_LIMITS);
    encode_at(SERVICE_RIGHTS_SINCE_UNIX_SECONDS, account, user, service.name(), &claims)
}

/// The issuer and the name of a token. The signature is not verified: this identifies files, and must not be used for
/// access.
pub(crate) fn issuer_and_name(token: &str) -> Option<(String, String)> {
    let claims = token.trim().split('.').nth(1)?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let text = |member: &str| Some(claims.get(member)?.as_str()?.to_owned());
    Some((text("iss")?, text("name")?))
}

/// The token of a subscriber: one consumer and one inbox.
pub(crate) fn subscriber(
    account: &KeyPair,
    user: &KeyPair,
    name: &SubscriberName,
) -> Result<String, TrustError> {
    let publish = Subjects::only(subscriber::requests_of(name), [""; 0]);
    let subscribe = Subjects::only([format!("{}.>", name.inbox_prefix())], [""; 0]);
    let claims = user_claims(publish, subscribe, &SUBSCRIBER_LIMITS);
    encode_at(SUBSCRIBER_RIGHTS_SINCE_UNIX_SECONDS, account, user, name.as_str(), &claims)
}

const fn user_claims(
    publish: Subjects,
    subscribe: Subjects,
    Limits { subscriptions, payload, .. }: &Limits,
) -> UserClaims {
    UserClaims {
        kind: "user",
        version: VERSION,
        publish,
        subscribe,
        subs: *subscriptions,
        data: NO_LIMIT,
        payload: *payload,
    }
}

fn encode<T: Serialize>(
    issuer: &KeyPair,
    subject: &KeyPair,
    name: &str,
    nats: &T,
) -> Result<String, TrustError> {
    encode_at(ISSUED_AT_UNIX_SECONDS, issuer, subject, name, nats)
}

fn encode_at<T: Serialize>(
    iat: u64,
    issuer: &KeyPair,
    subject: &KeyPair,
    name: &str,
    nats: &T,
) -> Result<String, TrustError> {
    let (iss, sub) = (issuer.public_key(), subject.public_key());
    let mut claims = Claims { jti: "", iat, iss: &iss, name, sub: &sub, nats };
    // A token needs a unique id: the signature over everything that distinguishes it.
    let jti = BASE64_URL_SAFE_NO_PAD.encode(issuer.sign(&serde_json::to_vec(&claims)?)?);
    claims.jti = &jti;
    let body = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims)?);
    let signed = format!("{}.{body}", BASE64_URL_SAFE_NO_PAD.encode(HEADER));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}

#[cfg(test)]
mod tests {
    use events::ServiceNames;

    use super::*;

    /// Permissions that tokens have carried, one per line: holder, direction, subject.
    const CARRIED: &str = include_str!("rights.txt");

    /// Copies of old files only become invalid if the day moves with each removed permission. This test fails if
    /// one is removed. Added permissions may be recorded there at any time.
    #[test]
    fn removing_a_permission_moves_the_earliest_accepted_issue_time() {
        let mut rights = BTreeSet::new();
        for role in Role::ALL {
            for row in role.permissions() {
                rights.insert(format!("{role} {:?} {}", row.direction, row.subject));
            }
        }
        let names = ServiceNames::fixed("product", "products");
        for user in [ServiceUser::service(&names), ServiceUser::verifier(&names)] {
            for row in user.permissions() {
                rights.insert(format!("{} {:?} {}", user.name(), row.direction, row.subject));
            }
        }
        let billing = SubscriberName::parse("billing").unwrap();
        for subject in subscriber::requests_of(&billing) {
            rights.insert(format!("{billing} {:?} {subject}", Direction::Publish));
        }
        for right in CARRIED.lines() {
            assert!(
                rights.contains(right),
                "\"{right}\" was taken away: set the day of its account to today (the constants that end in \
                 RIGHTS_SINCE_UNIX_SECONDS), then take the line out of rights.txt"
            );
        }
        assert!(CARRIED.lines().count() > 100, "nothing was compared");
    }
}
