//! Who may call what: every call of the OpenAPI document with every kind of caller, as docs/access.md
//! tells it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use e2e::{Answer, Client, System};
use serde_json::{Value, json};

/// Cheap to make and to compare: of "correct horse".
const HASH: &str = "$argon2id$v=19$m=256,t=2,p=4$c2FsdHNhbHRzYWx0c2FsdA$or7UQIfreo80CHrs2AmlBnx8rS7V6PjKEY176PKL2cc";
const PASSWORD: &str = "correct horse";

const HEAD: &str = "# Who may call what

This table shows the status that each call of [the API](../openapi/roster.json) returns to each kind of caller. A test
generates it and fails if this page differs. To update the page, run
`WRITE_ACCESS_TABLE=1 cargo test -p e2e --test it -- access::`.

A call with `{user_id}` is about another user, who has no privileged role. In the columns *itself*, *disabled* and
*unverified* it is about the caller. *users:write* is a configured role with that permission. *disabled* uses a token
from before the user was disabled. Calls that take a token from a mail are made with an invalid one.
";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nobody,
    Itself,
    Another,
    Writer,
    Operator,
    Admin,
    Disabled,
    Unverified,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Nobody,
        Self::Itself,
        Self::Another,
        Self::Writer,
        Self::Operator,
        Self::Admin,
        Self::Disabled,
        Self::Unverified,
    ];

    const fn title(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Itself => "itself",
            Self::Another => "another user",
            Self::Writer => "users:write",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Disabled => "disabled",
            Self::Unverified => "unverified",
        }
    }

    const fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Nobody | Self::Itself | Self::Another | Self::Disabled | Self::Unverified => {
                &["user"]
            }
            Self::Writer => &["helpdesk", "user"],
            Self::Operator => &["operator", "user"],
            Self::Admin => &["admin", "user"],
        }
    }

    const fn is_the_target(self) -> bool {
        matches!(self, Self::Itself | Self::Disabled | Self::Unverified)
    }
}

struct Call {
    method: String,
    path: String,
    id: String,
}

fn calls() -> Vec<Call> {
    let document = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../openapi/roster.json");
    let document: Value = serde_json::from_slice(&std::fs::read(document).unwrap()).unwrap();
    let mut calls = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            calls.push(Call { method: method.to_uppercase(), path: path.clone(), id });
        }
    }
    calls.sort_by(|a, b| (&a.path, &a.method).cmp(&(&b.path, &b.method)));
    calls
}

/// Someone made for one call alone, who may be gone or somebody else after it.
struct Cell<'a> {
    call: &'a Call,
    kind: Kind,
}

impl Cell<'_> {
    fn email(&self, who: &str) -> String {
        format!("{who}-{}-{}@example.com", self.call.id, self.kind.title().replace([' ', ':'], "-"))
    }

    fn lines(&self) -> String {
        let caller = json!({
            "email": self.email("caller"), "roles": self.kind.roles(), "password_hash": HASH,
            "email_verified": self.kind != Kind::Unverified,
        });
        let target = json!({"email": self.email("target"), "email_verified": true});
        format!("{caller}\n{target}\n")
    }

    fn body(&self, refresh: &str) -> Option<(&'static str, Vec<u8>)> {
        let email = self.email("caller");
        let another = "nineteen purple bicycles";
        let body = match self.call.id.as_str() {
            "register" => json!({"email": self.email("new"), "password": another}),
            "login" => json!({"email": email, "password": PASSWORD}),
            "refresh" | "logout" => json!({"refresh_token": refresh}),
            "password_reset_request" => json!({"email": email}),
            "password_reset_confirm" => json!({"token": "x", "new_password": another}),
            "change_password" => json!({"current_password": PASSWORD, "new_password": another}),
            "verify_email_confirm"
            | "change_email_confirm"
            | "change_email_abort"
            | "change_email_undo" => json!({"token": "x"}),
            "change_email" => {
                json!({"new_email": self.email("new"), "current_password": PASSWORD})
            }
            "delete_me" => json!({"current_password": PASSWORD}),
            "create_user" | "import_users" => json!({"email": self.email("new")}),
            "change_me" | "change_user" => json!({"full_name": "Another Name"}),
            "replace_user" => {
                let roles = if self.kind.is_the_target() { self.kind.roles() } else { &["user"] };
                json!({"full_name": null, "roles": roles, "status": "active", "metadata": {}})
            }
            _ => return None,
        };
        let kind = match self.call.id.as_str() {
            "import_users" => "application/x-ndjson",
            _ => "application/json",
        };
        Some((kind, body.to_string().into_bytes()))
    }

    async fn status(&self, system: &System, admin: &Client, ids: &BTreeMap<String, String>) -> u16 {
        let (email, id) = (self.email("caller"), &ids[&self.email("caller")]);
        let pair = system.commands().log_in(&email, PASSWORD).await;
        let queries = system.queries();
        let sessions = queries.with_token(&pair.access).get("/api/v1/auth/sessions").await;
        let session = sessions.expect(200).body["items"][0]["id"].as_str().unwrap().to_owned();
        if self.kind == Kind::Disabled {
            let path = format!("/api/v1/users/{id}/disable");
            admin.send("POST", &path, None).await.expect(200);
        }
        let target = if self.kind.is_the_target() { id } else { &ids[&self.email("target")] };
        let path = self.call.path.replace("{user_id}", target).replace("{session_id}", &session);
        let side = if self.call.method == "GET" { queries } else { system.commands() };
        let client = if self.kind == Kind::Nobody { side } else { side.with_token(&pair.access) };
        let answer: Answer = client.send(&self.call.method, &path, self.body(&pair.refresh)).await;
        answer.status
    }
}

#[tokio::test]
async fn every_call_answers_every_kind_of_caller_as_the_table_says() {
    // A refused login is not what is looked at here, and it takes its time.
    let system = System::shared_with(&[
        ("ROSTER_ACCESS_ROLES", "helpdesk = users:write"),
        ("ROSTER_PASSWORDS_REFUSAL_STEP_MS", "50"),
    ])
    .await;
    let (admin, _) = system.as_administrator().await;
    let calls = calls();
    let cells = || calls.iter().flat_map(|call| Kind::ALL.map(|kind| Cell { call, kind }));
    let lines: String = cells().map(|cell| cell.lines()).collect();
    let body = Some(("application/x-ndjson", lines.clone().into_bytes()));
    let made = admin.send("POST", "/api/v1/users/import", body).await.expect(200);
    let emails = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ids: BTreeMap<String, String> = emails
        .zip(made.lines())
        .map(|(line, made)| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            assert_eq!(made["status"], "created", "{made}");
            (text(&line["email"]), text(&made["id"]))
        })
        .collect();

    let mut table = HEAD.to_owned();
    let titles: Vec<&str> = Kind::ALL.iter().map(|kind| kind.title()).collect();
    write!(table, "\n| call | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(titles.len()))
        .unwrap();
    for call in &calls {
        write!(table, "| `{} {}` |", call.method, call.path).unwrap();
        for kind in Kind::ALL {
            let status = Cell { call, kind }.status(&system, &admin, &ids).await;
            write!(table, " {status} |").unwrap();
        }
        table.push('\n');
    }
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/access.md");
    if std::env::var_os("WRITE_ACCESS_TABLE").is_some() {
        std::fs::write(&page, &table).unwrap();
    }
    let written = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(written == table, "docs/access.md says otherwise:\n{table}");
}
