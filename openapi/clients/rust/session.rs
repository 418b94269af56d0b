//! A session with the client that openapi-generator generates from the document: compiling it shows that the types are
//! usable, and running it that they are correct.

use std::collections::HashMap;
use std::env;

use reqwest::StatusCode;
use roster_client::apis::configuration::Configuration;
use roster_client::apis::{auth_api, users_api, Error};
use roster_client::models::{Credentials, OwnChange, Problem, Registered, UserChange, UserCreate};
use serde_json::json;

const EMAIL: &str = "rust@example.com";
const PASSWORD: &str = "a password of a generated client";

fn anyone() -> Configuration {
    Configuration { base_path: env::var("CHECK_URL").unwrap(), ..Configuration::default() }
}

async fn log_in(email: &str, password: &str) -> Configuration {
    let credentials = Credentials::new(email.to_owned(), password.to_owned());
    let token = auth_api::login(&anyone(), credentials, None).await.unwrap();
    Configuration { bearer_access_token: Some(token.access_token), ..anyone() }
}

fn refused<T, E>(answer: Result<T, Error<E>>, status: StatusCode, code: &str) {
    let Err(Error::ResponseError(refusal)) = answer else { panic!("{code} was expected") };
    let problem: Problem = serde_json::from_str(&refusal.content).unwrap();
    assert_eq!((refusal.status, problem.code.as_str()), (status, code));
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let metadata = HashMap::from([("languages".to_owned(), json!(["rs"]))]);
    let mut wanted = UserCreate::new(EMAIL.to_owned(), PASSWORD.to_owned());
    wanted.full_name = Some(Some("Rust".to_owned()));
    wanted.metadata = Some(Some(metadata.clone()));
    let made = auth_api::register(&anyone(), wanted.clone(), None, None, None).await.unwrap();
    let Registered::UserRead(user) = made else { panic!("a user without a token: {made:?}") };
    assert_eq!((&user.metadata, user.last_login_at), (&metadata, None));
    let taken = auth_api::register(&anyone(), wanted, None, None, None).await;
    refused(taken, StatusCode::CONFLICT, "email-taken");

    let own = log_in(EMAIL, PASSWORD).await;
    let me = auth_api::me(&own, None, None, None).await.unwrap();
    assert!(me.last_login_at.flatten().is_some(), "{me:?}");
    let change = OwnChange {
        full_name: Some(None),
        metadata: Some(Some(HashMap::from([("languages".to_owned(), json!(null))]))),
    };
    let changed = auth_api::change_me(&own, change, None, None, None).await.unwrap();
    assert_eq!((changed.full_name, changed.metadata.len()), (None, 0));

    let (email, password) = (env::var("CHECK_EMAIL").unwrap(), env::var("CHECK_PASSWORD").unwrap());
    let administrator = log_in(&email, &password).await;
    let page = users_api::list_users(
        &administrator,
        None,
        None,
        Some("-full_name"),
        Some(true),
        None,
        Some(EMAIL),
        None,
        None,
        None,
        None,
        None,
        None,
        None,
    );
    let page = page.await.unwrap();
    assert_eq!((page.total, page.items[0].id), (Some(1), user.id));
    let id = user.id.to_string();
    let roles = UserChange {
        roles: Some(vec!["user".to_owned(), "auditor".to_owned()]),
        ..UserChange::new()
    };
    let change = |tag: String| {
        let (administrator, id, roles) = (administrator.clone(), id.clone(), roles.clone());
        async move { users_api::change_user(&administrator, &id, roles, Some(&tag), None, None).await }
    };
    let stale = change("W/\"1\"".to_owned()).await;
    refused(stale, StatusCode::PRECONDITION_FAILED, "stale-revision");
    let given = change(format!("W/\"{}\"", changed.revision)).await.unwrap();
    assert_eq!(given.roles, ["auditor", "user"]);
    users_api::delete_user(&administrator, &id, None, None, None).await.unwrap();
    let nobody = users_api::user(&administrator, &id, None, None, None).await;
    refused(nobody, StatusCode::NOT_FOUND, "not-found");
    println!("Rust: the generated client works");
}
