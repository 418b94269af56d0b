//! Users brought along from another system.

use async_nats::jetstream;
use e2e::{Answer, Client, Fold, PASSWORD, System};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/users/import";

/// Made by bcrypt and argon2-cffi of Python, and by OpenSSL: all of "correct horse".
const FOREIGN: [(&str, &str); 4] = [
    ("bcrypt", "$2a$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2"),
    (
        "argon2i",
        "$argon2i$v=19$m=256,t=2,p=4$c2FsdHNhbHRzYWx0c2FsdA$bpP1dxvb7VRN8POyXp97l49bj7z7ThHNmFAU9i/FfD0",
    ),
    (
        "scrypt",
        "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$6g3umF+uVrJsObaTZhIbbTlgrvOEFcCItdwSjtPF67M",
    ),
    (
        "pbkdf2",
        "$pbkdf2-sha256$i=29000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$uHVoxjLD1v3uqpdY8ehNPGUYMiKj8ROQSRwMSE033NY",
    ),
];

pub async fn import(client: &Client, lines: &str) -> Answer {
    let body = Some(("application/x-ndjson", lines.as_bytes().to_vec()));
    client.send("POST", PATH, body).await
}

/// The lines of an answer.
async fn imported(client: &Client, lines: &str) -> Vec<Value> {
    read(&import(client, lines).await.expect(200))
}

fn read(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    answer.lines()
}

fn statuses(lines: &[Value]) -> Vec<(u64, &str)> {
    lines.iter().map(|l| (l["line"].as_u64().unwrap(), l["status"].as_str().unwrap())).collect()
}

fn file(count: usize) -> String {
    (0..count)
        .map(|n| {
            let line = json!({
                "email": format!("user{n}@example.com"), "full_name": format!("User {n}"),
                "metadata": {"n": n}, "email_verified": true,
                "created_at": "2019-05-04T03:02:01.000Z",
            });
            format!("{line}\n")
        })
        .collect()
}

#[tokio::test]
async fn every_line_is_decided_alone_and_again_changes_nothing() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let lines = [
        json!({"email": "Ada@Example.com", "full_name": "Ada", "roles": ["editor", "user"],
               "metadata": {"a": 1}, "email_verified": true, "created_at": "2019-05-04T03:02:01Z"})
        .to_string(),
        json!({"email": "bob@example.com"}).to_string(),
        "not json".to_owned(),
        String::new(),
        json!({"email": "ada@example.com", "full_name": "Another Ada"}).to_string(),
        json!({"email": "bob@example.com"}).to_string(),
        json!({"email": "nobody", "full_name": 7, "x": 1}).to_string(),
        json!({"email": "eve@example.com", "password_hash": "$2b$31$short"}).to_string(),
        json!({"email": "eve@example.com", "created_at": "2999-01-01T00:00:00Z"}).to_string(),
        json!({"email": "root@example.com", "roles": ["admin"]}).to_string(),
        json!({"email": "root2@example.com", "roles": ["admin"]}).to_string(),
    ]
    .join("\n");
    let answer = import(&admin, &lines).await.expect(200);
    let first = read(&answer);
    let refused = "rejected";
    let expected = [
        (1, "created"),
        (2, "created"),
        (3, refused),
        (4, refused),
        (5, refused),
        (6, "unchanged"),
        (7, refused),
        (8, refused),
        (9, refused),
        (10, "created"),
        (11, "created"),
    ];
    assert_eq!(statuses(&first), expected);
    let error = |line: usize, member: &str| first[line - 1]["error"][member].clone();
    assert_eq!(error(3, "code"), "malformed-body");
    assert_eq!((error(5, "code"), error(5, "status")), (json!("email-taken"), json!(409)));
    assert_eq!(first[5]["id"], first[1]["id"]);
    let pointers: Vec<Value> = error(7, "errors")
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].clone())
        .collect();
    assert_eq!(pointers, ["/email", "/full_name", "/x"]);
    assert_eq!(error(8, "errors")[0]["pointer"], "/password_hash");
    assert_eq!(error(9, "errors")[0]["code"], "future");

    let path = format!("/api/v1/users/{}", first[0]["id"].as_str().unwrap());
    let seen = queries.with_header("roster-position", answer.header("roster-position").unwrap());
    let ada = seen.get(&path).await.expect(200).body;
    assert_eq!(ada["email"], "Ada@Example.com");
    assert_eq!(ada["roles"], json!(["editor", "user"]));
    assert_eq!((&ada["email_verified"], &ada["revision"]), (&json!(true), &json!(1)));
    assert_eq!(ada["created_at"], "2019-05-04T03:02:01.000Z");

    let events = system.events().await.len();
    let again = imported(&admin, &lines).await;
    let kept = expected.map(|(line, status)| match status {
        "created" => (line, "unchanged"),
        other => (line, other),
    });
    assert_eq!(statuses(&again), kept);
    assert_eq!(again[0]["id"], first[0]["id"]);
    assert_eq!(system.events().await.len(), events, "nothing happened");
    system.views_equal_the_log(&queries).await;

    // Behind everything an order could stand for: an import writes to nobody.
    admin.post("/api/v1/users", &json!({"email": "last@example.com"})).await.expect(201);
    system.wait_for_mails_to("last@example.com", 1).await;
    for email in ["ada@example.com", "bob@example.com"] {
        assert_eq!(system.mails_to(email), Vec::new());
    }
}

#[tokio::test]
async fn hashes_of_other_systems_are_good_and_replaced_at_the_first_login() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let lines: String = FOREIGN
        .iter()
        .map(|(kind, hash)| {
            let line = json!({"email": format!("{kind}@example.com"), "password_hash": hash});
            format!("{line}\n")
        })
        .collect();
    let users = imported(&admin, &lines).await;
    let context = jetstream::new(system.operator().await);
    let stream = context.get_stream("USERS").await.unwrap();
    let login = async |kind: &str, password: &str| {
        let body = json!({"email": format!("{kind}@example.com"), "password": password});
        system.commands().post("/api/v1/auth/login", &body).await
    };
    for ((kind, _), user) in FOREIGN.iter().zip(&users) {
        let subject = format!("sec.user.{}", user["id"].as_str().unwrap());
        let credential = async || stream.get_last_raw_message_by_subject(&subject).await.unwrap();
        let foreign = credential().await.sequence;
        login(kind, "correct horse battery").await.expect(401);
        assert_eq!(credential().await.sequence, foreign, "{kind}: a wrong password replaces none");
        login(kind, "correct horse").await.expect(200);
        let ours = credential().await.sequence;
        assert!(ours > foreign, "{kind}: replaced");
        login(kind, "correct horse").await.expect(200);
        assert_eq!(credential().await.sequence, ours, "{kind}: replaced once");
        login(kind, "correct horse battery").await.expect(401);
    }
    // The file says the same as before, and the new hashes stay.
    let again = imported(&admin, &lines).await;
    assert!(again.iter().all(|line| line["status"] == "unchanged"), "{again:?}");
    login("bcrypt", "correct horse").await.expect(200);
}

#[tokio::test]
async fn ten_thousand_lines_are_one_call_and_again_change_nothing() {
    const LINES: usize = 10_000;
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let file = file(LINES);
    let all = |lines: &[Value], status: &str| {
        assert_eq!(lines.len(), LINES);
        assert!(lines.iter().all(|line| line["status"] == status));
    };
    all(&imported(&admin, &file).await, "created");
    all(&imported(&admin, &file).await, "unchanged");
    assert_eq!(system.events().await.len(), LINES + 1, "and the administrator");
    system.views_equal_the_log(&queries).await;
}

#[tokio::test]
async fn of_two_imports_of_one_file_at_once_each_user_is_made_by_one() {
    const LINES: usize = 2_000;
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let other = system.another("command-api");
    let there = Client::new(&other.value("url"))
        .with_token(&system.commands().login(e2e::ADMIN_EMAIL, e2e::ADMIN_PASSWORD).await);
    let file = file(LINES);
    let (here, there) = tokio::join!(imported(&admin, &file), imported(&there, &file));
    assert_eq!((here.len(), there.len()), (LINES, LINES));
    for (here, there) in here.iter().zip(&there) {
        assert_eq!(here["id"], there["id"], "{here} {there}");
        let mut both = [here["status"].as_str().unwrap(), there["status"].as_str().unwrap()];
        both.sort_unstable();
        assert_eq!(both, ["created", "unchanged"]);
    }
    let events = system.events().await;
    assert_eq!(events.len(), LINES + 1, "and the administrator");
    assert_eq!(Fold::registrations(&events, "user1999@example.com"), 1);
}

#[tokio::test]
async fn the_operators_import_goes_on_where_it_was() {
    const LINES: usize = 7_000;
    let system = System::shared().await;
    let dir = local_stack::testing::temp_dir();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (users, results) = (path("users.ndjson"), path("results.ndjson"));
    std::fs::write(&users, file(LINES) + "not a user").unwrap();
    let arguments = ["users", "import", &users, "--json", "--results", &results];
    let run = || {
        let output = system.roster(&arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).expect(&stderr);
        assert_eq!(output.status.code(), Some(1), "one line is rejected: {stderr}");
        assert_eq!(told["lines"], LINES + 1);
        told["tally"].clone()
    };
    assert_eq!(run(), json!({"created": LINES, "unchanged": 0, "rejected": 1}));
    assert_eq!(system.events().await.len(), LINES + 1, "and the administrator");

    // Ended in the midst of a note: what stands behind it is looked at again, and nothing else.
    let notes = std::fs::read_to_string(&results).unwrap();
    let kept: usize = notes.lines().take(3_000).map(|line| line.len() + 1).sum();
    std::fs::write(&results, &notes[..kept + 10]).unwrap();
    assert_eq!(run(), json!({"created": 3_000, "unchanged": LINES - 3_000, "rejected": 1}));
    let last = std::fs::read_to_string(&results).unwrap();
    let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["line"], &last["error"]["code"]),
        (&json!(LINES + 1), &json!("malformed-body"))
    );
    assert_eq!(system.events().await.len(), LINES + 1, "nothing happened");
}

#[tokio::test]
async fn an_import_has_its_bounds() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    assert_eq!(imported(&admin, "").await, Vec::<Value>::new());
    let line = "{\"email\":\"ada@example.com\"}\n";
    import(&admin, &line.repeat(10_001)).await.expect(413);
    import(&admin, &"x".repeat(17 << 20)).await.expect(413);
    admin.post(PATH, &json!({"email": "ada@example.com"})).await.expect(415);
    import(&system.commands(), line).await.expect(401);
    system.commands().register("bob@example.com").await.expect(201);
    let plain = system.commands().login("bob@example.com", PASSWORD).await;
    import(&system.commands().with_token(&plain), line).await.expect(403);
    assert_eq!(system.events().await.len(), 2, "the administrator and Bob");
}

#[tokio::test]
async fn an_import_says_what_became_of_a_hash_that_it_did_not_take() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let line = |email: &str, hash: Option<&str>| match hash {
        Some(hash) => json!({"email": email, "password_hash": hash}).to_string(),
        None => json!({"email": email}).to_string(),
    };
    let (ada, bob) = ("ada@example.com", "bob@example.com");
    let first = [line(ada, Some(FOREIGN[0].1)), line(bob, None)].join("\n");
    assert_eq!(statuses(&imported(&admin, &first).await), [(1, "created"), (2, "created")]);

    let again = [
        line(ada, Some(FOREIGN[0].1)),
        line(ada, Some(FOREIGN[1].1)),
        line(ada, None),
        line(bob, Some(FOREIGN[0].1)),
    ];
    let answers = imported(&admin, &again.join("\n")).await;
    let told: Vec<_> = answers.iter().map(|a| (&a["status"], &a["password"])).collect();
    let unchanged = json!("unchanged");
    let (kept, missing) = (json!("kept"), json!("missing"));
    let expected = [&Value::Null, &kept, &Value::Null, &missing].map(|word| (&unchanged, word));
    assert_eq!(told, expected);
    system.commands().log_in(ada, "correct horse").await;

    let weak = line(
        "eve@example.com",
        Some("$2b$04$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2"),
    );
    let refused = imported(&admin, &weak).await;
    assert_eq!(refused[0]["error"]["errors"][0]["code"], "hash-too-weak");
}
