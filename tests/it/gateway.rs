//! The gateway as it is committed, before running services.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use e2e::{Client, System, forge, parts, wait_for};
use local_stack::testing::temp_dir;

/// nginx with the committed configuration, and places of its own.
struct Gateway {
    nginx: Child,
    url: String,
}

impl Gateway {
    async fn start(system: &System, dir: &Path) -> Self {
        let host = |url: String| url.strip_prefix("http://").unwrap().to_owned();
        let free =
            || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, health) = (free(), free());
        let folder = format!("{}/", dir.display());
        let text = include_str!("../../gateway/nginx.conf")
            .replace("command-api:8080", &host(system.command_api.value("url")))
            .replace("query-api:8080", &host(system.query_api.value("url")))
            .replace("listen 8080 ", &format!("listen 127.0.0.1:{port} "))
            .replace("127.0.0.1:8081", &format!("127.0.0.1:{health}"))
            .replace("/tmp/", &folder)
            .replace("/dev/stdout", &format!("{folder}access.log"));
        std::fs::write(dir.join("nginx.conf"), text).unwrap();
        let nginx = Command::new("nginx")
            .args(["-g", "daemon off; master_process off;", "-e", "stderr", "-c"])
            .arg(dir.join("nginx.conf"))
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx is installed: apt-get install nginx-light");
        let gateway = Self { nginx, url: format!("http://127.0.0.1:{port}") };
        let client = gateway.client();
        wait_for("the gateway", || async {
            client
                .try_send("GET", "/.well-known/jwks.json", None)
                .await
                .is_some_and(|a| a.status == 200)
        })
        .await;
        gateway
    }

    fn client(&self) -> Client {
        Client::new(&self.url)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
    }
}

#[tokio::test]
async fn an_import_with_an_expired_token_is_refused_each_time() {
    let system = System::shared().await;
    let dir = temp_dir();
    let gateway = Gateway::start(&system, dir.path()).await;
    let (header, mut claims) =
        parts(&system.commands().login(e2e::ADMIN_EMAIL, e2e::ADMIN_PASSWORD).await);
    let now = claims["iat"].as_i64().unwrap();
    claims["iat"] = (now - 700).into();
    claims["exp"] = (now - 100).into();
    let expired = forge(&system, &[(header, claims)]).await.remove(0);
    let client = gateway.client().with_token(&expired);
    for number in 0..200 {
        // From 0.1 to 16 MB.
        let bytes = 100_000 + 80_000 * number;
        let lines = vec![b'x'; bytes];
        let body = Some(("application/x-ndjson", lines));
        let answer = client.send("POST", "/api/v1/users/import", body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (401, "unauthorized"),
            "{bytes} bytes: {answer:?}"
        );
        assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    }
}

#[tokio::test]
async fn errors_of_the_library_and_methods_reach_clients_through_the_gateway() {
    let system = System::shared().await;
    let dir = temp_dir();
    let gateway = Gateway::start(&system, dir.path()).await;
    let mut crowded = gateway.client();
    for number in 0..150 {
        crowded = crowded.with_header(&format!("x-{number}"), "y");
    }
    let answer = crowded.get("/api/v1/auth/me").await.expect(400);
    assert_eq!(answer.code(), "bad-request", "{answer:?}");
    for (method, path, allow) in [
        ("PUT", "/api/v1/users", "OPTIONS, GET, HEAD, POST"),
        ("GET", "/api/v1/users/import", "OPTIONS, POST"),
        ("DELETE", "/api/v1/auth/sessions", "OPTIONS, GET, HEAD"),
    ] {
        let wrong = gateway.client().send(method, path, None).await.expect(405);
        assert_eq!((wrong.code(), wrong.header("allow")), ("method-not-allowed", Some(allow)));
    }
}
