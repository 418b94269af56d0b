//! An HTTP client that keeps what a test wants to look at.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Limit of one request, so that a test does not hang. The import of 10,000 users takes a minute on a busy machine.
const REQUEST_MAX: Duration = Duration::from_secs(300);

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as JSON; `null` when it is none.
    pub body: Value,
    /// The body as it came.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `code` of a problem.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The lines of a body of lines of JSON.
    pub fn lines(&self) -> Vec<Value> {
        serde_json::Deserializer::from_slice(&self.bytes).into_iter().map(Result::unwrap).collect()
    }

    /// The position it reflects.
    pub fn position(&self) -> u64 {
        self.header("roster-position").unwrap().parse().unwrap()
    }

    /// What it tells: all of it but its own name and time.
    pub fn told(&self) -> (u16, BTreeMap<String, String>, Value) {
        let (mut headers, mut body) = (self.headers.clone(), self.body.clone());
        headers.retain(|name, _| name != "x-request-id" && name != "date");
        if let Some(members) = body.as_object_mut() {
            members.remove("instance");
        }
        (self.status, headers, body)
    }

    /// Fails unless the status is this one.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// A client of one address with connections of its own. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    headers: Vec<(String, String)>,
}

impl Client {
    /// A client without a token.
    pub fn new(base: &str) -> Self {
        let http = reqwest::Client::builder().timeout(REQUEST_MAX).no_proxy().build().unwrap();
        Self { http, base: base.to_owned(), token: None, headers: Vec::new() }
    }

    /// The same with a token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same with one more header on every request.
    #[must_use]
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// Sends bytes as they are; `None` when no answer came.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Option<Answer> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some((content_type, bytes)) = body {
            if !content_type.is_empty() {
                request = request.header("content-type", content_type);
            }
            request = request.body(bytes);
        }
        let response = request.send().await.ok()?;
        let status: StatusCode = response.status();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into())
            })
            .collect();
        let bytes = response.bytes().await.ok()?.to_vec();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Some(Answer { status: status.as_u16(), headers, body, bytes })
    }

    /// Sends bytes as they are.
    pub async fn send(&self, method: &str, path: &str, body: Option<(&str, Vec<u8>)>) -> Answer {
        self.try_send(method, path, body)
            .await
            .unwrap_or_else(|| panic!("no answer: {method} {path}"))
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    /// `GET` of what is no JSON: the status and the text.
    pub async fn get_text(&self, path: &str) -> (u16, String) {
        let response = self.http.get(format!("{}{path}", self.base)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, Some(("application/json", body.to_string().into_bytes()))).await
    }

    /// `PATCH` of a merge patch.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        let content_type = "application/merge-patch+json";
        self.send("PATCH", path, Some((content_type, body.to_string().into_bytes()))).await
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, None).await
    }

    /// Registers a user.
    pub async fn register(&self, email: &str) -> Answer {
        let body = json!({"email": email, "password": PASSWORD, "full_name": "Test User"});
        self.post("/api/v1/auth/register", &body).await
    }

    /// Logs in; the access token.
    pub async fn login(&self, email: &str, password: &str) -> String {
        let body = json!({"email": email, "password": password});
        let answer = self.post("/api/v1/auth/login", &body).await.expect(200);
        answer.body["access_token"].as_str().unwrap().to_owned()
    }
}

/// The password of every user made by [`Client::register`].
pub const PASSWORD: &str = "a password for tests";
