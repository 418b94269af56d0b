//! What an operator reads when MongoDB cannot be used, on real servers.

use std::path::Path;
use std::process::Command;

use local_stack::testing::{BareMongod, temp_dir};
use tokio::time::{Instant, sleep};
use view_kit::{ViewDatabase, describe};

use crate::support::WAIT_MAX;

/// What is said about the server behind a connection string, once it listens.
async fn said_by(url: &str) -> String {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let database = ViewDatabase::open(url, "any", "notes").await.unwrap();
        let said = describe(&database.ping().await.unwrap_err());
        if !said.contains("nothing listens there") {
            return said;
        }
        assert!(Instant::now() < deadline, "{said}");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn is_a_sentence(said: &str) {
    assert!(said.len() < 200 && !said.contains("labels") && !said.contains("Topology"), "{said}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let port = local_stack::free_port().unwrap();
    let url = format!("mongodb://reader:Kestrel42x@127.0.0.1:{port}/?replicaSet=rs0");
    let database = ViewDatabase::open(&url, "any", "notes").await.unwrap();
    let said = describe(&database.ping().await.unwrap_err());
    assert_eq!(
        said,
        format!(
            "MongoDB at 127.0.0.1:{port} cannot be used: nothing listens there; check that mongod runs and that \
             mongodb.url leads to it"
        )
    );
}

#[tokio::test]
async fn a_forgotten_initiate_reads_as_such() {
    let dir = temp_dir();
    let mongod = BareMongod::start(dir.path(), ["--replSet", "rs0"]);
    let place = format!("127.0.0.1:{}", mongod.port());
    let expected = format!(
        "MongoDB at {place} cannot be used: its replica set was never initiated; run `rs.initiate()` there once, also \
         for one member"
    );
    for query in ["?replicaSet=rs0", "", "?replicaSet=rs0&directConnection=true"] {
        assert_eq!(said_by(&format!("mongodb://{place}/{query}")).await, expected, "{query}");
    }
}

#[tokio::test]
async fn another_replica_set_is_named() {
    let port = local_stack::testing::mongod().port();
    for query in ["replicaSet=other", "replicaSet=other&directConnection=true"] {
        let said = said_by(&format!("mongodb://127.0.0.1:{port}/?{query}")).await;
        is_a_sentence(&said);
        assert!(said.contains("check replicaSet"), "{query}: {said}");
    }
}

/// Certificates as the documentation makes them: the server's and its authority's.
fn certificates(folder: &Path) -> [String; 2] {
    for process in ["operator", "command-api", "query-api", "projector", "reactor", "nats"] {
        std::fs::create_dir(folder.join(process)).unwrap();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/certificates.sh");
    let made = Command::new("bash").arg(script).arg(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    ["server.pem", "ca.pem"].map(|name| folder.join("mongod").join(name).display().to_string())
}

#[tokio::test]
async fn a_mistake_in_tls_names_the_option() {
    let dir = temp_dir();
    let [server, ca] = certificates(dir.path());
    let other_dir = temp_dir();
    let [_, other] = certificates(other_dir.path());
    let options = ["--replSet", "rs0", "--tlsMode", "requireTLS", "--tlsCertificateKeyFile"];
    let more = ["--tlsCAFile", &ca, "--tlsAllowConnectionsWithoutCertificates"];
    let mongod =
        BareMongod::start(dir.path(), options.into_iter().chain([server.as_str()]).chain(more));
    let plain_dir = temp_dir();
    let plain = BareMongod::start(plain_dir.path(), ["--replSet", "rs0"]);
    let (tls, plain) = (mongod.port(), plain.port());
    let over_tls = |ca: &str| format!("replicaSet=rs0&tls=true&tlsCAFile={ca}");
    for (port, query, part) in [
        (tls, "replicaSet=rs0".to_owned(), "add tls=true and tlsCAFile"),
        (tls, "replicaSet=rs0&tls=true".to_owned(), "let tlsCAFile in mongodb.url name"),
        (tls, over_tls(&other), "let tlsCAFile in mongodb.url name"),
        (plain, over_tls(&ca), "remove tls=true from"),
        (tls, over_tls(&ca), "`rs.initiate()`"),
    ] {
        let said = said_by(&format!("mongodb://localhost:{port}/?{query}")).await;
        is_a_sentence(&said);
        assert!(said.contains(part), "{query}: {said}");
    }
}
