//! Who calls: a handler takes one of these, and without one it is open to everyone.

use std::convert::Infallible;
use std::marker::PhantomData;

use axum::Router;
use axum::extract::{FromRef, FromRequestParts, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::{Caller, TokenVerifier, refused};
use crate::access::Permission;
use crate::problem::{Code, Problem};

/// The token of `Authorization: Bearer …`.
///
/// # Errors
/// `unauthorized` when there is none, more than one, or another scheme.
pub fn bearer(parts: &Parts) -> Result<&str, Problem> {
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (headers.next(), headers.next()) else { return Err(refused()) };
    let (scheme, token) =
        value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(refused)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(refused()) }
}

/// A caller with a valid token. A handler that takes none of the callers here is open to everyone.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Caller);

impl<S> FromRequestParts<S> for Authenticated
where
    S: Send + Sync,
    TokenVerifier: FromRef<S>,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        TokenVerifier::from_ref(state).authenticate(bearer(parts)?).await.map(Self)
    }
}

/// The caller of a call that is open to everyone, if one can be told. A client may send a token that has expired
/// with every request: such a caller is nobody, and may do what everyone may.
#[derive(Debug, Clone)]
pub struct Presented(pub Option<Caller>);

impl<S> FromRequestParts<S> for Presented
where
    S: Send + Sync,
    TokenVerifier: FromRef<S>,
{
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let caller = Authenticated::from_request_parts(parts, state).await;
        Ok(Self(caller.ok().map(|Authenticated(caller)| caller)))
    }
}

/// A caller whose token carries a role that allows to administer.
#[derive(Debug, Clone)]
pub struct Administrator(pub Caller);

/// A caller whose token carries a role that allows to change other users.
#[derive(Debug, Clone)]
pub struct UserWriter(pub Caller);

impl<S> FromRequestParts<S> for Administrator
where
    S: Send + Sync,
    TokenVerifier: FromRef<S>,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        permitted(parts, state, Permission::Administer).await.map(Self)
    }
}

impl<S> FromRequestParts<S> for UserWriter
where
    S: Send + Sync,
    TokenVerifier: FromRef<S>,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        permitted(parts, state, Permission::WriteUsers).await.map(Self)
    }
}

/// A role that means something to the service that names it, and nothing to Roster.
pub trait NamedRole: 'static {
    /// As it stands in tokens: `[a-z][a-z0-9-]{1,31}`.
    const NAME: &'static str;
}

/// A caller whose token carries the role `R`, no other one in its place: Roster's administrators are nobody here
/// unless they have it too.
///
/// ```
/// use service_kit::tokens::{HasRole, NamedRole};
///
/// struct Editor;
/// impl NamedRole for Editor {
///     const NAME: &'static str = "editor";
/// }
///
/// async fn change(editor: HasRole<Editor>) -> String {
///     format!("{} may", editor.caller.user)
/// }
/// ```
pub struct HasRole<R> {
    /// Who has it.
    pub caller: Caller,
    role: PhantomData<fn() -> R>,
}

impl<S, R> FromRequestParts<S> for HasRole<R>
where
    S: Send + Sync,
    TokenVerifier: FromRef<S>,
    R: NamedRole,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Authenticated(caller) = Authenticated::from_request_parts(parts, state).await?;
        if !caller.has_role(R::NAME) {
            return Err(lacking_role(R::NAME));
        }
        TokenVerifier::from_ref(state).check_current()?;
        Ok(Self { caller, role: PhantomData })
    }
}

async fn permitted<S>(
    parts: &mut Parts,
    state: &S,
    permission: Permission,
) -> Result<Caller, Problem>
where
    S: Send + Sync,
    TokenVerifier: FromRef<S>,
{
    let Authenticated(caller) = Authenticated::from_request_parts(parts, state).await?;
    let verifier = TokenVerifier::from_ref(state);
    if !verifier.access.allows(&caller.roles, permission) {
        return Err(lacking(permission));
    }
    verifier.check_current()?;
    Ok(caller)
}

/// What a caller without a permission is told.
#[must_use]
pub fn lacking(permission: Permission) -> Problem {
    match permission {
        Permission::Administer => lacking_role("admin"),
        Permission::ReadUsers | Permission::WriteUsers => {
            Problem::new(Code::Forbidden).detail(format!("this needs the permission {permission}"))
        }
    }
}

fn lacking_role(role: &str) -> Problem {
    Problem::new(Code::Forbidden).detail(format!("this needs the role {role}"))
}

impl TokenVerifier {
    /// Puts a layer around routes that lets nobody through without a good token, and gives handlers the
    /// [`Caller`] as an extension. For whoever wants no single handler to be open by a slip of the pen.
    pub fn protect<S: Clone + Send + Sync + 'static>(&self, routes: Router<S>) -> Router<S> {
        routes.layer(from_fn_with_state(self.clone(), let_in))
    }
}

async fn let_in(
    State(verifier): State<TokenVerifier>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = verifier.authenticate(bearer(&parts)?).await?;
    parts.extensions.insert(caller);
    Ok(next.run(Request::from_parts(parts, body)).await)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use axum::Extension;
    use axum::body::Body;
    use axum::routing::get;
    use events::{Position, SessionId, UserId};
    use tower::ServiceExt as _;

    use super::*;
    use crate::ambient;
    use crate::config::Tokens;
    use crate::signing_keys::{KeyRing, SigningKey};
    use crate::tokens::TokenIssuer;

    struct Editor;
    impl NamedRole for Editor {
        const NAME: &'static str = "editor";
    }

    async fn edit(editor: HasRole<Editor>) -> String {
        editor.caller.user.to_string()
    }

    async fn caller(Extension(caller): Extension<Caller>) -> String {
        caller.user.to_string()
    }

    #[tokio::test]
    async fn roles_of_other_services_and_whole_routers_are_guarded() {
        let pem = SigningKey::generate_pem().unwrap();
        let keys = KeyRing::of(SigningKey::parse(&pem, Path::new("test")).unwrap()).unwrap();
        let (issuer, audience) = ("https://id.example".to_owned(), "roster".to_owned());
        let verifier = TokenVerifier::new(Arc::new(keys.clone()), &issuer, &audience);
        let tokens = TokenIssuer::new(keys, Tokens { issuer, audience, access_lifetime_s: 60 });
        let session = SessionId::from_uuid(ambient::new_uuid());
        let user = UserId::from_uuid(ambient::new_uuid());
        let token = |role: &str| {
            let (epoch, lineage, roles) = (Position(0), None, vec![role.to_owned()]);
            let caller = Caller { user, session, epoch, lineage, roles, email_verified: true };
            tokens.issue(&caller).unwrap()
        };
        let (editor, admin) = (token("editor"), token("admin"));

        let guarded = verifier.protect(Router::new().route("/caller", get(caller)));
        let routes = Router::new().route("/edit", get(edit)).with_state(verifier).merge(guarded);
        for (path, token, status) in [
            ("/edit", Some(&editor), 200),
            ("/edit", Some(&admin), 403),
            ("/edit", None, 401),
            ("/caller", Some(&admin), 200),
            ("/caller", None, 401),
        ] {
            let mut request = Request::get(path);
            if let Some(token) = token {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let request = request.body(Body::empty()).unwrap();
            let response = routes.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{path} {token:?}");
            if status == 200 {
                let body = axum::body::to_bytes(response.into_body(), 1_024).await.unwrap();
                assert_eq!(body, user.to_string());
            }
        }
    }
}
