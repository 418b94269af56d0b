//! Administrators created by the operator: by the rules of the command API, without a token.

use events::{EmailAddress, ROLE_ADMIN, ROLE_USER, Status, UserId, UserState};
use service_kit::commands::Request;
use service_kit::http::Precondition;

use super::App;
use crate::application::{CommandError, Users};
use crate::domain::{
    Admins, Change, FullName, Password, PasswordContext, Register, Roles, Violation,
};
use crate::ports::HashClient;

/// An administrator to create.
#[derive(Debug, Clone, Copy)]
pub struct NewAdministrator<'a> {
    /// Address.
    pub email: &'a str,
    /// Display name.
    pub full_name: Option<&'a str>,
    /// Without one the administrator is mailed a link to choose one.
    pub password: Option<&'a str>,
}

/// A validated administrator to create.
#[derive(Debug)]
pub struct PreparedAdministrator {
    register: Register,
    password: Option<Password>,
}

/// Why an administrator cannot be prepared, as a text for the operator.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A rule rejects the input.
    #[error("{0}")]
    Refused(String),
    /// The input could not be validated.
    #[error("{0}")]
    Failed(String),
}

/// The result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// An administrator was created.
    Created(UserId),
    /// An existing user got the role.
    Promoted(UserId),
    /// The holder of the address is an administrator already: nothing was changed.
    Already(UserId),
    /// The holder of the address is not an administrator: nothing was changed.
    Taken(UserId),
    /// No user holds the address.
    Unknown,
    /// The holder of the address is disabled: nothing was changed.
    Disabled(UserId),
}

impl App {
    /// Validates an administrator to create by the rules of the commands. Changes nothing.
    ///
    /// # Errors
    /// [`PrepareError`]: the administrator cannot be created.
    pub async fn prepare_administrator(
        &self,
        new: NewAdministrator<'_>,
    ) -> Result<PreparedAdministrator, PrepareError> {
        prepare(&self.users, new).await
    }

    /// Creates an administrator.
    ///
    /// # Errors
    /// A text for the operator.
    pub async fn create_administrator(
        &self,
        prepared: PreparedAdministrator,
    ) -> Result<Made, String> {
        create_prepared(&self.users, prepared).await
    }

    /// Adds the role to the roles of the user who holds an address.
    ///
    /// # Errors
    /// A text for the operator.
    pub async fn promote_administrator(&self, email: &str) -> Result<Made, String> {
        let Some((id, state)) = holder(&self.users, &address(email)?).await? else {
            return Ok(Made::Unknown);
        };
        let UserState::Present(user) = &state else { return Ok(Made::Unknown) };
        if Admins::counts(&state) {
            return Ok(Made::Already(id));
        }
        if user.status != Status::Active {
            return Ok(Made::Disabled(id));
        }
        let all = user.roles.iter().cloned().chain([ROLE_ADMIN.to_owned()]).collect();
        let change = Change { roles: Some(roles(all)?), ..Change::default() };
        // The change is guarded by the revision that was read.
        let precondition = Precondition::at(user.revision);
        let request = Request { precondition, ..as_operator() };
        match self.users.change(id, change, request).await {
            Ok(_) => Ok(Made::Promoted(id)),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Creates an administrator by the rules of the commands.
pub(crate) async fn create(users: &Users, new: NewAdministrator<'_>) -> Result<Made, String> {
    let prepared = prepare(users, new).await.map_err(|error| error.to_string())?;
    create_prepared(users, prepared).await
}

async fn prepare(
    users: &Users,
    new: NewAdministrator<'_>,
) -> Result<PreparedAdministrator, PrepareError> {
    let email = address(new.email).map_err(PrepareError::Refused)?;
    let context = PasswordContext { email: Some(&email), full_name: new.full_name };
    let password = match new.password {
        Some(password) => Some(validated(users, password, &context).await?),
        None => None,
    };
    let full_name = new.full_name.map(|name| FullName::parse(name.to_owned())).transpose();
    let names = vec![ROLE_ADMIN.to_owned(), ROLE_USER.to_owned()];
    let register = Register {
        email,
        full_name: full_name
            .map_err(|(_, why)| PrepareError::Refused(format!("the name {why}")))?,
        metadata: events::Metadata::new(),
        roles: Some(roles(names).map_err(PrepareError::Refused)?),
        // The operator vouches for an address given with a password; without one the link proves it.
        email_verified: password.is_some(),
        imported: None,
    };
    Ok(PreparedAdministrator { register, password })
}

async fn create_prepared(
    users: &Users,
    PreparedAdministrator { register, password }: PreparedAdministrator,
) -> Result<Made, String> {
    let email = register.email.clone();
    match users.create(register, password, as_operator()).await {
        Ok(done) => {
            let user = done.after.user().ok_or("the user was deleted at once")?;
            Ok(Made::Created(user.id))
        }
        Err(CommandError::EmailTaken) => match holder(users, &email).await? {
            Some((user, state)) if Admins::counts(&state) => Ok(Made::Already(user)),
            Some((user, _)) => Ok(Made::Taken(user)),
            None => Err("the address is reserved for the user who changed it lately, or was given up just now: \
                         `roster user show` with the address says which"
                .to_owned()),
        },
        Err(error) => Err(error.to_string()),
    }
}

async fn validated(
    users: &Users,
    text: &str,
    context: &PasswordContext<'_>,
) -> Result<Password, PrepareError> {
    let refused = |(_, why): Violation| PrepareError::Refused(format!("the password {why}"));
    let candidate = users.check_password_rules(text, context).map_err(refused)?;
    users
        .rate_password(HashClient::Operator, candidate)
        .await
        .map_err(|error| PrepareError::Failed(error.to_string()))?
        .map_err(refused)
}

/// The user who holds an address, with their state in the log.
async fn holder(
    users: &Users,
    email: &EmailAddress,
) -> Result<Option<(UserId, UserState)>, String> {
    users.holder(email).await.map_err(|error| error.to_string())
}

fn as_operator() -> Request {
    Request::of_the_system()
}

fn address(text: &str) -> Result<EmailAddress, String> {
    EmailAddress::parse(text).map_err(|why| format!("the e-mail address {why}"))
}

fn roles(names: Vec<String>) -> Result<Roles, String> {
    Roles::parse(names).map_err(|(_, why)| why)
}
