use super::super::{ConfigError, DEFAULTS, Settings};
use super::*;

const CANARY: &str = r"Tern\Pool-99";

fn pairs(given: &[(&str, &str)]) -> Vec<(String, String)> {
    given.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn a_file_that_is_not_toml_is_described_by_line_and_column_alone() {
    for (text, place) in [
        (format!("[mongodb]\nurl = \"mongodb://roster:{CANARY}@db/\"\n"), "line 2, column "),
        (format!("ROSTER_ADMIN_PASSWORD={CANARY}\n"), "line 1, column "),
        (format!("[nats]\n\n{CANARY}\n"), "line 3, column "),
        (format!("[mail]\nsmtp_url = '''{CANARY}"), "line "),
        (format!("[mail]\nsmtp_url = \"{CANARY}"), "line 2, column "),
        (format!("[{CANARY}"), "line 1, column "),
        (format!("[mail]\nfrom = 'a'\nfrom = '{CANARY}'"), "line 3, column "),
    ] {
        let said = Settings::merge(&text, []).unwrap_err().to_string();
        assert!(said.contains(place), "{said}");
        assert!(!said.contains("Pool-99") && !said.contains("Tern"), "{said}");
    }
}

/// Any setting can be given a secret by mistake, not only those that should hold one.
#[test]
fn no_fault_repeats_the_value_of_a_setting() {
    let defaults: Table = DEFAULTS.parse().unwrap();
    let mut tried = 0;
    for (section, value) in &defaults {
        let keys: Vec<String> = match value {
            Value::Table(keys) => keys.keys().map(|key| format!("{section}.{key}")).collect(),
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_) => vec![section.clone()],
        };
        for key in keys {
            // These two repeat an item of their list: networks and roles, which are no secrets.
            if ["http.trusted_proxies", "access.roles"].contains(&key.as_str()) {
                continue;
            }
            for text in ["Kestrel42x", "mongodb://roster:Kestrel42x@h:1", "smtp://u:Kestrel42x"] {
                let variable = format!("ROSTER_{}", key.replace('.', "_").to_uppercase());
                for read in [
                    Settings::merge("", pairs(&[(&variable, text)])),
                    Settings::merge(&format!("{key} = \"{text}\""), []),
                ] {
                    tried += 1;
                    let said = read.map_or_else(|error| error.to_string(), |_| String::new());
                    // The name of a file is no secret; what is in it is.
                    let said = said.replace(&format!("cannot read {text}:"), "");
                    assert!(!said.contains("Kestrel"), "{key}: {said}");
                }
            }
        }
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn values_that_do_not_fit_are_described_by_their_keys_and_all_together() {
    let file = "[mail]\ntransport = 'smtps'\ngive_up_s = 'long'\n[http]\nlisten = 'here'\n\
                [log]\nreplicas = 300\n[telemetry]\nformat = 1\n";
    let ConfigError(faults) = Settings::merge(file, []).unwrap_err();
    for part in [
        "mail.transport must be smtp or folder",
        "mail.give_up_s must be a number",
        "http.listen must be ADDRESS:PORT",
        "log.replicas must be u8",
        "telemetry.format must be a string",
    ] {
        assert!(faults.iter().any(|fault| fault.contains(part)), "{part} in {faults:?}");
    }
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_are_passed_over_whatever_its_name() {
    for service in ["ROSTER", "ROSTER_COMMAND_API", "ROSTER_QUERY_API", "ROSTER_NATS", "ROSTER_9"] {
        for (end, value) in [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "8080"),
            ("SERVICE_PORT_HTTP", "8080"),
            ("SERVICE_PORT_HTTP_METRICS", "9090"),
            ("PORT", "tcp://10.0.0.1:8080"),
            ("PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("PORT_8080_TCP_PORT", "8080"),
            ("PORT_8080_TCP_PROTO", "tcp"),
            ("PORT_53_UDP_PROTO", "udp"),
        ] {
            // Each by itself, as an operator may have removed the others.
            let name = format!("{service}_{end}");
            Settings::merge("", pairs(&[(&name, value)])).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

#[test]
fn a_variable_that_only_looks_like_one_of_kubernetes_is_refused() {
    for slip in [
        "ROSTER_NATS_PORT",
        "ROSTER_PORTS",
        "ROSTER_PORT_NUMBER",
        "ROSTER_HTTP_PORT_8080",
        "ROSTER_HTTP_PORT_8080_TCP_NAME",
        "ROSTER_SERVICE",
        "ROSTER_HTTP_LISTENS",
        "ROSTER_NATS_SERVICE_URL",
    ] {
        let said = Settings::merge("", pairs(&[(slip, "x")])).unwrap_err().to_string();
        assert!(said.contains(&format!("unknown variable {slip}")), "{said}");
    }
    // A setting is one, whatever stands beside it.
    let of_kubernetes = [("ROSTER_HTTP_SERVICE_HOST", "10.0.0.1"), ("ROSTER_HTTP_LISTEN", "here")];
    let said = Settings::merge("", pairs(&of_kubernetes)).unwrap_err().to_string();
    assert!(said.contains("http.listen must be ADDRESS:PORT"), "{said}");
}

#[test]
fn a_secret_is_read_from_the_file_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("url");
    std::fs::write(&path, "mongodb://roster:Kestrel42x@db/\n").unwrap();
    let name = path.to_str().unwrap();
    let settings = Settings::merge("", pairs(&[("ROSTER_MONGODB_URL_FILE", name)])).unwrap();
    assert_eq!(settings.mongodb.url, "mongodb://roster:Kestrel42x@db/");
    let both = [("ROSTER_MONGODB_URL_FILE", name), ("ROSTER_MONGODB_URL", "mongodb://db/")];
    let said = Settings::merge("", pairs(&both)).unwrap_err().to_string();
    assert!(said.contains("mongodb.url or mongodb.url_file"), "{said}");
}

#[test]
fn a_file_without_exactly_one_line_is_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in
        [("two", "smtps://u:Kestrel42x@h\nmore\n"), ("none", "\n"), ("empty", "")]
    {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let given = pairs(&[("ROSTER_MAIL_SMTP_URL_FILE", path.to_str().unwrap())]);
        let said = Settings::merge("", given).unwrap_err().to_string();
        assert!(said.contains("mail.smtp_url_file: "), "{said}");
        assert!(!said.contains("Kestrel"), "{said}");
    }
    let said = Settings::merge("", pairs(&[("ROSTER_NATS_URL_FILE", "/nowhere/url")]));
    assert!(said.unwrap_err().to_string().contains("nats.url_file: cannot read /nowhere/url"));
}
