//! Where settings come from: documented defaults, a file over them, variables over the file.

use std::ffi::OsString;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::ConfigError;

/// Settings with rules beside their types.
pub trait Checked: DeserializeOwned {
    /// Adds every rule that is broken.
    fn check(&self, faults: &mut Vec<String>);
}

/// What the settings of one program are made from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Every key with its default, as TOML.
    pub defaults: &'a str,
    /// What its variables begin with, as in `ROSTER_`.
    pub prefix: &'a str,
    /// Variables of that prefix with another meaning than a key.
    pub others: &'a [&'a str],
}

impl Source<'_> {
    /// Reads defaults, file and the process's environment.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    pub fn load<T: Checked>(&self, file: Option<&Path>) -> Result<T, ConfigError> {
        let text = match file {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| ConfigError(vec![format!("cannot read {}: {e}", path.display())]))?,
        };
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        let variables = std::env::vars_os().filter_map(|(name, value): (OsString, OsString)| {
            let name = name.into_string().ok()?;
            name.starts_with(self.prefix).then(|| (name, value.to_string_lossy().into_owned()))
        });
        self.merge(&text, variables)
    }

    /// Merges defaults, the text of a file and variables.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    pub fn merge<T: Checked>(
        &self,
        file: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<T, ConfigError> {
        let mut faults = Vec::new();
        let mut table: Table = match self.defaults.parse() {
            Ok(table) => table,
            Err(error) => return Err(ConfigError(vec![format!("the defaults: {error}")])),
        };
        match file.parse::<Table>() {
            Ok(given) => overlay(&mut table, given, "", &mut faults),
            Err(error) => faults.push(format!("the file is not TOML: {error}")),
        }
        for (name, text) in variables {
            if self.others.contains(&name.as_str()) {
                continue;
            }
            match slot(&mut table, self.prefix, &name) {
                None => faults.push(format!("unknown variable {name}")),
                Some((key, slot)) => match typed(slot, &text) {
                    Some(value) => *slot = value,
                    None => {
                        faults.push(format!("{name} ({key}) must be {}, not {text:?}", kind(slot)));
                    }
                },
            }
        }
        let parsed: Result<T, _> = Value::Table(table).try_into();
        match parsed {
            Ok(settings) => {
                settings.check(&mut faults);
                if faults.is_empty() { Ok(settings) } else { Err(ConfigError(faults)) }
            }
            Err(error) => {
                faults.push(error.to_string().trim().replace('\n', " "));
                Err(ConfigError(faults))
            }
        }
    }
}

/// Puts `given` over `table`; keys the defaults do not have are faults.
fn overlay(table: &mut Table, given: Table, path: &str, faults: &mut Vec<String>) {
    for (key, value) in given {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (table.get_mut(&key), value) {
            (None, _) => faults.push(format!("unknown key {full}")),
            (Some(Value::Table(inner)), Value::Table(given)) => {
                overlay(inner, given, &full, faults);
            }
            (Some(Value::Table(_)), _) => faults.push(format!("{full} must be a table")),
            (Some(slot), value) => *slot = value,
        }
    }
}

/// The key a variable stands for. The names are derived from the defaults, so no underscore is read
/// two ways.
fn slot<'a>(table: &'a mut Table, prefix: &str, variable: &str) -> Option<(String, &'a mut Value)> {
    table.iter_mut().find_map(|(section, value)| {
        value.as_table_mut()?.iter_mut().find_map(|(key, slot)| {
            let name = format!("{prefix}{section}_{key}").to_uppercase();
            (name == variable).then(|| (format!("{section}.{key}"), slot))
        })
    })
}

/// The text of a variable in the type its default has.
fn typed(default: &Value, text: &str) -> Option<Value> {
    if default.is_integer() {
        text.parse().ok().map(Value::Integer)
    } else if default.is_float() {
        text.parse().ok().map(Value::Float)
    } else if default.is_bool() {
        text.parse().ok().map(Value::Boolean)
    } else {
        Some(Value::String(text.to_owned()))
    }
}

/// What [`typed`] wants, in words.
fn kind(default: &Value) -> &'static str {
    if default.is_bool() { "true or false" } else { "a number" }
}
