//! What was found, and what to do about it.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use crate::cli::say;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it must be.
    Ok,
    /// It works, and something better is advised.
    Warning,
    /// It could not be looked at.
    Unknown,
    /// It must not stay so.
    Fault,
}

/// One point that was looked at.
#[derive(Debug, Serialize)]
struct Point {
    area: &'static str,
    level: Level,
    finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Report(Vec<Point>);

impl Report {
    /// A point that is as it must be.
    pub fn ok(&mut self, area: &'static str, finding: impl Into<String>) {
        self.0.push(Point { area, level: Level::Ok, finding: finding.into(), advice: None });
    }

    /// A point that is not.
    pub fn point(
        &mut self,
        area: &'static str,
        level: Level,
        finding: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let (finding, advice) = (finding.into(), Some(advice.into()));
        self.0.push(Point { area, level, finding, advice });
    }

    /// A point that could not be looked at.
    pub fn unknown(
        &mut self,
        area: &'static str,
        finding: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.point(area, Level::Unknown, finding, advice);
    }

    /// Whether nothing is wrong, and everything could be looked at.
    pub fn is_healthy(&self) -> bool {
        self.0.iter().all(|point| matches!(point.level, Level::Ok | Level::Warning))
    }

    /// Shows it, and what the command ends with.
    pub fn show(&self, as_json: bool) -> ExitCode {
        let healthy = self.is_healthy();
        if as_json {
            say(&json!({ "healthy": healthy, "points": self.0 }).to_string());
        } else {
            for Point { area, level, finding, advice } in &self.0 {
                let level = match level {
                    Level::Ok => "ok      ",
                    Level::Warning => "warning ",
                    Level::Unknown => "unknown ",
                    Level::Fault => "FAULT   ",
                };
                say(&format!("{level} {area}: {finding}"));
                if let Some(advice) = advice {
                    say(&format!("         → {advice}"));
                }
            }
        }
        if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
