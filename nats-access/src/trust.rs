//! The keys everything hangs from.

use std::fmt;
use std::path::Path;

use nkeys::{KeyPair, KeyPairType};

use crate::error::TrustError;
use crate::permissions::Role;
use crate::subscriber::SubscriberName;
use crate::{files, jwt};

/// The folder of the seeds. It appears with all of them in it.
const SEEDS_FOLDER: &str = "seeds";
const OPERATOR_FILE: &str = "operator.nk";
const SYSTEM_FILE: &str = "system.nk";
const ACCOUNT_FILE: &str = "account.nk";
const SUBSCRIBERS_FILE: &str = "subscribers.nk";

const OPERATOR_NAME: &str = "roster";
const SYSTEM_NAME: &str = "SYS";
const ACCOUNT_NAME: &str = "ROSTER";
/// Behind the name of the account whose feed they read.
const SUBSCRIBERS_SUFFIX: &str = "-SUBSCRIBERS";

const JWT_BEGIN: &str = "-----BEGIN NATS USER JWT-----";
const JWT_END: &str = "------END NATS USER JWT------";
const SEED_BEGIN: &str = "-----BEGIN USER NKEY SEED-----";
const SEED_END: &str = "------END USER NKEY SEED------";

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
                ],
            )?;
        }
        // A folder from before there were subscribers.
        let subscribers = seeds.join(SUBSCRIBERS_FILE);
        if !subscribers.try_exists().map_err(TrustError::io("read", &subscribers))? {
            files::put_if_absent(&subscribers, &KeyPair::new_account().seed()?)?;
        }
        let operator = load_key(&seeds.join(OPERATOR_FILE), KeyPairType::Operator, "operator")?;
        let system = load_key(&seeds.join(SYSTEM_FILE), KeyPairType::Account, "account")?;
        let key = load_key(&seeds.join(ACCOUNT_FILE), KeyPairType::Account, "account")?;
        let subscribers = load_key(&subscribers, KeyPairType::Account, "account")?;
        Ok(Self {
            root: Root { operator, system },
            account: Account { name: ACCOUNT_NAME.to_owned(), key, subscribers },
        })
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

    /// Credentials for a subscriber of the feed, as the text of a `.creds` file: a secret.
    ///
    /// # Errors
    ///
    /// As for [`Account::creds`].
    pub fn subscriber_creds(&self, name: &SubscriberName) -> Result<String, TrustError> {
        self.account.subscriber_creds(name)
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
    /// the same user in it where that can still be read. The server goes on accepting a copy of
    /// what was replaced, with what it allowed.
    ///
    /// # Errors
    ///
    /// [`TrustError::Io`]: the file cannot be used.
    pub fn write_creds_file(&self, path: &Path, role: Role) -> Result<(), TrustError> {
        let exists = path.try_exists().map_err(TrustError::io("read", path))?;
        let present = if exists { Some(files::read(path)?) } else { None };
        let user = present.as_deref().and_then(user_in).unwrap_or_else(KeyPair::new_user);
        let wanted = self.account.creds_of(&user, role)?;
        if present.as_ref() != Some(&wanted) {
            files::put_file(path, &wanted)?;
        }
        Ok(())
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
            let jwt = jwt::account(&self.operator, &account.key, &account.name)?;
            preload.push_str(&format!("    {}: \"{jwt}\"\n", account.key.public_key()));
            let name = format!("{}{SUBSCRIBERS_SUFFIX}", account.name);
            let (key, product) = (&account.subscribers, &account.key);
            let jwt = jwt::subscribers_account(&self.operator, key, product, &name)?;
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

/// An account: streams and subjects of its own, which no other account can see. Beside it is the account of
/// those who subscribe to its feed.
pub struct Account {
    name: String,
    key: KeyPair,
    subscribers: KeyPair,
}

impl Account {
    pub(crate) fn new(name: String) -> Self {
        Self { name, key: KeyPair::new_account(), subscribers: KeyPair::new_account() }
    }

    /// Credentials for a new user of this account with that role, as the text of a `.creds` file:
    /// a secret.
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
        let user = KeyPair::new_user();
        let jwt = jwt::subscriber(&self.subscribers, &user, name)?;
        Ok(creds_file(&jwt, &user.seed()?))
    }

    /// Writes the keys of this account as [`Trust::load_or_create`] reads them, with new ones in the places of
    /// the others.
    pub(crate) fn write_seeds(&self, dir: &Path) -> Result<(), TrustError> {
        files::make_folder(dir)?;
        files::put_folder(
            &dir.join(SEEDS_FOLDER),
            &[
                (OPERATOR_FILE, &KeyPair::new_operator().seed()?),
                (SYSTEM_FILE, &KeyPair::new_account().seed()?),
                (ACCOUNT_FILE, &self.key.seed()?),
                (SUBSCRIBERS_FILE, &self.subscribers.seed()?),
            ],
        )
    }

    fn creds_of(&self, user: &KeyPair, role: Role) -> Result<String, TrustError> {
        let jwt = jwt::user(&self.key, user, role)?;
        Ok(creds_file(&jwt, &user.seed()?))
    }
}

fn creds_file(jwt: &str, seed: &str) -> String {
    format!(
        "{JWT_BEGIN}\n{jwt}\n{JWT_END}\n\n\
         ************************* IMPORTANT *************************\n\
         NKEY Seed printed below can be used to sign and prove identity.\n\
         NKEYs are sensitive and should be treated as secrets.\n\n\
         {SEED_BEGIN}\n{seed}\n{SEED_END}\n\n\
         *************************************************************\n"
    )
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

/// The user whose seed stands in the text of a `.creds` file.
fn user_in(creds: &str) -> Option<KeyPair> {
    let (_, rest) = creds.split_once(SEED_BEGIN)?;
    let (seed, _) = rest.split_once(SEED_END)?;
    let key = KeyPair::from_seed(seed.trim()).ok()?;
    (key.key_pair_type() == KeyPairType::User).then_some(key)
}
