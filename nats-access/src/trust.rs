//! The keys at the root of all credentials.

use std::fmt;
use std::path::Path;

use nkeys::{KeyPair, KeyPairType};

use crate::account::Account;
use crate::error::TrustError;
use crate::permissions::Role;
use crate::service::ServiceUser;
use crate::subscriber::SubscriberName;
use crate::{creds, files, issued, jwt, revoked};

/// The folder of the seeds. It appears with all of them in it.
pub(crate) const SEEDS_FOLDER: &str = "seeds";
pub(crate) const OPERATOR_FILE: &str = "operator.nk";
pub(crate) const SYSTEM_FILE: &str = "system.nk";
pub(crate) const ACCOUNT_FILE: &str = "account.nk";
pub(crate) const SUBSCRIBERS_FILE: &str = "subscribers.nk";
pub(crate) const SERVICES_FILE: &str = "services.nk";

const OPERATOR_NAME: &str = "roster";
const SYSTEM_NAME: &str = "SYS";
const ACCOUNT_NAME: &str = "ROSTER";
/// Suffix of the account of subscribers, after the name of the account whose feed they read.
const SUBSCRIBERS_SUFFIX: &str = "-SUBSCRIBERS";
/// Suffix of the account of peer services, after the name of the account whose log they follow.
const SERVICES_SUFFIX: &str = "-SERVICES";

/// The result of writing a credentials file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredsOutcome {
    /// There was none, or a revoked one: a new user was created.
    Made,
    /// The user has today's permissions, and did not before.
    Renewed,
    /// Nothing had to be changed.
    Unchanged,
}

/// A valid credentials file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenCreds {
    /// The change that was made.
    pub outcome: CredsOutcome,
    /// The public key of the user in it.
    pub user: String,
}

/// New credentials.
pub struct NewCreds {
    /// The public key of the user in them.
    pub user: String,
    /// The text of a `.creds` file: a secret.
    pub text: String,
}

/// The keys of the operator, of the server's own account and of the product's account.
///
/// These keys permit everything; a running service needs none of them.
pub struct Trust {
    root: Root,
    account: Account,
}

impl Trust {
    /// Loads the keys from `dir`, or creates them there at the first call.
    ///
    /// The seeds are files of mode 0600 in the folder `seeds`, of mode 0700. That folder appears with all of them at
    /// once, also when several processes do this concurrently.
    ///
    /// # Errors
    ///
    /// [`TrustError::Io`] and [`TrustError::Seed`]. A missing or damaged seed is never replaced by a new one: restore
    /// it.
    pub fn load_or_create(dir: &Path) -> Result<Self, TrustError> {
        let seeds = dir.join(SEEDS_FOLDER);
        let exists = seeds.try_exists().map_err(TrustError::io("read", &seeds))?;
        if !exists {
            files::make_folder(dir)?;
            files::put_folder(
                &seeds,
                &[
                    (OPERATOR_FILE, &KeyPair::new_operator().seed()?),
                    (SYSTEM_FILE, &KeyPair::new_account().seed()?),
                    (ACCOUNT_FILE, &KeyPair::new_account().seed()?),
                    (SUBSCRIBERS_FILE, &KeyPair::new_account().seed()?),
                    (SERVICES_FILE, &KeyPair::new_account().seed()?),
                ],
            )?;
        }
        // A folder from before these accounts existed has no keys of theirs.
        for later in [SUBSCRIBERS_FILE, SERVICES_FILE] {
            let path = seeds.join(later);
            if !path.try_exists().map_err(TrustError::io("read", &path))? {
                files::put_if_absent(&path, &KeyPair::new_account().seed()?)?;
            }
        }
        let operator = load_key(&seeds.join(OPERATOR_FILE), KeyPairType::Operator, "operator")?;
        let system = load_key(&seeds.join(SYSTEM_FILE), KeyPairType::Account, "account")?;
        let key = load_key(&seeds.join(ACCOUNT_FILE), KeyPairType::Account, "account")?;
        let subscribers = load_key(&seeds.join(SUBSCRIBERS_FILE), KeyPairType::Account, "account")?;
        let services = load_key(&seeds.join(SERVICES_FILE), KeyPairType::Account, "account")?;
        Ok(Self {
            root: Root { operator, system },
            account: Account {
                name: ACCOUNT_NAME.to_owned(),
                key,
                subscribers,
                services,
                revoked: revoked::load(dir)?,
            },
        })
    }

    /// Records in `dir`, the folder of these keys, that the credentials of a user are revoked; `false` if they were
    /// already. The servers reject them once they have loaded the new [`Trust::server_config`], and the next write to a
    /// file with them creates another user.
    ///
    /// # Errors
    ///
    /// [`TrustError::NoUser`]: the text is not the public key of a user. [`TrustError::Io`]: nothing is recorded.
    pub fn revoke(&mut self, dir: &Path, user: &str) -> Result<bool, TrustError> {
        let mut revoked = self.account.revoked.clone();
        if !revoked.insert(revoked::user_key(user)?) {
            return Ok(false);
        }
        revoked::store(dir, &revoked)?;
        self.account.revoked = revoked;
        Ok(true)
    }

    /// The configuration with which a `nats-server` trusts these keys. It contains no secret, and is the same at every
    /// call.
    ///
    /// # Errors
    ///
    /// [`TrustError::Key`] and [`TrustError::Claims`]: bugs.
    pub fn server_config(&self) -> Result<String, TrustError> {
        self.root.server_config(std::slice::from_ref(&self.account))
    }

    /// Credentials for a new user with a role, as the text of a `.creds` file: a secret.
    ///
    /// # Errors
    ///
    /// As for [`Account::creds`].
    pub fn creds(&self, role: Role) -> Result<String, TrustError> {
        self.account.creds(role)
    }

    /// Creates credentials for a subscriber of the feed, and records the user in `dir`, the folder of these keys, so
    /// that [`Trust::revoke_subscriber`] finds it.
    ///
    /// # Errors
    ///
    /// As for [`Account::creds`]; [`TrustError::Io`]: nothing was created.
    pub fn new_subscriber(
        &self,
        dir: &Path,
        name: &SubscriberName,
    ) -> Result<NewCreds, TrustError> {
        let user = KeyPair::new_user();
        let text = self.account.subscriber_creds_of(&user, name)?;
        issued::note(dir, name.as_str(), &user.public_key())?;
        Ok(NewCreds { user: user.public_key(), text })
    }

    /// [Revokes](Trust::revoke) every user that was created for a subscriber; returns those that were not revoked
    /// before.
    ///
    /// # Errors
    ///
    /// [`TrustError::Io`]: some may be revoked. Repeating it is safe.
    pub fn revoke_subscriber(
        &mut self,
        dir: &Path,
        name: &SubscriberName,
    ) -> Result<Vec<String>, TrustError> {
        let mut revoked = Vec::new();
        for user in issued::of(dir, name.as_str())? {
            if self.revoke(dir, &user)? {
                revoked.push(user);
            }
        }
        Ok(revoked)
    }

    /// Writes the credentials of every role to `<dir>/<name of the role>.creds`, as
    /// [`write_creds_file`](Self::write_creds_file) does.
    ///
    /// # Errors
    ///
    /// [`TrustError::Io`]: the folder cannot be used.
    pub fn write_creds(&self, dir: &Path) -> Result<(), TrustError> {
        files::make_folder(dir)?;
        Role::ALL.iter().try_for_each(|role| {
            self.write_creds_file(&dir.join(format!("{}.creds", role.name())), *role)
        })
    }

    /// Writes the credentials of a role to a file of mode 0600.
    ///
    /// A file with today's permissions of its role is not changed. Otherwise it is replaced, with the same user if that
    /// can still be read. If permissions were removed, a copy of the old file is rejected once the servers have loaded
    /// [`Trust::server_config`].
    ///
    /// # Errors
    ///
    /// [`TrustError::Io`]: the file cannot be used.
    pub fn write_creds_file(&self, path: &Path, role: Role) -> Result<(), TrustError> {
        let exists = path.try_exists().map_err(TrustError::io("read", path))?;
        let present = if exists { Some(files::read(path)?) } else { None };
        let user = present.as_deref().and_then(creds::user_in);
        let user = user.filter(|user| self.account.accepts(user)).unwrap_or_else(KeyPair::new_user);
        let wanted = self.account.creds_of(&user, role)?;
        if present.as_ref() != Some(&wanted) {
            files::put_file(path, &wanted)?;
        }
        Ok(())
    }

    /// Writes the credentials of a peer service to a file of mode 0600.
    ///
    /// Idempotent: a file with credentials of this service keeps its user, unless that is revoked, and gets today's
    /// permissions of the service. So does a file from before services had an account of their own, whose credentials
    /// no server accepts any more.
    ///
    /// # Errors
    ///
    /// [`TrustError::Foreign`]: the file contains something else, and stays. [`TrustError::Io`]: the file cannot be
    /// used.
    pub fn write_service_creds(
        &self,
        path: &Path,
        service: &ServiceUser,
    ) -> Result<WrittenCreds, TrustError> {
        let exists = path.try_exists().map_err(TrustError::io("read", path))?;
        if !exists {
            let user = KeyPair::new_user();
            files::put_file(path, &self.account.service_creds_of(&user, service)?)?;
            return Ok(WrittenCreds { outcome: CredsOutcome::Made, user: user.public_key() });
        }
        let present = files::read(path)?;
        let foreign =
            || TrustError::Foreign { path: path.to_owned(), user: service.name().to_owned() };
        let (issuer, name) =
            creds::token_in(&present).and_then(jwt::issuer_and_name).ok_or_else(foreign)?;
        let is_ours = [&self.account.services, &self.account.key]
            .iter()
            .any(|account| account.public_key() == issuer);
        if !is_ours || name != service.name() {
            return Err(foreign());
        }
        let before = creds::user_in(&present).ok_or_else(foreign)?;
        let (user, changed) = match self.account.accepts(&before) {
            true => (before, CredsOutcome::Renewed),
            false => (KeyPair::new_user(), CredsOutcome::Made),
        };
        let wanted = self.account.service_creds_of(&user, service)?;
        let outcome = if present == wanted {
            CredsOutcome::Unchanged
        } else {
            files::put_file(path, &wanted)?;
            changed
        };
        Ok(WrittenCreds { outcome, user: user.public_key() })
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Trust")
            .field("operator", &self.root.operator.public_key())
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// The keys above all accounts of a server.
pub(crate) struct Root {
    operator: KeyPair,
    system: KeyPair,
}

impl Root {
    pub(crate) fn new() -> Self {
        Self { operator: KeyPair::new_operator(), system: KeyPair::new_account() }
    }

    pub(crate) fn server_config(&self, accounts: &[Account]) -> Result<String, TrustError> {
        let operator = jwt::operator(&self.operator, OPERATOR_NAME, &self.system)?;
        let system = self.system.public_key();
        let system_jwt = jwt::system_account(&self.operator, &self.system, SYSTEM_NAME)?;
        let mut preload = format!("    {system}: \"{system_jwt}\"\n");
        for account in accounts {
            let jwt = jwt::account(&self.operator, &account.key, &account.name, &account.revoked)?;
            preload.push_str(&format!("    {}: \"{jwt}\"\n", account.key.public_key()));
            let name = format!("{}{SUBSCRIBERS_SUFFIX}", account.name);
            let (key, product) = (&account.subscribers, &account.key);
            let revoked = &account.revoked;
            let jwt = jwt::subscribers_account(&self.operator, key, product, &name, revoked)?;
            preload.push_str(&format!("    {}: \"{jwt}\"\n", key.public_key()));
            let name = format!("{}{SERVICES_SUFFIX}", account.name);
            let key = &account.services;
            let jwt = jwt::services_account(&self.operator, key, product, &name, revoked)?;
            preload.push_str(&format!("    {}: \"{jwt}\"\n", key.public_key()));
        }
        Ok(format!(
            "operator: \"{operator}\"\n\
             system_account: \"{system}\"\n\
             resolver: MEMORY\n\
             resolver_preload {{\n{preload}}}\n"
        ))
    }
}

fn load_key(
    path: &Path,
    kind: KeyPairType,
    kind_name: &'static str,
) -> Result<KeyPair, TrustError> {
    let text = files::read(path)?;
    KeyPair::from_seed(text.trim())
        .ok()
        .filter(|key| key.key_pair_type() == kind)
        .ok_or_else(|| TrustError::Seed { path: path.to_owned(), kind: kind_name })
}
