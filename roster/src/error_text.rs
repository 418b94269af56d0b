//! Why a command of the operator failed, with all causes, in one line.

use anyhow::Error;

/// An error with its causes. One of the database driver is put in Roster's words, since its own text is a dump.
pub fn error_text(error: &Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<mongodb::error::Error>() {
            parts.push(view_kit::describe(error));
            break;
        }
        parts.push(cause.to_string());
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_of_the_driver_is_worded_and_the_others_are_kept() {
        let cause = mongodb::error::Error::from(io::Error::from_raw_os_error(111));
        let error = Error::new(cause).context("the rebuild stands still");
        let text = error_text(&error);
        assert!(text.starts_with("the rebuild stands still: MongoDB cannot be used: "), "{text}");
        assert!(text.contains("mongod runs") && !text.contains("labels"), "{text}");
        let other = Error::new(io::Error::other("no room")).context("cannot write");
        assert_eq!(error_text(&other), format!("{other:#}"));
    }
}
