//! The keys everything hangs from.

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
/// Behind the name of the account whose feed they read.
const SUBSCRIBERS_SUFFIX: &str = "-SUBSCRIBERS";
/// Behind the name of the account whose log they follow.
const SERVICES_SUFFIX: &str = "-SERVICES";

/// What became of a file of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredsOutcome {
    /// There was none, or one that is revoked: a new user was made.
    Made,
    /// The user may do what it may do today, and could not before.
    Renewed,
    /// Nothing had to be done.
    Unchanged,
}

/// A file of credentials that is as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenCreds {
    /// What was done.
    pub outcome: CredsOutcome,
    /// The public key of the user in it.
    pub user: String,
}

/// Credentials that were made, as the text of a file.
pub struct NewCreds {
    /// The public key of the user in them.
    pub user: String,
    /// The text of a `.creds` file: a secret.
    pub text: String,
}

/// The operator, the account of the server itself and the account of the product.
///
/// Whoever has these keys may do everything; a running service needs none of them.
pub struct Trust {
    root: Root,
    account: Account,
}

impl Trust {
    /// Loads the keys from `dir`, or makes them there at the first call.
    ///
    /// The seeds are files of mode 0600 in the folder `seeds`, of mode 0700. That folder appears
    /// with all of them at once, also when several processes do this at the same time.
    ///
    /// # Errors
    ///
    /// [`TrustError::Io`] and [`TrustError::Seed`]. A seed that is missing from the folder or
    /// damaged is never replaced by a new one: put it back.
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
        // A folder from before there were such accounts.
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

    /// Writes down in `dir`, where these keys are, that the credentials of a user are good no more; `false` when that
    /// was known. The servers know it once they have read what [`Trust::server_config`] says from then on, and so do the
    /// files of credentials: the next write to one makes another user.
    ///
    /// # Errors
    ///
    /// [`TrustError::NoUser`]: that is not the public key of a user. [`TrustError::Io`]: nothing is written down.
    pub fn revoke(&mut self, dir: &Path, user: &str) -> Result<bool, TrustError> {
        let mut revoked = self.account.revoked.clone();
        if !revoked.insert(revoked::user_key(user)?) {
            return Ok(false);
        }
        revoked::store(dir, &revoked)?;
        self.account.revoked = revoked;
        Ok(true)
    }

    /// The text that makes a `nats-server` trust these keys. It holds no secret, and is the same
    /// at every call.
    ///
    /// # Errors
    ///
    /// [`TrustError::Key`] and [`TrustError::Claims`]: bugs.
    pub fn server_config(&self) -> Result<String, TrustError> {
        self.root.server_config(std::slice::from_ref(&self.account))
    }

    /// Credentials for a new user with that role, as the text of a `.creds` file: a secret.
    ///
    /// # Errors
    ///
    /// As for [`Account::creds`].
    pub fn creds(&self, role: Role) -> Result<String, TrustError> {
        self.account.creds(role)
    }

    /// Makes credentials for a subscriber of the feed, and writes down in `dir`, where these keys are, whose they are, so
    /// that [`Trust::revoke_subscriber`] finds them.
    ///
    /// # Errors
    ///
    /// As for [`Account::creds`]; [`TrustError::Io`]: nothing was made.
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

    /// [Revokes](Trust::revoke) every user that was made for a subscriber; those that were not revoked before.
    ///
    /// # Errors
    ///
    /// [`TrustError::Io`]: some may be revoked. Again is as good as once.
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
    /// A file that has what its role may do today stays as it is. Otherwise it is replaced, with
    /// the same user in it where that can still be read. A copy of what was replaced is refused once the
    /// servers have read [`Trust::server_config`], if rights were taken away.
    ///
    /// # Errors
    ///
    /// [`TrustError::Io`]: the file cannot be used.
    pub fn write_creds_file(&self, path: &Path, role: Role) -> Result<(), TrustError> {
        let exists = path.try_exists().map_err(TrustError::io("read", path))?;
        let present = if exists { Some(files::read(path)?) } else { None };
        let user = present.as_deref().and_then(creds::user_in);
        let user = user.filter(|user| self.account.lets_in(user)).unwrap_or_else(KeyPair::new_user);
        let wanted = self.account.creds_of(&user, role)?;
        if present.as_ref() != Some(&wanted) {
            files::put_file(path, &wanted)?;
        }
        Ok(())
    }

    /// Writes the credentials of a peer service to a file of mode 0600.
    ///
    /// Idempotent: a file with credentials of this service keeps its user, unless that is revoked, and is brought to what the
    /// service may do today. So is one from before services had an account of their own, whose credentials no server
    /// accepts any more.
    ///
    /// # Errors
    ///
    /// [`TrustError::Foreign`]: something else is in the file, and stays there. [`TrustError::Io`]: the file cannot be
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
        let (user, changed) = match self.account.lets_in(&before) {
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

/// What stands above all accounts of a server.
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
