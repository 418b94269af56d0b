//! What `/metrics` says.

use std::collections::BTreeSet;

use crate::{Client, System};

/// One answer of `/metrics`.
#[derive(Debug, Clone)]
pub struct Scrape(pub String);

impl Scrape {
    /// The metrics that have a value.
    pub fn names(&self) -> BTreeSet<String> {
        self.0
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .map(str::to_owned)
            .collect()
    }

    /// The sum of all values of a metric with these labels; `None` when there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(label, value)| format!("{label}=\"{value}\""));
        let labels: Vec<String> = labels.collect();
        let mut found = self.0.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let (of, given) = sample.split_once('{')?;
            let given: Vec<&str> = given.strip_suffix('}')?.split(',').collect();
            let fits = of == name && labels.iter().all(|label| given.contains(&label.as_str()));
            fits.then(|| value.parse::<f64>().unwrap())
        });
        let first = found.next()?;
        Some(found.fold(first, |sum, value| sum + value))
    }
}

impl Client {
    /// `/metrics` of a private listener.
    pub async fn scrape(&self) -> Scrape {
        let answer = self.get_text("/metrics").await;
        assert_eq!(answer.0, 200);
        Scrape(answer.1)
    }
}

impl System {
    /// `/metrics` of each running service.
    pub async fn scrapes(&self) -> Vec<(&'static str, Scrape)> {
        let mut scrapes = Vec::new();
        for (name, process) in self.services() {
            scrapes.push((name, Client::new(&process.value("private")).scrape().await));
        }
        scrapes
    }
}
