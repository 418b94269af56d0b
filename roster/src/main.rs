//! `roster`: every service and the operator's commands in one binary.

mod admin;
mod application_key;
mod asyncapi;
mod audit;
mod backup;
mod beside;
mod cli;
mod core_dumps;
mod dev;
mod doctor;
mod erase;
mod error_text;
mod health;
mod init;
mod keys;
mod lag;
mod log;
mod openapi;
mod parked;
mod preflight;
mod provision;
mod prune;
mod published;
mod reading;
mod rebuild;
mod replay;
mod restore;
mod schemas;
mod security;
mod services;
mod stack;
mod subscribers;
mod supervise;
mod trust;
mod unverified;
mod user;
mod users;
mod verify;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
