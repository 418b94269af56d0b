//! What a login or a refresh gave.

use serde_json::{Value, json};

use crate::{Answer, Client};

/// An access token and the refresh token that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// For requests.
    pub access: String,
    /// For the next pair.
    pub refresh: String,
}

impl Pair {
    /// Out of the body of a `Token`.
    pub fn of(token: &Value) -> Self {
        let text = |name: &str| token[name].as_str().unwrap().to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token") }
    }
}

impl Client {
    /// Logs in; both tokens.
    pub async fn log_in(&self, email: &str, password: &str) -> Pair {
        let body = json!({"email": email, "password": password});
        Pair::of(&self.post("/api/v1/auth/login", &body).await.expect(200).body)
    }

    /// Asks for the next pair.
    pub async fn refresh(&self, token: &str) -> Answer {
        self.post("/api/v1/auth/refresh", &json!({"refresh_token": token})).await
    }

    /// Ends the session of a refresh token.
    pub async fn log_out_with(&self, token: &str) -> Answer {
        self.post("/api/v1/auth/logout", &json!({"refresh_token": token})).await
    }
}
