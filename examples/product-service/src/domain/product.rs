//! The facts about a product, and the state after each.

use std::fmt;
use std::str::FromStr;

use events::{DecodeError, Evolve, Fact, FoldError, Revision, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Longest name in characters.
const NAME_CHARS_MAX: usize = 200;
/// Longest description in characters.
const DESCRIPTION_CHARS_MAX: usize = 4_000;

/// A product's id, in the one accepted spelling: a lower-case UUID with dashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProductId(pub Uuid);

impl fmt::Display for ProductId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for ProductId {
    type Err = events::InvalidId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Another spelling would give one product two subjects.
        let id = Uuid::parse_str(text).map_err(|_| events::InvalidId)?;
        if id.hyphenated().to_string() == text { Ok(Self(id)) } else { Err(events::InvalidId) }
    }
}

impl TryFrom<String> for ProductId {
    type Error = events::InvalidId;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ProductId> for String {
    fn from(id: ProductId) -> Self {
        id.to_string()
    }
}

/// Why a value is rejected: a stable code, and the rule as text.
pub type InvalidField = (&'static str, String);

/// A product's name or description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Parses a name. It must not be empty, too long, or contain control characters; blanks at its ends are removed.
    ///
    /// # Errors
    /// [`InvalidField`].
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let text = bounded(text, NAME_CHARS_MAX)?;
        if text.is_empty() {
            return Err(("too-short", "must not be empty".to_owned()));
        }
        Ok(Self(text))
    }

    /// The name.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// Parses a description. An empty one counts as none.
    ///
    /// # Errors
    /// [`InvalidField`].
    pub fn description(text: &str) -> Result<Option<String>, InvalidField> {
        let text = bounded(text, DESCRIPTION_CHARS_MAX)?;
        Ok((!text.is_empty()).then_some(text))
    }
}

fn bounded(text: &str, max: usize) -> Result<String, InvalidField> {
    let text = text.trim();
    if text.chars().count() > max {
        return Err(("too-long", format!("must have at most {max} characters")));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(("control-character", "must not have control characters".to_owned()));
    }
    Ok(text.to_owned())
}

/// A price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// In the smallest unit of the currency: cents.
    pub amount: u64,
    /// ISO 4217: three capital letters.
    pub currency: String,
}

impl Price {
    /// Checks that an amount is at most `max`.
    ///
    /// # Errors
    /// [`InvalidField`].
    pub fn amount(amount: u64, max: u64) -> Result<u64, InvalidField> {
        if amount > max {
            return Err(("too-large", format!("must be at most {max}")));
        }
        Ok(amount)
    }

    /// Checks a currency code.
    ///
    /// # Errors
    /// [`InvalidField`].
    pub fn currency(text: String) -> Result<String, InvalidField> {
        if text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase()) {
            return Ok(text);
        }
        Err(("currency", "must be three capital letters (ISO 4217)".to_owned()))
    }
}

/// Who can see a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Only its owner.
    Draft,
    /// Everyone.
    Published,
}

impl Status {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
        }
    }
}

/// Why a product was unpublished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnpublishReason {
    /// Its owner or a manager requested it.
    Asked,
    /// Its owner was deleted.
    OwnerDeleted,
}

/// The public state of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// The product's id.
    pub id: ProductId,
    /// The owner.
    pub owner: UserId,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// Its price.
    pub price: Price,
    /// Who can see it.
    pub status: Status,
    /// The number of its events so far.
    pub revision: Revision,
    /// Time of the first event.
    pub created_at: Timestamp,
    /// Time of the last event.
    pub updated_at: Timestamp,
}

/// What is kept of a deleted product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedProduct {
    /// The product's id, which is never used again.
    pub id: ProductId,
    /// Revision of the deletion.
    pub revision: Revision,
    /// Time of the deletion.
    pub deleted_at: Timestamp,
}

/// The state after an event, which the event carries. On the wire, only a deleted product has `deleted_at`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Snapshot {
    /// After a deletion.
    Deleted(DeletedProduct),
    /// After anything else.
    Present(Product),
}

impl Snapshot {
    /// The product's id.
    #[must_use]
    pub const fn id(&self) -> ProductId {
        match self {
            Self::Deleted(product) => product.id,
            Self::Present(product) => product.id,
        }
    }

    /// The product, unless it was deleted.
    #[must_use]
    pub const fn present(&self) -> Option<&Product> {
        match self {
            Self::Deleted(_) => None,
            Self::Present(product) => Some(product),
        }
    }
}

/// Something that happened to a product. Its wire name is its [`Fact::wire_type`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProductFact {
    /// It was created.
    Created {
        /// Its owner.
        owner: UserId,
        /// Its name.
        name: String,
        /// Its description.
        description: Option<String>,
        /// Its price.
        price: Price,
    },
    /// Name or description changed; `None` means unchanged.
    Changed {
        /// The new name.
        name: Option<String>,
        /// The new description; `Some(None)` removes it.
        description: Option<Option<String>>,
    },
    /// The price changed.
    PriceChanged {
        /// The new price.
        price: Price,
    },
    /// Everyone sees it from now on.
    Published,
    /// Only its owner sees it from now on.
    Unpublished {
        /// The reason.
        reason: UnpublishReason,
    },
    /// It was deleted.
    Deleted,
}

#[derive(Serialize, Deserialize)]
struct WireCreated {
    owner: UserId,
    name: String,
    description: Option<String>,
    price: Price,
}

#[derive(Serialize, Deserialize)]
struct WireChanged {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    // `null` removes it, absence leaves it unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    description: Option<Option<String>>,
}

fn given<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

#[derive(Serialize, Deserialize)]
struct WirePrice {
    price: Price,
}

#[derive(Serialize, Deserialize)]
struct WireUnpublished {
    reason: UnpublishReason,
}

impl Fact for ProductFact {
    type After = Snapshot;
    const STATE: &'static str = "product";
    const SOURCE: &'static str = "/product-service";

    fn wire_type(&self) -> &'static str {
        match self {
            Self::Created { .. } => "product.created.v1",
            Self::Changed { .. } => "product.changed.v1",
            Self::PriceChanged { .. } => "product.price_changed.v1",
            Self::Published => "product.published.v1",
            Self::Unpublished { .. } => "product.unpublished.v1",
            Self::Deleted => "product.deleted.v1",
        }
    }

    fn changed(&self) -> Result<Map<String, Value>, serde_json::Error> {
        let members = match self {
            Self::Created { owner, name, description, price } => {
                let (owner, name, price) = (*owner, name.clone(), price.clone());
                serde_json::to_value(WireCreated {
                    owner,
                    name,
                    description: description.clone(),
                    price,
                })?
            }
            Self::Changed { name, description } => {
                let (name, description) = (name.clone(), description.clone());
                serde_json::to_value(WireChanged { name, description })?
            }
            Self::PriceChanged { price } => {
                serde_json::to_value(WirePrice { price: price.clone() })?
            }
            Self::Unpublished { reason } => {
                serde_json::to_value(WireUnpublished { reason: *reason })?
            }
            Self::Published | Self::Deleted => Value::Object(Map::new()),
        };
        serde_json::from_value(members)
    }

    fn read(kind: &str, changed: Map<String, Value>) -> Result<Self, DecodeError> {
        let changed = Value::Object(changed);
        match kind {
            "product.created.v1" => {
                let WireCreated { owner, name, description, price } =
                    serde_json::from_value(changed)?;
                Ok(Self::Created { owner, name, description, price })
            }
            "product.changed.v1" => {
                let WireChanged { name, description } = serde_json::from_value(changed)?;
                Ok(Self::Changed { name, description })
            }
            "product.price_changed.v1" => {
                let WirePrice { price } = serde_json::from_value(changed)?;
                Ok(Self::PriceChanged { price })
            }
            "product.published.v1" => Ok(Self::Published),
            "product.unpublished.v1" => {
                let WireUnpublished { reason } = serde_json::from_value(changed)?;
                Ok(Self::Unpublished { reason })
            }
            "product.deleted.v1" => Ok(Self::Deleted),
            other => Err(DecodeError::UnknownType(other.to_owned())),
        }
    }

    fn subject(after: &Snapshot) -> String {
        after.id().to_string()
    }

    fn revision(after: &Snapshot) -> Revision {
        match after {
            Snapshot::Deleted(product) => product.revision,
            Snapshot::Present(product) => product.revision,
        }
    }

    fn explains(&self, after: &Snapshot, time: Timestamp) -> bool {
        // A change is an assignment: applied to the state after it, it changes only the revision.
        let before = match (self, after) {
            (Self::Created { .. }, _) => None,
            (Self::Deleted, Snapshot::Deleted(product)) => {
                return product.deleted_at == time && product.revision > Revision(1);
            }
            (_, Snapshot::Deleted(_)) => return false,
            (_, Snapshot::Present(product)) => {
                let revision = Revision(product.revision.0.saturating_sub(1));
                Some(Snapshot::Present(Product { revision, ..product.clone() }))
            }
        };
        let first = before.is_none();
        self.evolve(before, after.id(), time).is_ok_and(|state| state == *after)
            && (first || Self::revision(after) > Revision(1))
    }
}

impl Evolve for ProductFact {
    type Id = ProductId;

    fn evolve(
        &self,
        before: Option<Snapshot>,
        id: ProductId,
        time: Timestamp,
    ) -> Result<Snapshot, FoldError> {
        let refused = |state| Err(FoldError { fact: self.wire_type(), state });
        let mut product = match (before, self) {
            (None, Self::Created { owner, name, description, price }) => {
                return Ok(Snapshot::Present(Product {
                    id,
                    owner: *owner,
                    name: name.clone(),
                    description: description.clone(),
                    price: price.clone(),
                    status: Status::Draft,
                    revision: Revision(1),
                    created_at: time,
                    updated_at: time,
                }));
            }
            (None, _) => return refused("absence"),
            (Some(Snapshot::Deleted(_)), _) => return refused("deletion"),
            (Some(Snapshot::Present(product)), _) => product,
        };
        product.revision = product.revision.next();
        product.updated_at = time;
        match self {
            Self::Created { .. } => return refused("creation"),
            Self::Changed { name, description } => {
                if let Some(name) = name {
                    product.name.clone_from(name);
                }
                if let Some(description) = description {
                    product.description.clone_from(description);
                }
            }
            Self::PriceChanged { price } => product.price.clone_from(price),
            Self::Published => product.status = Status::Published,
            Self::Unpublished { .. } => product.status = Status::Draft,
            Self::Deleted => {
                let revision = product.revision;
                return Ok(Snapshot::Deleted(DeletedProduct { id, revision, deleted_at: time }));
            }
        }
        Ok(Snapshot::Present(product))
    }
}
