//! `roster doctor`: everything that can be seen from outside of whether a system is set up as it must be, point by
//! point, each with what to do about it. It changes nothing.
//!
//! A point that cannot be looked at does not hide the others: it is a finding of its own.

mod database;
mod files;
mod keys;
mod log;
mod report;
mod strangers;

use std::process::ExitCode;
use std::time::Duration;

use events::Timestamp;
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::nats;
use views::Views;

use crate::cli::DoctorArgs;
use report::{Level, Report};

/// How far clocks may differ. Access tokens allow for a minute; erasure and links count with less.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(2);

/// Looks at everything. Exit code 1 when something is wrong or could not be looked at.
pub async fn run(settings: Settings, args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    files::look(&settings, &mut report);
    keys::look(&settings, &mut report);
    match nats::connect(&settings.nats, "operator").await {
        Ok(client) => {
            log::look(&settings, &client, &mut report).await;
            strangers::look(&settings, &client, &mut report).await;
        }
        Err(error) => {
            let url = &settings.nats.url;
            let why = service_kit::problem::chain(&error);
            report.unknown(
                "nats",
                format!("{url}: {why}"),
                "check nats.url, nats.credentials_file and nats.ca_file, and that the server runs",
            );
        }
    }
    match Views::open(&settings.mongodb.url, &settings.mongodb.database).await {
        Ok(views) => database::look(&settings, &views, &mut report).await,
        Err(error) => report.unknown(
            "mongodb",
            format!("mongodb.url cannot be used: {error}"),
            "correct mongodb.url",
        ),
    }
    Ok(report.show(args.json))
}

/// Says how far another clock is from ours, which showed `before` and `after` around the question.
fn compare_clocks(
    report: &mut Report,
    whose: &'static str,
    (before, after): (Timestamp, Timestamp),
    theirs: Timestamp,
) {
    let ms = |time: Timestamp| time.as_datetime().timestamp_millis();
    // Within the time that the answer took nobody can tell.
    let ahead = ms(theirs) - ms(after);
    let late = ms(before) - ms(theirs);
    let skew_ms = ahead.max(late).max(0).unsigned_abs();
    let finding = format!("{whose} and this host differ by {skew_ms} ms");
    if Duration::from_millis(skew_ms) > CLOCK_SKEW_MAX {
        let advice = "synchronise the clocks of all hosts with NTP";
        report.point("clocks", Level::Fault, finding, advice);
    } else {
        report.ok("clocks", finding);
    }
}

/// The time now, for [`compare_clocks`].
fn now() -> Timestamp {
    ambient::now()
}

/// Whether every host of a list of servers is this machine.
fn is_loopback(hosts: impl IntoIterator<Item = impl AsRef<str>>) -> bool {
    hosts.into_iter().all(|host| {
        let host = host.as_ref();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_known_by_name_and_by_number() {
        assert!(is_loopback(["127.0.0.1", "localhost", "[::1]", "127.8.8.8"]));
        assert!(!is_loopback(["127.0.0.1", "nats.internal"]) && !is_loopback(["10.0.0.1"]));
    }

    #[test]
    fn a_clock_is_judged_beyond_the_time_that_the_answer_took() {
        let at = |seconds: i64| Timestamp::from_unix_seconds(1_800_000_000 + seconds).unwrap();
        let judged = |theirs| {
            let mut report = Report::default();
            compare_clocks(&mut report, "NATS", (at(0), at(5)), at(theirs));
            report.is_healthy()
        };
        assert!(judged(0) && judged(5) && judged(7) && judged(-2));
        assert!(!judged(8) && !judged(-3));
    }
}
