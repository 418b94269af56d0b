//! Greets every new user: writes one mail per user into a folder.
//!
//! ```sh
//! roster subscribers add welcome --filter users --from now
//! NATS_URL=nats://127.0.0.1:4222 cargo run -p welcome-mailer -- welcome
//! ```
//!
//! An event can be delivered twice if the process is killed right after handling it. That does no harm: the mail is
//! written to the same file.

use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Parser;
use events::client::{ClientError, Settings, Subscriber};
use events::feed::{FeedEvent, Happened};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Args {
    /// The subscriber's name; its credentials are in NAME.creds.
    name: String,
    /// Address of NATS.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    nats: String,
    /// Folder for the mails.
    #[arg(long, default_value = "mails")]
    mails: PathBuf,
    /// Folder for the subscriber's state.
    #[arg(long, default_value = "state")]
    state: PathBuf,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Args { name, nats, mails, state } = Args::parse();
    fs::create_dir_all(&mails)?;
    let settings = Settings::new(nats, &name, format!("{name}.creds"), state);
    let mut subscriber = Subscriber::connect(settings).await?;
    let stop = CancellationToken::new();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut running = Box::pin(subscriber.run(stop.clone(), async |event| greet(&mails, &event)));
    tokio::select! {
        ended = &mut running => return Ok(ended?),
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    stop.cancel();
    running.await.map_err(ClientError::into)
}

fn greet(mails: &Path, event: &FeedEvent) -> io::Result<()> {
    let Some(user) = event.happened.user_id() else { return Ok(()) };
    let mail = mails.join(format!("{user}.eml"));
    if let Happened::Registered(data) = &event.happened {
        // Imported users are not new.
        if data.changed.imported.is_none() {
            let name = data.user.full_name.as_deref().unwrap_or("there");
            let text = format!("Subject: Welcome\n\nHello {name}, welcome!\n");
            fs::write(mail, format!("To: {}\n{text}", data.user.email))?;
        }
    } else if matches!(event.happened, Happened::Deleted(_)) && mail.exists() {
        // Roster has erased this user, so every subscriber must erase its copy too.
        fs::remove_file(mail)?;
    }
    Ok(())
}
