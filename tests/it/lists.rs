//! Lists compared with a brute force over all users, and with the log while others write.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool, AtomicUsize};

use e2e::{Client, Logged, PASSWORD, System, list_all, rename, wait_for};
use events::{EmailAddress, Position, Snapshot, User, UserId, search_folded, words};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const SORTS: [&str; 8] = [
    "-created_at",
    "created_at",
    "email",
    "-email",
    "full_name",
    "-full_name",
    "last_login_at",
    "-last_login_at",
];

/// Numbers that look random and are the same in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((bits ^ (bits >> 31)) % limit as u64).unwrap()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

// ---- a brute force -----------------------------------------------------------------------------

fn canonical(email: &str) -> String {
    EmailAddress::parse(email).unwrap().canonical().to_owned()
}

/// Whether a user is one of those that a parameter asks for.
fn fits(user: &Value, name: &str, value: &str) -> bool {
    let email = user["email"].as_str().unwrap();
    let created = user["created_at"].as_str().unwrap();
    match name {
        "email" => canonical(email) == canonical(value),
        "q" => {
            let addresses = [search_folded(&canonical(email)), search_folded(email)];
            let name = search_folded(user["full_name"].as_str().unwrap_or_default());
            let begins = |part: &str| {
                addresses.iter().any(|address| address.starts_with(part))
                    || words(&name).any(|word| word.starts_with(part))
            };
            search_folded(value).split_whitespace().all(|term| {
                begins(term) || (words(term).next().is_some() && words(term).all(begins))
            })
        }
        "role" => user["roles"].as_array().unwrap().iter().any(|role| role == value),
        "status" => user["status"] == value,
        "email_verified" => user["email_verified"] == (value == "true"),
        "created_after" => created > value,
        "created_before" => created < value,
        other => panic!("{other} is no filter"),
    }
}

/// The order of two users by a member: `null` first, then by id.
fn by(member: &str, one: &Value, other: &Value) -> Ordering {
    let key = |user: &Value| {
        let text = user[member].as_str();
        match member {
            "email" => text.map(canonical),
            "full_name" => text.map(search_folded),
            _ => text.map(str::to_owned),
        }
    };
    let id = |user: &Value| user["id"].as_str().unwrap().to_owned();
    key(one).cmp(&key(other)).then_with(|| id(one).cmp(&id(other)))
}

fn brute_force(all: &[Value], sort: &str, filters: &[(&str, String)]) -> Vec<Value> {
    let fits_all = |user: &&Value| filters.iter().all(|(name, value)| fits(user, name, value));
    let mut users: Vec<Value> = all.iter().filter(fits_all).cloned().collect();
    let member = sort.trim_start_matches('-');
    users.sort_by(|one, other| by(member, one, other));
    if sort.starts_with('-') {
        users.reverse();
    }
    users
}

/// Users of every kind: names that are alike, missing, or look like operators; some who have logged in,
/// some disabled, some deleted.
async fn all_kinds_of_users(system: &System, admin: &Client, dice: &mut Dice) {
    const NAMES: [&str; 9] = [
        "Ada Lovelace",
        "ada  KING",
        "ÉVA Straße",
        "eva strasse",
        "Grace",
        "grace",
        "Zoë .* O'Neil",
        "$where (x)",
        "Ada Grace Éva",
    ];
    const DOMAINS: [&str; 3] = ["example.com", "Example.ORG", "BÜCHER.example"];
    let mut paths = Vec::new();
    for n in 0..110 {
        let name = if dice.one_in(4) { Value::Null } else { json!(dice.of(&NAMES)) };
        let kind = *dice.of(&["Ada", "user", "zoë"]);
        let roles: &[&str] = dice.of::<&[_]>(&[&["user"], &["clerk", "user"], &["clerk"]]);
        let body = json!({
            "email": format!("{kind}{n}@{}", dice.of(&DOMAINS)), "full_name": name,
            "roles": roles, "email_verified": dice.one_in(2),
        });
        let user = admin.post("/api/v1/users", &body).await.expect(201);
        paths.push(user.header("location").unwrap().to_owned());
    }
    for path in &paths {
        if dice.one_in(5) {
            admin.patch(path, &json!({"status": "disabled"})).await.expect(200);
        } else if dice.one_in(10) {
            admin.delete(path).await.expect(204);
        }
    }
    for n in 0..10 {
        let email = format!("login{n}@example.com");
        let user = system.commands().register(&email).await.expect(201);
        if n < 6 {
            system.commands().login(&email, PASSWORD).await;
        }
        if n == 0 {
            admin.delete(user.header("location").unwrap()).await.expect(204);
        }
    }
}

#[tokio::test]
async fn any_combination_is_what_a_brute_force_finds() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let mut dice = Dice(1);
    all_kinds_of_users(&system, &admin, &mut dice).await;
    // Logins come from another log than users.
    wait_for("the logins to be seen", || async {
        let users = list_all(&queries, "page_size=200").await;
        users.iter().filter(|user| !user["last_login_at"].is_null()).count() == 6
    })
    .await;
    let all = list_all(&queries, "page_size=200").await;
    assert!(all.len() > 90, "{} users", all.len());

    let words = [
        "ada", "AD", "e", "Éva", "str", "STRASS", "user1", "zoë", "a l", "king ada", ".", ".*",
        "$", "(", "nobody",
    ];
    let mut found = 0;
    for round in 0..200 {
        let sort = *dice.of(&SORTS);
        let mut filters: Vec<(&str, String)> = Vec::new();
        let someone = dice.of(&all).clone();
        let of_someone = |member: &str| someone[member].as_str().unwrap().to_owned();
        for name in
            ["email", "q", "role", "status", "email_verified", "created_after", "created_before"]
        {
            // Most have one or two filters; an address leaves one user, and is tried less.
            if !dice.one_in(if name == "email" { 20 } else { 5 }) {
                continue;
            }
            filters.push(match name {
                "email" => (name, of_someone("email").to_uppercase()),
                "q" if dice.one_in(4) => (name, of_someone("email")),
                "q" => (name, (*dice.of(&words)).to_owned()),
                "role" => (name, (*dice.of(&["user", "clerk", "admin", "nobody"])).to_owned()),
                "status" => (name, (*dice.of(&["active", "disabled"])).to_owned()),
                "email_verified" => (name, dice.one_in(2).to_string()),
                _ => (name, of_someone("created_at")),
            });
        }
        let expected = brute_force(&all, sort, &filters);
        let mut parameters = format!("sort={sort}&page_size={}", 1 + dice.below(30));
        for (name, value) in &filters {
            parameters.push_str(&format!("&{name}={}", percent_encoded(value)));
        }
        let listed = list_all(&queries, &parameters).await;
        let emails = |users: &[Value]| -> Vec<Value> {
            users.iter().map(|user| user["email"].clone()).collect()
        };
        assert_eq!(emails(&listed), emails(&expected), "round {round}: {parameters}");
        assert_eq!(listed, expected);
        let counted = queries.get(&format!("/api/v1/users?{parameters}&include_total=true")).await;
        assert_eq!(counted.expect(200).body["total"], expected.len(), "{parameters}");
        found += expected.len();
    }
    assert!(found > 2_000, "only {found} users in all lists together");
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn a_total_is_told_when_it_is_asked_for_and_counted_so_far() {
    let system = System::shared_with(&[("ROSTER_VIEWS_LIST_TOTAL_MAX", "3")]).await;
    let (admin, queries) = system.as_administrator().await;
    let total = async |parameters: &str| {
        let answer = queries.get(&format!("/api/v1/users?{parameters}")).await.expect(200);
        let omitted = answer.header("roster-total-omitted").map(str::to_owned);
        (answer.body.get("total").cloned(), omitted)
    };
    for n in 0..3 {
        let expected = (Some(json!(n + 1)), None);
        assert_eq!(total("include_total=true&page_size=1").await, expected);
        let body = json!({"email": format!("user{n}@example.com")});
        admin.post("/api/v1/users", &body).await.expect(201);
    }
    let omitted = (None, Some("more-than-3".to_owned()));
    assert_eq!(total("include_total=true").await, omitted);
    assert_eq!(total("role=admin&include_total=true").await, (Some(json!(1)), None));
    for parameters in ["", "include_total=false"] {
        assert_eq!(total(parameters).await, (None, None));
    }
}

// ---- a list that is walked while others write ---------------------------------------------------

const WRITERS: usize = 8;
const USERS: usize = 260;
const PAGE: usize = 50;
/// Writes between two pages, at least.
const WRITES_BETWEEN: usize = 6;

struct Writers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Each writer registers, renames and deletes; of the users that were there from the start those of
    /// its own.
    fn start(admin: &Client, paths: &[String]) -> Self {
        let mut writers =
            Self { stop: Arc::default(), done: Arc::default(), tasks: JoinSet::new() };
        for number in 0..WRITERS {
            let (admin, stop, done) = (admin.clone(), writers.stop.clone(), writers.done.clone());
            let mut own: Vec<String> =
                paths.iter().skip(number).step_by(WRITERS).cloned().collect();
            writers.tasks.spawn(async move {
                let mut dice = Dice(number as u64);
                for n in 0.. {
                    if stop.load(atomic::Ordering::Relaxed) {
                        return;
                    }
                    let (name, who) = (format!("{}", dice.below(1_000)), dice.below(own.len()));
                    match n % 3 {
                        0 => {
                            let email = format!("{name}-w{number}-{n}@example.com");
                            let body = json!({"email": email, "full_name": name});
                            let user = admin.post("/api/v1/users", &body).await.expect(201);
                            own.push(user.header("location").unwrap().to_owned());
                        }
                        1 => drop(admin.patch(&own[who], &rename(&name)).await.expect(200)),
                        _ => drop(admin.delete(&own.swap_remove(who)).await.expect(204)),
                    }
                    done.fetch_add(1, atomic::Ordering::Relaxed);
                }
            });
        }
        writers
    }

    async fn more(&self, writes: usize) {
        let done = || self.done.load(atomic::Ordering::Relaxed);
        let until = done() + writes;
        wait_for("the writers to go on", || async { done() >= until }).await;
    }

    async fn finish(mut self) {
        self.stop.store(true, atomic::Ordering::Relaxed);
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
    }
}

/// What was seen of a list, between two positions of the log.
struct Walk {
    sort: &'static str,
    from: Position,
    to: Position,
    seen: Vec<String>,
}

async fn walk(queries: &Client, admin: &Client, writers: &Writers, sort: &'static str) -> Walk {
    let (mut seen, mut from, mut cursor) = (Vec::new(), None, String::new());
    loop {
        let path = format!("/api/v1/users?sort={sort}&page_size={PAGE}{cursor}");
        let page = queries.get(&path).await.expect(200);
        from = from.or(Some(Position(page.position())));
        let items = page.body["items"].as_array().unwrap();
        seen.extend(items.iter().map(|user| user["id"].as_str().unwrap().to_owned()));
        let Some(next) = page.body["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        writers.more(WRITES_BETWEEN).await;
    }
    // Whatever was seen is in the log before this.
    let user = json!({"email": format!("end-of-walk{sort}@example.com")});
    let end = admin.post("/api/v1/users", &user).await.expect(201);
    Walk { sort, from: from.unwrap(), to: Position(end.position()), seen }
}

fn sort_key(user: &User, sort: &str) -> String {
    match sort.trim_start_matches('-') {
        "created_at" => user.created_at.to_string(),
        "email" => canonical(&user.email),
        "full_name" => user.full_name.as_deref().map(search_folded).unwrap_or_default(),
        other => panic!("the log does not know {other}"),
    }
}

/// The keys that each user had between two positions; `None` where it did not exist.
fn keys_between(log: &[Logged], walk: &Walk) -> BTreeMap<UserId, BTreeSet<Option<String>>> {
    let mut now: HashMap<UserId, Option<String>> = HashMap::new();
    let mut keys: BTreeMap<UserId, BTreeSet<Option<String>>> = BTreeMap::new();
    for Logged { position, event } in log.iter().filter(|logged| logged.position <= walk.to) {
        let key = match &event.after {
            Snapshot::Present(user) => Some(sort_key(user, walk.sort)),
            Snapshot::Deleted(_) => None,
        };
        let before = now.insert(event.user_id(), key.clone()).flatten();
        let had = keys.entry(event.user_id()).or_default();
        if *position > walk.from {
            had.insert(before);
        } else {
            had.clear();
        }
        had.insert(key);
    }
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_walked_while_others_write_misses_and_repeats_nobody() {
    let mut system = System::shared().await;
    // What the deleted were must stay in the log, to compare with.
    system.kill_reactor();
    let (admin, queries) = system.as_administrator().await;
    let paths: Vec<String> = join_all((0..USERS).map(|n| {
        let admin = &admin;
        async move {
            let body = json!({
                "email": format!("{}-user{n}@example.com", n * 7 % USERS),
                "full_name": format!("{}", n * 11 % 97),
            });
            let user = admin.post("/api/v1/users", &body).await.expect(201);
            user.header("location").unwrap().to_owned()
        }
    }))
    .await;
    let writers = Writers::start(&admin, &paths);
    let mut walks = Vec::new();
    for sort in ["-created_at", "created_at", "email", "-email", "full_name", "-full_name"] {
        walks.push(walk(&queries, &admin, &writers, sort).await);
    }
    writers.finish().await;

    let log = system.events().await;
    let mut moved = 0;
    for walk in walks {
        let mut times: HashMap<&str, usize> = HashMap::new();
        for id in &walk.seen {
            *times.entry(id).or_default() += 1;
        }
        let mut steady = 0;
        for (id, keys) in keys_between(&log, &walk) {
            let seen = times.remove(id.to_string().as_str()).unwrap_or(0);
            let existed = keys.iter().flatten().count();
            if keys.len() == 1 && existed == 1 {
                assert_eq!(seen, 1, "{id} was there throughout {}", walk.sort);
                steady += 1;
            } else if existed == 0 {
                assert_eq!(seen, 0, "{id} was deleted before {}", walk.sort);
            } else {
                // Came, went, or moved: seen at most once in each place.
                assert!(seen <= existed, "{id} seen {seen} times in {}", walk.sort);
                moved += 1;
            }
        }
        assert!(times.is_empty(), "users that never were: {times:?}");
        assert!(steady > PAGE, "only {steady} users stayed where they were");
    }
    assert!(moved > 60, "only {moved} users came, went or moved");
    system.views_equal_the_log(&queries).await;
}

#[tokio::test]
async fn a_list_that_is_too_much_work_is_refused() {
    let settings = [("ROSTER_VIEWS_LIST_WORK_MS", "1")];
    let system = System::shared_with(&settings).await;
    let (admin, queries) = system.as_administrator().await;
    // Each of the two filters fits half of the users, and both together nobody.
    let mut position = 0;
    for call in 0..2 {
        let lines: String = (0..10_000)
            .map(|n| {
                let email = format!("user{call}-{n}@example.com");
                let role = if n % 2 == 0 { "clerk" } else { "user" };
                let line = json!({"email": email, "roles": [role], "email_verified": n % 2 == 1});
                format!("{line}\n")
            })
            .collect();
        let body = Some(("application/x-ndjson", lines.into_bytes()));
        position = admin.send("POST", "/api/v1/users/import", body).await.expect(200).position();
    }
    wait_for("the views to have them", || async {
        queries.get(&format!("/api/v1/auth/me?min_position={position}")).await.status == 200
    })
    .await;
    let refused = queries.get("/api/v1/users?role=clerk&email_verified=true").await.expect(422);
    assert_eq!(refused.code(), "query-too-broad");
    assert_eq!(refused.header("retry-after"), None, "it is no better in a second");
}
