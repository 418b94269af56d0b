//! Backups that only their owner can read, and that only the operator can have made.
//!
//! The host that makes backups holds a *recipient* file: the public key that they are encrypted to, and the key that their
//! manifests are signed with. Whoever restores holds the *identity* file, which belongs nowhere near that host: the private
//! key, and the key that signatures are verified with. So a stolen host cannot read backups of before, and a stolen storage
//! can neither read one nor put another in its place.
//!
//! X25519 with a key of its own for each backup, HKDF-SHA-256, and AES-256-GCM over pieces of a file, each with its number
//! and whether it is the last one as nonce (the STREAM construction of age), so that no piece can be moved or cut off.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::signature::{self, ED25519, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use service_kit::keys::{SecretKey, write_private};
use uuid::Uuid;
use zeroize::Zeroizing;

/// What the two files begin with.
const RECIPIENT: &str = "roster-backup-recipient-v1";
const IDENTITY: &str = "roster-backup-identity-v1";
/// Bytes of each key in them.
const KEY_BYTES: usize = 32;
/// Plain bytes of one piece of a file.
const PIECE_BYTES: usize = 64 << 10;
/// What the cipher adds to a piece.
const TAG_BYTES: usize = 16;

/// What makes backups.
pub struct Recipient {
    encrypt_to: [u8; KEY_BYTES],
    sign_with: Ed25519KeyPair,
}

/// What reads them.
pub struct Identity {
    decrypt_with: PrivateKey,
    verify_with: [u8; KEY_BYTES],
}

/// How the key of a backup stands in its manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WrappedKey {
    /// Whom it is for: a public key.
    recipient: String,
    /// Public half of a key that was made for this backup alone.
    ephemeral: String,
    /// The backup's key, for the recipient.
    key: String,
}

/// Makes both files.
pub fn generate(recipient: &Path, identity: &Path) -> anyhow::Result<()> {
    for file in [recipient, identity] {
        if file.exists() {
            bail!("{} is there already", file.display());
        }
    }
    let private = PrivateKey::generate(&X25519).context("cannot make a key")?;
    let public = private.compute_public_key().context("cannot make a key")?;
    let private: Curve25519SeedBin<'_> = private.as_be_bytes().context("cannot make a key")?;
    let seed = SecretKey::generate()?;
    let signing =
        Ed25519KeyPair::from_seed_unchecked(seed.expose()).context("cannot make a key")?;
    let line = |head: &str, one: &[u8], two: &[u8]| {
        let both = Zeroizing::new([one, two].concat());
        Zeroizing::new(format!("{head} {}\n", *Zeroizing::new(STANDARD.encode(&*both))))
    };
    let verifying = signing.public_key();
    write_private(identity, line(IDENTITY, private.as_ref(), verifying.as_ref()).as_bytes())?;
    write_private(recipient, line(RECIPIENT, public.as_ref(), seed.expose()).as_bytes())?;
    Ok(())
}

/// The two keys in a file.
fn read(file: &Path, head: &str) -> anyhow::Result<(SecretKey, SecretKey)> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let keys = || {
        let bytes = Zeroizing::new(STANDARD.decode(text.strip_prefix(head)?.trim()).ok()?);
        let (one, two) = bytes.split_at_checked(KEY_BYTES)?;
        let key = |bytes: &[u8]| bytes.try_into().map(SecretKey::from_bytes).ok();
        Some((key(one)?, key(two)?))
    };
    keys().with_context(|| format!("{} is not a {head} file", file.display()))
}

impl Recipient {
    /// Reads the file.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let (encrypt_to, seed) = read(file, RECIPIENT)?;
        let sign_with = Ed25519KeyPair::from_seed_unchecked(seed.expose());
        let sign_with = sign_with.context("cannot use the key")?;
        Ok(Self { encrypt_to: *encrypt_to.expose(), sign_with })
    }

    /// A new key, and how it stands in the backup.
    pub fn new_key(&self, backup: Uuid) -> anyhow::Result<(SecretKey, WrappedKey)> {
        let key = SecretKey::generate()?;
        let ephemeral = PrivateKey::generate(&X25519).context("cannot make a key")?;
        let public = ephemeral.compute_public_key().context("cannot make a key")?;
        let wrapping =
            wrapping_key(&ephemeral, &self.encrypt_to, public.as_ref(), &self.encrypt_to, backup)?;
        let mut wrapped = key.expose().to_vec();
        wrapping
            .seal_in_place_append_tag(nonce(0, true), Aad::empty(), &mut wrapped)
            .ok()
            .context("cannot wrap the key")?;
        let wrapped = WrappedKey {
            recipient: STANDARD.encode(self.encrypt_to),
            ephemeral: STANDARD.encode(public.as_ref()),
            key: STANDARD.encode(wrapped),
        };
        Ok((key, wrapped))
    }

    /// Whether a key was wrapped for whom this is for.
    pub fn is_of(&self, wrapped: &WrappedKey) -> bool {
        wrapped.recipient == STANDARD.encode(self.encrypt_to)
    }

    /// Signs a text for what it is.
    pub fn sign(&self, what: &str, text: &str) -> String {
        STANDARD.encode(self.sign_with.sign(signed(what, text).as_bytes()))
    }
}

impl Identity {
    /// Reads the file.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let (private, verify_with) = read(file, IDENTITY)?;
        let decrypt_with = PrivateKey::from_private_key(&X25519, private.expose())
            .context("cannot use the key")?;
        Ok(Self { decrypt_with, verify_with: *verify_with.expose() })
    }

    /// The key of a backup.
    pub fn key(&self, wrapped: &WrappedKey, backup: Uuid) -> anyhow::Result<SecretKey> {
        let open = || {
            let ephemeral = STANDARD.decode(&wrapped.ephemeral).ok()?;
            let own = self.decrypt_with.compute_public_key().ok()?;
            let wrapping =
                wrapping_key(&self.decrypt_with, &ephemeral, &ephemeral, own.as_ref(), backup)
                    .ok()?;
            let mut key = STANDARD.decode(&wrapped.key).ok()?;
            let key = wrapping.open_in_place(nonce(0, true), Aad::empty(), &mut key).ok()?;
            Some(SecretKey::from_bytes((&*key).try_into().ok()?))
        };
        open().context("the backup is not for this identity")
    }

    /// Whether a text was signed for what it is by the recipient that belongs to this.
    pub fn verifies(&self, what: &str, text: &str, signature: &str) -> bool {
        let key = signature::UnparsedPublicKey::new(&ED25519, self.verify_with);
        STANDARD
            .decode(signature)
            .is_ok_and(|signature| key.verify(signed(what, text).as_bytes(), &signature).is_ok())
    }
}

fn signed(what: &str, text: &str) -> String {
    format!("roster backup {what} v1\n{text}")
}

/// What the key of a backup is wrapped with; both public keys and the backup are part of it.
fn wrapping_key(
    own: &PrivateKey,
    peer: &[u8],
    ephemeral: &[u8],
    recipient: &[u8],
    backup: Uuid,
) -> anyhow::Result<LessSafeKey> {
    let peer = UnparsedPublicKey::new(&X25519, peer);
    let shared =
        agree(own, peer, (), |shared| shared.try_into().map(SecretKey::from_bytes).map_err(drop));
    let shared = shared.ok().context("the key of the backup cannot be agreed on")?;
    let (ephemeral, recipient) = (STANDARD.encode(ephemeral), STANDARD.encode(recipient));
    cipher(&shared.derive(&format!("backup key v1 {ephemeral} {recipient} {backup}")))
}

fn cipher(key: &SecretKey) -> anyhow::Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM, key.expose()).ok();
    Ok(LessSafeKey::new(key.context("the cipher refuses the key")?))
}

/// Each file has a key of its own, so that its pieces can be counted from zero.
fn file_cipher(key: &SecretKey, path: &Path) -> anyhow::Result<LessSafeKey> {
    cipher(&key.derive(&format!("backup file v1 {}", path.display())))
}

fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut bytes = [0; 12];
    let (head, tail) = bytes.split_at_mut(11);
    if let Some(place) = head.last_chunk_mut() {
        *place = number.to_be_bytes();
    }
    tail.fill(u8::from(is_last));
    Nonce::assume_unique_for_key(bytes)
}

/// Encrypts a file while it is written.
pub struct Encrypting {
    cipher: LessSafeKey,
    number: u64,
    /// Less than a piece, or one that may be the last.
    waiting: Vec<u8>,
}

impl Encrypting {
    /// Begins with a file of a backup.
    pub fn new(key: &SecretKey, path: &Path) -> anyhow::Result<Self> {
        Ok(Self { cipher: file_cipher(key, path)?, number: 0, waiting: Vec::new() })
    }

    /// Takes plain bytes and gives the encrypted pieces that are full.
    pub fn add(&mut self, plain: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.waiting.extend_from_slice(plain);
        let mut sealed = Vec::new();
        while self.waiting.len() > PIECE_BYTES {
            let rest = self.waiting.split_off(PIECE_BYTES);
            let piece = std::mem::replace(&mut self.waiting, rest);
            sealed.extend(self.piece(piece, false)?);
        }
        Ok(sealed)
    }

    /// Gives the last piece.
    pub fn end(&mut self) -> anyhow::Result<Vec<u8>> {
        let piece = std::mem::take(&mut self.waiting);
        self.piece(piece, true)
    }

    fn piece(&mut self, mut piece: Vec<u8>, is_last: bool) -> anyhow::Result<Vec<u8>> {
        self.cipher
            .seal_in_place_append_tag(nonce(self.number, is_last), Aad::empty(), &mut piece)
            .ok()
            .context("cannot encrypt")?;
        self.number += 1;
        Ok(piece)
    }
}

/// Decrypts a file while it is read.
pub struct Decrypting<R = File> {
    file: BufReader<R>,
    cipher: LessSafeKey,
    number: u64,
    plain: Vec<u8>,
    given: usize,
    is_over: bool,
}

impl<R: Read> Decrypting<R> {
    /// Begins with a file of a backup.
    pub fn new(key: &SecretKey, path: &Path, file: R) -> anyhow::Result<Self> {
        let (file, cipher) = (BufReader::new(file), file_cipher(key, path)?);
        Ok(Self { file, cipher, number: 0, plain: Vec::new(), given: 0, is_over: false })
    }

    fn next_piece(&mut self) -> io::Result<()> {
        let mut piece = Vec::with_capacity(PIECE_BYTES + TAG_BYTES);
        let most = (PIECE_BYTES + TAG_BYTES) as u64;
        self.file.by_ref().take(most).read_to_end(&mut piece)?;
        let is_last = self.file.fill_buf()?.is_empty();
        let opened =
            self.cipher.open_in_place(nonce(self.number, is_last), Aad::empty(), &mut piece);
        let length = opened.map_err(|_| io::Error::other("it cannot be decrypted"))?.len();
        piece.truncate(length);
        (self.plain, self.given, self.is_over) = (piece, 0, is_last);
        self.number += 1;
        Ok(())
    }
}

impl<R: Read> Read for Decrypting<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.plain.len() && !self.is_over {
            self.next_piece()?;
        }
        let rest = self.plain.get(self.given..).unwrap_or_default();
        let count = rest.len().min(into.len());
        if let (Some(into), Some(from)) = (into.get_mut(..count), rest.get(..count)) {
            into.copy_from_slice(from);
        }
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(dir: &Path, name: &str) -> (Recipient, Identity) {
        let (recipient, identity) = (dir.join(format!("{name}.r")), dir.join(format!("{name}.i")));
        generate(&recipient, &identity).unwrap();
        (Recipient::read(&recipient).unwrap(), Identity::read(&identity).unwrap())
    }

    fn encrypted(key: &SecretKey, path: &str, plain: &[u8]) -> Vec<u8> {
        let mut encrypting = Encrypting::new(key, Path::new(path)).unwrap();
        let mut sealed = Vec::new();
        // In parts that fit no piece.
        for part in plain.chunks(1_000) {
            sealed.extend(encrypting.add(part).unwrap());
        }
        sealed.extend(encrypting.end().unwrap());
        sealed
    }

    fn decrypted(key: &SecretKey, path: &str, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        let mut decrypting = Decrypting::new(key, Path::new(path), sealed).unwrap();
        decrypting.read_to_end(&mut plain).map(|_| plain)
    }

    #[test]
    fn a_file_comes_out_as_it_went_in() {
        let key = SecretKey::generate().unwrap();
        for length in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            let plain: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let sealed = encrypted(&key, "USERS.snapshot", &plain);
            assert!(decrypted(&key, "USERS.snapshot", &sealed).unwrap() == plain, "{length}");
        }
    }

    #[test]
    fn a_file_that_was_touched_does_not_come_out() {
        let key = SecretKey::generate().unwrap();
        let sealed = encrypted(&key, "a", &vec![7; 2 * PIECE_BYTES + 5]);
        let piece = PIECE_BYTES + TAG_BYTES;
        let mut flipped = sealed.clone();
        flipped[piece + 3] ^= 1;
        let swapped = [&sealed[piece..2 * piece], &sealed[..piece], &sealed[2 * piece..]].concat();
        for (what, touched) in [
            ("a byte", flipped),
            ("cut off in a piece", sealed[..piece + 9].to_vec()),
            ("cut off between pieces", sealed[..piece].to_vec()),
            ("nothing", Vec::new()),
            ("pieces in another order", swapped),
            ("more behind it", [&sealed[..], b"more"].concat()),
        ] {
            assert!(decrypted(&key, "a", &touched).is_err(), "{what}");
        }
        assert!(decrypted(&key, "b", &sealed).is_err(), "a file in the place of another");
    }

    #[test]
    fn the_key_of_a_backup_is_for_one_identity_and_one_backup() {
        let dir = tempfile::tempdir().unwrap();
        let ((recipient, identity), (_, other)) =
            (pair(dir.path(), "one"), pair(dir.path(), "two"));
        let (backup, another) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (key, wrapped) = recipient.new_key(backup).unwrap();
        assert_eq!(identity.key(&wrapped, backup).unwrap().expose(), key.expose());
        assert!(other.key(&wrapped, backup).is_err());
        assert!(identity.key(&wrapped, another).is_err());
    }

    #[test]
    fn a_signature_is_of_one_recipient_and_for_one_thing() {
        let dir = tempfile::tempdir().unwrap();
        let ((recipient, identity), (stranger, _)) =
            (pair(dir.path(), "one"), pair(dir.path(), "two"));
        let signature = recipient.sign("manifest", "text");
        assert!(identity.verifies("manifest", "text", &signature));
        for (what, text, signature) in [
            ("ends", "text", &signature),
            ("manifest", "other", &signature),
            ("manifest", "text", &stranger.sign("manifest", "text")),
            ("manifest", "text", &String::new()),
        ] {
            assert!(!identity.verifies(what, text, signature), "{what} {text}");
        }
    }

    #[test]
    fn keys_are_not_made_over_others_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        pair(dir.path(), "one");
        let (recipient, identity) = (dir.path().join("one.r"), dir.path().join("new.i"));
        assert!(generate(&recipient, &identity).is_err());
        assert!(!identity.exists());
        let mode = std::fs::metadata(&recipient).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
        assert!(Identity::read(&recipient).is_err(), "one is not the other");
    }
}
