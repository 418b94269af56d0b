//! Mails as the reactor writes them into its folder.

use std::path::{Path, PathBuf};

/// A mail as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The address it was sent to.
    pub to: String,
    /// What stands in the list of mails.
    pub subject: String,
    /// The same for the same mail sent twice.
    pub message_id: String,
    /// The part for people without HTML.
    pub text: String,
    /// The link in it, if there is one.
    pub link: Option<MailedLink>,
}

/// A link in a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailedLink {
    /// The whole of it.
    pub url: String,
    /// What it is for: the last part of its path.
    pub purpose: String,
    /// What the command side wants to see.
    pub token: String,
}

impl Mail {
    /// The token of the link; fails when there is none.
    pub fn token(&self) -> &str {
        &self.link.as_ref().unwrap_or_else(|| panic!("no link in {self:?}")).token
    }

    fn read(raw: &str) -> Self {
        let (head, body) = raw.split_once("\r\n\r\n").unwrap();
        let head = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        let header = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_default().to_owned()
        };
        let kind = header("Content-Type");
        let (_, boundary) = kind.split_once("boundary=\"").unwrap();
        let boundary = format!("--{}", boundary.split_once('"').unwrap().0);
        let plain = body.split(&boundary).find(|part| part.contains("text/plain")).unwrap();
        let (_, text) = plain.split_once("\r\n\r\n").unwrap();
        let text = quoted_printable(text);
        Self {
            to: header("To"),
            subject: header("Subject"),
            message_id: header("Message-ID"),
            link: text.lines().find_map(MailedLink::read),
            text,
        }
    }
}

impl MailedLink {
    fn read(line: &str) -> Option<Self> {
        let (path, token) = line.split_once("?token=")?;
        let (_, purpose) = path.rsplit_once('/')?;
        Some(Self { url: line.to_owned(), purpose: purpose.to_owned(), token: token.to_owned() })
    }
}

fn quoted_printable(text: &str) -> String {
    let text = text.replace("=\r\n", "");
    let mut parts = text.split('=');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

/// Every mail in a folder, oldest first: the name of a file begins with its time.
pub fn all_in(folder: &Path) -> Vec<Mail> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "eml"))
        .collect();
    files.sort();
    files.iter().map(|file| Mail::read(&std::fs::read_to_string(file).unwrap())).collect()
}
