//! Sessions on several processes: one successor, no life after an end, and an end that is known everywhere.

use async_nats::jetstream;
use e2e::{
    ADMIN_EMAIL, ADMIN_PASSWORD, Client, PASSWORD, Pair, Process, System, list_all, rename,
    wait_for,
};
use events::Timestamp;
use futures::StreamExt;
use futures::future::join_all;
use serde_json::{Value, json};

/// Two of each API.
struct Doubled {
    system: System,
    others: [Process; 2],
}

impl Doubled {
    async fn start() -> Self {
        let system = System::shared().await;
        let others = ["command-api", "query-api"].map(|service| system.another(service));
        Self { system, others }
    }

    /// Both command sides.
    fn commands(&self) -> [Client; 2] {
        [self.system.commands(), Client::new(&self.others[0].value("url"))]
    }

    /// What each of the four processes says to an access token.
    async fn statuses(&self, access: &str) -> Vec<u16> {
        let mut statuses = Vec::new();
        for client in [self.system.queries(), Client::new(&self.others[1].value("url"))] {
            statuses.push(client.with_token(access).get("/api/v1/auth/me").await.status);
        }
        for client in self.commands() {
            let patch = client.with_token(access).patch("/api/v1/auth/me", &json!({})).await;
            statuses.push(patch.status);
        }
        statuses
    }

    /// All four processes take an access token: what is dead later was alive.
    async fn is_alive(&self, access: &str) {
        assert_eq!(self.statuses(access).await, [200; 4]);
    }

    /// Waits until an access token is refused by all four processes.
    async fn is_dead(&self, access: &str) {
        wait_for("an access token to be dead everywhere", || async {
            self.statuses(access).await == [401; 4]
        })
        .await;
    }
}

/// Types of the events of all sessions so far.
async fn session_events(system: &System) -> Vec<String> {
    let context = jetstream::new(system.operator().await);
    let mut stream = context.get_stream("SESSIONS").await.unwrap();
    let last = stream.info().await.unwrap().state.last_sequence;
    let mut types = Vec::new();
    for sequence in 1..=last {
        let Ok(message) = stream.get_raw_message(sequence).await else { continue };
        if message.subject.starts_with("ev.session.") {
            let event: Value = serde_json::from_slice(&message.payload).unwrap();
            types.push(event["type"].as_str().unwrap().to_owned());
        }
    }
    types
}

async fn sessions_of(system: &System, access: &str) -> Vec<Value> {
    let listed = system.queries().with_token(access).get("/api/v1/auth/sessions").await.expect(200);
    listed.body["items"].as_array().unwrap().clone()
}

async fn ada(system: &System) -> Pair {
    system.commands().register("ada@example.com").await.expect(201);
    system.commands().log_in("ada@example.com", PASSWORD).await
}

#[tokio::test]
async fn fifty_refreshes_of_one_token_have_one_successor() {
    let doubled = Doubled::start().await;
    let commands = doubled.commands();
    let mut token = ada(&doubled.system).await.refresh;
    const ROUNDS: usize = 20;
    for _ in 0..ROUNDS {
        let answers = join_all((0..50).map(|n| commands[n % 2].refresh(&token))).await;
        let successors: Vec<String> =
            answers.into_iter().map(|answer| Pair::of(&answer.expect(200).body).refresh).collect();
        assert!(successors.iter().all(|next| *next == successors[0]), "one successor for all");
        assert_ne!(successors[0], token);
        token.clone_from(&successors[0]);
    }
    let context = jetstream::new(doubled.system.operator().await);
    let stream = context.get_stream("SESSIONS").await.unwrap();
    let last = stream.get_last_raw_message_by_subject("ev.session.*.*").await.unwrap();
    let last: Value = serde_json::from_slice(&last.payload).unwrap();
    assert_eq!(last["revision"], 1 + ROUNDS, "one rotation a round");
    // The stream keeps the newest of each session.
    let kept = session_events(&doubled.system).await;
    assert!(!kept.is_empty() && kept.iter().all(|kind| kind == "session.refreshed.v1"), "{kept:?}");
}

#[tokio::test]
async fn a_token_that_was_replaced_twice_ends_its_family() {
    let doubled = Doubled::start().await;
    let [here, there] = doubled.commands();
    let first = ada(&doubled.system).await;
    let second = Pair::of(&here.refresh(&first.refresh).await.expect(200).body);
    let again = Pair::of(&there.refresh(&first.refresh).await.expect(200).body);
    assert_eq!(again.refresh, second.refresh, "a lost answer is repeated");
    let third = Pair::of(&there.refresh(&second.refresh).await.expect(200).body);
    for access in [&first.access, &third.access] {
        doubled.is_alive(access).await;
    }

    assert_eq!(here.refresh(&first.refresh).await.expect(401).code(), "invalid-refresh-token");
    assert_eq!(there.refresh(&third.refresh).await.expect(401).code(), "invalid-refresh-token");
    for access in [&first.access, &third.access] {
        doubled.is_dead(access).await;
    }
    let events = session_events(&doubled.system).await;
    assert_eq!(events.last().unwrap(), "session.theft_detected.v1");
    // Another session of the same user is no part of it.
    let other = here.log_in("ada@example.com", PASSWORD).await;
    there.refresh(&other.refresh).await.expect(200);
}

#[tokio::test]
async fn after_a_logout_nothing_of_the_family_works() {
    let doubled = Doubled::start().await;
    let [here, there] = doubled.commands();
    ada(&doubled.system).await;
    for _ in 0..20 {
        let pair = here.log_in("ada@example.com", PASSWORD).await;
        doubled.is_alive(&pair.access).await;
        let (refreshed, ended) =
            tokio::join!(here.refresh(&pair.refresh), there.log_out_with(&pair.refresh));
        ended.expect(204);
        let mut dead = vec![pair.clone()];
        if refreshed.status == 200 {
            dead.push(Pair::of(&refreshed.body));
        } else {
            refreshed.expect(401);
        }
        for pair in &dead {
            here.refresh(&pair.refresh).await.expect(401);
            there.refresh(&pair.refresh).await.expect(401);
        }
        for pair in &dead {
            doubled.is_dead(&pair.access).await;
        }
    }
}

#[tokio::test]
async fn a_logout_is_known_everywhere_and_again_is_harmless() {
    let doubled = Doubled::start().await;
    let [here, there] = doubled.commands();
    let pair = ada(&doubled.system).await;
    doubled.is_alive(&pair.access).await;
    let bearer = here.with_token(&pair.access);
    bearer.send("POST", "/api/v1/auth/logout", None).await.expect(204);
    doubled.is_dead(&pair.access).await;
    bearer.send("POST", "/api/v1/auth/logout", None).await.expect(204);
    there.log_out_with(&pair.refresh).await.expect(204);
    there.refresh(&pair.refresh).await.expect(401);
    assert_eq!(here.log_out_with("garbage").await.expect(401).code(), "invalid-refresh-token");
    here.with_token("a.b.c").send("POST", "/api/v1/auth/logout", None).await.expect(401);
}

/// Whoever starts later knows what ended before, and refuses nobody else.
#[tokio::test]
async fn a_process_that_starts_knows_what_has_ended() {
    let mut system = System::shared().await;
    let ended = ada(&system).await;
    let other = system.commands().log_in("ada@example.com", PASSWORD).await;
    system.commands().log_out_with(&ended.refresh).await.expect(204);
    system.restart_command_api();
    let next = system.another("query-api");
    std::mem::replace(&mut system.query_api, next).kill();
    for (access, status) in [(&ended.access, 401), (&other.access, 200)] {
        let commands = system.commands().with_token(access);
        commands.patch("/api/v1/auth/me", &json!({})).await.expect(status);
        system.queries().with_token(access).get("/api/v1/auth/me").await.expect(status);
    }
}

/// Refreshes one token after the other until that is refused; every pair there was.
async fn refresh_until_refused(client: &Client, pair: Pair) -> Vec<Pair> {
    const REFRESHES_MAX: usize = 2_000;
    let mut family = vec![pair];
    loop {
        assert!(family.len() < REFRESHES_MAX, "nothing ends this session");
        let answer = client.refresh(&family[family.len() - 1].refresh).await;
        if answer.status != 200 {
            assert_eq!(answer.expect(401).code(), "invalid-refresh-token");
            return family;
        }
        family.push(Pair::of(&answer.body));
    }
}

/// Refreshes all the while that a user is disabled, or changes the password elsewhere: the end wins.
#[tokio::test]
async fn no_refresh_gets_past_the_end_of_access() {
    let doubled = Doubled::start().await;
    let [here, there] = doubled.commands();
    let registered = here.register("ada@example.com").await.expect(201);
    let path = registered.header("location").unwrap();
    let admin = there.with_token(&there.login(ADMIN_EMAIL, ADMIN_PASSWORD).await);
    let (disable, enable) = (json!({"status": "disabled"}), json!({"status": "active"}));
    let passwords = [PASSWORD, "another password for tests"];
    let mut raced = 0;
    for round in 0..10 {
        let (current, new) = (passwords[round % 2], passwords[1 - round % 2]);
        let pair = here.log_in("ada@example.com", current).await;
        doubled.is_alive(&pair.access).await;
        let (family, disabled) =
            tokio::join!(refresh_until_refused(&here, pair), admin.patch(path, &disable));
        disabled.expect(200);
        raced += family.len() - 1;
        admin.patch(path, &enable).await.expect(200);
        is_over(&doubled, &family).await;

        let pair = here.log_in("ada@example.com", current).await;
        let mine = there.log_in("ada@example.com", current).await;
        let bearer = there.with_token(&mine.access);
        let change = json!({"current_password": current, "new_password": new});
        let (family, changed) = tokio::join!(
            refresh_until_refused(&here, pair),
            bearer.post("/api/v1/auth/change-password", &change)
        );
        changed.expect(204);
        raced += family.len() - 1;
        is_over(&doubled, &family).await;
        there.refresh(&mine.refresh).await.expect(200);
    }
    assert!(raced > 0, "no refresh came before an end");
}

/// Nothing of a family works: the newest tokens, on every process.
async fn is_over(doubled: &Doubled, family: &[Pair]) {
    for pair in family.iter().rev().take(2) {
        for client in doubled.commands() {
            client.refresh(&pair.refresh).await.expect(401);
        }
        doubled.is_dead(&pair.access).await;
    }
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let doubled = Doubled::start().await;
    let system = &doubled.system;
    let commands = system.commands().with_header("user-agent", "a telephone");
    system.commands().register("ada@example.com").await.expect(201);
    let phone = commands.log_in("ada@example.com", PASSWORD).await;
    let laptop = system.commands().log_in("ada@example.com", PASSWORD).await;
    system.commands().register("eve@example.com").await.expect(201);
    let eve = system.commands().log_in("eve@example.com", PASSWORD).await;

    doubled.is_alive(&phone.access).await;
    doubled.is_alive(&laptop.access).await;

    let listed = sessions_of(system, &laptop.access).await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    let telephone = listed.iter().find(|s| s["user_agent"] == "a telephone").unwrap();
    assert_eq!((&telephone["current"], &telephone["ip"]), (&json!(false), &json!("127.0.0.1")));
    assert_eq!(listed.iter().filter(|session| session["current"] == true).count(), 1);

    let path = format!("/api/v1/auth/sessions/{}", telephone["id"].as_str().unwrap());
    let (as_eve, as_ada) =
        (system.commands().with_token(&eve.access), system.commands().with_token(&laptop.access));
    as_eve.delete(&path).await.expect(404);
    as_ada.delete("/api/v1/auth/sessions/garbage").await.expect(404);
    as_ada.delete(&path).await.expect(204);
    doubled.is_dead(&phone.access).await;
    system.commands().refresh(&phone.refresh).await.expect(401);
    assert_eq!(sessions_of(system, &laptop.access).await.len(), 1);
    assert_eq!(sessions_of(system, &eve.access).await.len(), 1, "nobody else's");

    as_ada.send("POST", "/api/v1/auth/logout-all", None).await.expect(204);
    doubled.is_dead(&laptop.access).await;
    system.commands().refresh(&laptop.refresh).await.expect(401);
    let fresh = system.commands().log_in("ada@example.com", PASSWORD).await;
    assert_eq!(sessions_of(system, &fresh.access).await.len(), 1, "only the new one");

    // An administrator ends all of a user's, and a plain user nobody's.
    let (admin, queries) = system.as_administrator().await;
    let me = system.queries().with_token(&fresh.access).get("/api/v1/auth/me").await.expect(200);
    let path = format!("/api/v1/users/{}/logout-all", me.body["id"].as_str().unwrap());
    as_eve.send("POST", &path, None).await.expect(403);
    let ended = admin.send("POST", &path, None).await.expect(200);
    assert_eq!(ended.body["email"], "ada@example.com");
    doubled.is_dead(&fresh.access).await;
    system.commands().refresh(&fresh.refresh).await.expect(401);
    system.views_equal_the_log(&queries).await;
}

#[tokio::test]
async fn what_happens_to_a_user_happens_to_the_sessions() {
    let doubled = Doubled::start().await;
    let system = &doubled.system;
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let registered = commands.register("ada@example.com").await.expect(201);
    let path = registered.header("location").unwrap();

    // Another role: access tokens end, the session goes on with the roles of now.
    let pair = commands.log_in("ada@example.com", PASSWORD).await;
    doubled.is_alive(&pair.access).await;
    system.queries().with_token(&pair.access).get("/api/v1/users").await.expect(403);
    admin.patch(path, &json!({"roles": ["operator", "user"]})).await.expect(200);
    doubled.is_dead(&pair.access).await;
    let pair = Pair::of(&commands.refresh(&pair.refresh).await.expect(200).body);
    system.queries().with_token(&pair.access).get("/api/v1/users").await.expect(200);

    // A new name ends nothing.
    admin.patch(path, &rename("Ada King")).await.expect(200);
    system.queries().with_token(&pair.access).get("/api/v1/auth/me").await.expect(200);

    // Disabled and enabled again: what was before stays dead.
    admin.patch(path, &json!({"status": "disabled"})).await.expect(200);
    doubled.is_dead(&pair.access).await;
    commands.refresh(&pair.refresh).await.expect(401);
    admin.patch(path, &json!({"status": "active"})).await.expect(200);
    commands.refresh(&pair.refresh).await.expect(401);
    doubled.is_dead(&pair.access).await;

    // Another password, by whoever knows the present one: this session goes on, the others end.
    let pair = commands.log_in("ada@example.com", PASSWORD).await;
    let other = commands.log_in("ada@example.com", PASSWORD).await;
    doubled.is_alive(&pair.access).await;
    doubled.is_alive(&other.access).await;
    let change = |current: &str| json!({"current_password": current, "new_password": "another password for tests"});
    let bearer = commands.with_token(&pair.access);
    let refused = bearer.post("/api/v1/auth/change-password", &change("wrong")).await.expect(403);
    assert_eq!(refused.code(), "wrong-password");
    bearer.post("/api/v1/auth/change-password", &change(PASSWORD)).await.expect(204);
    doubled.is_dead(&pair.access).await;
    doubled.is_dead(&other.access).await;
    commands.refresh(&other.refresh).await.expect(401);
    let pair = Pair::of(&commands.refresh(&pair.refresh).await.expect(200).body);
    system.queries().with_token(&pair.access).get("/api/v1/auth/me").await.expect(200);
    let old = json!({"email": "ada@example.com", "password": PASSWORD});
    commands.post("/api/v1/auth/login", &old).await.expect(401);

    // Deleted: nothing is left.
    doubled.is_alive(&pair.access).await;
    admin.delete(path).await.expect(204);
    doubled.is_dead(&pair.access).await;
    commands.refresh(&pair.refresh).await.expect(401);
}

/// Settings that let the ends be seen without waiting for them.
#[tokio::test]
async fn a_refresh_does_not_move_the_absolute_end() {
    let settings = [("ROSTER_SESSIONS_IDLE_S", "400"), ("ROSTER_SESSIONS_ABSOLUTE_S", "400")];
    let system = System::shared_with(&settings).await;
    let first = ada(&system).await;
    let before = sessions_of(&system, &first.access).await.remove(0);
    let answer = system.commands().refresh(&first.refresh).await.expect(200);
    assert!(answer.body["refresh_expires_in"].as_u64().unwrap() <= 400);
    let second = Pair::of(&answer.body);
    let after = sessions_of(&system, &second.access).await.remove(0);
    assert_eq!(after["expires_at"], before["expires_at"], "the end stands");
    assert_ne!(after["last_used_at"], before["last_used_at"]);
    assert_eq!(after["id"], before["id"]);
}

#[tokio::test]
async fn a_refresh_moves_the_idle_end_and_says_how_long_its_tokens_live() {
    let settings = [
        ("ROSTER_SESSIONS_IDLE_S", "400"),
        ("ROSTER_SESSIONS_ABSOLUTE_S", "500"),
        ("ROSTER_TOKENS_ACCESS_LIFETIME_S", "60"),
    ];
    let system = System::shared_with(&settings).await;
    let first = ada(&system).await;
    let before = sessions_of(&system, &first.access).await.remove(0);
    let answer = system.commands().refresh(&first.refresh).await.expect(200);
    assert_eq!(answer.body["expires_in"], 60);
    let left = answer.body["refresh_expires_in"].as_u64().unwrap();
    assert!((1..=400).contains(&left), "{left}");
    let after = sessions_of(&system, &Pair::of(&answer.body).access).await.remove(0);
    let time = |session: &Value, name: &str| -> Timestamp {
        serde_json::from_value(session[name].clone()).unwrap()
    };
    assert!(time(&after, "expires_at") > time(&before, "expires_at"), "{before} {after}");
    let (created, used) = (time(&after, "created_at"), time(&after, "last_used_at"));
    assert_eq!(created, time(&before, "created_at"));
    let end = used.plus_seconds(400).min(created.plus_seconds(500));
    assert_eq!(time(&after, "expires_at"), end, "the earlier of idle and absolute end");
}

#[tokio::test]
async fn a_first_token_comes_with_the_registration_and_again_with_its_password() {
    let system = System::shared().await;
    let commands = system.commands().with_header("idempotency-key", "one");
    let path = "/api/v1/auth/register?with_token=true";
    let body = |password: &str| json!({"email": "ada@example.com", "password": password});
    let first = commands.post(path, &body(PASSWORD)).await.expect(201);
    let again = commands.post(path, &body(PASSWORD)).await.expect(201);
    assert_eq!(first.body["user"], again.body["user"]);
    let (first, again) = (Pair::of(&first.body["token"]), Pair::of(&again.body["token"]));
    assert_ne!(first, again, "no token is kept for a repetition");
    system.commands().refresh(&first.refresh).await.expect(200);
    system.commands().refresh(&again.refresh).await.expect(200);
    commands.post(path, &body("another password for tests")).await.expect(401);
}

#[tokio::test]
async fn a_login_is_seen_and_changes_no_revision() {
    let system = System::shared().await;
    let commands = system.commands();
    let registered = commands.register("ada@example.com").await.expect(201);
    let (_, queries) = system.as_administrator().await;
    let path = registered.header("location").unwrap();
    let before = queries.get(path).await.expect(200);
    assert_eq!(before.body["last_login_at"], Value::Null);
    let pair = commands.log_in("ada@example.com", PASSWORD).await;
    let me = system.queries().with_token(&pair.access).get("/api/v1/auth/me").await.expect(200);
    for after in [me, queries.get(path).await.expect(200)] {
        assert!(after.body["last_login_at"].is_string(), "{after:?}");
        assert_eq!(after.header("etag"), before.header("etag"));
        assert_eq!(after.body["revision"], before.body["revision"]);
        let users = list_all(&queries, "page_size=200").await;
        assert!(users.contains(&after.body), "{users:?}");
    }
}

/// Without the bus nobody can know what ended: whoever may do harm to others is refused.
#[tokio::test]
async fn administrators_are_refused_while_the_bus_is_silent() {
    let system = System::own_with(&[("ROSTER_REVOCATIONS_SILENCE_MAX_MS", "3000")]).await;
    let (_, queries) = system.as_administrator().await;
    let ended = ada(&system).await;
    let pair = system.commands().log_in("ada@example.com", PASSWORD).await;
    system.commands().log_out_with(&ended.refresh).await.expect(204);
    let me = |access: &str| {
        let caller = system.queries().with_token(access);
        async move { caller.get("/api/v1/auth/me").await.status }
    };
    wait_for("the logout to be known", || async { me(&ended.access).await == 401 }).await;
    assert_eq!(me(&pair.access).await, 200);

    system.nats().kill().unwrap();
    wait_for("the administrator to be refused", || async {
        queries.get("/api/v1/users").await.status == 503
    })
    .await;
    for service in [&system.command_api, &system.query_api] {
        let private = Client::new(&service.value("private"));
        wait_for("a service not to be ready", || async {
            private.get("/readyz").await.status == 503
        })
        .await;
        private.get("/livez").await.expect(200);
    }
    assert_eq!(me(&ended.access).await, 401, "what was known stays known");
    let refused = system.commands().log_out_with(&pair.refresh).await.expect(503);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");

    system.nats().restart().unwrap();
    system.ready().await;
    queries.get("/api/v1/users").await.expect(200);
    assert_eq!(me(&ended.access).await, 401);
    system.commands().log_out_with(&pair.refresh).await.expect(204);
    wait_for("the logout to be known", || async { me(&pair.access).await == 401 }).await;
}

/// The stream is as the command side says, and not only its answers.
#[tokio::test]
async fn every_event_of_a_session_is_in_the_log() {
    let system = System::shared().await;
    let pair = ada(&system).await;
    let pair = Pair::of(&system.commands().refresh(&pair.refresh).await.expect(200).body);
    system.commands().log_out_with(&pair.refresh).await.expect(204);
    assert_eq!(
        session_events(&system).await,
        ["session.started.v1", "session.refreshed.v1", "session.ended.v1"]
    );
    let context = jetstream::new(system.operator().await);
    let stream = context.get_stream("SESSIONS").await.unwrap();
    let subjects: Vec<_> = stream.info_with_subjects("rv.session.*").await.unwrap().collect().await;
    let subjects = subjects.into_iter().map(|subject| subject.unwrap().0);
    let ended = subjects.filter(|subject| subject != events::subjects::LINEAGE).count();
    assert_eq!(ended, 1, "and its end is told");
}

#[tokio::test]
async fn a_full_log_of_sessions_refuses_and_loses_nothing() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register("ada@example.com").await.expect(201);
    let inside = commands.log_in("ada@example.com", PASSWORD).await;
    let context = jetstream::new(system.operator().await);
    let mut stream = context.get_stream("SESSIONS").await.unwrap();
    let info = stream.info().await.unwrap();
    let (roomy, mut full) = (info.config.clone(), info.config.clone());
    full.max_bytes = info.state.bytes.try_into().unwrap();
    context.update_stream(full).await.unwrap();

    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    for answer in
        [commands.refresh(&inside.refresh).await, commands.post("/api/v1/auth/login", &body).await]
    {
        assert_eq!((answer.status, answer.code()), (503, "log-full"), "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    // Who is inside stays inside, and the token that was refused is good when there is room again.
    let me = system.queries().with_token(&inside.access);
    me.get("/api/v1/auth/me").await.expect(200);
    context.update_stream(roomy).await.unwrap();
    // A service asks for the room once a second.
    wait_for("the room to be known", || async {
        commands.refresh(&inside.refresh).await.status == 200
    })
    .await;
    // The last token again has the same successor.
    let refreshed = commands.refresh(&inside.refresh).await.expect(200);
    commands.log_out_with(refreshed.body["refresh_token"].as_str().unwrap()).await.expect(204);
}

#[tokio::test]
async fn beyond_the_bound_the_oldest_session_ends() {
    let system = System::shared_with(&[("ROSTER_SESSIONS_PER_USER_MAX", "3")]).await;
    let commands = system.commands();
    let (ada, bob) = ("ada@example.com", "bob@example.com");
    commands.register(ada).await.expect(201);
    commands.register(bob).await.expect(201);
    let others = commands.log_in(bob, PASSWORD).await;
    let mut pairs = Vec::new();
    for _ in 0..3 {
        pairs.push(commands.log_in(ada, PASSWORD).await);
    }
    // One that has ended takes no place.
    commands.log_out_with(&pairs.remove(1).refresh).await.expect(204);
    pairs.push(commands.log_in(ada, PASSWORD).await);
    let mut refreshed = Vec::new();
    for pair in &pairs {
        refreshed.push(commands.refresh(&pair.refresh).await.expect(200));
    }
    let newest = commands.log_in(ada, PASSWORD).await;
    let alive: Vec<u16> = {
        let mut statuses = Vec::new();
        for answer in &refreshed {
            let token = answer.body["refresh_token"].as_str().unwrap();
            statuses.push(commands.refresh(token).await.status);
        }
        statuses
    };
    assert_eq!(alive, [401, 200, 200], "the oldest, and no other");
    let listed = system.queries().with_token(&newest.access).get("/api/v1/auth/sessions").await;
    assert_eq!(listed.expect(200).body["items"].as_array().unwrap().len(), 3);
    commands.refresh(&others.refresh).await.expect(200);
}
