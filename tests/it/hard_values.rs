//! Values at the edge of what is accepted, through log, feed, views, list, history and mail: what one side accepts
//! every other one can hold.

use std::collections::BTreeMap;

use e2e::{Client, System, list_all, wait_for};
use events::{EmailAddress, Fact, Snapshot, Timestamp};
use serde_json::{Value, json};

use crate::importing::import;

/// Times as given and as they are from then on.
const TIMES: [(&str, &str); 8] = [
    ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
    ("0000-12-31T23:30:00-01:00", "0001-01-01T00:30:00.000Z"),
    ("1582-10-10T00:00:00Z", "1582-10-10T00:00:00.000Z"),
    ("1899-12-31T23:59:59.999999999Z", "1899-12-31T23:59:59.999Z"),
    ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
    ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
    ("2024-02-29T23:59:59+23:59", "2024-02-29T00:00:59.000Z"),
    ("2026-01-31T10:00:00.123999Z", "2026-01-31T10:00:00.123Z"),
];

/// What stands before the @, as given.
const LOCALS: [&str; 12] = [
    "zoe\u{308}.finch",
    "\u{905}\u{930}\u{94d}\u{91c}\u{941}\u{928}",
    "\u{e2a}\u{e21}\u{e0a}\u{e32}\u{e22}",
    "\u{bae}\u{bb2}\u{bb0}\u{bcd}",
    "\u{20ac}uro",
    "\u{1f980}",
    "o'hara!#$%&*+-/=?^_`{|}~",
    "stra\u{df}e",
    "UPPER.Case",
    "1",
    "\u{d55c}\u{ae00}",
    "\u{645}\u{62b}\u{627}\u{644}",
];

/// Names as given and as they are from then on.
const NAMES: [(&str, &str); 10] = [
    ("\u{c9}lodie Holt-Reyes", "\u{c9}lodie Holt-Reyes"),
    ("E\u{301}lodie", "E\u{301}lodie"),
    ("(Nan)", "(Nan)"),
    ("Smith,John", "Smith,John"),
    ("  O\u{2019}Neil\u{3000}", "O\u{2019}Neil"),
    ("\u{65e5}\u{672c} \u{592a}\u{90ce}", "\u{65e5}\u{672c} \u{592a}\u{90ce}"),
    ("\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}", "\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}"),
    ("\"; DROP $where \\ .*", "\"; DROP $where \\ .*"),
    ("\u{fdfa}", "\u{fdfa}"),
    ("\u{10fffd}", "\u{10fffd}"),
];

fn metadata() -> Vec<Value> {
    vec![
        json!({}),
        json!({"": "", "$set": {"a.b": [null, true]}, "a.b": {"": []}}),
        json!({"n": [0, -0.0, 1.0, 0.1, 1e15, 9_007_199_254_740_993_i64, i64::MIN, i64::MAX, 5e-324]}),
        json!({"s": "\u{0}\u{1}\u{7f}\u{2028}\\\"\u{10ffff}\u{fffe}"}),
        json!({"d": [[[[[[[[[[[[[[]]]]]]]]]]]]]]}),
        json!({"t": "x".repeat(4_000)}),
    ]
}

/// A user as it must be seen everywhere.
#[derive(Debug)]
struct Expected {
    email: String,
    mailbox: String,
    full_name: Value,
    created_at: &'static str,
    metadata: Value,
}

fn hard_users() -> Vec<(Value, Expected)> {
    let all = metadata();
    LOCALS
        .iter()
        .zip(TIMES.iter().cycle())
        .zip(NAMES.iter().cycle())
        .zip(all.iter().cycle())
        .map(|(((local, (time, created_at)), (name, kept)), metadata)| {
            let email = format!("{local}@B\u{fc}cher.example");
            let line = json!({
                "email": email, "created_at": time, "full_name": name, "metadata": metadata,
                "email_verified": true,
            });
            let address = EmailAddress::parse(&email).unwrap();
            let (local, _) = address.as_given().rsplit_once('@').unwrap();
            let expected = Expected {
                mailbox: format!("{local}@xn--bcher-kva.example"),
                email: address.as_given().to_owned(),
                full_name: json!(kept),
                created_at,
                metadata: metadata.clone(),
            };
            (line, expected)
        })
        .collect()
}

fn check(seen: &Value, expected: &Expected, place: &str) {
    for (member, value) in [
        ("email", json!(expected.email)),
        ("full_name", expected.full_name.clone()),
        ("created_at", json!(expected.created_at)),
        ("metadata", expected.metadata.clone()),
    ] {
        assert_eq!(seen[member], value, "{member} in {place} of {expected:?}");
    }
}

async fn listed(queries: &Client, parameters: &[(&str, &str)]) -> Vec<String> {
    let encoded = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
    let pairs = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    let query = pairs.collect::<Vec<_>>().join("&");
    let page = queries.get(&format!("/api/v1/users?{query}")).await.expect(200);
    let items = page.body["items"].as_array().unwrap();
    items.iter().map(|user| user["email"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_is_accepted_is_the_same_everywhere() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let users = hard_users();
    let lines: String = users.iter().map(|(line, _)| format!("{line}\n")).collect();
    let answer = import(&admin, &lines).await.expect(200);
    let mut ids = BTreeMap::new();
    for (line, (_, expected)) in answer.lines().iter().zip(&users) {
        assert_eq!(line["status"], "created", "{line} of {expected:?}");
        ids.insert(line["id"].as_str().unwrap().to_owned(), expected);
    }
    assert_eq!(ids.len(), users.len());
    let again = import(&admin, &lines).await.expect(200);
    assert!(again.lines().iter().all(|line| line["status"] == "unchanged"), "{again:?}");

    let logged = system.events().await;
    let all = list_all(&queries, "").await;
    for (id, expected) in &ids {
        let event = logged.iter().find(|logged| logged.event.user_id().to_string() == *id).unwrap();
        let Snapshot::Present(user) = &event.event.after else { panic!("{id} is alive") };
        check(&serde_json::to_value(user).unwrap(), expected, "the log");
        let view = queries.get(&format!("/api/v1/users/{id}")).await.expect(200);
        check(&view.body, expected, "the view");
        let found = all.iter().find(|user| user["id"] == **id).expect("in the list");
        check(found, expected, "the list");
        assert_eq!(
            listed(&queries, &[("email", &expected.email)]).await,
            [expected.email.as_str()]
        );
        let history = queries.get(&format!("/api/v1/users/{id}/history")).await.expect(200);
        let changed = event.event.fact.changed().unwrap();
        assert_eq!(history.body["items"][0]["changed"], json!(changed), "the history of {id}");
        admin.post(&format!("/api/v1/users/{id}/password-reset"), &json!({})).await.expect(202);
    }
    wait_for("the feed", || async { system.feed().await.len() > users.len() }).await;
    for (_, event) in system.feed().await {
        let told: Value = serde_json::from_slice(&event.to_json().unwrap()).unwrap();
        if let Some(expected) = ids.get(told["subject"].as_str().unwrap()) {
            check(&told["data"]["user"], expected, "the feed");
        }
    }
    for expected in ids.values() {
        let mails = system.wait_for_mails_to(&expected.mailbox, 1).await;
        assert_eq!(mails[0].to, expected.mailbox);
    }
    let page = queries.get("/api/v1/users?include_total=true&page_size=1").await.expect(200);
    assert_eq!(page.body["total"], json!(users.len() + 1), "nobody is missing from the total");
    let verified = system.roster(&["verify", "--json"]);
    let verified: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(verified["differences"], json!([]), "{verified}");
}

#[tokio::test]
async fn what_some_reader_cannot_hold_is_refused_at_the_door() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let cases = [
        ("/created_at", json!({"created_at": "0000-01-01T00:00:00+01:00"})),
        ("/created_at", json!({"created_at": "0001-01-01T00:00:00+00:01"})),
        ("/created_at", json!({"created_at": "2026-01-31T10:00:60Z"})),
        ("/created_at", json!({"created_at": "2026-02-30T10:00:00Z"})),
        ("/full_name", json!({"full_name": "\u{200b}"})),
        ("/full_name", json!({"full_name": "\u{3164}"})),
        ("/full_name", json!({"full_name": "\u{2800} "})),
        ("/email", json!({"email": format!("{}@example.com", "\u{20ac}".repeat(22))})),
    ];
    let lines: String = cases
        .iter()
        .enumerate()
        .map(|(n, (_, members))| {
            let mut line = json!({"email": format!("user{n}@example.com")});
            line.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            format!("{line}\n")
        })
        .collect();
    let answer = import(&admin, &lines).await.expect(200);
    for (line, (pointer, members)) in answer.lines().iter().zip(&cases) {
        assert_eq!(line["error"]["status"], 422, "{members}: {line}");
        assert_eq!(line["error"]["errors"][0]["pointer"], json!(pointer), "{members}: {line}");
    }
}

#[tokio::test]
async fn people_are_found_and_sorted_as_people_expect() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let names = [
        "Zo\u{eb} Holt-Reyes",
        "\u{c5}dne (Nan)",
        "Smith,John",
        "\u{c9}lodie O\u{2019}Neil",
        "bob",
    ];
    for (n, name) in names.iter().enumerate() {
        let body = json!({"email": format!("user{n}@example.com"), "full_name": name});
        admin.post("/api/v1/users", &body).await.expect(201);
    }
    for (q, n) in [
        ("reyes", 0),
        ("Holt-Rey", 0),
        ("zoe", 0),
        ("nan", 1),
        ("adne", 1),
        ("\u{e5}dne", 1),
        ("john", 2),
        ("smith, john", 2),
        ("ELODIE", 3),
        ("o'neil", 3),
        ("user4@ex", 4),
    ] {
        assert_eq!(listed(&queries, &[("q", q)]).await, [format!("user{n}@example.com")], "{q}");
    }
    let sorted = listed(&queries, &[("sort", "full_name")]).await;
    let expected = [1, 4, 3, 2, 0].map(|n| format!("user{n}@example.com"));
    assert_eq!(sorted, [vec![e2e::ADMIN_EMAIL.to_owned()], expected.to_vec()].concat());
}

#[tokio::test]
async fn bounds_of_time_are_exact_beyond_milliseconds() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let email = "ada@example.com";
    let at = "2019-05-04T03:02:01.500Z";
    import(&admin, &json!({"email": email, "created_at": at}).to_string()).await.expect(200);
    assert_eq!(Timestamp::parse(at).unwrap().to_string(), at);
    let before_now = ("created_before", "2019-12-31T00:00:00Z");
    for (bound, is_found) in [
        (("created_before", "2019-05-04T03:02:01.500Z"), false),
        (("created_before", "2019-05-04T03:02:01.500001Z"), true),
        (("created_after", "2019-05-04T03:02:01.499999Z"), true),
        (("created_after", "2019-05-04T03:02:01.500Z"), false),
        (("created_after", "2019-05-04T03:02:01.500001Z"), false),
    ] {
        let bounds = if bound.0 == before_now.0 { vec![bound] } else { vec![bound, before_now] };
        let found = listed(&queries, &bounds).await;
        assert_eq!(found == [email], is_found, "{bound:?}: {found:?}");
    }
}
