//! Servers from start to end, however they end.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use local_stack::{
    DataDir, DataDirError, Mongod, MongodOptions, NatsOptions, NatsServer, ServerError, testing,
};

use crate::support::{Role, is_alive, mongod_in, nats_in, signal, wait_until};

#[test]
fn nats_keeps_port_and_data_over_a_kill_and_a_stop() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path()).unwrap();
    let nats = nats_in(&data);
    let url = nats.url();
    let first = nats.pid().unwrap();
    let config = r#"{"name":"KEPT","subjects":["kept"],"storage":"file"}"#;
    let created = request(&nats, "$JS.API.STREAM.CREATE.KEPT", config);
    assert!(created.contains(r#""name":"KEPT""#), "{created}");
    let stored = request(&nats, "kept", "one");
    assert!(stored.contains(r#""seq":1"#), "{stored}");

    nats.kill().unwrap();
    assert!(!nats.is_running());
    assert_eq!(nats.pid(), None);
    wait_until("the killed server is gone", || !is_alive(first));
    nats.restart().unwrap();
    assert!(nats.is_running());
    assert_ne!(nats.pid(), Some(first));
    assert_eq!(nats.url(), url);
    let stored = request(&nats, "kept", "two");
    assert!(stored.contains(r#""seq":2"#), "{stored}");

    nats.stop().unwrap();
    nats.stop().unwrap();
    assert!(!nats.is_running());
    nats.restart().unwrap();
    nats.restart().unwrap();
    let stored = request(&nats, "kept", "three");
    assert!(stored.contains(r#""seq":3"#), "{stored}");

    // A new handle is a new server with the same data.
    drop(nats);
    let nats = nats_in(&data);
    let stored = request(&nats, "kept", "four");
    assert!(stored.contains(r#""seq":4"#), "{stored}");
}

#[test]
fn nats_accepts_more_configuration() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path()).unwrap();
    let config = "max_payload: 12345\n\
                  accounts { SYS: {}, APP: { jetstream: enabled, users: [{user: a, password: b}] } }\n\
                  system_account: SYS";
    let nats = NatsServer::start(
        testing::binaries(),
        NatsOptions { data_dir: data.nats(), port: None, config: config.to_owned() },
    )
    .unwrap();
    let info = connect(&nats).1;
    assert!(info.contains(r#""max_payload":12345"#), "{info}");
    assert!(info.contains(r#""auth_required":true"#), "{info}");
    let written = fs::read_to_string(data.nats().path().join("nats.conf")).unwrap();
    assert!(written.contains("sync_interval: always"), "{written}");
    assert!(data.nats().path().join("jetstream").is_dir());
}

#[test]
fn a_server_that_ends_at_once_shows_its_log() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path()).unwrap();
    let error = NatsServer::start(
        testing::binaries(),
        NatsOptions { data_dir: data.nats(), port: None, config: "no_such_key: 1".to_owned() },
    )
    .unwrap_err();
    assert!(matches!(error, ServerError::Exited { .. }), "{error}");
    assert!(error.to_string().contains("no_such_key"), "{error}");
    assert!(error.to_string().contains("nats-server.log"), "{error}");
}

#[test]
fn a_server_killed_by_somebody_else_is_noticed() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path()).unwrap();
    let nats = nats_in(&data);
    assert!(nats.is_running());
    assert!(signal("KILL", nats.pid().unwrap()));
    wait_until("the killed server is noticed", || !nats.is_running());
    assert_eq!(nats.pid(), None);
    nats.restart().unwrap();
    assert!(nats.is_running());
}

#[test]
fn uses_the_given_port_and_names_it_if_it_is_taken() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path()).unwrap();
    let port = local_stack::free_port().unwrap();
    let nats = NatsServer::start(
        testing::binaries(),
        NatsOptions { data_dir: data.nats(), port: Some(port), config: String::new() },
    )
    .unwrap();
    assert_eq!(nats.port(), port);
    assert_eq!(nats.url(), format!("nats://127.0.0.1:{port}"));

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    for port in [port, taken_port] {
        let error = Mongod::start(
            testing::binaries(),
            MongodOptions { data_dir: data.mongod(), port: Some(port) },
        )
        .unwrap_err();
        assert!(matches!(error, ServerError::PortInUse { .. }), "{error}");
        assert!(error.to_string().contains(&port.to_string()), "{error}");
        assert!(error.to_string().contains("mongod"), "{error}");
    }

    // A restart cannot use another port, so it reports the same error. It succeeds once the port is free.
    nats.stop().unwrap();
    let squatter = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let error = nats.restart().unwrap_err();
    assert!(matches!(error, ServerError::PortInUse { .. }), "{error}");
    assert!(!nats.is_running());
    drop(squatter);
    nats.restart().unwrap();
}

#[test]
fn servers_of_a_killed_parent_end_and_release_the_folder() {
    let folder = testing::temp_dir();
    let mut parent = Role::start("hold a data folder with servers", folder.path(), |_| ());
    let pids = pids(&parent.said());
    assert!(pids.iter().all(|pid| is_alive(*pid)));

    let error = DataDir::open(folder.path()).unwrap_err();
    assert!(matches!(error, DataDirError::InUse { .. }), "{error}");
    let named = format!("pid {}", parent.pid());
    assert!(error.to_string().contains(&named), "{error}");

    parent.kill();
    // Opening waits until the servers have released the folder.
    let data = DataDir::open(folder.path()).unwrap();
    for pid in pids {
        assert!(!is_alive(pid), "{pid} is alive, yet the folder is free");
    }
    // The ports are new, the data are the same.
    let mongod = mongod_in(&data);
    assert!(mongod.is_running());
    assert!(mongod.url().contains(&mongod.port().to_string()));
    assert!(nats_in(&data).is_running());
}

#[test]
fn shared_servers_end_with_their_process_and_leave_nothing() {
    let folder = testing::temp_dir();
    let mut process = Role::start("hold shared servers", folder.path(), |_| ());
    let pids = pids(&process.said());
    let logs = [process.said(), process.said()];
    for pid in pids {
        wait_until("a shared server ends", || !is_alive(pid));
    }
    for log in logs {
        let folder = Path::new(&log).parent().unwrap();
        wait_until("the folder of a shared server is removed", || !folder.exists());
    }
}

#[test]
fn shared_servers_are_shared() {
    let nats = testing::nats(String::new);
    assert_eq!(nats.port(), testing::nats(String::new).port());
    assert!(nats.is_running());
    let mongod = testing::mongod();
    assert_eq!(mongod.pid(), testing::mongod().pid());
    assert!(mongod.is_running());
}

#[test]
fn dropping_the_handle_stops_the_server() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path()).unwrap();
    let nats = nats_in(&data);
    let pid = nats.pid().unwrap();
    drop(nats);
    assert!(!is_alive(pid));
}

/// Handles are used from blocking pools and shared by tests.
#[test]
fn handles_can_be_sent_between_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<NatsServer>();
    check::<Mongod>();
    check::<DataDir>();
}

fn pids(said: &str) -> Vec<u32> {
    let pids: Vec<u32> = said.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    pids
}

fn connect(nats: &NatsServer) -> (BufReader<TcpStream>, String) {
    let stream = TcpStream::connect(("127.0.0.1", nats.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut reader = BufReader::new(stream);
    let mut info = String::new();
    reader.read_line(&mut info).unwrap();
    (reader, info)
}

/// Sends one request over the plain text protocol and returns the body of the reply.
fn request(nats: &NatsServer, subject: &str, body: &str) -> String {
    let (mut reader, _) = connect(nats);
    let length = body.len();
    write!(
        reader.get_mut(),
        "CONNECT {{\"verbose\":false}}\r\n\
         SUB answer 1\r\n\
         PUB {subject} answer {length}\r\n{body}\r\n"
    )
    .unwrap();
    loop {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the server left");
        if let Some(message) = line.strip_prefix("MSG ") {
            let length = message.split_whitespace().next_back().unwrap();
            let mut answer = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut answer).unwrap();
            return String::from_utf8(answer).unwrap();
        }
        assert!(!line.starts_with("-ERR"), "{line}");
    }
}
