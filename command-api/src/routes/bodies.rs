//! The bodies that handlers take apart member by member, described for the OpenAPI document. The examples
//! are sent to a running system by a test.

#![expect(dead_code, reason = "descriptions")]

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "email": "ada@example.com", "password": "a long enough password", "full_name": "Ada Lovelace",
    "metadata": {"team": "blue"},
}))]
pub struct UserCreate {
    #[schema(format = Email, max_length = 254)]
    email: String,
    /// Counted in code points. Common ones, breached ones and weak ones are refused.
    #[schema(format = Password, min_length = 8, max_length = 256)]
    password: String,
    #[schema(min_length = 1, max_length = 200)]
    full_name: Option<String>,
    /// At most 4 KiB as JSON.
    metadata: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.com", "password": "a long enough password"}))]
pub struct Credentials {
    email: String,
    #[schema(format = Password)]
    password: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshToken {
    refresh_token: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Logout {
    /// Not needed with an access token in the header; with both they must be of one session.
    #[schema(nullable = false)]
    refresh_token: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.com"}))]
pub struct ResetRequest {
    #[schema(format = Email, max_length = 254)]
    email: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// Out of the link in the mail.
    token: String,
    #[schema(format = Password, min_length = 8, max_length = 256)]
    new_password: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "current_password": "a long enough password", "new_password": "another long password",
}))]
pub struct PasswordChange {
    #[schema(format = Password)]
    current_password: String,
    #[schema(format = Password, min_length = 8, max_length = 256)]
    new_password: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkToken {
    /// Out of the link in the mail.
    token: String,
}

/// An access token of the account with the request does for either password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"token": "AgP7…", "password": "a long enough password"}))]
pub struct EmailProof {
    /// Out of the link in the mail.
    token: String,
    /// The one of the account, which its reader registered with.
    #[schema(format = Password)]
    password: Option<String>,
    /// Another one, of a reader who did not register or forgot it. Not together with `password`.
    #[schema(format = Password, min_length = 8, max_length = 256)]
    new_password: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "new_email": "countess@example.com", "current_password": "a long enough password",
}))]
pub struct EmailChange {
    #[schema(format = Email, max_length = 254)]
    new_email: String,
    #[schema(format = Password)]
    current_password: String,
}

/// A merge patch (RFC 7396): what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"full_name": "Ada Lovelace", "metadata": {"team": null}}))]
pub struct OwnChange {
    #[schema(min_length = 1, max_length = 200)]
    full_name: Option<String>,
    /// A merge patch of its own.
    metadata: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"current_password": "a long enough password"}))]
pub struct CurrentPassword {
    #[schema(format = Password)]
    current_password: String,
}

/// Without a password the user gets a mail with a link to choose one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "email": "grace@example.com", "full_name": "Grace Hopper", "roles": ["user", "editor"],
}))]
pub struct UserMake {
    #[schema(format = Email, max_length = 254)]
    email: String,
    #[schema(min_length = 1, max_length = 200)]
    full_name: Option<String>,
    #[schema(nullable = false, min_items = 1, max_items = 16)]
    roles: Option<Vec<Role>>,
    metadata: Option<serde_json::Map<String, Value>>,
    #[schema(nullable = false)]
    email_verified: Option<bool>,
    #[schema(nullable = false, format = Password, min_length = 8, max_length = 256)]
    password: Option<String>,
}

/// `admin`, `operator`, `user`, or any other name.
#[derive(Deserialize, ToSchema)]
#[schema(pattern = "^[a-z][a-z0-9-]{1,31}$")]
pub struct Role(String);

/// A merge patch (RFC 7396): what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"full_name": "Grace Hopper", "metadata": {"team": "blue"}}))]
pub struct UserChange {
    #[schema(min_length = 1, max_length = 200)]
    full_name: Option<String>,
    /// All roles from now on.
    #[schema(nullable = false, min_items = 1, max_items = 16)]
    roles: Option<Vec<Role>>,
    #[schema(nullable = false)]
    status: Option<NewStatus>,
    /// A merge patch of its own.
    metadata: Option<serde_json::Map<String, Value>>,
}

/// Everything that can be written.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "full_name": "Grace Hopper", "roles": ["user"], "status": "active", "metadata": {},
}))]
pub struct UserReplacement {
    #[schema(required, min_length = 1, max_length = 200)]
    full_name: Option<String>,
    #[schema(min_items = 1, max_items = 16)]
    roles: Vec<Role>,
    status: NewStatus,
    #[schema(required)]
    metadata: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NewStatus {
    Active,
    Disabled,
}

/// One line of an import.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportLine {
    #[schema(format = Email, max_length = 254)]
    email: String,
    #[schema(min_length = 1, max_length = 200)]
    full_name: Option<String>,
    #[schema(nullable = false, min_items = 1, max_items = 16)]
    roles: Option<Vec<Role>>,
    metadata: Option<serde_json::Map<String, Value>>,
    #[schema(nullable = false)]
    email_verified: Option<bool>,
    /// bcrypt, or a PHC string of argon2, scrypt or pbkdf2.
    #[schema(nullable = false)]
    password_hash: Option<String>,
    #[schema(nullable = false, format = DateTime)]
    created_at: Option<String>,
}
