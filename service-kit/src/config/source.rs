//! Where settings come from: documented defaults, a file over them, variables over the file.

use std::collections::BTreeSet;
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

/// Settings as far as they can be made, with everything that is wrong with them.
#[derive(Debug)]
pub struct Examined<T> {
    /// The settings; where a value cannot be used, the default stands in for it.
    pub settings: T,
    /// Everything that is wrong, without any value: a value may be a secret in the wrong place.
    pub faults: Vec<String>,
    /// The keys that a file or a variable sets, as in `nats.url`.
    pub given: BTreeSet<String>,
    /// Those of them whose value is the file's.
    pub in_file: BTreeSet<String>,
}

impl<T> Examined<T> {
    /// The settings, when nothing is wrong with them.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    pub fn valid(self) -> Result<T, ConfigError> {
        if self.faults.is_empty() { Ok(self.settings) } else { Err(ConfigError(self.faults)) }
    }
}

impl Source<'_> {
    /// Reads defaults, file and the process's environment.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    pub fn load<T: Checked>(&self, file: Option<&Path>) -> Result<T, ConfigError> {
        self.read(file)?.valid()
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
        self.examine(file, variables)?.valid()
    }

    /// Reads defaults, file and the process's environment, and keeps faults beside the settings.
    ///
    /// # Errors
    /// [`ConfigError`]: no settings can be made at all.
    pub fn read<T: Checked>(&self, file: Option<&Path>) -> Result<Examined<T>, ConfigError> {
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
        self.examine(&text, variables)
    }

    /// The same from a text and variables.
    ///
    /// # Errors
    /// [`ConfigError`]: no settings can be made at all.
    pub fn examine<T: Checked>(
        &self,
        file: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Examined<T>, ConfigError> {
        let mut faults = Vec::new();
        let mut given = BTreeSet::new();
        let defaults: Table = match self.defaults.parse() {
            Ok(table) => table,
            Err(error) => return Err(ConfigError(vec![format!("the defaults: {error}")])),
        };
        let mut table = defaults.clone();
        match file.parse::<Table>() {
            Ok(over) => overlay(&mut table, over, "", &mut given, &mut faults),
            Err(error) => faults.push(not_toml(file, &error)),
        }
        let mut in_file = given.clone();
        for (name, text) in variables {
            let (name, text) = (name.as_str(), text.as_str());
            if self.others.contains(&name) {
                continue;
            }
            match slot(&mut table, self.prefix, name) {
                None if is_of_kubernetes(name, text) => {}
                None => faults.push(format!("unknown variable {name}")),
                Some((key, slot)) => match typed(slot, text) {
                    Some(value) => {
                        *slot = value;
                        in_file.remove(&key);
                        given.insert(key);
                    }
                    None => faults.push(format!("{name} ({key}) must be {}", kind(slot))),
                },
            }
        }
        read_files(&mut table, &given, &mut faults);
        let settings: T = deserialize(table, &defaults, &mut faults)?;
        settings.check(&mut faults);
        Ok(Examined { settings, faults, given, in_file })
    }
}

/// Makes settings from a table. A value that does not fit is a fault, and its default stands in for it, so that
/// all faults are found.
fn deserialize<T: DeserializeOwned>(
    mut table: Table,
    defaults: &Table,
    faults: &mut Vec<String>,
) -> Result<T, ConfigError> {
    loop {
        let error = match serde_path_to_error::deserialize(Value::Table(table.clone())) {
            Ok(settings) => return Ok(settings),
            Err(error) => error,
        };
        let key = error.path().to_string();
        faults.push(format!("{key} {}", misfit(error.inner().message())));
        let (section, name) = key.split_once('.').unwrap_or(("", &key));
        let default = match section {
            "" => defaults.get(name),
            _ => defaults.get(section).and_then(|section| section.get(name)),
        };
        let keys = match section {
            "" => Some(&mut table),
            _ => table.get_mut(section).and_then(Value::as_table_mut),
        };
        match (keys.and_then(|keys| keys.get_mut(name)), default) {
            (Some(slot), Some(default)) if slot != default => *slot = default.clone(),
            _ => return Err(ConfigError(std::mem::take(faults))),
        }
    }
}

/// What a value should be. The library's text repeats the value before that.
fn misfit(message: &str) -> String {
    if message == "invalid socket address syntax" {
        return "must be ADDRESS:PORT".to_owned();
    }
    match message.split_once("expected ") {
        Some((_, expected)) => format!("must be {}", expected.replace('`', "")),
        None => "is not valid".to_owned(),
    }
}

/// Where a text is not TOML. The line itself is not shown, since it may hold a password.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let why = error.message().lines().next().unwrap_or_default();
    format!("the file is not TOML at line {line}, column {column}: {why}")
}

/// Puts `over` over `table`; keys that the defaults do not have, and values of another type, are faults.
fn overlay(
    table: &mut Table,
    over: Table,
    path: &str,
    given: &mut BTreeSet<String>,
    faults: &mut Vec<String>,
) {
    for (key, value) in over {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (table.get_mut(&key), value) {
            (None, _) => faults.push(format!("unknown key {full}")),
            (Some(Value::Table(inner)), Value::Table(over)) => {
                overlay(inner, over, &full, given, faults);
            }
            (Some(Value::Table(_)), _) => faults.push(format!("{full} must be a table")),
            (Some(slot), value) if fits(slot, &value) => {
                *slot = value;
                given.insert(full);
            }
            (Some(slot), _) => faults.push(format!("{full} must be {}", kind(slot))),
        }
    }
}

fn fits(default: &Value, value: &Value) -> bool {
    default.same_type(value) || default.is_float() && value.is_integer()
}

/// The key a variable stands for. The names are derived from the defaults, so no underscore is read
/// two ways.
fn slot<'a>(table: &'a mut Table, prefix: &str, variable: &str) -> Option<(String, &'a mut Value)> {
    let is = |path: &str| format!("{prefix}{path}").to_uppercase() == variable;
    table.iter_mut().find_map(|(section, value)| match value {
        Value::Table(keys) => keys.iter_mut().find_map(|(key, slot)| {
            is(&format!("{section}_{key}")).then(|| (format!("{section}.{key}"), slot))
        }),
        slot @ (Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_)) => is(section).then(|| (section.clone(), slot)),
    })
}

/// Whether Kubernetes has set a variable for a Service whose name begins like ours, whatever it is: it sets
/// `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`, `NAME_PORT` and more in every pod. No setting has a name of that form, so
/// none is mistyped into one; `NAME_PORT` alone is told by its value.
fn is_of_kubernetes(variable: &str, text: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let is_address = || {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_uppercase());
        scheme.is_some_and(|scheme| PROTOCOLS.contains(&scheme.as_str()))
    };
    let is_service = variable.ends_with("_SERVICE_HOST")
        || variable.ends_with("_SERVICE_PORT")
        || variable.contains("_SERVICE_PORT_");
    let is_port = || {
        variable.rmatch_indices("_PORT_").any(|(at, separator)| {
            let mut parts = variable.get(at + separator.len()..).unwrap_or_default().split('_');
            let is_number = parts.next().is_some_and(|number| number.parse::<u16>().is_ok());
            let is_protocol = parts.next().is_some_and(|protocol| PROTOCOLS.contains(&protocol));
            let is_known = matches!(parts.next(), None | Some("ADDR" | "PORT" | "PROTO"));
            is_number && is_protocol && is_known && parts.next().is_none()
        })
    };
    is_service || variable.ends_with("_PORT") && is_address() || is_port()
}

/// Takes secrets from files: the file that `mongodb.url_file` names holds `mongodb.url`, and so on for each key
/// that has such a sibling.
fn read_files(table: &mut Table, given: &BTreeSet<String>, faults: &mut Vec<String>) {
    for (section, value) in table.iter_mut() {
        let Value::Table(keys) = value else { continue };
        let named: Vec<(String, String)> = keys
            .iter()
            .filter_map(|(key, file)| Some((key.strip_suffix("_file")?, file.as_str()?)))
            .filter(|(_, file)| !file.is_empty())
            .map(|(key, file)| (key.to_owned(), file.to_owned()))
            .collect();
        for (key, file) in named {
            let Some(slot) = keys.get_mut(&key) else { continue };
            let full = format!("{section}.{key}");
            if given.contains(&full) {
                faults.push(format!("set {full} or {full}_file, not both"));
                continue;
            }
            match secret_in(Path::new(&file)) {
                Ok(text) => *slot = Value::String(text),
                Err(why) => faults.push(format!("{full}_file: {why}")),
            }
        }
    }
}

/// The one line of a file with a secret.
///
/// # Errors
/// In words, without anything of the content.
pub fn secret_in(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains(['\n', '\r']) {
        return Err(format!("{} must hold exactly one line", path.display()));
    }
    Ok(line.to_owned())
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
    if default.is_bool() {
        "true or false"
    } else if default.is_str() {
        "a string"
    } else {
        "a number"
    }
}

#[cfg(test)]
mod tests;
