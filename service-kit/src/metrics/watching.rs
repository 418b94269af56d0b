//! Alerts, dashboard, runbook and the table of metrics say the same.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Table;

const RULES: &str = include_str!("../../../deploy/prometheus/roster.rules.yml");
const DASHBOARD: &str = include_str!("../../../deploy/grafana/roster.json");
const RUNBOOK: &str = include_str!("../../../docs/operations.md");
const METRICS: &str = include_str!("../../../docs/metrics.md");

/// The names of metrics in an expression, as they stand in the table.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("roster_") || word.starts_with("process_"));
    names
        .map(|name| {
            let parts = ["_bucket", "_count", "_sum"];
            let is_histogram = |name: &str| {
                Table::ALL.iter().any(|(known, kind, _)| *known == name && *kind == "Seconds")
            };
            let stem = parts.iter().find_map(|part| name.strip_suffix(part));
            stem.filter(|stem| is_histogram(stem)).unwrap_or(name)
        })
        .collect()
}

fn is_known(metric: &str) -> bool {
    Table::ALL.iter().any(|(name, _, _)| *name == metric)
}

/// The alerts with the lines of each.
fn alerts() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut alerts = Vec::new();
    for block in RULES.split("- alert: ").skip(1) {
        let mut lines = block.lines();
        alerts.push((lines.next().unwrap(), lines.map(str::trim).collect()));
    }
    alerts
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let rules = metrics_in(RULES);
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut shown = BTreeSet::new();
    let panels = dashboard["panels"].as_array().unwrap();
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        let metrics = metrics_in(target["expr"].as_str().unwrap());
        assert!(!metrics.is_empty(), "{target}");
        shown.extend(metrics);
    }
    for metric in rules.union(&shown) {
        assert!(is_known(metric), "{metric} is in no table");
    }
    // What has an alert can be looked at.
    for metric in rules {
        assert!(shown.contains(metric), "{metric} is not on the dashboard");
    }
}

#[test]
fn every_alert_is_whole_and_has_its_section_in_the_runbook() {
    let section = |name: &str| format!("\n### {name}\n");
    let alerts = alerts();
    assert!(alerts.len() > 12, "{}", alerts.len());
    for (name, lines) in &alerts {
        let url = format!("runbook_url: docs/operations.md#{}", name.to_lowercase());
        assert!(lines.contains(&url.as_str()), "{name}: {url}");
        for member in ["expr:", "for:", "severity:", "summary:", "description:"] {
            assert!(lines.iter().any(|line| line.starts_with(member)), "{name}: {member}");
        }
        assert_eq!(RUNBOOK.matches(&section(name)).count(), 1, "{name}");
        let text = RUNBOOK.split(&section(name)).nth(1).unwrap();
        let text = text.split("\n### ").next().unwrap();
        for part in ["- **Means:**", "- **Look:**", "- **Do:**"] {
            assert!(text.contains(part), "{name}: {part}");
        }
    }
    for heading in RUNBOOK.lines().filter_map(|line| line.strip_prefix("### Roster")) {
        let alert = format!("Roster{heading}");
        assert!(alerts.iter().any(|(name, _)| *name == alert), "{alert} is no alert");
    }
}

#[test]
fn every_question_has_an_alert_that_asks_for_the_same_metrics() {
    let questions = METRICS.split("## What to watch").nth(1).unwrap();
    let mut asked = 0;
    for row in questions.lines().filter(|line| line.starts_with("| ") && line.contains('?')) {
        // An expression may have a bar in it, written with a backslash.
        let row = row.replace("\\|", "/");
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let alert = cells[3].trim_matches('`');
        let (_, lines) = alerts().into_iter().find(|(name, _)| *name == alert).expect(alert);
        let of_alert = lines.join(" ");
        for metric in metrics_in(cells[2]) {
            assert!(metrics_in(&of_alert).contains(metric), "{alert} does not ask for {metric}");
        }
        asked += 1;
    }
    assert_eq!(asked, alerts().len(), "each alert answers one question");
}
