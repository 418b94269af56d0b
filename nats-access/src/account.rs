//! NATS accounts, and the credentials of their users.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use nkeys::KeyPair;

use crate::error::TrustError;
use crate::permissions::Role;
use crate::service::ServiceUser;
use crate::subscriber::SubscriberName;
use crate::trust::{
    ACCOUNT_FILE, OPERATOR_FILE, SEEDS_FOLDER, SERVICES_FILE, SUBSCRIBERS_FILE, SYSTEM_FILE,
};
use crate::{creds, files, jwt};

/// An account: streams and subjects of its own, which no other account can see. Two more accounts without streams
/// belong to it: one for subscribers of its feed, and one for peer services and verifiers.
pub struct Account {
    pub(crate) name: String,
    pub(crate) key: KeyPair,
    pub(crate) subscribers: KeyPair,
    pub(crate) services: KeyPair,
    /// Users of these accounts whose credentials were revoked.
    pub(crate) revoked: BTreeSet<String>,
}

impl Account {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            key: KeyPair::new_account(),
            subscribers: KeyPair::new_account(),
            services: KeyPair::new_account(),
            revoked: BTreeSet::new(),
        }
    }

    /// Credentials for a new user of this account with a role, as the text of a `.creds` file: a secret.
    ///
    /// # Errors
    ///
    /// [`TrustError::Key`] and [`TrustError::Claims`]: bugs.
    pub fn creds(&self, role: Role) -> Result<String, TrustError> {
        self.creds_of(&KeyPair::new_user(), role)
    }

    /// Credentials for a subscriber of this account's feed, as the text of a `.creds` file: a secret.
    ///
    /// # Errors
    ///
    /// As for [`Account::creds`].
    pub fn subscriber_creds(&self, name: &SubscriberName) -> Result<String, TrustError> {
        self.subscriber_creds_of(&KeyPair::new_user(), name)
    }

    /// Credentials for a new user of a peer service, as the text of a `.creds` file: a secret.
    ///
    /// # Errors
    ///
    /// As for [`Account::creds`].
    pub fn service_creds(&self, service: &ServiceUser) -> Result<String, TrustError> {
        self.service_creds_of(&KeyPair::new_user(), service)
    }

    pub(crate) fn subscriber_creds_of(
        &self,
        user: &KeyPair,
        name: &SubscriberName,
    ) -> Result<String, TrustError> {
        let jwt = jwt::subscriber(&self.subscribers, user, name)?;
        Ok(creds::text(&jwt, &user.seed()?))
    }

    /// Writes the keys of this account in the form that [`Trust::load_or_create`](crate::Trust::load_or_create) reads,
    /// with new keys in place of the others.
    pub(crate) fn write_seeds(&self, dir: &Path) -> Result<(), TrustError> {
        files::make_folder(dir)?;
        files::put_folder(
            &dir.join(SEEDS_FOLDER),
            &[
                (OPERATOR_FILE, &KeyPair::new_operator().seed()?),
                (SYSTEM_FILE, &KeyPair::new_account().seed()?),
                (ACCOUNT_FILE, &self.key.seed()?),
                (SUBSCRIBERS_FILE, &self.subscribers.seed()?),
                (SERVICES_FILE, &self.services.seed()?),
            ],
        )
    }

    /// Whether the credentials of a user are still valid.
    pub(crate) fn accepts(&self, user: &KeyPair) -> bool {
        !self.revoked.contains(&user.public_key())
    }

    pub(crate) fn creds_of(&self, user: &KeyPair, role: Role) -> Result<String, TrustError> {
        let jwt = jwt::user(&self.key, user, role)?;
        Ok(creds::text(&jwt, &user.seed()?))
    }

    pub(crate) fn service_creds_of(
        &self,
        user: &KeyPair,
        service: &ServiceUser,
    ) -> Result<String, TrustError> {
        let jwt = jwt::service(&self.services, user, service)?;
        Ok(creds::text(&jwt, &user.seed()?))
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Account")
            .field("name", &self.name)
            .field("key", &self.key.public_key())
            .finish()
    }
}
