//! Links in mails: signed, expiring, usable once.
//!
//! A link carries its purpose, its user, its expiry and a serial, and a MAC over all of these and over state that must
//! not have changed since it was made ([`Binding`]): the address that it was sent to and, for every link that changes
//! an account, the state of its access. So no link is stored, and anything that ends the access of others (a changed or
//! reset password, a logout everywhere, a disabled account) voids the pending links. A link that only cancels a change
//! is the owner's way back: it survives all of these.
//!
//! A record in the log (`lk.<purpose>.<user>`, [`events::LinkRecord`]) ensures that a link works once and that a newer
//! one voids an older one: it names the serial of the only valid link, and using the link replaces the record in the
//! batch that makes the change.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::{Cutoff, LinkPurpose, Position, Revision, Timestamp, UserId};
use uuid::Uuid;

use crate::key_ring::RotatingKey;
use crate::keys::SecretKey;

/// The purpose for which the application key derives the key of links.
pub const LINK_KEY_PURPOSE: &str = "mail link v1";

/// Longest token that is parsed: the fixed parts and an address of 254 bytes, in base64url.
const TOKEN_CHARS_MAX: usize = 512;
/// Changes with the bytes of a token and with the input of its MAC. Version 1 did not include the cutoff.
const VERSION: u8 = 2;
/// Version, kind, user, serial, end.
const HEAD_BYTES: usize = 1 + 1 + 16 + 16 + 8;
const MAC_BYTES: usize = 32;

/// The effect of following a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// Choose a new password.
    ResetPassword,
    /// Choose the first password.
    SetPassword,
    /// Verify the address.
    VerifyEmail,
    /// Verify the new address, and change to it.
    ConfirmEmail,
    /// Cancel a change of address.
    AbortEmail,
    /// Undo a change of address.
    UndoEmail,
}

impl LinkKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::ResetPassword,
        Self::SetPassword,
        Self::VerifyEmail,
        Self::ConfirmEmail,
        Self::AbortEmail,
        Self::UndoEmail,
    ];

    /// The purpose whose record names the valid link: only the newest is valid. `None` for a link that no newer one
    /// voids, which has a record of another kind ([`events::UndoneChanges`]).
    #[must_use]
    pub const fn purpose(self) -> Option<LinkPurpose> {
        match self {
            Self::ResetPassword | Self::SetPassword => Some(LinkPurpose::Password),
            Self::VerifyEmail => Some(LinkPurpose::Verify),
            Self::ConfirmEmail | Self::AbortEmail => Some(LinkPurpose::Email),
            Self::UndoEmail => None,
        }
    }

    /// Last part of the address in the mail: `<link base>/<path>?token=…`.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::ResetPassword => "reset-password",
            Self::SetPassword => "set-password",
            Self::VerifyEmail => "verify-email",
            Self::ConfirmEmail => "confirm-email",
            Self::AbortEmail => "abort-email-change",
            Self::UndoEmail => "undo-email-change",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::ResetPassword => 1,
            Self::SetPassword => 2,
            Self::VerifyEmail => 3,
            Self::ConfirmEmail => 4,
            Self::AbortEmail => 5,
            Self::UndoEmail => 6,
        }
    }

    /// The positions that must not change between making and following a link.
    ///
    /// A change of roles ends no session, and voids only links that would give new permissions to whoever requested
    /// them before: an invitation survives it.
    const fn bound(self, binding: &Binding<'_>) -> [Position; 2] {
        let Binding { credential, cutoff, .. } = *binding;
        match self {
            Self::ResetPassword | Self::ConfirmEmail => [credential, cutoff.position],
            Self::SetPassword | Self::VerifyEmail => [credential, cutoff.sessions_from],
            // A thief who changes the password must not void the owner's way back.
            Self::AbortEmail | Self::UndoEmail => [Position(0), Position(0)],
        }
    }
}

/// The content of a link's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its effect.
    pub kind: LinkKind,
    /// Its user.
    pub user: UserId,
    /// Its serial.
    pub serial: Uuid,
    /// Its expiry, in whole seconds.
    pub expires_at: Timestamp,
    /// The address to change to, as given: the new one in a [`LinkKind::ConfirmEmail`], the old one in a
    /// [`LinkKind::UndoEmail`].
    pub new_email: Option<String>,
}

/// The state in the log that a link depends on. Each kind is bound to a part of it.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The user's address, canonical.
    pub email: &'a str,
    /// Position of the user's credential; 0 if there never was one.
    pub credential: Position,
    /// The last end of the user's access.
    pub cutoff: Cutoff,
}

/// A parsed token before its check: [`Unverified::user`] names the user whose state it must be checked against.
#[derive(Debug, Clone)]
pub struct Unverified {
    link: Link,
    mac: Vec<u8>,
}

impl Unverified {
    /// The user that it claims to be for.
    #[must_use]
    pub const fn user(&self) -> UserId {
        self.link.user
    }

    /// The effect that it claims to have.
    #[must_use]
    pub const fn kind(&self) -> LinkKind {
        self.link.kind
    }
}

/// Makes and checks tokens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Links {
    key: RotatingKey,
}

impl Links {
    /// Uses a key derived for [`LINK_KEY_PURPOSE`].
    #[must_use]
    pub fn new(key: impl Into<RotatingKey>) -> Self {
        Self { key: key.into() }
    }

    /// The token of a link.
    #[must_use]
    pub fn token(&self, link: &Link, binding: &Binding<'_>) -> String {
        let mut bytes = head(link);
        bytes.extend_from_slice(&mac(&self.key.sealing(), link, binding));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Parses a token. `None` for anything else.
    #[must_use]
    pub fn read(token: &str) -> Option<Unverified> {
        if token.len() > TOKEN_CHARS_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let (new_email, mac) = rest.split_at_checked(rest.len().checked_sub(MAC_BYTES)?)?;
        let (&[version, number], head) = head.split_first_chunk::<2>()?;
        let (user, head) = head.split_first_chunk::<16>()?;
        let (serial, end) = head.split_first_chunk::<16>()?;
        let end = i64::from_be_bytes(end.try_into().ok()?);
        let kind = LinkKind::ALL.into_iter().find(|kind| kind.number() == number)?;
        let new_email = match kind {
            LinkKind::ConfirmEmail | LinkKind::UndoEmail => {
                Some(String::from_utf8(new_email.to_vec()).ok()?)
            }
            LinkKind::ResetPassword
            | LinkKind::SetPassword
            | LinkKind::VerifyEmail
            | LinkKind::AbortEmail => new_email.is_empty().then_some(None)?,
        };
        let link = Link {
            kind,
            user: UserId::from_uuid(Uuid::from_bytes(*user)),
            serial: Uuid::from_bytes(*serial),
            expires_at: Timestamp::from_unix_seconds(end)?,
            new_email,
        };
        (version == VERSION).then(|| Unverified { link, mac: mac.to_vec() })
    }

    /// Checks a token against the current state of its user. `None` if it was not made by Roster, is for another state,
    /// or has expired.
    #[must_use]
    pub fn verify(
        &self,
        unverified: Unverified,
        binding: &Binding<'_>,
        now: Timestamp,
    ) -> Option<Link> {
        let Unverified { link, mac: given } = unverified;
        let ours = self.key.accepted().iter().any(|key| {
            let expected = mac(key, &link, binding);
            aws_lc_rs::constant_time::verify_slices_are_equal(&expected, &given).is_ok()
        });
        (ours && now < link.expires_at).then_some(link)
    }
}

fn mac(key: &SecretKey, link: &Link, binding: &Binding<'_>) -> [u8; 32] {
    let [credential, cutoff] = link.kind.bound(binding).map(|position| position.0.to_be_bytes());
    // The link back to an old address is not bound to the present address: a thief may change it again.
    let email = if link.kind == LinkKind::UndoEmail { "" } else { binding.email };
    key.mac(&[&head(link), email.as_bytes(), &credential, &cutoff])
}

/// The serial of the link that undoes a change of address: the revision of the change, which is recorded when it is
/// undone ([`events::UndoneChanges`]).
#[must_use]
pub const fn undo_serial(change: Revision) -> Uuid {
    Uuid::from_u128(change.0 as u128)
}

/// The revision of the change that a link undoes.
#[must_use]
pub fn undone_revision(link: &Link) -> Option<Revision> {
    u64::try_from(link.serial.as_u128()).ok().map(Revision)
}

fn head(link: &Link) -> Vec<u8> {
    let mut bytes = vec![VERSION, link.kind.number()];
    bytes.extend_from_slice(link.user.as_uuid().as_bytes());
    bytes.extend_from_slice(link.serial.as_bytes());
    bytes.extend_from_slice(&link.expires_at.as_datetime().timestamp().to_be_bytes());
    if let Some(new_email) = &link.new_email {
        bytes.extend_from_slice(new_email.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ambient;
    use crate::key_ring::Ring;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + second).unwrap()
    }

    fn link(kind: LinkKind) -> Link {
        Link {
            kind,
            user: UserId::from_uuid(Uuid::from_u128(1)),
            serial: Uuid::from_u128(2),
            expires_at: at(60),
            new_email: matches!(kind, LinkKind::ConfirmEmail | LinkKind::UndoEmail)
                .then(|| "new@example.com".to_owned()),
        }
    }

    const CUTOFF: Cutoff =
        Cutoff { position: Position(9), sessions_from: Position(5), except: None };
    const BINDING: Binding<'_> =
        Binding { email: "ada@example.com", credential: Position(7), cutoff: CUTOFF };

    #[test]
    fn a_link_is_good_for_what_it_was_made_for() {
        let links = Links::new(SecretKey::generate().unwrap());
        for kind in LinkKind::ALL {
            let token = links.token(&link(kind), &BINDING);
            let read = || Links::read(&token).unwrap();
            assert_eq!(read().user(), link(kind).user);
            assert_eq!(links.verify(read(), &BINDING, at(59)), Some(link(kind)));
            assert_eq!(links.verify(read(), &BINDING, at(60)), None, "it is over");
            let moved = Binding { email: "other@example.com", ..BINDING };
            let survives = kind == LinkKind::UndoEmail;
            assert_eq!(links.verify(read(), &moved, at(0)).is_some(), survives, "another address");
            let stranger = Links::new(SecretKey::generate().unwrap());
            assert_eq!(stranger.verify(read(), &BINDING, at(0)), None, "another key");
        }
    }

    #[test]
    fn what_ends_access_voids_every_link_but_the_one_that_calls_a_change_off() {
        let links = Links::new(SecretKey::generate().unwrap());
        let after = |revocation| Cutoff::of(revocation, Position(11));
        let session = events::SessionId::from_uuid(Uuid::from_u128(3));
        for kind in LinkKind::ALL {
            let token = links.token(&link(kind), &BINDING);
            let lives = |binding: Binding<'_>| {
                links.verify(Links::read(&token).unwrap(), &binding, at(0)).is_some()
            };
            let calls_off = matches!(kind, LinkKind::AbortEmail | LinkKind::UndoEmail);
            assert_eq!(
                lives(Binding { credential: Position(8), ..BINDING }),
                calls_off,
                "{kind:?}"
            );
            for revocation in [CUTOFF.all(), CUTOFF.all_but(session)] {
                assert_eq!(lives(Binding { cutoff: after(revocation), ..BINDING }), calls_off);
            }
            let new_roles = Binding { cutoff: after(CUTOFF.tokens()), ..BINDING };
            let hands_over = matches!(kind, LinkKind::ResetPassword | LinkKind::ConfirmEmail);
            assert_eq!(lives(new_roles), !hands_over, "{kind:?}");
        }
    }

    #[test]
    fn a_token_of_another_version_is_refused() {
        let token = Links::new(SecretKey::generate().unwrap())
            .token(&link(LinkKind::VerifyEmail), &BINDING);
        let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        bytes[0] = 1;
        assert!(Links::read(&URL_SAFE_NO_PAD.encode(&bytes)).is_none());
    }

    #[test]
    fn a_link_of_the_old_key_is_good_during_a_rotation_and_not_after_it() {
        let old = SecretKey::generate().unwrap();
        let ring = Ring::parse(&old.to_base64(), Path::new("old")).unwrap();
        let ring = ring.with(SecretKey::generate().unwrap(), ambient::now());
        let [before, during, after] =
            [old.into(), RotatingKey::from(ring.clone()), ring.finished().into()].map(Links::new);
        let wanted = link(LinkKind::ResetPassword);
        let takes = |by: &Links, token: &str| {
            by.verify(Links::read(token).unwrap(), &BINDING, at(0)).is_some()
        };
        let [old, new] = [&before, &during].map(|links| links.token(&wanted, &BINDING));
        assert!(takes(&during, &old) && takes(&during, &new));
        assert!(takes(&after, &new) && !takes(&after, &old));
    }

    #[test]
    fn a_changed_token_is_refused() {
        let links = Links::new(SecretKey::generate().unwrap());
        let token = links.token(&link(LinkKind::ConfirmEmail), &BINDING);
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for n in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[n] ^= 1;
            let read = Links::read(&URL_SAFE_NO_PAD.encode(&changed));
            let passes = read.and_then(|read| links.verify(read, &BINDING, at(0)));
            assert_eq!(passes, None, "byte {n}");
        }
        for garbage in ["", "a", "!!!", &token[..40], &"A".repeat(600), &format!("{token}AAAA")] {
            let read = Links::read(garbage);
            assert_eq!(read.and_then(|read| links.verify(read, &BINDING, at(0))), None);
        }
    }
}
