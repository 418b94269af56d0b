//! README.md as a stranger follows it: its session is run command by command, and prints what it says.

use std::process::{Command, Stdio};

use e2e::Process;
use events::{Timestamp, UserId};
use local_stack::testing::temp_dir;

const README: &str = include_str!("../../README.md");
/// Between the outputs of two commands.
const END_OF_OUTPUT: &str = "\u{1e}";

/// The contents of all fenced blocks of one language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("\n```{language}\n");
    README.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// Commands of the session, each with the output that README.md shows.
fn session() -> Vec<(&'static str, String)> {
    let mut session: Vec<(&str, String)> = Vec::new();
    for line in blocks("console").into_iter().flat_map(str::lines) {
        match (line.strip_prefix("$ "), session.last_mut()) {
            (Some(command), _) => session.push((command, String::new())),
            (None, Some((_, output))) => {
                output.push_str(line);
                output.push('\n');
            }
            (None, None) => panic!("output without a command: {line}"),
        }
    }
    session
}

/// A text with everything that differs from run to run replaced by its kind.
fn normal(text: &str) -> String {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let mut normal = String::new();
    for line in text.lines().map(str::trim_end) {
        if line.starts_with("date: ") {
            continue;
        }
        let mut rest = line;
        while let Some(start) = rest.find(part_of_word) {
            let (before, from) = rest.split_at(start);
            let (word, behind) =
                from.split_at(from.find(|c| !part_of_word(c)).unwrap_or(from.len()));
            normal.push_str(before);
            normal.push_str(kind(word).unwrap_or(word));
            rest = behind;
        }
        normal.push_str(rest);
        normal.push('\n');
    }
    normal
}

fn kind(word: &str) -> Option<&'static str> {
    if word.parse::<UserId>().is_ok() {
        Some("<id>")
    } else if Timestamp::try_from(word.to_owned()).is_ok() {
        Some("<time>")
    } else if word.starts_with("eyJ") && word.split('.').count() == 3 {
        Some("<token>")
    } else if word.starts_with("127.0.0.1:") {
        Some("<address>")
    } else if word.len() == 24 && word.bytes().all(|b| b.is_ascii_hexdigit()) {
        Some("<password>")
    } else {
        (word.len() > 60).then_some("<cursor>")
    }
}

#[test]
fn the_session_prints_what_it_says() {
    let dir = temp_dir();
    let data = dir.path().join("data");
    let dev = Process::start(
        &["dev", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()],
        &[],
        &dir.path().join("log"),
    );
    let shown = blocks("text").concat();
    assert_eq!(normal(&dev.said.join("\n")), normal(&shown), "what the start prints");
    let password = |text: &str| {
        text.split_whitespace().find_map(|p| p.strip_prefix("password=")).unwrap().to_owned()
    };
    let (ours, theirs) = (password(&dev.said.concat()), password(&shown));

    let session = session();
    assert!(session.len() > 10, "the session was found");
    let mut script = String::new();
    for (command, _) in &session {
        let command =
            command.replace("http://127.0.0.1:8080", &dev.value("url")).replace(&theirs, &ours);
        script.push_str(&format!("{command}\nprintf '{END_OF_OUTPUT}'\n"));
    }
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let printed: Vec<&str> = printed.split(END_OF_OUTPUT).collect();
    assert_eq!(printed.len(), session.len() + 1, "{}", String::from_utf8_lossy(&output.stderr));
    for ((command, says), prints) in session.iter().zip(printed) {
        assert_eq!(normal(prints), normal(says), "$ {command}");
    }
    assert!(dev.end("-INT").success());
}
