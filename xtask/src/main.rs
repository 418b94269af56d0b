//! `cargo xtask`: what is done to this repository now and then.

mod lists;
mod new_service;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use events::ServiceNames;

use new_service::NewService;

/// Work on this repository.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a further service out of examples/product-service, in a folder of its own at the top.
    ///
    /// Example: cargo xtask new-service order
    NewService {
        /// What the service is about, in the singular: `order`.
        name: String,
        /// The same in the plural; with an `s` behind it unless given.
        #[arg(long)]
        plural: Option<String>,
        /// The repository; this one unless given.
        #[arg(long, hide = true)]
        root: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            failed(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<String> {
    match command {
        Command::NewService { name, plural, root } => {
            let plural = plural.unwrap_or_else(|| format!("{name}s"));
            let names = ServiceNames::parse(&name, &plural)?;
            let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
            NewService { names, root: root.unwrap_or(here) }.make()
        }
    }
}

#[expect(clippy::print_stdout, reason = "the command line speaks to its caller")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "the command line speaks to its caller")]
fn failed(why: &str) {
    eprintln!("xtask: {why}");
}
