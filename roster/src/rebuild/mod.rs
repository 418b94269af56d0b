//! `roster rebuild`: another generation of the views beside the live one, and the switch to it.
//!
//! The projector does the work: it keeps every generation that exists at the end of the log. This command says
//! which ones exist, watches, compares, and switches. So it may be killed at any point: what it was about to do
//! stands in the database, and it goes on from there when it is repeated (ADR 16).

mod steps;
mod watching;

use std::process::ExitCode;

use anyhow::{Context, bail};
use events::subjects;
use serde_json::{Map, Value, json};
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits};
use service_kit::nats;
use tokio::time::Instant;
use views::{Generations, Phase, Standby, ViewSet, Views};

use crate::audit::{self, Ended, Operation};
use crate::cli::{RebuildArgs, RebuildWhat, failed, progress, say};
use crate::verify::Report;
use steps::Switched;

/// Everything that a rebuild is done with.
struct Rebuild {
    settings: Settings,
    views: Views,
    users: EventLog,
    sessions: EventLog,
    /// Every so many-th user is compared before the switch.
    sample: u64,
}

/// Does what was asked for. Exit code 1 when it was refused, or differences were found.
pub async fn run(settings: Settings, args: RebuildArgs) -> anyhow::Result<ExitCode> {
    let sets: &[ViewSet] = match args.what {
        RebuildWhat::Users => &[ViewSet::Users],
        RebuildWhat::Sessions => &[ViewSet::Sessions],
        RebuildWhat::All => &ViewSet::ALL,
    };
    let client = nats::connect(&settings.nats, "operator").await?;
    let log = |stream| EventLog::new(client.clone(), stream, Limits::of(&settings));
    let views = Views::open(&settings.mongodb.url, &settings.mongodb.database).await?;
    views.ping().await.context("the database of the views does not answer")?;
    let rebuild = Rebuild {
        users: log(subjects::USERS_STREAM),
        sessions: log(subjects::SESSIONS_STREAM),
        views,
        sample: args.sample,
        settings,
    };
    if args.status {
        rebuild.report(Map::new(), args.json).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let names: Vec<String> = sets.iter().map(ViewSet::to_string).collect();
    let arguments = json!({
        "views": names, "rollback": args.rollback, "discard": args.discard, "sample": args.sample,
    });
    let changing = rebuild.carry_out(sets, &args);
    audit::over(&rebuild.settings, &client, Operation::Rebuild, arguments, changing).await
}

/// Says why it was not switched.
fn refused(report: &Report, as_json: bool) -> ExitCode {
    let count = report.total();
    if as_json {
        let told = json!({
            "switched": false, "differences_total": count, "differences": report.shown(),
        });
        say(&told.to_string());
    } else {
        report.shown().iter().for_each(|difference| say(&difference.line()));
    }
    failed(&format!(
        "not switched: {count} differences between the new views and the log. Repeat it when the cause is gone, or \
         give it up with --discard"
    ))
}

fn shown(generations: &Generations) -> Value {
    let of = |set: ViewSet| {
        let state = generations.state(set);
        let standby = state
            .standby
            .map(|Standby { number, phase }| json!({ "number": number, "phase": phase }));
        json!({ "live": state.live, "beside": standby })
    };
    json!({ "users": of(ViewSet::Users), "sessions": of(ViewSet::Sessions) })
}

fn line(set: ViewSet, generations: &Generations) -> String {
    let state = generations.state(set);
    let standby = match state.standby {
        None => "nothing stands beside it".to_owned(),
        Some(Standby { number, phase }) => {
            let what = match phase {
                Phase::Filling => "is being filled; `roster rebuild` goes on with it",
                Phase::Joining => "is about to be live",
                Phase::Leaving => "was live, and may still be read",
                Phase::Old => "is kept for --rollback until --discard or the next rebuild",
            };
            format!("generation {number} {what}")
        }
    };
    format!("{set}: generation {} is live; {standby}", state.live)
}

impl Rebuild {
    /// Does what was asked for, and says what came of it.
    async fn carry_out(&self, sets: &[ViewSet], args: &RebuildArgs) -> anyhow::Result<Ended> {
        let began = Instant::now();
        let switched = if args.discard {
            self.discard(sets).await?;
            Switched::Done(Map::new())
        } else if args.rollback {
            self.back(sets).await?
        } else {
            self.forward(sets).await?
        };
        match switched {
            Switched::Done(mut answer) => {
                answer.insert("seconds".to_owned(), json!(began.elapsed().as_secs_f64()));
                let result = self.report(answer, args.json).await?;
                Ok(Ended { code: ExitCode::SUCCESS, result })
            }
            Switched::Refused(report) => {
                let differences = report.total();
                let code = refused(&report, args.json);
                Ok(Ended { code, result: json!({ "differences": differences }) })
            }
        }
    }

    /// Says which generations there are now.
    async fn report(&self, mut answer: Map<String, Value>, as_json: bool) -> anyhow::Result<Value> {
        let generations = self.views.generations().await?;
        let there = shown(&generations);
        if as_json {
            answer.insert("generations".to_owned(), there.clone());
            say(&Value::Object(answer).to_string());
        } else {
            ViewSet::ALL.iter().for_each(|set| say(&line(*set, &generations)));
        }
        Ok(there)
    }

    /// Changes the generations as long as nobody else is faster.
    async fn change(
        &self,
        mut change: impl FnMut(&mut Generations) -> anyhow::Result<()>,
    ) -> anyhow::Result<Generations> {
        for _ in 0..CHANGES_MAX {
            let from = self.views.generations().await?;
            let mut to = from.clone();
            change(&mut to)?;
            if to == from || self.views.change_generations(&from, to.clone()).await? {
                return Ok(to);
            }
        }
        bail!("somebody else changes the generations all the time: is another rebuild under way?")
    }

    /// Takes away what stands beside the live generations.
    async fn discard(&self, sets: &[ViewSet]) -> anyhow::Result<()> {
        self.retire(sets).await?;
        self.change(|generations| {
            for set in sets {
                if let Some(standby) = generations.state(*set).standby {
                    generations.remove(*set, standby.number)?;
                }
            }
            Ok(())
        })
        .await?;
        for collection in self.views.sweep().await? {
            progress(&format!("dropped {collection}"));
        }
        Ok(())
    }
}

/// Changes that somebody else may be faster at, in a row.
const CHANGES_MAX: u32 = 20;
