//! `roster dev`: one command from nothing to a running system.

use std::path::Path;
use std::process::Command;

use e2e::{ADMIN_EMAIL, ADMIN_PASSWORD, Client, PASSWORD, Process, wait_for, without_login};
use local_stack::testing::temp_dir;

fn dev(data: &Path, log: &Path) -> Process {
    let variables =
        [("ROSTER_ADMIN_EMAIL", ADMIN_EMAIL), ("ROSTER_ADMIN_PASSWORD", ADMIN_PASSWORD)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let data = data.to_str().unwrap();
    Process::start(&["dev", "--listen", "127.0.0.1:0", "--data-dir", data], &variables, log)
}

/// Processes whose command line names a folder, the process itself left out.
fn processes_in(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
        .filter_map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(folder).then_some(line)
        })
        .collect()
}

/// SIGKILL to a server with its data in a folder; `false` when none runs there.
fn kill_server(server: &str, folder: &Path) -> bool {
    let pattern = format!("^[^ ]*{server} .*{}", folder.to_str().unwrap());
    Command::new("pkill").args(["-KILL", "-f", &pattern]).status().unwrap().success()
}

#[tokio::test]
async fn it_starts_stops_and_goes_on_with_the_same_data() {
    let dir = temp_dir();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let first = dev(&data, &log);
    let client = Client::new(&first.value("url"));
    let user = client.register("ada@example.com").await.expect(201);
    let private = Client::new(&first.value("private"));
    private.get("/livez").await.expect(200);
    private.get("/readyz").await.expect(200);
    for role in ["operator", "command-api", "query-api", "projector", "mailer", "eraser"] {
        assert!(data.join("nats").join(format!("{role}.creds")).exists(), "{role}");
    }
    assert!(!processes_in(&data).is_empty());

    // A second one does not get in the way of the first.
    let mut second = Process::spawn(
        &["dev", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()],
        &[],
        &dir.path().join("second"),
    );
    wait_for("the second to be refused", || {
        let ended = second.ended();
        async move { ended.is_some() }
    })
    .await;
    let said = std::fs::read_to_string(dir.path().join("second")).unwrap();
    assert!(said.contains("data folder"), "{said}");

    assert!(first.end("-INT").success());
    assert_eq!(processes_in(&data), Vec::<String>::new(), "nothing is left behind");
    let said = std::fs::read_to_string(&log).unwrap();
    let (_, at_the_end) = said.split_once("stopping").unwrap();
    assert!(!at_the_end.contains("WARN") && !at_the_end.contains("ERROR"), "{at_the_end}");

    let again = dev(&data, &log);
    let client = Client::new(&again.value("url"));
    let token = client.login("ada@example.com", PASSWORD).await;
    let me = client.with_token(&token).get("/api/v1/auth/me").await.expect(200);
    assert!(me.body["last_login_at"].is_string(), "{me:?}");
    assert_eq!(without_login(me.body), user.body);
    client.login(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    assert!(again.end("-TERM").success());
    assert_eq!(processes_in(&data), Vec::<String>::new());
}

#[tokio::test]
async fn servers_that_die_are_restarted_and_end_with_it_when_it_is_killed() {
    let dir = temp_dir();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let dev = dev(&data, &log);
    let client = Client::new(&dev.value("url"));
    client.register("one@example.com").await.expect(201);
    let mut last = 0;
    for (server, email) in [("nats-server", "two@example.com"), ("mongod", "three@example.com")] {
        assert!(kill_server(server, &data), "{server}");
        let with_key = client.with_header("idempotency-key", server);
        wait_for("commands to go on", || async { with_key.register(email).await.status == 201 })
            .await;
        last = with_key.register(email).await.expect(201).position();
    }
    let private = Client::new(&dev.value("private"));
    wait_for("readiness", || async { private.get("/readyz").await.status == 200 }).await;
    let token = client.login(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    let queries = client.with_token(&token);
    let path = format!("/api/v1/users?min_position={last}");
    wait_for("the views to go on", || async { queries.get(&path).await.status == 200 }).await;
    let users = queries.get(&path).await.expect(200);
    assert_eq!(users.body["items"].as_array().unwrap().len(), 4, "three and the administrator");

    dev.kill();
    wait_for("the servers to end with it", || async { processes_in(&data).is_empty() }).await;
}

#[tokio::test]
async fn settings_that_it_makes_itself_are_refused() {
    let dir = temp_dir();
    let variables = [
        ("ROSTER_NATS_URL", "nats://nats.example.com:4222"),
        ("ROSTER_SECRETS_DIR", "/etc/roster"),
        ("ROSTER_DEPLOYMENT", "production"),
    ];
    let output = Command::new(e2e::binary())
        .args(["dev", "--data-dir", dir.path().join("data").to_str().unwrap()])
        .envs(variables)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in
        ["nats.url: see --nats-url", "secrets.dir: see --data-dir", "deployment is production"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[tokio::test]
async fn settings_of_where_it_listens_and_what_its_url_is_are_honoured() {
    let dir = temp_dir();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (public, private) = (free().to_string(), free().to_string());
    let variables = [
        ("ROSTER_HTTP_LISTEN", public.as_str()),
        ("ROSTER_HTTP_PRIVATE_LISTEN", private.as_str()),
        ("ROSTER_TOKENS_ISSUER", "https://id.example.com"),
        ("ROSTER_MAIL_LINK_BASE", "https://www.example.com/account"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let arguments = ["dev", "--data-dir", data.to_str().unwrap()];
    let dev = Process::start(&arguments, &variables, &log);
    assert_eq!(dev.value("url"), format!("http://{public}"));
    assert_eq!(dev.value("private"), format!("http://{private}"));
    let client = Client::new(&dev.value("url"));
    client.register("ada@example.com").await.expect(201);
    let token = client.login("ada@example.com", PASSWORD).await;
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, claims).unwrap();
    assert!(String::from_utf8(claims).unwrap().contains("\"iss\":\"https://id.example.com\""));
    let mails = || e2e::mails_in(&data.join("mail"));
    let leads_there =
        |mail: &e2e::Mail| mail.text.contains("https://www.example.com/account/verify-email");
    wait_for("the mail", || async { mails().iter().any(leads_there) }).await;
    assert!(dev.end("-TERM").success());
}

#[tokio::test]
async fn a_server_that_keeps_dying_is_given_up() {
    let dir = temp_dir();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let mut dev = dev(&data, &log);
    let mut killed = 0;
    let mut status = None;
    wait_for("it to give up", || {
        killed += usize::from(kill_server("nats-server", &data));
        status = dev.ended();
        let ended = status.is_some();
        async move { ended }
    })
    .await;
    assert_eq!(status.unwrap().code(), Some(3));
    assert!(killed > 5, "restarted five times, killed {killed} times");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("nats-server keeps dying"), "{said}");
    assert_eq!(processes_in(&data), Vec::<String>::new());
}

#[tokio::test]
async fn without_a_wish_there_is_an_administrator_whose_password_is_shown_once() {
    let dir = temp_dir();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let first = Process::start(&arguments, &[], &log);
    let shown =
        |said: &[String]| said.iter().find(|line| line.starts_with("administrator ")).cloned();
    let line = shown(&first.said).unwrap();
    let part = |name: &str| {
        let prefix = format!("{name}=");
        line.split(' ').find_map(|part| part.strip_prefix(&prefix)).unwrap().to_owned()
    };
    let client = Client::new(&first.value("url"));
    client.login(&part("email"), &part("password")).await;
    assert!(first.end("-TERM").success());
    let again = Process::start(&arguments, &[], &log);
    assert_eq!(shown(&again.said), None);
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(!logged.contains(&part("password")), "a password is never logged");
    assert!(again.end("-TERM").success());
}
