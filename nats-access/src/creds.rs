//! The text of a `.creds` file.

use nkeys::{KeyPair, KeyPairType};

const JWT_BEGIN: &str = "-----BEGIN NATS USER JWT-----";
const JWT_END: &str = "------END NATS USER JWT------";
const SEED_BEGIN: &str = "-----BEGIN USER NKEY SEED-----";
const SEED_END: &str = "------END USER NKEY SEED------";

/// The text for a token and the seed of its user: a secret.
pub(crate) fn text(jwt: &str, seed: &str) -> String {
    format!(
        "{JWT_BEGIN}\n{jwt}\n{JWT_END}\n\n\
         ************************* IMPORTANT *************************\n\
         NKEY Seed printed below can be used to sign and prove identity.\n\
         NKEYs are sensitive and should be treated as secrets.\n\n\
         {SEED_BEGIN}\n{seed}\n{SEED_END}\n\n\
         *************************************************************\n"
    )
}

/// The token in the text of a `.creds` file.
pub(crate) fn token_in(creds: &str) -> Option<&str> {
    let (_, rest) = creds.split_once(JWT_BEGIN)?;
    rest.split_once(JWT_END).map(|(token, _)| token)
}

/// The user whose seed is in the text of a `.creds` file.
pub(crate) fn user_in(creds: &str) -> Option<KeyPair> {
    let (_, rest) = creds.split_once(SEED_BEGIN)?;
    let (seed, _) = rest.split_once(SEED_END)?;
    let key = KeyPair::from_seed(seed.trim()).ok()?;
    (key.key_pair_type() == KeyPairType::User).then_some(key)
}
