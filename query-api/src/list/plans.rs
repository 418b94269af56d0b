//! The query plans of the database for each list, on a real server.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use events::{
    DeletedUser, Metadata, Position, Revision, Snapshot, Status, Timestamp, User, UserId,
};
use mongodb::bson::{Bson, DateTime, Document, doc};
use service_kit::http::page::Total;
use service_kit::keys::SecretKey;
use uuid::Uuid;
use view_kit::reads::{counted, page};
use view_kit::{Find, ReadError};
use views::{UserDocument, UserView, Views, users_collection, users_indexes};

use super::List;

const GENERATION: u32 = 1;
const USERS: u32 = 3_000;
const LONG: Duration = Duration::from_secs(60);

/// Users with many equal keys, and as many tombstones: neither may add to the cost of a page.
async fn views(users: u32) -> Views {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("query_api_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let views = Views::open(&local_stack::testing::mongod().url(), &name).await.unwrap();
    views.users(GENERATION).create_indexes(users_indexes()).await.unwrap();
    let documents: Vec<UserDocument> = (0..users).flat_map(|n| [user(n), tombstone(n)]).collect();
    views.users(GENERATION).insert_many(documents).await.unwrap();
    views
}

fn id(n: u32) -> UserId {
    // Not in the order of their creation.
    UserId::from_uuid(Uuid::from_u128(u128::from(n.reverse_bits()) << 64))
}

fn time(second: u32) -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000 + i64::from(second)).unwrap()
}

fn user(n: u32) -> UserDocument {
    let verified = n.is_multiple_of(2);
    let user = User {
        id: id(n),
        email: format!("user{n}@example.com"),
        email_verified: verified,
        full_name: (!n.is_multiple_of(3)).then(|| format!("Name{} of many", n % 7)),
        // Each of the two has half of the users, and no user has this role and a verified address.
        roles: vec![if verified { "user" } else { "clerk" }.to_owned()],
        status: if n.is_multiple_of(100) { Status::Disabled } else { Status::Active },
        metadata: Metadata::new(),
        revision: Revision(1),
        created_at: time(n / 600),
        updated_at: time(n),
    };
    let mut document = UserDocument::project(&Snapshot::Present(user), Position(n.into()));
    document.last_login_at =
        (n % 4 > 1).then(|| DateTime::from_millis(1_800_000_000_000 + i64::from(n % 5)));
    document
}

fn tombstone(n: u32) -> UserDocument {
    let id = UserId::from_uuid(Uuid::from_u128(u128::from(n) + 1));
    let deleted = DeletedUser { id, revision: Revision(2), deleted_at: time(n) };
    UserDocument::project(&Snapshot::Deleted(deleted), Position(n.into()))
}

fn list(parameters: &[(&str, &str)], key: &SecretKey) -> List {
    let owned: Vec<(String, String)> =
        parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    List::parse(&owned, key).unwrap()
}

/// The stages of a plan, at any depth.
fn stages(plan: &Bson, found: &mut BTreeSet<String>) {
    if let Some(plan) = plan.as_document() {
        found.extend(plan.get_str("stage").ok().map(str::to_owned));
        plan.values().for_each(|part| stages(part, found));
    }
    plan.as_array().into_iter().flatten().for_each(|part| stages(part, found));
}

async fn explain(views: &Views, find: &Find) -> (BTreeSet<String>, i64, Document) {
    let mut command = doc! {
        "find": users_collection(GENERATION), "filter": find.filter.clone(), "sort": find.sort.clone(),
        "limit": i64::try_from(find.limit).unwrap(),
    };
    if let Some(index) = find.index {
        command.insert("hint", index);
    }
    let explain = doc! {"explain": command, "verbosity": "executionStats"};
    let answer = views.database().run_command(explain).await.unwrap();
    let statistics = answer.get_document("executionStats").unwrap().clone();
    let mut found = BTreeSet::new();
    stages(answer.get_document("queryPlanner").unwrap().get("winningPlan").unwrap(), &mut found);
    let examined = statistics.get_i32("totalDocsExamined").unwrap();
    (found, examined.into(), statistics)
}

/// The last user of a page in the middle of a list.
async fn middle(views: &Views, find: &Find, users: u64) -> views::LivingUser {
    let collection = views.users(GENERATION);
    let found = collection.find_one(find.filter.clone()).sort(find.sort.clone()).skip(users / 2);
    let UserView::Living(user) = found.await.unwrap().unwrap().view().unwrap() else {
        panic!("a list has living users alone");
    };
    *user
}

const SORTS: [&str; 8] = [
    "created_at",
    "-created_at",
    "email",
    "-email",
    "full_name",
    "-full_name",
    "last_login_at",
    "-last_login_at",
];

#[tokio::test]
async fn every_sort_and_every_filter_reads_little_more_than_its_page() {
    let views = views(USERS).await;
    let key = SecretKey::generate().unwrap();
    let (after, before) = (time(1).to_string(), time(4).to_string());
    let mut lists: Vec<Vec<(&str, &str)>> = SORTS.map(|sort| vec![("sort", sort)]).to_vec();
    for filter in [
        ("email", "USER7@example.com"),
        ("role", "user"),
        ("role", "nobody"),
        ("status", "active"),
        ("status", "disabled"),
        ("email_verified", "true"),
        ("created_after", &after),
        ("created_before", &before),
    ] {
        lists.push(vec![filter]);
        lists.push(vec![filter, ("sort", "created_at")]);
        lists.push(vec![filter, ("created_after", &after), ("created_before", &before)]);
    }
    for mut parameters in lists {
        parameters.sort_unstable();
        parameters.dedup_by_key(|(name, _)| *name);
        let first = list(&parameters, &key);
        let Total::Exactly(users) = counted(
            views.database(),
            &users_collection(GENERATION),
            first.count(),
            LONG,
            USERS.into(),
        )
        .await
        .unwrap() else {
            panic!("{parameters:?} is not counted");
        };
        let mut pages = vec![first.find()];
        if users > 0 {
            let cursor = first.cursor(&middle(&views, &first.find(), users).await, &key);
            pages
                .push(list(&[parameters.clone(), vec![("cursor", &cursor)]].concat(), &key).find());
        }
        for find in pages {
            let (stages, examined, statistics) = explain(&views, &find).await;
            assert!(stages.contains("IXSCAN"), "{parameters:?}: {stages:?}");
            for slow in ["COLLSCAN", "SORT"] {
                assert!(!stages.contains(slow), "{parameters:?}: {stages:?}");
            }
            // Twice, because the database reads a document without a last login again.
            let bound = 2 * i64::try_from(find.limit).unwrap();
            assert!(examined <= bound, "{parameters:?}: {examined} examined: {statistics}");
        }
    }
}

/// A combination without an index of its own is still not a scan of the collection.
#[tokio::test]
async fn combinations_are_served_from_an_index_as_well() {
    let views = views(USERS).await;
    let key = SecretKey::generate().unwrap();
    for sort in SORTS {
        for parameters in [
            vec![("q", "name3"), ("sort", sort)],
            vec![("q", "user77 of"), ("role", "user"), ("sort", sort)],
            vec![("role", "user"), ("status", "disabled"), ("sort", sort)],
            vec![("email_verified", "true"), ("sort", sort)],
        ] {
            let first = list(&parameters, &key);
            let cursor = first.cursor(&middle(&views, &first.find(), 2).await, &key);
            let next = list(&[parameters.clone(), vec![("cursor", &cursor)]].concat(), &key);
            for find in [first.find(), next.find()] {
                let (stages, ..) = explain(&views, &find).await;
                assert!(stages.contains("IXSCAN"), "{parameters:?}: {stages:?}");
                assert!(!stages.contains("COLLSCAN"), "{parameters:?}: {stages:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_too_much_work_is_refused_and_what_is_too_many_not_counted() {
    const MANY: u32 = 20_000;
    let views = views(MANY).await;
    let key = SecretKey::generate().unwrap();
    // Each of the two filters matches half of the users, and both together match nobody.
    let broad = list(&[("role", "clerk"), ("email_verified", "true")], &key);
    let short = Duration::from_millis(1);
    let refused = page(&views.users(GENERATION), broad.find(), short).await;
    assert!(matches!(refused, Err(ReadError::TooBroad)), "{refused:?}");
    let total =
        counted(views.database(), &users_collection(GENERATION), broad.count(), short, u64::MAX)
            .await
            .unwrap();
    assert_eq!(total, Total::TooMuchWork);
    assert!(page(&views.users(GENERATION), broad.find(), LONG).await.unwrap().is_empty());

    let all = list(&[], &key);
    for (most, total) in [
        (MANY - 1, Total::MoreThan(u64::from(MANY) - 1)),
        (MANY, Total::Exactly(MANY.into())),
        (0, Total::MoreThan(0)),
    ] {
        let counted = counted(
            views.database(),
            &users_collection(GENERATION),
            all.count(),
            LONG,
            most.into(),
        )
        .await
        .unwrap();
        assert_eq!(counted, total);
    }
    assert_eq!(page(&views.users(GENERATION), all.find(), LONG).await.unwrap().len(), 51);
}
