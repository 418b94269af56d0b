//! The permissions of a peer service: all of them follow from its name (ADR 23).
//!
//! A peer service lives in an account without streams (ADR 28). Its own streams are in the product's account, like
//! Roster's. Its requests and messages are exported there under the same subjects, and the server answers in the
//! account of the services. So no answer can be stored under a subject of a log, whatever reply subject a service
//! names.

use events::ServiceNames;
use events::feed::FEED_STREAM;

use crate::crossing::Request;
use crate::permissions::{Direction, Role};

/// The suffix of a verifier's user.
const VERIFIER_SUFFIX: &str = "-verifier";

/// Everything that is exported into the product's account. The account uses wildcards, because services come and go
/// without a change to a server; the names of each user determine which of them it may publish.
/// a change to a server; what each user may publish of them follows from its names.
#[rustfmt::skip]
pub(crate) const REQUESTS: [Request; 13] = [
    // No user may send it. Without this import the server would answer all of `$JS.API` in this account itself, and
    // report that it has no JetStream. With it, the other subjects of the API can be imported under their own names.
    // that it has no JetStream; with it the other subjects of the API can be imported under their own names.
    Request::new("services-api", "$JS.API.INFO", false),
    Request::new("services-revoked-users", "$JS.API.CONSUMER.CREATE.USERS.*.rv.user.*", false),
    Request::new("services-revoked-sessions", "$JS.API.CONSUMER.CREATE.SESSIONS.*.rv.session.*", false),
    Request::new("services-follow", "$JS.API.CONSUMER.CREATE.*.*.ev.*.*", false),
    Request::new("services-next", "$JS.API.CONSUMER.MSG.NEXT.*.*", true),
    Request::new("services-consumer", "$JS.API.CONSUMER.INFO.USER_EVENTS.*", false),
    Request::new("services-stream", "$JS.API.STREAM.INFO.*", false),
    Request::new("services-get", "$JS.API.STREAM.MSG.GET.*", false),
    Request::new("services-ack", "$JS.ACK.USER_EVENTS.>", false),
    Request::new("services-ack-2", "$JS.ACK.*.*.USER_EVENTS.>", false),
    Request::new("services-events", "ev.*.*", false),
    Request::new("services-records", "ik.*.*", false),
    Request::new("services-feeds", "*.v1.*.*", false),
];

/// Messages that the operator publishes in the product's account and services receive in theirs.
pub(crate) const HEARD: &str = "roster.parked.*";

/// A permission of a user, or a denial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePermission {
    /// Its direction.
    pub direction: Direction,
    /// The subject, with NATS wildcards.
    pub subject: String,
    /// The reason: what would not work without it.
    pub reason: &'static str,
}

/// The NATS user of a peer service, with exactly its permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUser {
    name: String,
    permissions: Vec<ServicePermission>,
}

impl ServiceUser {
    /// A service with a log, a feed and views of its own, which verifies access tokens and reads Roster's feed through
    /// the one consumer that its operator created.
    #[must_use]
    pub fn service(names: &ServiceNames) -> Self {
        let name = names.service();
        let inbox = inbox(&name);
        let permissions =
            own(names).into_iter().chain(revocations()).chain(reaction(names)).chain([inbox]);
        Self { permissions: permissions.collect(), name }
    }

    /// A service that verifies access tokens and does nothing else on NATS. It may be written in any language.
    #[must_use]
    pub fn verifier(names: &ServiceNames) -> Self {
        let name = format!("{}{VERIFIER_SUFFIX}", names.singular());
        let inbox = inbox(&name);
        Self { permissions: revocations().chain([inbox]).collect(), name }
    }

    /// The name of the user on the server, as in `product-service` or `product-verifier`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The prefix of its reply subjects.
    #[must_use]
    pub fn inbox_prefix(&self) -> String {
        inbox_prefix(&self.name)
    }

    /// Its permissions. Everything else is denied.
    #[must_use]
    pub fn permissions(&self) -> &[ServicePermission] {
        &self.permissions
    }

    /// The subjects that it may use in a direction.
    pub(crate) fn subjects(&self, direction: Direction) -> Vec<String> {
        let of = self.permissions.iter().filter(|permission| permission.direction == direction);
        of.map(|permission| permission.subject.clone()).collect()
    }
}

fn inbox_prefix(name: &str) -> String {
    format!("_INBOX_{name}")
}

fn inbox(name: &str) -> ServicePermission {
    let subject = format!("{}.>", inbox_prefix(name));
    row(Direction::Subscribe, subject, "its own replies, the messages it pulls among them")
}

const fn row(direction: Direction, subject: String, reason: &'static str) -> ServicePermission {
    ServicePermission { direction, subject, reason }
}

/// Its own streams and subjects. A consumer of the log has its filter in the subject, which the server compares with
/// the payload, and consumers that share work cannot be created: there is no work to share.
fn own(names: &ServiceNames) -> Vec<ServicePermission> {
    use Direction::{Publish, Subscribe};
    let mut rows = vec![
        row(Publish, names.events_filter(), "appends the facts"),
        row(
            Publish,
            names.idempotency_filter(),
            "records the outcome of a command under its idempotency key",
        ),
        row(
            Publish,
            names.position(),
            "announces the position of its views, from the process that writes them",
        ),
        row(Subscribe, names.position(), "waits until the views have what a caller wrote"),
        row(Subscribe, names.parked_retry(), "receives requests to retry parked aggregates"),
    ];
    rows.extend(names.feed_subjects().map(|subject| row(Publish, subject, "publishes its feed")));
    let log = names.log_stream();
    for stream in [&log, &names.feed_stream()] {
        rows.extend([
            row(
                Publish,
                format!("$JS.API.STREAM.INFO.{stream}"),
                "refuses to run on a stream that is configured wrongly",
            ),
            row(
                Publish,
                format!("$JS.API.STREAM.MSG.GET.{stream}"),
                "loads from the leader, and reads what is published already",
            ),
        ]);
    }
    let filter = names.events_filter();
    rows.extend([
        row(Publish, format!("$JS.API.CONSUMER.CREATE.{log}.*.{filter}"), "follows its own log"),
        row(
            Publish,
            format!("$JS.API.CONSUMER.MSG.NEXT.{log}.*"),
            "pulls from a consumer that it created",
        ),
    ]);
    rows
}

/// Revocations, as Roster's query side follows them, and nothing more.
fn revocations() -> impl Iterator<Item = ServicePermission> {
    Role::QueryApi
        .permissions()
        .filter(|permission| permission.subject.starts_with("$JS.API.CONSUMER."))
        .map(|permission| {
            row(permission.direction, permission.subject.to_owned(), permission.reason)
        })
}

/// Its consumer on Roster's feed, which it may not create: to create is to change by name.
fn reaction(names: &ServiceNames) -> [ServicePermission; 4] {
    use Direction::Publish;
    let consumer = names.consumer();
    [
        row(
            Publish,
            format!("$JS.API.CONSUMER.INFO.{FEED_STREAM}.{consumer}"),
            "reads how many events are left",
        ),
        row(
            Publish,
            format!("$JS.API.CONSUMER.MSG.NEXT.{FEED_STREAM}.{consumer}"),
            "pulls events of users",
        ),
        row(Publish, format!("$JS.ACK.{FEED_STREAM}.{consumer}.>"), "acknowledges an event"),
        // The form that servers use with `js_ack_fc_v2`: domain and account come first.
        row(Publish, format!("$JS.ACK.*.*.{FEED_STREAM}.{consumer}.>"), "acknowledges an event"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{NeverPublish, Publish, Subscribe};

    const PRODUCT: ServiceNames = ServiceNames::fixed("product", "products");
    const REVOCATIONS: [&str; 4] = [
        "$JS.API.CONSUMER.CREATE.SESSIONS.*.rv.session.*",
        "$JS.API.CONSUMER.CREATE.USERS.*.rv.user.*",
        "$JS.API.CONSUMER.MSG.NEXT.SESSIONS.*",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.*",
    ];
    const NEVER: [&str; 4] = [
        "$JS.API.CONSUMER.CREATE.USERS.eraser.>",
        "$JS.API.CONSUMER.CREATE.USERS.mailer.>",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.eraser",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.mailer",
    ];

    fn sorted(user: &ServiceUser, direction: Direction) -> Vec<String> {
        let mut subjects = user.subjects(direction);
        subjects.sort();
        subjects
    }

    /// All of them, word for word: anything added shows up here.
    #[test]
    fn the_permissions_of_a_service_are_exactly_these() {
        let user = ServiceUser::service(&PRODUCT);
        assert_eq!(user.name(), "product-service");
        assert_eq!(user.inbox_prefix(), PRODUCT.inbox_prefix());
        let mut publish = vec![
            "$JS.ACK.*.*.USER_EVENTS.product-service.>",
            "$JS.ACK.USER_EVENTS.product-service.>",
            "$JS.API.CONSUMER.CREATE.PRODUCTS.*.ev.product.*",
            "$JS.API.CONSUMER.INFO.USER_EVENTS.product-service",
            "$JS.API.CONSUMER.MSG.NEXT.PRODUCTS.*",
            "$JS.API.CONSUMER.MSG.NEXT.USER_EVENTS.product-service",
            "$JS.API.STREAM.INFO.PRODUCTS",
            "$JS.API.STREAM.INFO.PRODUCT_EVENTS",
            "$JS.API.STREAM.MSG.GET.PRODUCTS",
            "$JS.API.STREAM.MSG.GET.PRODUCT_EVENTS",
            "ev.product.*",
            "ik.product.*",
            "products.v1.*.*",
            "roster.position.products",
        ];
        publish.extend(REVOCATIONS);
        publish.sort_unstable();
        assert_eq!(sorted(&user, Publish), publish);
        assert_eq!(sorted(&user, NeverPublish), NEVER);
        assert_eq!(
            sorted(&user, Subscribe),
            ["_INBOX_product-service.>", "roster.parked.products", "roster.position.products"]
        );
        for permission in user.permissions() {
            assert!(!permission.reason.is_empty(), "{permission:?}");
        }
    }

    #[test]
    fn a_verifier_can_only_follow_revocations() {
        let user = ServiceUser::verifier(&PRODUCT);
        assert_eq!(user.name(), "product-verifier");
        assert_eq!(sorted(&user, Publish), REVOCATIONS);
        assert_eq!(sorted(&user, NeverPublish), NEVER);
        assert_eq!(sorted(&user, Subscribe), ["_INBOX_product-verifier.>"]);
        assert_eq!(user.inbox_prefix(), "_INBOX_product-verifier");
    }

    /// Of everything that a service publishes, only the position of its views stays in the account of the services.
    #[test]
    fn every_publication_of_a_service_is_exported_to_the_product_account() {
        for user in [ServiceUser::service(&PRODUCT), ServiceUser::verifier(&PRODUCT)] {
            for subject in user.subjects(Publish) {
                let crosses = REQUESTS.iter().any(|request| request.matches(&subject));
                assert_eq!(crosses, subject != PRODUCT.position(), "{subject}");
            }
        }
    }

    /// Of two services, neither has a subject that the other one or Roster writes to.
    #[test]
    fn services_share_only_the_subjects_of_revocations() {
        let order = ServiceNames::fixed("order", "orders");
        let (one, other) = (ServiceUser::service(&PRODUCT), ServiceUser::service(&order));
        let others = other.subjects(Publish);
        let both: Vec<_> =
            one.subjects(Publish).into_iter().filter(|s| others.contains(s)).collect();
        assert_eq!(both.len(), REVOCATIONS.len(), "{both:?}");
    }
}
