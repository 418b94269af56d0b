//! `roster users import`: users from another system, out of a file.
//!
//! What became of the lines goes into a file beside it, block by block, and that file is what a later
//! start goes on from. Its name has a digest of the input: another input begins anew.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use command_api::App;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::json;
use service_kit::config::Settings;
use service_kit::metrics::Metrics;
use service_kit::nats;
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Ended, Operation};
use crate::cli::{ImportArgs, progress, say};

/// Lines between two notes of how far it is.
const BLOCK_LINES: usize = 3_000;
/// Longest line that is read whole: what is longer can be no user.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// How often a block is tried that the log did not take.
const TRIES_MAX: u32 = 6;
/// Pause before the second try; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// What became of the lines.
#[derive(Debug, Default, Serialize)]
struct Tally {
    created: usize,
    unchanged: usize,
    rejected: usize,
}

#[derive(Deserialize)]
struct Line {
    status: String,
}

/// Imports a file, from where an earlier start got to. Exit code 1 when lines were rejected.
pub async fn import(settings: Settings, args: ImportArgs) -> anyhow::Result<ExitCode> {
    // Which file, by what it holds: its name may be somebody's.
    let digest = digest_of(&args.file)?;
    let client = nats::connect(&settings.nats, "operator").await?;
    let arguments = json!({ "sha256": digest });
    let importing = work(&settings, &args, &digest);
    audit::over(&settings, &client, Operation::UsersImport, arguments, importing).await
}

async fn work(settings: &Settings, args: &ImportArgs, digest: &str) -> anyhow::Result<Ended> {
    let path = &args.file;
    let bytes = std::fs::metadata(path).with_context(|| cannot_read(path))?.len();
    let results = args.results.clone().unwrap_or_else(|| results_beside(path, digest));
    let mut notes = Notes::open(&results)?;
    let input = BufReader::new(File::open(path).with_context(|| cannot_read(path))?);
    let mut input = InputLines::new(input);
    let bar = ProgressBar::new(bytes).with_style(ProgressStyle::with_template(
        "{wide_bar} {percent}%  {binary_bytes_per_sec}  {eta} left  {msg}",
    )?);
    for _ in 0..notes.lines {
        let Some(line) = input.next()? else {
            bail!("{} has more lines than {}", results.display(), path.display());
        };
        bar.inc(line.len() as u64 + 1);
    }
    if notes.lines > 0 {
        progress(&format!("going on behind line {}", notes.lines));
    }
    bar.reset_eta();

    let stop = CancellationToken::new();
    let app = App::build(settings, &Metrics::new("import"), stop.clone()).await?;
    loop {
        let mut block = Vec::new();
        while block.len() < BLOCK_LINES {
            let Some(line) = input.next()? else { break };
            block.push(line);
        }
        if block.is_empty() {
            break;
        }
        let answers = import_block(&app, &block, notes.lines + 1).await?;
        notes.add(&answers, block.len())?;
        bar.inc(block.iter().map(|line| line.len() as u64 + 1).sum());
        bar.set_message(format!("line {}", notes.lines));
    }
    stop.cancel();
    bar.finish_and_clear();

    let tally = tally_of(&results)?;
    if args.json {
        say(&json!({"lines": notes.lines, "tally": tally, "results": results}).to_string());
    } else {
        let Tally { created, unchanged, rejected } = &tally;
        say(&format!(
            "{} lines: {created} created, {unchanged} unchanged, {rejected} rejected; each in {}",
            notes.lines,
            results.display()
        ));
    }
    let code = if tally.rejected == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    Ok(Ended { code, result: json!({ "lines": notes.lines, "tally": tally }) })
}

/// The answers to a block, once every line of it is decided. What was made by a try that broke off is
/// found unchanged by the next one.
async fn import_block(app: &App, block: &[Vec<u8>], first: usize) -> anyhow::Result<String> {
    let lines: Vec<&[u8]> = block.iter().map(Vec::as_slice).collect();
    let mut pause = PAUSE_FIRST;
    for _ in 0..TRIES_MAX {
        match app.import(&lines, first).await {
            Ok(report) if report.undecided == 0 => return Ok(report.lines),
            Ok(report) => progress(&format!("{} lines could not be decided", report.undecided)),
            Err(why) => progress(&why),
        }
        sleep(pause).await;
        pause *= 2;
    }
    bail!("the event log does not take the lines from {first} on; start again to go on from there")
}

/// The file of what became of the lines.
struct Notes {
    file: File,
    /// Whole lines in it.
    lines: usize,
}

impl Notes {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let context = || format!("cannot write {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .with_context(context)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(context)?;
        // A line that broke off is no line: what it was about is decided again.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).with_context(context)?;
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        Ok(Self { file, lines })
    }

    fn add(&mut self, answers: &str, lines: usize) -> std::io::Result<()> {
        self.file.write_all(answers.as_bytes())?;
        self.file.sync_data()?;
        self.lines += lines;
        Ok(())
    }
}

fn tally_of(results: &Path) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for line in BufReader::new(File::open(results)?).lines() {
        let line: Line = serde_json::from_str(&line?)
            .with_context(|| format!("{} holds something else", results.display()))?;
        match line.status.as_str() {
            "created" => tally.created += 1,
            "unchanged" => tally.unchanged += 1,
            _ => tally.rejected += 1,
        }
    }
    Ok(tally)
}

/// The lines of the input up to the last that is not blank, as those of an import over the API.
struct InputLines<R> {
    input: R,
    /// Blank lines that were read, and are lines only if another one follows them.
    blank: usize,
    /// The line after them.
    next: Option<Vec<u8>>,
}

impl<R: BufRead> InputLines<R> {
    const fn new(input: R) -> Self {
        Self { input, blank: 0, next: None }
    }

    /// The next line without its end.
    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        while self.next.is_none() {
            match next_line(&mut self.input)? {
                None => return Ok(None),
                Some(line) if line.trim_ascii().is_empty() => self.blank += 1,
                Some(line) => self.next = Some(line),
            }
        }
        if self.blank > 0 {
            self.blank -= 1;
            return Ok(Some(Vec::new()));
        }
        Ok(self.next.take())
    }
}

/// The next line without its end; a longer one than any user is cut, and cannot be read as one.
fn next_line(input: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop_if(|byte| *byte == b'\n').is_none() && line.len() as u64 == LINE_BYTES_MAX {
        input.skip_until(b'\n')?;
    }
    line.pop_if(|byte| *byte == b'\r');
    Ok(Some(line))
}

/// The SHA-256 of a file.
fn digest_of(path: &Path) -> anyhow::Result<String> {
    let mut digest = Sha256::new();
    let mut file = BufReader::new(File::open(path).with_context(|| cannot_read(path))?);
    loop {
        let part = file.fill_buf().with_context(|| cannot_read(path))?;
        if part.is_empty() {
            break;
        }
        digest.update(part);
        let read = part.len();
        file.consume(read);
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn results_beside(path: &Path, digest: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    let digest: String = digest.chars().take(8).collect();
    name.push(format!(".{digest}.results.ndjson"));
    name.into()
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_their_end_or_with_the_file() {
        let long = "x".repeat(70_000);
        let text = format!("a\r\n\n{long}\nb");
        let mut input = text.as_bytes();
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input).unwrap() {
            lines.push(line.len());
        }
        assert_eq!(lines, [1, 0, 65_536, 1]);
    }

    #[test]
    fn blank_lines_count_only_before_a_line() {
        let read = |text: &str| {
            let mut input = InputLines::new(text.as_bytes());
            let lines = std::iter::from_fn(|| input.next().unwrap());
            lines.map(|line| String::from_utf8(line).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(read("a\n\n"), ["a"]);
        assert_eq!(read("a\r\n \t\r\n\n  "), ["a"]);
        assert_eq!(read("\na\n\n\nb"), ["", "a", "", "", "b"]);
        assert_eq!((read(""), read("\n\n")), (Vec::<String>::new(), Vec::new()));
    }

    #[test]
    fn a_note_that_broke_off_is_taken_back() {
        let dir = local_stack::testing::temp_dir();
        let path = dir.path().join("results");
        let mut notes = Notes::open(&path).unwrap();
        notes.add("{\"status\":\"created\"}\n{\"status\":\"rejected\"}\n", 2).unwrap();
        notes.file.write_all(b"{\"status\":\"cre").unwrap();
        assert_eq!(Notes::open(&path).unwrap().lines, 2);
        let tally = tally_of(&path).unwrap();
        assert_eq!((tally.created, tally.unchanged, tally.rejected), (1, 0, 1));
    }
}
