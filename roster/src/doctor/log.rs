//! NATS: version, clock, TLS, streams with their room and copies, and whether there is an administrator.

use async_nats::Client;
use events::subjects;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits, SERVER_VERSION_MIN, StreamState};

use super::report::{Level, Report};
use super::{compare_clocks, is_loopback, now};
use crate::{admin, provision};

/// Share of a stream's room that may be taken, in hundredths.
const TAKEN_MAX: u64 = 80;

/// Looks.
pub async fn look(settings: &Settings, client: &Client, report: &mut Report) {
    version(client, report);
    tls(settings, client, report);
    match provision::differing(settings, client).await {
        Ok(found) if found.is_empty() => {
            report.ok("streams", "streams and consumers are as they must be");
        }
        Ok(found) => {
            for differing in found {
                let finding = format!("{}: {}", differing.name(), differing.faults().join("; "));
                report.point("streams", Level::Fault, finding, "run `roster provision`");
            }
        }
        Err(error) => report.unknown(
            "streams",
            format!("{error:#}"),
            "check that nats.credentials_file is that of the operator",
        ),
    }
    for stream in provision::names(settings) {
        let log = EventLog::new(client.clone(), &stream, Limits::of(settings));
        let before = now();
        match log.state().await {
            Ok(state) => {
                if stream == subjects::USERS_STREAM
                    && let Some(time) = state.server_time
                {
                    compare_clocks(report, "NATS", (before, now()), time);
                }
                room(&stream, &state, report);
                copies(settings, &stream, &state, report);
            }
            // One that is missing is named above.
            Err(error) => tracing::debug!(%error, stream, "a stream cannot be looked at"),
        }
    }
    administrators(settings, client, report).await;
}

fn version(client: &Client, report: &mut Report) {
    let found = client.server_info().version;
    let (major, minor, patch) = SERVER_VERSION_MIN;
    if client.is_server_compatible(major, minor, patch) {
        report.ok("nats", format!("nats-server {found}"));
    } else {
        let finding = format!("nats-server {found} is too old");
        let advice = format!("install {major}.{minor}.{patch} or newer: atomic batches need it");
        report.point("nats", Level::Fault, finding, advice);
    }
}

fn tls(settings: &Settings, client: &Client, report: &mut Report) {
    let hosts = settings.nats.url.split(',').map(|url| host(url.trim()).to_owned());
    if client.server_info().tls_required {
        report.ok("tls", "NATS demands TLS");
    } else if is_loopback(hosts) {
        report.ok("tls", "NATS is on this machine: no TLS is needed");
    } else {
        report.point(
            "tls",
            Level::Warning,
            "NATS does not demand TLS: who is on the way reads and changes everything",
            "set `tls` in nats-server's configuration, and tls:// in nats.url, unless the network is yours alone",
        );
    }
}

/// The host of `nats://user@host:port`.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    match rest.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => rest,
    }
}

fn room(stream: &str, state: &StreamState, report: &mut Report) {
    let StreamState { bytes, bytes_max, drops_oldest, .. } = *state;
    let taken = bytes.saturating_mul(100).checked_div(bytes_max).unwrap_or(0);
    if taken >= TAKEN_MAX {
        let finding = format!("{stream} has {bytes} of {bytes_max} bytes ({taken} %)");
        let advice = "raise its bytes_max and run `roster provision`; the disk must have the room";
        // One that drops its oldest goes on; what it drops is missed.
        let level = if drops_oldest { Level::Warning } else { Level::Fault };
        report.point("room", level, finding, advice);
    } else {
        report.ok("room", format!("{stream} has {taken} % of its bytes"));
    }
}

fn copies(settings: &Settings, stream: &str, state: &StreamState, report: &mut Report) {
    let StreamState { copies, away, .. } = state;
    if !away.is_empty() {
        let finding = format!("{stream}: its copies on {} are away or behind", away.join(", "));
        let advice = "start these nodes and wait until they have caught up";
        report.point("durability", Level::Fault, finding, advice);
    } else if stream == subjects::USERS_STREAM {
        if *copies == 1 {
            report.point(
                "durability",
                Level::Warning,
                format!("{stream} has one copy: a lost disk is a lost log"),
                "run three nodes and set log.replicas = 3, or take backups with `roster backup`",
            );
        } else {
            report.ok("durability", format!("{stream} has {copies} copies"));
        }
        report.point(
            "durability",
            Level::Warning,
            "nats-server does not tell how often it syncs its disk",
            format!(
                "see that `sync_interval: always` is in its configuration: with {} a power cut loses acknowledged writes otherwise",
                if settings.log.replicas == 1 { "one node" } else { "one network of power" },
            ),
        );
    }
}

async fn administrators(settings: &Settings, client: &Client, report: &mut Report) {
    match admin::count(settings, client).await {
        Ok(0) => report.point(
            "administrators",
            Level::Warning,
            "there is no administrator",
            "set ROSTER_ADMIN_EMAIL and ROSTER_ADMIN_PASSWORD and run `roster provision`",
        ),
        Ok(count) => report.ok("administrators", format!("there are administrators: {count}")),
        Err(error) => report.unknown(
            "administrators",
            format!("{error:#}"),
            "run `roster provision` first, with the operator's credentials",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_url_is_found() {
        for (url, wanted) in [
            ("nats://127.0.0.1:4222", "127.0.0.1"),
            ("tls://user@nats.example:4222", "nats.example"),
            ("localhost", "localhost"),
            ("nats://[::1]:4222", "[::1]"),
        ] {
            assert_eq!(host(url), wanted, "{url}");
        }
    }
}
