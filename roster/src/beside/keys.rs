//! What a further service is given: NATS credentials and a key.

use std::path::Path;

use events::ServiceNames;
use nats_access::{ServiceUser, Trust};
use service_kit::keys::{SERVICE_KEY_FILE, SecretKey};

use crate::init;

/// Makes the key of a service in a folder of its own; one that is there stays.
pub fn make(secrets: &Path) -> anyhow::Result<()> {
    init::private_dir(secrets)?;
    Ok(SecretKey::generate()?.write_new(&secrets.join(SERVICE_KEY_FILE))?)
}

/// Makes its credentials, or brings those that are there to what this version allows.
pub fn make_creds(trust: &Trust, names: &ServiceNames, file: &Path) -> anyhow::Result<()> {
    trust.write_service_creds(file, &ServiceUser::service(names))?;
    Ok(())
}
