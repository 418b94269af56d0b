//! The pages behind the links in mails, for products without pages of their own: they ask for confirmation, and then
//! do what the link is for. Opening a page changes nothing, since mail programs open links by themselves.
//!
//! There is no script: a form is posted to the page's path without its query. From there on the token travels in the
//! body, and the pages tell browsers to send no referrer.

use axum::extract::{Path, RawQuery, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use service_kit::commands::Request;
use service_kit::http::{ClientAddress, Form};
use service_kit::links::LinkKind;
use service_kit::problem::{Code, Problem};
use service_kit::trace;

use super::AppState;
use crate::application::{AccountProof, CommandError, LinkOwner};
use crate::domain::{Password, Rejection};

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
);
const NO_REFERRER: HeaderValue = HeaderValue::from_static("no-referrer");

struct Words {
    title: &'static str,
    button: &'static str,
    done: &'static str,
}

const fn words(kind: LinkKind) -> Words {
    match kind {
        LinkKind::ResetPassword => Words {
            title: "Choose a new password",
            button: "Set the password",
            done: "The password is set. You are logged out everywhere; log in with the new one.",
        },
        LinkKind::SetPassword => Words {
            title: "Choose your password",
            button: "Set the password",
            done: "The password is set. You can log in now.",
        },
        LinkKind::VerifyEmail => Words {
            title: "Confirm your address",
            button: "This is my account",
            done: "The address is confirmed. Log in again where you were logged in.",
        },
        LinkKind::ConfirmEmail => Words {
            title: "Confirm your new address",
            button: "Use this address",
            done: "The new address is in use. Log in again where you were logged in.",
        },
        LinkKind::AbortEmail => Words {
            title: "Stop the change of your address",
            button: "Keep my address",
            done: "Your address stays as it is. If you did not ask for the change, change your password.",
        },
        LinkKind::UndoEmail => Words {
            title: "Take your address back",
            button: "Take my account back",
            done: "The account has this address again. Nobody is logged in, and the password is invalid: ask for a \
                   new one where you log in.",
        },
    }
}

/// Shows what the link is for and which account it is of.
pub async fn page(
    State(state): State<AppState>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let kind = kind_of(&path)?;
    let token = field(query.unwrap_or_default().as_bytes(), "token").unwrap_or_default();
    asking(&state, kind, &token, StatusCode::OK, None).await
}

/// Does what the link is for.
pub async fn follow(
    State(state): State<AppState>,
    Path(path): Path<String>,
    ClientAddress(from): ClientAddress,
    Form(body): Form,
) -> Result<Response, Problem> {
    let kind = kind_of(&path)?;
    let token = field(&body, "token").unwrap_or_default();
    let request = Request::of(trace::current());
    // An empty field is absent.
    let given = |name: &str| field(&body, name).filter(|text| !text.is_empty());
    let result = match kind {
        LinkKind::ResetPassword | LinkKind::SetPassword => {
            state.users.count_password_set(from).await?;
            let text = given("new_password").unwrap_or_default();
            state.users.reset_password(token.clone(), text, from, request).await.map(drop)
        }
        LinkKind::VerifyEmail => {
            let proof = match (given("new_password"), given("password")) {
                (Some(new), _) => {
                    state.users.count_password_set(from).await?;
                    AccountProof::NewPassword(new)
                }
                (None, Some(text)) => AccountProof::Password(Password::given(&text)),
                (None, None) => AccountProof::Nothing,
            };
            state.users.verify_email(token.clone(), proof, from, request).await.map(drop)
        }
        LinkKind::ConfirmEmail => {
            state.users.confirm_email_change(token.clone(), None, request).await.map(drop)
        }
        LinkKind::AbortEmail => state.users.abort_email_change(token.clone(), request).await,
        LinkKind::UndoEmail => {
            state.users.undo_email_change(token.clone(), request).await.map(drop)
        }
    };
    let again = async |status, alert: &str| asking(&state, kind, &token, status, Some(alert)).await;
    match result {
        Ok(()) => Ok(html(StatusCode::OK, kind, &format!("<p>{}</p>", words(kind).done))),
        Err(CommandError::InvalidLink) => Ok(over(kind)),
        Err(CommandError::EmailTaken) => Ok(taken(kind)),
        Err(CommandError::Rejected(Rejection::Invalid(_, _, why))) => {
            again(StatusCode::UNPROCESSABLE_ENTITY, &format!("The password {why}.")).await
        }
        Err(CommandError::WrongPassword) => {
            again(StatusCode::FORBIDDEN, "That is not the password of this account.").await
        }
        Err(CommandError::PasswordRequired) => {
            again(StatusCode::FORBIDDEN, "The password of this account is needed.").await
        }
        Err(error) => Err(error.into()),
    }
}

/// The confirmation page, with the error of the last attempt.
async fn asking(
    state: &AppState,
    kind: LinkKind,
    token: &str,
    status: StatusCode,
    alert: Option<&str>,
) -> Result<Response, Problem> {
    match state.users.link_owner(token.to_owned(), kind).await {
        Ok(owner) => Ok(html(status, kind, &form(kind, token, &owner, alert))),
        Err(CommandError::InvalidLink) => Ok(over(kind)),
        Err(CommandError::EmailTaken) => Ok(taken(kind)),
        Err(error) => Err(error.into()),
    }
}

fn kind_of(path: &str) -> Result<LinkKind, Problem> {
    LinkKind::ALL
        .into_iter()
        .find(|kind| kind.path() == path)
        .ok_or_else(|| Problem::new(Code::NotFound))
}

fn field(form: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(form).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn taken(kind: LinkKind) -> Response {
    let text = "<p>Somebody else uses this address by now. Nothing was changed.</p>";
    html(StatusCode::CONFLICT, kind, text)
}

fn over(kind: LinkKind) -> Response {
    let text =
        "<p>This link is not valid any more: it was used, it is over, or a newer one was sent.</p>";
    html(StatusCode::BAD_REQUEST, kind, text)
}

const PASSWORD: &str = "<label>Your password <input type=\"password\" name=\"password\" \
     autocomplete=\"current-password\" required></label>";
const NEW_PASSWORD: &str = "<label>New password <input type=\"password\" name=\"new_password\" \
     autocomplete=\"new-password\" required></label>";

fn form(kind: LinkKind, token: &str, owner: &LinkOwner, alert: Option<&str>) -> String {
    let since = owner.user.created_at.as_datetime().format("%Y-%m-%d");
    let email = escaped(&owner.user.email);
    let alert =
        alert.map_or_else(String::new, |why| format!("<p role=\"alert\">{}</p>", escaped(why)));
    let posted = |fields: &str, button: &str| {
        let token = escaped(token);
        // Relative to this page, without its query: the token must not be in another URL.
        let action = kind.path();
        format!(
            "<form method=\"post\" action=\"{action}\"><input type=\"hidden\" name=\"token\" value=\"{token}\">{fields}\
             <button>{button}</button></form>"
        )
    };
    let button = words(kind).button;
    let forms = match kind {
        LinkKind::ResetPassword | LinkKind::SetPassword => posted(NEW_PASSWORD, button),
        LinkKind::VerifyEmail if owner.asks_password => format!(
            "<p>Enter the password that you registered with.</p>{}\
             <p>If you did not register, somebody else did with your address. Choose a password of your own, and \
             the account is yours alone. Do the same if you forgot yours.</p>{}",
            posted(PASSWORD, button),
            posted(NEW_PASSWORD, "Set a new password"),
        ),
        LinkKind::VerifyEmail | LinkKind::ConfirmEmail | LinkKind::AbortEmail => posted("", button),
        LinkKind::UndoEmail => format!(
            "<p>If somebody else has changed the address of your account, this ends every session, makes the \
             password invalid and gives the account this address again. It works once.</p>{}",
            posted("", button),
        ),
    };
    format!(
        "<p>This is about the account of <strong>{email}</strong>, registered on {since}.</p>{alert}{forms}"
    )
}

fn html(status: StatusCode, kind: LinkKind, content: &str) -> Response {
    let title = words(kind).title;
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>body{{font:1rem/1.5 sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem}}\
         label,input,button{{display:block;margin:.5rem 0;font:inherit}}</style></head>\
         <body><h1>{title}</h1>{content}</body></html>"
    );
    let headers =
        [(CONTENT_TYPE, HTML), (CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, NO_REFERRER)];
    (status, headers, page).into_response()
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_given_becomes_markup() {
        assert_eq!(escaped("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
        assert_eq!(field(b"token=a%26b&token=c", "token").unwrap(), "a&b");
        assert!(kind_of("verify-email").is_ok() && kind_of("other").is_err());
    }
}
