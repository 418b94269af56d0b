//! A crashed service leaves no memory behind, which holds keys and passwords.

use std::fs;

use e2e::{System, wait_for};

/// The soft and the hard limit of a process on the size of its core dumps.
fn core_limits(pid: u32) -> Option<[String; 2]> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"))?;
    let mut words = line.split_whitespace().map(str::to_owned);
    Some([words.next()?, words.next()?])
}

#[tokio::test]
async fn services_write_no_core_dumps_in_production() {
    let system = System::shared().await;
    let production = [
        ("ROSTER_DEPLOYMENT", "production"),
        ("ROSTER_THROTTLE_ENABLED", "true"),
        ("ROSTER_MAIL_TRANSPORT", "smtp"),
        ("ROSTER_MAIL_SMTP_URL", "smtp://127.0.0.1:1"),
    ];
    for service in ["command-api", "query-api", "projector", "reactor"] {
        let log = format!("{service} in production");
        let mut process = system.spawn_with(service, &production, &log);
        wait_for("core dumps to be off", || {
            assert!(process.ended().is_none(), "{service}: {}", system.log_of(&log));
            let limits = core_limits(process.pid());
            async move { limits == Some(["0".to_owned(), "0".to_owned()]) }
        })
        .await;
        process.kill();
    }
}
