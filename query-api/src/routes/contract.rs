//! Descriptions of query parameters and of view documents, for the OpenAPI document.

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

/// The parameters of a history.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description")]
pub struct HistoryParameters {
    /// Events on a page.
    #[param(nullable = false, minimum = 1, maximum = 200, default = 50)]
    page_size: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(nullable = false)]
    cursor: Option<String>,
    /// Position that the answer must reflect.
    #[param(nullable = false)]
    min_position: Option<u64>,
}

/// The parameter of a single user.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description")]
pub struct MinPosition {
    /// Position that the answer must reflect.
    #[param(nullable = false)]
    min_position: Option<u64>,
}

/// The parameter of the list of sessions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description")]
pub struct MinSessionPosition {
    /// Position in the log of sessions that the answer must reflect.
    #[param(nullable = false)]
    min_position: Option<u64>,
}

/// The parameters of the list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description")]
pub struct ListParameters {
    /// Users on a page.
    #[param(nullable = false, minimum = 1, maximum = 200, default = 50)]
    page_size: Option<u16>,
    /// `next_cursor` of the page before; with the same filters and sort.
    #[param(nullable = false)]
    cursor: Option<String>,
    /// By default the newest first.
    #[param(inline, nullable = false)]
    sort: Option<Sort>,
    /// Whether to count what fits, as far as that is cheap.
    #[param(nullable = false)]
    include_total: Option<bool>,
    /// The beginning of the address or of a word of the name, whatever the case and the accents. Words end at anything
    /// that is neither a letter nor a digit nor an apostrophe inside a word.
    #[param(nullable = false, min_length = 1)]
    q: Option<String>,
    /// Exactly this address, in any case.
    #[param(nullable = false, format = Email)]
    email: Option<String>,
    #[param(nullable = false)]
    role: Option<String>,
    #[param(inline, nullable = false)]
    status: Option<StatusFilter>,
    #[param(nullable = false)]
    email_verified: Option<bool>,
    /// Users made later than this; one made at exactly this time is left out.
    #[param(nullable = false, format = DateTime)]
    created_after: Option<String>,
    /// Users made earlier than this; one made at exactly this time is left out.
    #[param(nullable = false, format = DateTime)]
    created_before: Option<String>,
    /// Position that the answer must reflect.
    #[param(nullable = false)]
    min_position: Option<u64>,
}

/// The order of the list; `-` is descending.
#[derive(Deserialize, ToSchema)]
#[schema(default = "-created_at")]
pub enum Sort {
    #[serde(rename = "created_at")]
    CreatedAt,
    #[serde(rename = "-created_at")]
    CreatedAtDescending,
    #[serde(rename = "email")]
    Email,
    #[serde(rename = "-email")]
    EmailDescending,
    #[serde(rename = "full_name")]
    FullName,
    #[serde(rename = "-full_name")]
    FullNameDescending,
    #[serde(rename = "last_login_at")]
    LastLoginAt,
    #[serde(rename = "-last_login_at")]
    LastLoginAtDescending,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StatusFilter {
    Active,
    Disabled,
}
