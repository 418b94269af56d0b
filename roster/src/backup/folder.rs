//! The folder of a backup: which files there are, and how it is known that they are as they were written.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use events::{Position, Timestamp};
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use service_kit::event_log::{SnapshotHead, Subscriber};
use service_kit::keys::{SecretKey, replace_private};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::crypt::{Decrypting, Encrypting, Identity, Recipient, WrappedKey};

/// Counts up when an older `roster` could not read what is written.
pub const FORMAT: u32 = 2;
/// What a backup has that is not encrypted: all that older ones know.
const FORMAT_PLAIN: u32 = 1;
/// What makes a folder a backup. It is written last.
const MANIFEST_FILE: &str = "manifest.jsonl";
/// What ended since, of `roster backup --ends`.
const ENDS_FILE: &str = "ends.jsonl";
/// What a signature is for.
const MANIFEST: &str = "manifest";
const ENDS: &str = "ends";
/// Bytes read at once.
const PIECE_BYTES: usize = 256 << 10;

/// What a backup consists of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`], or what is enough for it; see [`format_of`].
    pub format: u32,
    /// The key that its files are encrypted with; `None` when they are plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<WrappedKey>,
    /// This backup.
    pub id: Uuid,
    /// Version of `roster`.
    pub roster: String,
    /// Version of the server that made the snapshots.
    pub nats_server: String,
    /// Everything that was stored before this is in it.
    pub taken_at: Timestamp,
    /// By which the application's key is known again.
    pub key_check: String,
    /// In the order in which they were taken.
    pub streams: Vec<StreamCopy>,
    /// Everything else.
    pub files: Vec<FileCopy>,
    /// Who read the feed.
    pub subscribers: Vec<SubscriberCopy>,
}

/// A stream in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamCopy {
    /// Its name.
    pub name: String,
    /// Which log it was; `None` for one that has no name yet, and for the feed.
    pub lineage: Option<String>,
    /// First position that is in it.
    pub first: Position,
    /// Last position that is in it.
    pub last: Position,
    /// Messages.
    pub messages: u64,
    /// The file.
    pub file: FileCopy,
    /// What the server said of it.
    pub head: SnapshotHead,
}

/// A file of the backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileCopy {
    /// Its path in the folder.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Of its content, in hex.
    pub sha256: String,
}

/// A subscriber of the feed as it was before the feed was copied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubscriberCopy {
    /// Its name.
    pub name: String,
    /// What it was given.
    pub filters: Vec<String>,
    /// Where it began.
    pub from: String,
    /// Messages it might have at once.
    pub in_flight: u64,
    /// Seconds after which a message that it took and did not acknowledge comes again.
    pub ack_wait_s: u64,
    /// Everything up to here was acknowledged.
    pub acknowledged: Position,
}

impl From<Subscriber> for SubscriberCopy {
    fn from(subscriber: Subscriber) -> Self {
        let Subscriber { name, filters, from, in_flight, ack_wait, acknowledged, .. } = subscriber;
        let ack_wait_s = ack_wait.as_secs();
        Self { name, filters, from, in_flight, ack_wait_s, acknowledged }
    }
}

impl Manifest {
    /// The copy of a stream.
    pub fn stream(&self, name: &str) -> anyhow::Result<&StreamCopy> {
        let found = self.streams.iter().find(|stream| stream.name == name);
        found.with_context(|| format!("the backup does not hold the stream {name}"))
    }

    fn all_files(&self) -> impl Iterator<Item = &FileCopy> {
        self.streams.iter().map(|stream| &stream.file).chain(&self.files)
    }
}

/// A path of a manifest, when it leads down from the folder alone: whoever can write the backup must not be able to have
/// another file read, or written, by a restore.
pub fn within(path: &Path) -> anyhow::Result<&Path> {
    let leads_down = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !leads_down || path.as_os_str().is_empty() {
        bail!(
            "the manifest of the backup names the file {}, which is not in the backup",
            path.display()
        );
    }
    Ok(path)
}

/// By what the application's key of a backup, the older one during a rotation, is known again. It tells nothing about the
/// key.
pub fn key_check(key: &SecretKey, backup: Uuid) -> String {
    key.derive("backup check v1").mac_hex(&[backup.as_bytes()])
}

/// The format of a backup.
pub const fn format_of(encrypted: Option<&WrappedKey>) -> u32 {
    if encrypted.is_some() { FORMAT } else { FORMAT_PLAIN }
}

/// A backup that is whole as far as its manifest says.
pub struct Backup {
    dir: PathBuf,
    /// What it consists of.
    pub manifest: Manifest,
    sealed: SealedText,
    unlocked: Option<Unlocked>,
}

/// What reads an encrypted backup.
struct Unlocked {
    identity: Identity,
    key: SecretKey,
}

/// What ended since, of an encrypted backup.
#[derive(Serialize, Deserialize)]
struct EncryptedRevocationDelta {
    backup: Uuid,
    key: WrappedKey,
    content: String,
}

impl Backup {
    /// Reads the manifest.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(MANIFEST_FILE);
        if !path.exists() {
            bail!(
                "{} is no backup, or one that was not ended: there is no {MANIFEST_FILE}",
                dir.display()
            );
        }
        let sealed = read_sealed(&path)?;
        let manifest: Manifest = sealed.parse(&path)?;
        if manifest.format > FORMAT {
            bail!(
                "the backup was made by roster {}: take that version or a later one",
                manifest.roster
            );
        }
        Ok(Self { dir: dir.to_owned(), manifest, sealed, unlocked: None })
    }

    /// Makes sure that the backup is the operator's own, and lets it be read.
    pub fn unlock(&mut self, identity: Identity) -> anyhow::Result<()> {
        let Some(wrapped) = &self.manifest.encrypted else {
            bail!("{} is not encrypted, so nothing shows who made it", self.dir.display());
        };
        if !self.sealed.is_signed_for(&identity, MANIFEST) {
            bail!(
                "{} was changed, or was not made by the recipient that belongs to this identity",
                self.dir.display()
            );
        }
        let key = identity.key(wrapped, self.manifest.id)?;
        self.unlocked = Some(Unlocked { identity, key });
        Ok(())
    }

    fn unlocked(&self) -> anyhow::Result<&Unlocked> {
        self.unlocked.as_ref().with_context(|| {
            format!("{} is encrypted: name the file with its --identity", self.dir.display())
        })
    }

    /// Reads every file and compares it with its checksum.
    pub fn check(&self) -> anyhow::Result<()> {
        let files = || self.manifest.all_files();
        let bar = bar(files().map(|file| file.bytes).sum(), "checking")?;
        for file in files() {
            let path = self.dir.join(&file.path);
            let mut open = self.stored(file)?;
            let mut sum = Sum::default();
            let mut piece = vec![0; PIECE_BYTES];
            loop {
                let read = open.read(&mut piece).with_context(|| unreadable(&path))?;
                let Some(piece) = piece.get(..read).filter(|piece| !piece.is_empty()) else {
                    break;
                };
                sum.add(piece);
                bar.inc(piece.len() as u64);
            }
            if sum.bytes != file.bytes || sum.hex() != file.sha256 {
                bail!(
                    "{} is damaged: it has {} of {} bytes, or others than were written. Take another backup",
                    path.display(),
                    sum.bytes,
                    file.bytes
                );
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// What is in a file.
    pub fn reader(&self, file: &FileCopy) -> anyhow::Result<Box<dyn Read + Send>> {
        let stored = self.stored(file)?;
        match self.manifest.encrypted {
            None => Ok(Box::new(stored)),
            Some(_) => Ok(Box::new(Decrypting::new(&self.unlocked()?.key, &file.path, stored)?)),
        }
    }

    /// A file as it is stored. Its path comes from the manifest, and must not lead out of the folder.
    fn stored(&self, file: &FileCopy) -> anyhow::Result<File> {
        let path = self.dir.join(within(&file.path)?);
        File::open(&path).with_context(|| unreadable(&path))
    }

    /// What ended since the backup, if it was collected.
    pub fn revocation_delta<T: DeserializeOwned>(&self) -> anyhow::Result<Option<T>> {
        let path = self.dir.join(ENDS_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let sealed = read_sealed(&path)?;
        if self.manifest.encrypted.is_none() {
            return sealed.parse(&path).map(Some);
        }
        let Unlocked { identity, .. } = self.unlocked()?;
        let damaged = || damaged(&path);
        let EncryptedRevocationDelta { backup, key, content } = sealed.parse(&path)?;
        if backup != self.manifest.id || !sealed.is_signed_for(identity, ENDS) {
            bail!("{} was changed, or is of another backup", path.display());
        }
        let content = STANDARD.decode(content).with_context(damaged)?;
        let key = identity.key(&key, backup)?;
        let content = Decrypting::new(&key, Path::new(ENDS_FILE), content.as_slice())?;
        serde_json::from_reader(content).map(Some).with_context(damaged)
    }

    /// Replaces what is known to have ended since, as a whole; encrypted where the backup is.
    pub fn write_revocation_delta(
        &self,
        ends: &impl Serialize,
        recipient: Option<&Recipient>,
    ) -> anyhow::Result<()> {
        let (path, backup) = (self.dir.join(ENDS_FILE), self.manifest.id);
        let Some(wrapped) = &self.manifest.encrypted else {
            return write_sealed(&path, ends, None);
        };
        let recipient = recipient.filter(|recipient| recipient.is_of(wrapped));
        let recipient = recipient.context(
            "the backup is encrypted: name the file of the same recipient with --recipient",
        )?;
        let (key, wrapped) = recipient.new_key(backup)?;
        let mut encrypting = Encrypting::new(&key, Path::new(ENDS_FILE))?;
        let mut content = encrypting.add(&serde_json::to_vec(ends)?)?;
        content.extend(encrypting.end()?);
        let ends =
            EncryptedRevocationDelta { backup, key: wrapped, content: STANDARD.encode(content) };
        write_sealed(&path, &ends, Some((recipient, ENDS)))
    }
}

/// A backup that is being made, under another name until it is whole.
pub struct Unfinished {
    dir: PathBuf,
    partial: PathBuf,
    key: Option<SecretKey>,
}

impl Unfinished {
    /// Makes the folder. What an earlier try left is gone.
    pub fn begin(dir: &Path, key: Option<SecretKey>) -> anyhow::Result<Self> {
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} is not empty: name a folder that does not exist yet", dir.display());
        }
        let mut name = dir.as_os_str().to_owned();
        name.push(".partial");
        let partial = PathBuf::from(name);
        if partial.exists() {
            let cannot = || format!("cannot remove {}", partial.display());
            fs::remove_dir_all(&partial).with_context(cannot)?;
        }
        private_dir(&partial)?;
        Ok(Self { dir: dir.to_owned(), partial, key })
    }

    /// A file that is summed up while it is written.
    pub fn file(&self, path: &str) -> anyhow::Result<Written> {
        let full = self.partial.join(path);
        if let Some(parent) = full.parent() {
            private_dir(parent)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let cannot = || format!("cannot write {}", full.display());
        let file = options.open(&full).with_context(cannot)?;
        let path = PathBuf::from(path);
        let encrypting = self.key.as_ref().map(|key| Encrypting::new(key, &path)).transpose()?;
        Ok(Written { file, path, sum: Sum::default(), encrypting })
    }

    /// Writes the manifest and gives the folder its name.
    pub fn end(self, manifest: &Manifest, recipient: Option<&Recipient>) -> anyhow::Result<()> {
        let signer = recipient.map(|recipient| (recipient, MANIFEST));
        write_sealed(&self.partial.join(MANIFEST_FILE), manifest, signer)?;
        File::open(&self.partial).and_then(|dir| dir.sync_all())?;
        let cannot = || format!("cannot rename {}", self.partial.display());
        fs::rename(&self.partial, &self.dir).with_context(cannot)?;
        let parent = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all())?;
        Ok(())
    }
}

/// A file that is being written.
pub struct Written {
    file: File,
    path: PathBuf,
    sum: Sum,
    encrypting: Option<Encrypting>,
}

impl Written {
    /// Writes on.
    pub fn add(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        match &mut self.encrypting {
            None => self.store(piece),
            Some(encrypting) => {
                let sealed = encrypting.add(piece)?;
                self.store(&sealed)
            }
        }
    }

    fn store(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        self.sum.add(piece);
        self.file.write_all(piece).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// It is whole, and on the disk.
    pub fn end(mut self) -> anyhow::Result<FileCopy> {
        if let Some(encrypting) = &mut self.encrypting {
            let last = encrypting.end()?;
            self.store(&last)?;
        }
        self.file.sync_all().with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(FileCopy { path: self.path, bytes: self.sum.bytes, sha256: self.sum.hex() })
    }
}

#[derive(Default)]
struct Sum {
    sha256: Sha256,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, piece: &[u8]) {
        self.sha256.update(piece);
        self.bytes += piece.len() as u64;
    }

    fn hex(&self) -> String {
        self.sha256.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[derive(Serialize, Deserialize)]
struct Seal {
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

/// A text with its checksum, and with a signature where somebody signs.
struct SealedText {
    seal: Seal,
    body: String,
}

impl SealedText {
    fn parse<T: DeserializeOwned>(&self, path: &Path) -> anyhow::Result<T> {
        serde_json::from_str(&self.body).with_context(|| damaged(path))
    }

    fn is_signed_for(&self, identity: &Identity, what: &str) -> bool {
        let signature = self.seal.signature.as_deref();
        signature.is_some_and(|signature| identity.verifies(what, &self.body, signature))
    }
}

/// Two lines: checksum and signature of the second one, and the second one.
fn write_sealed(
    path: &Path,
    value: &impl Serialize,
    signer: Option<(&Recipient, &str)>,
) -> anyhow::Result<()> {
    let body = serde_json::to_string(value)?;
    let signature = signer.map(|(recipient, what)| recipient.sign(what, &body));
    let text = format!("{}\n{body}\n", json!(Seal { sha256: sum(&body), signature }));
    Ok(replace_private(path, text.as_bytes())?)
}

fn read_sealed(path: &Path) -> anyhow::Result<SealedText> {
    let text = fs::read_to_string(path).with_context(|| unreadable(path))?;
    let read = || {
        let (seal, body) = text.strip_suffix('\n')?.split_once('\n')?;
        let seal: Seal = serde_json::from_str(seal).ok()?;
        (seal.sha256 == sum(body)).then(|| SealedText { seal, body: body.to_owned() })
    };
    read().with_context(|| damaged(path))
}

fn damaged(path: &Path) -> String {
    format!("{} is damaged", path.display())
}

fn sum(text: &str) -> String {
    let mut sum = Sum::default();
    sum.add(text.as_bytes());
    sum.hex()
}

fn unreadable(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

/// Makes a folder for the owner alone.
pub fn private_dir(dir: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).with_context(|| format!("cannot make the folder {}", dir.display()))
}

/// A bar of bytes.
pub fn bar(bytes: u64, what: &str) -> anyhow::Result<ProgressBar> {
    let style = "{wide_bar} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left  {msg}";
    let bar = ProgressBar::new(bytes).with_style(ProgressStyle::with_template(style)?);
    bar.set_message(what.to_owned());
    Ok(bar)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A backup whose manifest names one file, as somebody could write it who has its folder.
    fn crafted(dir: &Path, path: &str) -> Backup {
        let file = FileCopy { path: path.into(), bytes: 0, sha256: sum("") };
        let manifest = Manifest {
            format: FORMAT_PLAIN,
            encrypted: None,
            id: Uuid::nil(),
            roster: String::new(),
            nats_server: String::new(),
            taken_at: Timestamp::from_unix_seconds(1_800_000_000).unwrap(),
            key_check: String::new(),
            streams: Vec::new(),
            files: vec![file],
            subscribers: Vec::new(),
        };
        write_sealed(&dir.join(MANIFEST_FILE), &manifest, None).unwrap();
        Backup::open(dir).unwrap()
    }

    #[test]
    fn a_manifest_reaches_no_file_outside_its_backup() {
        let root = tempfile::tempdir().unwrap();
        let (dir, outside) = (root.path().join("backup"), root.path().join("outside"));
        fs::create_dir(&dir).unwrap();
        fs::write(&outside, "").unwrap();
        for path in
            ["../outside", "keys/../../outside", outside.to_str().unwrap(), "./../outside", ""]
        {
            let backup = crafted(&dir, path);
            let why = backup.check().unwrap_err().to_string();
            assert!(why.contains("not in the backup"), "{path}: {why}");
        }
    }

    #[test]
    fn a_restore_of_keys_writes_nothing_outside_its_folder() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("backup");
        fs::create_dir(&dir).unwrap();
        fs::write(root.path().join("planted"), "planted").unwrap();
        for path in ["keys/../../planted", "keys/../../../planted"] {
            let backup = crafted(&dir, path);
            let into = root.path().join("secrets").join("new");
            let why = crate::backup::keys::restore(&backup, &into).unwrap_err().to_string();
            assert!(why.contains("not in the backup"), "{path}: {why}");
            assert!(!into.exists() && !root.path().join("secrets").join("planted").exists());
        }
    }
}
