//! The streams and the consumer of a further service, which are made by its own `provision` with the operator's
//! credentials, and only checked by what runs (ADR 23).

use events::ServiceNames;
use events::feed::FEED_STREAM;
use serde_json::json;

use super::{ConsumerSpec, StreamSpec};

/// The log of a service: its source of truth. Nothing goes from it by itself, and nothing gives way to what comes later.
#[must_use]
pub fn service_log_stream(names: &ServiceNames, replicas: u8, bytes_max: u64) -> StreamSpec {
    let description = format!("the event log of {}", names.plural());
    StreamSpec::log(names.log_stream(), &description, replicas, bytes_max)
        .with_lineage()
        .with("subjects", json!(names.log_subjects()))
        .made_by(provision(names))
}

/// What a service tells others. When it is full it waits for the operator.
#[must_use]
pub fn service_feed_stream(names: &ServiceNames, replicas: u8, bytes_max: u64) -> StreamSpec {
    let description = format!("what others are told of {}", names.plural());
    StreamSpec::log(names.feed_stream(), &description, replicas, bytes_max)
        .with("subjects", json!(names.feed_subjects()))
        .made_by(provision(names))
}

/// What a service takes from Roster's feed, as in `users.v1.deleted.*`, from the start of the feed on: what was told
/// before there was the service concerns it as soon as it is given data from elsewhere. At most `under_way_max` messages
/// are worked on or put off at once; with 1 the order holds whatever happens.
#[must_use]
pub fn service_reaction(
    names: &ServiceNames,
    filters: &[&str],
    under_way_max: u32,
) -> ConsumerSpec {
    let spec = |filter: &str| {
        ConsumerSpec::new(FEED_STREAM, names.consumer(), filter, "all", under_way_max)
            .made_by(provision(names))
    };
    match filters {
        [one] => spec(one),
        many => spec("").with_filters(many),
    }
}

/// The command that makes them.
fn provision(names: &ServiceNames) -> String {
    format!("{} provision", names.service())
}
