//! MongoDB: version, clock, TLS, room, durability, and the indexes of the views.

use std::collections::BTreeSet;

use events::Timestamp;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::Error;
use mongodb::{Collection, IndexModel};
use service_kit::config::Settings;
use view_kit::{database_target, describe};
use views::{ViewSet, Views, history_indexes, sessions_indexes, users_indexes};

use super::report::{Level, Report};
use super::{compare_clocks, is_loopback, now};

/// Oldest version of mongod that Roster works with.
const MAJOR_MIN: u32 = 6;
/// First version of each series without CVE-2025-14847, by which anybody who can connect reads memory of the server.
const PATCHED: [(u32, u32, u32); 4] = [(6, 0, 27), (7, 0, 28), (8, 0, 17), (8, 2, 3)];
/// Free share of the disk below which it is worth a warning, and below which it is a fault, in hundredths.
const FREE_MIN: (f64, f64) = (10.0, 2.0);
/// Code of "no such collection".
const NAMESPACE_NOT_FOUND: i32 = 26;

/// Looks.
pub async fn look(settings: &Settings, views: &Views, report: &mut Report) {
    let before = now();
    let hello = match views.database().run_command(doc! {"hello": 1}).await {
        Ok(hello) => hello,
        Err(error) => {
            report.unknown(
                "mongodb",
                describe(&error),
                "check mongodb.url, and that mongod runs as a replica set (`rs.initiate()` once, also with one member)",
            );
            return;
        }
    };
    if let Ok(time) = hello.get_datetime("localTime")
        && let Ok(time) = time.try_to_rfc3339_string()
        && let Ok(time) = Timestamp::try_from(time)
    {
        compare_clocks(report, "MongoDB", (before, now()), time);
    }
    version(views, report).await;
    tls(settings, report);
    replicas(&hello, report);
    room(views, report).await;
    indexes(views, report).await;
}

async fn version(views: &Views, report: &mut Report) {
    let found = match views.database().run_command(doc! {"buildInfo": 1}).await {
        Ok(found) => found.get_str("version").unwrap_or("?").to_owned(),
        Err(error) => return report.unknown("mongodb", describe(&error), "ask it for `buildInfo`"),
    };
    match judge(&found) {
        Judged::Good => report.ok("mongodb", format!("mongod {found}")),
        Judged::Exposed => report.point(
            "mongodb",
            Level::Warning,
            format!("mongod {found} has CVE-2025-14847: who can connect may read its memory"),
            "install 6.0.27, 7.0.28, 8.0.17, 8.2.3 or newer, and let nobody but Roster connect",
        ),
        Judged::TooOld => report.point(
            "mongodb",
            Level::Fault,
            format!("mongod {found} is too old"),
            format!("install {MAJOR_MIN}.0 or newer"),
        ),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Good,
    Exposed,
    TooOld,
}

fn judge(version: &str) -> Judged {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let (major, minor, patch) = (next(), next(), next());
    if major < MAJOR_MIN {
        return Judged::TooOld;
    }
    let newest = PATCHED.last().copied().unwrap_or_default();
    let series = PATCHED.iter().find(|(a, b, _)| (*a, *b) == (major, minor));
    let good = match series {
        Some((_, _, first)) => patch >= *first,
        // A series of its own in between never got the fix.
        None => (major, minor, patch) > newest,
    };
    if good { Judged::Good } else { Judged::Exposed }
}

fn tls(settings: &Settings, report: &mut Report) {
    // It was read before, or there would be no answer of the database.
    let Ok(target) = database_target(&settings.mongodb.url) else { return };
    let is_here = is_loopback(&target.hosts);
    if target.has_tls {
        report.ok("tls", "MongoDB is spoken to over TLS");
    } else if is_here {
        report.ok("tls", "MongoDB is on this machine: no TLS is needed");
    } else {
        report.point(
            "tls",
            Level::Warning,
            "MongoDB is spoken to without TLS: who is on the way reads and changes the views",
            "add tls=true to mongodb.url and a certificate to mongod, unless the network is yours alone",
        );
    }
    if !target.has_user && !is_here {
        report.point(
            "mongodb",
            Level::Fault,
            "mongodb.url has no user: whoever reaches mongod reads every address",
            "turn `security.authorization` on and put a user with readWrite on the views into mongodb.url",
        );
    }
}

fn replicas(hello: &Document, report: &mut Report) {
    if hello.get_str("setName").is_err() {
        report.point(
            "durability",
            Level::Fault,
            "mongod is no replica set: a write cannot wait for the majority",
            "start mongod with --replSet and run rs.initiate() once, also with one member",
        );
        return;
    }
    let members = hello.get_array("hosts").map_or(0, Vec::len);
    if members > 1 {
        report.ok(
            "durability",
            format!("the views are on {members} members, written to the majority"),
        );
    } else {
        report.point(
            "durability",
            Level::Warning,
            "the views are on one member: while it is away nothing is read",
            "run three members; what is lost is built anew from the log",
        );
    }
}

async fn room(views: &Views, report: &mut Report) {
    let number = |found: &Document, name: &str| match found.get(name) {
        Some(Bson::Double(value)) => Some(*value),
        Some(Bson::Int64(value)) => Some(*value as f64),
        Some(Bson::Int32(value)) => Some(f64::from(*value)),
        _ => None,
    };
    let stats = match views.database().run_command(doc! {"dbStats": 1}).await {
        Ok(stats) => stats,
        Err(error) => {
            return report.unknown(
                "room",
                describe(&error),
                "give the user of mongodb.url dbStats",
            );
        }
    };
    let (Some(used), Some(total)) = (number(&stats, "fsUsedSize"), number(&stats, "fsTotalSize"))
    else {
        return report.unknown("room", "mongod does not tell of its disk", "look at it yourself");
    };
    let free = if total > 0.0 { (1.0 - used / total) * 100.0 } else { 0.0 };
    let finding = format!("{free:.0} % of the disk of mongod is free");
    let advice = "free or add room: mongod stops when its disk is full";
    match free {
        free if free < FREE_MIN.1 => report.point("room", Level::Fault, finding, advice),
        free if free < FREE_MIN.0 => report.point("room", Level::Warning, finding, advice),
        _ => report.ok("room", finding),
    }
}

async fn indexes(views: &Views, report: &mut Report) {
    let generations = match views.generations().await {
        Ok(generations) => generations,
        Err(error) => {
            let finding =
                format!("the generations of the views are not known: {}", describe(&error));
            return report.unknown("indexes", finding, "start a projector");
        }
    };
    let mut missing = 0;
    for number in generations.state(ViewSet::Users).all() {
        missing += of_collection(&views.users(number), users_indexes(), report).await;
        missing += of_collection(&views.history(number), history_indexes(), report).await;
    }
    for number in generations.state(ViewSet::Sessions).all() {
        missing += of_collection(&views.sessions(number), sessions_indexes(), report).await;
    }
    if missing == 0 {
        report.ok("indexes", "the views have their indexes");
    }
}

/// Names each index that a collection lacks; how many there are.
async fn of_collection<T: Send + Sync>(
    collection: &Collection<T>,
    wanted: Vec<IndexModel>,
    report: &mut Report,
) -> usize {
    let found: BTreeSet<String> = match collection.list_index_names().await {
        Ok(names) => names.into_iter().collect(),
        Err(error) if is_absent(&error) => BTreeSet::new(),
        Err(error) => {
            report.unknown(
                "indexes",
                describe(&error),
                "check the rights of the user of mongodb.url",
            );
            return 1;
        }
    };
    let names = wanted.into_iter().filter_map(|index| index.options?.name);
    let missing: Vec<String> = names.filter(|name| !found.contains(name)).collect();
    for name in &missing {
        let finding = format!("{} has no index {name}", collection.name());
        let advice = "restart the projector, which makes it; until then lists are slow or refused";
        report.point("indexes", Level::Fault, finding, advice);
    }
    missing.len()
}

fn is_absent(error: &Error) -> bool {
    matches!(
        &*error.kind,
        mongodb::error::ErrorKind::Command(command) if command.code == NAMESPACE_NOT_FOUND
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_mongod_are_judged() {
        for (version, judged) in [
            ("5.0.32", Judged::TooOld),
            ("6.0.5", Judged::Exposed),
            ("6.0.27", Judged::Good),
            ("7.0.27", Judged::Exposed),
            ("8.0.17-rc0", Judged::Good),
            ("8.1.9", Judged::Exposed),
            ("8.2.3", Judged::Good),
            ("8.3.0", Judged::Good),
        ] {
            assert_eq!(judge(version), judged, "{version}");
        }
    }
}
