//! One server with many accounts: tests run concurrently without seeing each other's streams.

use std::fmt;
use std::path::Path;

use crate::account::Account;
use crate::error::TrustError;
use crate::trust::Root;

/// Keys in memory, with as many accounts as there are tests on the server. Each test uses an account of its own, and so
/// its own streams and subjects.
pub struct TestTrust {
    root: Root,
    accounts: Vec<Account>,
}

impl TestTrust {
    /// New keys and `n` accounts.
    #[must_use]
    pub fn with_accounts(n: usize) -> Self {
        Self {
            root: Root::new(),
            accounts: (0..n).map(|index| Account::new(format!("TEST-{index}"))).collect(),
        }
    }

    /// The configuration with which a `nats-server` trusts these keys.
    ///
    /// # Errors
    ///
    /// [`TrustError::Key`] and [`TrustError::Claims`]: bugs.
    pub fn server_config(&self) -> Result<String, TrustError> {
        self.root.server_config(&self.accounts)
    }

    /// Writes the keys of an account to `dir`, for a command that creates credentials with them.
    ///
    /// # Errors
    ///
    /// [`TrustError::Io`]: the folder cannot be used.
    pub fn write_seeds(&self, i: usize, dir: &Path) -> Result<(), TrustError> {
        self.account(i).write_seeds(dir)
    }

    /// The account with a number, counted from zero.
    ///
    /// # Panics
    ///
    /// If there are fewer: then the test needs a larger number at the start.
    #[must_use]
    #[expect(clippy::panic, reason = "a test without its account has failed, and this says why")]
    pub fn account(&self, i: usize) -> &Account {
        match self.accounts.get(i) {
            Some(account) => account,
            None => panic!("there are only {} test accounts, not number {i}", self.accounts.len()),
        }
    }
}

impl fmt::Debug for TestTrust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TestTrust")
            .field("accounts", &self.accounts)
            .finish_non_exhaustive()
    }
}
