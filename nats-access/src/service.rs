//! What a peer service beside Roster's own may do: everything follows from its names (ADR 23).
//!
//! It lives in an account without streams (ADR 28). Its own streams are in the account of the product, like Roster's; what
//! it may ask and write there crosses under the same subjects, and the server answers in the account of the services. So
//! no answer can be stored under a subject of a log, wherever a service wants to have it.

use events::ServiceNames;
use events::feed::FEED_STREAM;

use crate::crossing::Request;
use crate::permissions::{Direction, Role};

/// What the name of the user of a verifier ends with.
const VERIFIER_SUFFIX: &str = "-verifier";

/// Everything that crosses into the account of the product. An account names wildcards, since services come and go without
/// a change to a server; what each user may publish of them follows from its names.
#[rustfmt::skip]
pub(crate) const REQUESTS: [Request; 13] = [
    // Nobody may ask it. Without this import the server would answer all of `$JS.API` in this account itself, and say
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

/// What the operator says in the account of the product and services hear in theirs.
pub(crate) const HEARD: &str = "roster.parked.*";

/// One thing that a user may do, or never may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePermission {
    /// What it is for.
    pub direction: Direction,
    /// The subject, with the wildcards of NATS.
    pub subject: String,
    /// What would not work without it.
    pub reason: &'static str,
}

/// The NATS user of a further service, with exactly what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUser {
    name: String,
    permissions: Vec<ServicePermission>,
}

impl ServiceUser {
    /// A service with a log, a feed and views of its own, which checks access tokens and reads from Roster's feed through
    /// the one consumer that its operator made for it.
    #[must_use]
    pub fn service(names: &ServiceNames) -> Self {
        let name = names.service();
        let inbox = inbox(&name);
        let permissions =
            own(names).into_iter().chain(revocations()).chain(reaction(names)).chain([inbox]);
        Self { permissions: permissions.collect(), name }
    }

    /// A service that checks access tokens and does nothing else on NATS. It may be written in any language.
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

    /// The prefix under which its client must receive its replies.
    #[must_use]
    pub fn inbox_prefix(&self) -> String {
        inbox_prefix(&self.name)
    }

    /// What it may do. What is not in here it may not.
    #[must_use]
    pub fn permissions(&self) -> &[ServicePermission] {
        &self.permissions
    }

    /// The subjects it may use in that direction.
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

/// Its own streams and subjects. A consumer of the log has its filter in the subject, which the server holds the payload
/// to, and none can be made that shares out work: there is nothing to share out.
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
            "announces how far its views are, from the process that writes them",
        ),
        row(Subscribe, names.position(), "waits until the views have what a caller wrote"),
        row(Subscribe, names.parked_retry(), "hears that what is parked is to be read again"),
    ];
    rows.extend(names.feed_subjects().map(|subject| row(Publish, subject, "tells other services")));
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
                "loads from the leader, and finds out what is told already",
            ),
        ]);
    }
    let filter = names.events_filter();
    rows.extend([
        row(Publish, format!("$JS.API.CONSUMER.CREATE.{log}.*.{filter}"), "follows its own log"),
        row(Publish, format!("$JS.API.CONSUMER.MSG.NEXT.{log}.*"), "pulls from a consumer it made"),
    ]);
    rows
}

/// What ends access, as the query side of Roster follows it and nothing more.
fn revocations() -> impl Iterator<Item = ServicePermission> {
    Role::QueryApi
        .permissions()
        .filter(|permission| permission.subject.starts_with("$JS.API.CONSUMER."))
        .map(|permission| {
            row(permission.direction, permission.subject.to_owned(), permission.reason)
        })
}

/// Its consumer on Roster's feed, which it may not make: to create is to change by name.
fn reaction(names: &ServiceNames) -> [ServicePermission; 4] {
    use Direction::Publish;
    let consumer = names.consumer();
    [
        row(
            Publish,
            format!("$JS.API.CONSUMER.INFO.{FEED_STREAM}.{consumer}"),
            "learns how much is left to do",
        ),
        row(
            Publish,
            format!("$JS.API.CONSUMER.MSG.NEXT.{FEED_STREAM}.{consumer}"),
            "pulls what it was told of users",
        ),
        row(Publish, format!("$JS.ACK.{FEED_STREAM}.{consumer}.>"), "says that it is done"),
        // The form that a server uses once `js_ack_fc_v2` is on: domain and account come first.
        row(Publish, format!("$JS.ACK.*.*.{FEED_STREAM}.{consumer}.>"), "says that it is done"),
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

    /// All of it, word by word: whatever is added shows here.
    #[test]
    fn a_service_may_do_this_and_nothing_else() {
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
    fn a_verifier_follows_what_ends_access_and_nothing_else() {
        let user = ServiceUser::verifier(&PRODUCT);
        assert_eq!(user.name(), "product-verifier");
        assert_eq!(sorted(&user, Publish), REVOCATIONS);
        assert_eq!(sorted(&user, NeverPublish), NEVER);
        assert_eq!(sorted(&user, Subscribe), ["_INBOX_product-verifier.>"]);
        assert_eq!(user.inbox_prefix(), "_INBOX_product-verifier");
    }

    /// Of what a service says, only how far its views are stays in the account of the services.
    #[test]
    fn whatever_a_service_may_ask_or_write_crosses_into_the_account_of_the_product() {
        for user in [ServiceUser::service(&PRODUCT), ServiceUser::verifier(&PRODUCT)] {
            for subject in user.subjects(Publish) {
                let crosses = REQUESTS.iter().any(|request| request.lets_through(&subject));
                assert_eq!(crosses, subject != PRODUCT.position(), "{subject}");
            }
        }
    }

    /// Of two services neither has a subject that the other or Roster writes to.
    #[test]
    fn services_have_no_subject_in_common_but_those_of_the_revocations() {
        let order = ServiceNames::fixed("order", "orders");
        let (one, other) = (ServiceUser::service(&PRODUCT), ServiceUser::service(&order));
        let others = other.subjects(Publish);
        let both: Vec<_> =
            one.subjects(Publish).into_iter().filter(|s| others.contains(s)).collect();
        assert_eq!(both.len(), REVOCATIONS.len(), "{both:?}");
    }
}
