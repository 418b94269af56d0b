//! What the commands say to whoever sets a system up by hand.

use std::net::TcpListener;
use std::process::{Command, Output};

use e2e::{System, binary, wait_for};
use local_stack::testing::temp_dir;

fn roster(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("ROSTER_CONFIG").envs(settings.iter().copied());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_names_its_setting() {
    let system = System::shared().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (setting, variable) in [
        ("http.listen", "ROSTER_HTTP_LISTEN"),
        ("http.private_listen", "ROSTER_HTTP_PRIVATE_LISTEN"),
    ] {
        let mut process = system.spawn_with("command-api", &[(variable, &address)], setting);
        wait_for("the process to end", || {
            let ended = process.ended();
            async move { ended.is_some_and(|status| status.code() == Some(1)) }
        })
        .await;
        let said = system.log_of(setting);
        let wanted = format!("cannot listen on {address}, which is {setting}");
        assert!(said.contains(&wanted), "{said}");
    }
}

#[test]
fn a_command_that_reaches_no_nats_says_where_it_looked() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("nats://{free}");
    let output =
        roster(&["lag"], &[("ROSTER_NATS_URL", &url), ("ROSTER_DEPLOYMENT", "development")]);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.contains(&format!("nats.url is {url}")), "{said}");
    assert!(said.contains("settings come from --config FILE or ROSTER_CONFIG"), "{said}");
}

#[test]
fn init_says_what_it_made() {
    let dir = temp_dir();
    let secrets = dir.path().join("secrets");
    let init = || {
        let output = roster(&["init", "--dir", secrets.to_str().unwrap()], &[]);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let first = init();
    assert!(first.starts_with("made new keys"), "{first}");
    for folder in ["operator", "command-api", "query-api", "projector", "reactor", "nats/auth.conf"]
    {
        let path = secrets.join(folder);
        assert!(path.exists() && first.contains(path.to_str().unwrap()), "{folder}: {first}");
    }
    assert!(init().starts_with("the keys stay"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provision_says_when_nobody_can_administer() {
    let system = System::shared().await;
    let provision = || {
        let output = system.roster(&["provision"]);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!provision().contains("no administrator"), "there is one");
    let log = async_nats::jetstream::new(system.operator().await);
    let stream = log.get_stream("USERS").await.unwrap();
    let holders = stream.get_last_raw_message_by_subject("uq.role.admin").await.unwrap();
    stream.delete_message(holders.sequence).await.unwrap();
    assert!(provision().contains("there is no administrator yet"));
}
