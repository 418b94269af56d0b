//! Further services beside Roster's own: their credentials, and their place in `roster dev` (ADR 23).

mod creds;
mod dev;
mod find;
mod keys;
mod manifest;

pub use creds::{parse_names, parse_word, run};
pub use dev::{Around, Beside, Wanted, wanted};
pub use keys::{make, make_creds};
