//! A further service beside a system: what its process is given.

use events::ServiceNames;

use crate::System;

/// Issuer and audience of Roster's tokens where no setting names others: those of `service-kit/defaults.toml`.
const ISSUER: &str = "http://127.0.0.1:8080";
const AUDIENCE: &str = "roster";

impl System {
    /// Variables of a service's `serve`: its own credentials and key, and a database that no other test has.
    pub fn service_variables(&self, names: &ServiceNames) -> Vec<(String, String)> {
        let creds = format!("{}.creds", names.service());
        let arguments =
            ["services", "creds", names.singular(), "--plural", names.plural(), "--out", &creds];
        self.must(&arguments);
        self.variables(names, &creds)
    }

    /// Variables of its `provision`: the same with the operator's credentials.
    pub fn provision_variables(&self, names: &ServiceNames) -> Vec<(String, String)> {
        self.variables(names, "operator.creds")
    }

    fn variables(&self, names: &ServiceNames, creds: &str) -> Vec<(String, String)> {
        let secrets = self.secrets_dir();
        let both = format!("{}:{}", names.singular(), names.plural());
        // What is there stays.
        self.must(&["init", "--dir", secrets.to_str().unwrap(), "--service", &both]);
        let (mongodb, database) = self.views_at();
        let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
        let jwks = format!("{}/.well-known/jwks.json", self.command_api.value("url"));
        [
            ("DEPLOYMENT", "development".to_owned()),
            ("NATS_URL", self.nats_url().to_owned()),
            ("NATS_CREDENTIALS_FILE", text(self.file(creds))),
            ("MONGODB_URL", mongodb.to_owned()),
            ("MONGODB_DATABASE", format!("{database}_{}", names.database())),
            ("TOKENS_ISSUER", ISSUER.to_owned()),
            ("TOKENS_AUDIENCE", AUDIENCE.to_owned()),
            ("TOKENS_JWKS_URL", jwks),
            ("SECRETS_DIR", text(secrets.join(names.service()))),
            ("HTTP_LISTEN", "127.0.0.1:0".to_owned()),
            ("HTTP_PRIVATE_LISTEN", "127.0.0.1:0".to_owned()),
        ]
        .map(|(name, value)| (format!("{}{name}", names.variable_prefix()), value))
        .to_vec()
    }

    fn must(&self, arguments: &[&str]) {
        let output = self.roster(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}
