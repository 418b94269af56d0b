//! `roster services`: NATS credentials of a further service, with the rights that its names give it, and their end.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use events::{InvalidServiceName, ServiceNames};
use nats_access::{CredsOutcome, ServiceUser, WrittenCreds};
use serde_json::json;
use service_kit::config::Settings;
use service_kit::nats::{self, shown};

use crate::audit::{self, Ended, Operation};
use crate::cli::{ServicesAction, ServicesArgs, say};
use crate::trust;

/// Runs one action.
pub async fn run(settings: Settings, args: ServicesArgs) -> anyhow::Result<ExitCode> {
    match args.action {
        ServicesAction::Creds { name, plural, verifier, out } => {
            let wish = Wish { name, plural, verifier, out };
            make(&settings, wish, args.json).await
        }
        ServicesAction::Revoke { user } => revoke(&settings, &user, args.json).await,
    }
}

/// What credentials are to be like.
struct Wish {
    name: String,
    plural: Option<String>,
    verifier: bool,
    out: PathBuf,
}

async fn make(settings: &Settings, wish: Wish, as_json: bool) -> anyhow::Result<ExitCode> {
    let Wish { name, plural, verifier, out } = wish;
    let plural = plural.unwrap_or_else(|| plural_of(&name));
    let names = ServiceNames::parse(&name, &plural).with_context(|| format!("{name}, {plural}"))?;
    let user = match verifier {
        true => ServiceUser::verifier(&names),
        false => ServiceUser::service(&names),
    };
    // Before anything is written down: without keys there is nothing to do.
    let trust = trust::open(settings)?;
    let client = nats::connect(&settings.nats, "operator").await?;
    let arguments = json!({ "name": name, "plural": plural, "verifier": verifier });
    let writing = async {
        let written = trust.write_service_creds(&out, &user)?;
        let told = Told {
            names: &names,
            user: &user,
            verifier,
            out: &out,
            nats: &shown(&settings.nats.url),
        };
        told.say(&written, as_json);
        let result = json!({ "user": written.user, "outcome": name_of(written.outcome) });
        Ok(Ended { code: ExitCode::SUCCESS, result })
    };
    audit::over(settings, &client, Operation::ServicesCreds, arguments, writing).await
}

/// Writes down that a user is let in no more. Again is as good as once.
async fn revoke(settings: &Settings, user: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let (dir, mut trust) = (trust::dir(settings), trust::open(settings)?);
    let client = nats::connect(&settings.nats, "operator").await?;
    let writing = async {
        let is_new = trust.revoke(&dir, user)?;
        if as_json {
            say(&json!({ "user": user, "outcome": if is_new { "revoked" } else { "already" } })
                .to_string());
        } else {
            let already = if is_new { "" } else { " already" };
            say(&format!(
                "{user} is revoked{already}. It is let in until the servers know: run `roster init --dir DIR`, bring \
                 DIR/nats/auth.conf to each of them, and have them read it with `nats-server --signal reload`"
            ));
        }
        Ok(Ended { code: ExitCode::SUCCESS, result: json!({ "new": is_new }) })
    };
    let arguments = json!({ "user": user });
    audit::over(settings, &client, Operation::ServicesRevoke, arguments, writing).await
}

/// One of the two words.
pub fn parse_word(text: &str) -> Result<String, InvalidServiceName> {
    ServiceNames::parse(text, text).map(|names| names.singular().to_owned())
}

/// Reads `product:products`, or `product` for a plural with an `s`.
pub fn parse_names(text: &str) -> Result<ServiceNames, InvalidServiceName> {
    match text.split_once(':') {
        Some((singular, plural)) => ServiceNames::parse(singular, plural),
        None => ServiceNames::parse(text, &plural_of(text)),
    }
}

fn plural_of(name: &str) -> String {
    format!("{name}s")
}

const fn name_of(outcome: CredsOutcome) -> &'static str {
    match outcome {
        CredsOutcome::Made => "made",
        CredsOutcome::Renewed => "renewed",
        CredsOutcome::Unchanged => "unchanged",
    }
}

/// Everything that a client needs to know.
struct Told<'a> {
    names: &'a ServiceNames,
    user: &'a ServiceUser,
    verifier: bool,
    out: &'a Path,
    nats: &'a str,
}

impl Told<'_> {
    fn say(&self, written: &WrittenCreds, as_json: bool) {
        let Self { names, user, verifier, out, nats } = self;
        let (outcome, key) = (name_of(written.outcome), &written.user);
        let mut members = vec![
            ("service", user.name().to_owned()),
            ("outcome", outcome.to_owned()),
            ("user", key.clone()),
            ("inbox_prefix", user.inbox_prefix()),
        ];
        if !verifier {
            members.extend([
                ("log_stream", names.log_stream()),
                ("feed_stream", names.feed_stream()),
                ("consumer", names.consumer()),
            ]);
        }
        members.extend([("creds", out.display().to_string()), ("nats", (*nats).to_owned())]);
        if as_json {
            let members = members.into_iter().map(|(name, value)| (name.to_owned(), json!(value)));
            say(&serde_json::Value::Object(members.collect()).to_string());
        } else {
            let members: Vec<_> =
                members.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            say(&members.join(" "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_with_or_without_a_plural() {
        let product = ServiceNames::fixed("product", "products");
        assert_eq!(parse_names("product:products"), Ok(product.clone()));
        assert_eq!(parse_names("product"), Ok(product));
        assert_eq!(parse_names("city:cities"), Ok(ServiceNames::fixed("city", "cities")));
        for bad in ["", "product:", ":products", "user", "a:b:c", "product:users"] {
            assert!(parse_names(bad).is_err(), "{bad}");
        }
    }
}
