//! Decisions about a product.

use events::{Revision, UserId};
use service_kit::commands::Aggregate;

use super::{Price, Product, ProductFact, Snapshot, Status, UnpublishReason};

/// The aggregate of products.
#[derive(Debug)]
pub struct Products;

/// Who requests a change, as far as the rules need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requester {
    /// A user.
    User(UserId),
    /// A user who may change every product.
    Manager,
    /// This service itself.
    System,
}

impl Requester {
    fn may_change(self, product: &Product) -> bool {
        match self {
            Self::User(user) => user == product.owner,
            Self::Manager | Self::System => true,
        }
    }
}

/// The members of a new product.
#[derive(Debug, Clone)]
pub struct NewProduct {
    /// Its owner.
    pub owner: UserId,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// Its price.
    pub price: Price,
}

/// A requested change of an existing product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Another name or description; `None` leaves it unchanged.
    Text {
        /// New name.
        name: Option<String>,
        /// New description; `Some(None)` removes it.
        description: Option<Option<String>>,
    },
    /// Another price.
    Price(Price),
    /// Everyone can see it.
    Publish,
    /// Only its owner can see it.
    Unpublish(UnpublishReason),
    /// Delete it permanently.
    Delete,
}

/// A request that may be rejected.
#[derive(Debug, Clone)]
pub enum Command {
    /// Create a product.
    Create(NewProduct),
    /// Change an existing product.
    Change {
        /// Who requests it.
        by: Requester,
        /// The revisions that the caller expects, if it names any.
        expected: Option<Vec<Revision>>,
        /// The change.
        change: Change,
    },
}

/// Why a command is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The product already exists.
    Exists,
    /// There is no such product, or the caller must not learn of it.
    NoSuchProduct,
    /// The product belongs to somebody else.
    NotYours,
    /// The product has changed since the caller read it.
    Stale,
    /// A free product cannot be published.
    NoPrice,
}

impl Aggregate for Products {
    type Fact = ProductFact;
    type Command = Command;
    type Rejection = Rejection;

    fn decide(state: Option<&Snapshot>, command: &Command) -> Result<Vec<ProductFact>, Rejection> {
        match (state, command) {
            (None, Command::Create(new)) => Ok(vec![ProductFact::Created {
                owner: new.owner,
                name: new.name.clone(),
                description: new.description.clone(),
                price: new.price.clone(),
            }]),
            (Some(_), Command::Create(_)) => Err(Rejection::Exists),
            (Some(Snapshot::Present(product)), Command::Change { by, expected, change }) => {
                if !by.may_change(product) {
                    return Err(match product.status {
                        Status::Published => Rejection::NotYours,
                        Status::Draft => Rejection::NoSuchProduct,
                    });
                }
                if expected.as_ref().is_some_and(|known| !known.contains(&product.revision)) {
                    return Err(Rejection::Stale);
                }
                changes(product, change)
            }
            // Deleting is idempotent for callers who may know that the product existed.
            (
                Some(Snapshot::Deleted(_)),
                Command::Change {
                    by: Requester::Manager | Requester::System,
                    change: Change::Delete,
                    ..
                },
            ) => Ok(Vec::new()),
            (None | Some(Snapshot::Deleted(_)), Command::Change { .. }) => {
                Err(Rejection::NoSuchProduct)
            }
        }
    }
}

/// The facts that a change leads to; none if the product is already in that state.
fn changes(product: &Product, change: &Change) -> Result<Vec<ProductFact>, Rejection> {
    let fact = match change {
        Change::Text { name, description } => {
            let name = name.clone().filter(|name| *name != product.name);
            let description = description.clone().filter(|text| *text != product.description);
            let is_new = name.is_some() || description.is_some();
            is_new.then_some(ProductFact::Changed { name, description })
        }
        Change::Price(price) if *price == product.price => None,
        // Buyers must be able to rely on the price of a published product.
        Change::Price(price) if price.amount == 0 && product.status == Status::Published => {
            return Err(Rejection::NoPrice);
        }
        Change::Price(price) => Some(ProductFact::PriceChanged { price: price.clone() }),
        Change::Publish => match product.status {
            Status::Published => None,
            Status::Draft if product.price.amount == 0 => return Err(Rejection::NoPrice),
            Status::Draft => Some(ProductFact::Published),
        },
        Change::Unpublish(reason) => match product.status {
            Status::Draft => None,
            Status::Published => Some(ProductFact::Unpublished { reason: *reason }),
        },
        Change::Delete => Some(ProductFact::Deleted),
    };
    Ok(fact.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use events::{Evolve, Timestamp};
    use uuid::Uuid;

    use super::*;
    use crate::domain::ProductId;

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    fn price(amount: u64) -> Price {
        Price { amount, currency: "EUR".to_owned() }
    }

    fn created(amount: u64) -> ProductFact {
        ProductFact::Created {
            owner: user(1),
            name: "Chair".to_owned(),
            description: None,
            price: price(amount),
        }
    }

    /// The state after these facts, one second apart.
    fn given(facts: &[ProductFact]) -> Option<Snapshot> {
        let id = ProductId(Uuid::from_u128(7));
        facts.iter().zip(1_800_000_000..).fold(None, |state, (fact, second)| {
            let time = Timestamp::from_unix_seconds(second).unwrap();
            Some(fact.evolve(state, id, time).unwrap())
        })
    }

    fn change_by(by: Requester, change: Change) -> Command {
        Command::Change { by, expected: None, change }
    }

    fn when(state: &Option<Snapshot>, command: &Command) -> Result<Vec<ProductFact>, Rejection> {
        Products::decide(state.as_ref(), command)
    }

    const OWNER: fn() -> Requester = || Requester::User(user(1));
    const STRANGER: fn() -> Requester = || Requester::User(user(2));

    #[test]
    fn a_product_is_created_once() {
        let new = NewProduct {
            owner: user(1),
            name: "Chair".to_owned(),
            description: None,
            price: price(5),
        };
        let create = Command::Create(new);
        assert_eq!(when(&None, &create), Ok(vec![created(5)]));
        assert_eq!(when(&given(&[created(5)]), &create), Err(Rejection::Exists));
    }

    #[test]
    fn only_owners_and_managers_change_a_product() {
        let draft = given(&[created(5)]);
        let published = given(&[created(5), ProductFact::Published]);
        for by in [OWNER(), Requester::Manager, Requester::System] {
            assert_eq!(
                when(&draft, &change_by(by, Change::Publish)),
                Ok(vec![ProductFact::Published])
            );
        }
        let theirs = change_by(STRANGER(), Change::Delete);
        assert_eq!(when(&draft, &theirs), Err(Rejection::NoSuchProduct), "a draft is not revealed");
        assert_eq!(when(&published, &theirs), Err(Rejection::NotYours));
    }

    #[test]
    fn rejects_publishing_a_free_product() {
        let free = given(&[created(0)]);
        assert_eq!(when(&free, &change_by(OWNER(), Change::Publish)), Err(Rejection::NoPrice));
        let published = given(&[created(5), ProductFact::Published]);
        let free_price = change_by(OWNER(), Change::Price(price(0)));
        assert_eq!(when(&published, &free_price), Err(Rejection::NoPrice));
        let higher_price = change_by(OWNER(), Change::Price(price(9)));
        let changed = ProductFact::PriceChanged { price: price(9) };
        assert_eq!(when(&published, &higher_price), Ok(vec![changed]));
    }

    #[test]
    fn a_change_already_in_effect_adds_no_facts() {
        let draft = given(&[created(5)]);
        for change in [
            Change::Text { name: Some("Chair".to_owned()), description: Some(None) },
            Change::Price(price(5)),
            Change::Unpublish(UnpublishReason::Asked),
        ] {
            assert_eq!(when(&draft, &change_by(OWNER(), change)), Ok(Vec::new()));
        }
        let deleted = given(&[created(5), ProductFact::Deleted]);
        assert_eq!(when(&deleted, &change_by(Requester::Manager, Change::Delete)), Ok(Vec::new()));
        assert_eq!(
            when(&deleted, &change_by(OWNER(), Change::Publish)),
            Err(Rejection::NoSuchProduct)
        );
        assert_eq!(
            when(&None, &change_by(Requester::System, Change::Delete)),
            Err(Rejection::NoSuchProduct)
        );
    }

    #[test]
    fn rejects_a_stale_revision() {
        let state = given(&[created(5), ProductFact::Published]);
        let expecting = |revisions: &[u64]| Command::Change {
            by: OWNER(),
            expected: Some(revisions.iter().map(|r| Revision(*r)).collect()),
            change: Change::Delete,
        };
        assert_eq!(when(&state, &expecting(&[1])), Err(Rejection::Stale));
        assert_eq!(when(&state, &expecting(&[1, 2])), Ok(vec![ProductFact::Deleted]));
    }
}
