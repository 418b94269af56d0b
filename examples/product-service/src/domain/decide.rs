//! Decisions about a product.

use events::{Revision, UserId};
use service_kit::commands::Aggregate;

use super::{Price, Product, ProductFact, Snapshot, Status, UnpublishReason};

/// Products, for the kit.
#[derive(Debug)]
pub struct Products;

/// Who wants it, as far as rules ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A user.
    User(UserId),
    /// A user who may change everybody's products.
    Manager,
    /// This service itself.
    System,
}

impl By {
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
    /// Whose it will be.
    pub owner: UserId,
    /// What it is called.
    pub name: String,
    /// What is said of it.
    pub description: Option<String>,
    /// What it costs.
    pub price: Price,
}

/// What is to happen to a product that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Another name or description: what is `None` stays.
    Text {
        /// New name.
        name: Option<String>,
        /// New description, or its removal.
        description: Option<Option<String>>,
    },
    /// Another price.
    Price(Price),
    /// Everyone shall see it.
    Publish,
    /// Only its owner shall see it.
    Unpublish(UnpublishReason),
    /// It shall go for ever.
    Delete,
}

/// A wish that may be refused.
#[derive(Debug, Clone)]
pub enum Command {
    /// A new product.
    Create(NewProduct),
    /// A change of one that is there.
    Change {
        /// Who wants it.
        by: By,
        /// The revisions that the caller believes to change, if it says so.
        expected: Option<Vec<Revision>>,
        /// What.
        change: Change,
    },
}

/// Why a command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// There is such a product already.
    Exists,
    /// There is none, or the caller must not know.
    NoSuchProduct,
    /// It is somebody else's.
    NotYours,
    /// It has changed since the caller looked.
    Stale,
    /// What costs nothing cannot be published.
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
            // Again is as good as once, for whoever may.
            (
                Some(Snapshot::Deleted(_)),
                Command::Change { by: By::Manager | By::System, change: Change::Delete, .. },
            ) => Ok(Vec::new()),
            (None | Some(Snapshot::Deleted(_)), Command::Change { .. }) => {
                Err(Rejection::NoSuchProduct)
            }
        }
    }
}

/// What a change leads to. Nothing when the product is so already.
fn changes(product: &Product, change: &Change) -> Result<Vec<ProductFact>, Rejection> {
    let fact = match change {
        Change::Text { name, description } => {
            let name = name.clone().filter(|name| *name != product.name);
            let description = description.clone().filter(|text| *text != product.description);
            let is_new = name.is_some() || description.is_some();
            is_new.then_some(ProductFact::Changed { name, description })
        }
        Change::Price(price) if *price == product.price => None,
        // Whoever buys what is published must be able to rely on its price.
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

    /// The state after facts, one second apart.
    fn given(facts: &[ProductFact]) -> Option<Snapshot> {
        let id = ProductId(Uuid::from_u128(7));
        facts.iter().zip(1_800_000_000..).fold(None, |state, (fact, second)| {
            let time = Timestamp::from_unix_seconds(second).unwrap();
            Some(fact.evolve(state, id, time).unwrap())
        })
    }

    fn wish(by: By, change: Change) -> Command {
        Command::Change { by, expected: None, change }
    }

    fn when(state: &Option<Snapshot>, command: &Command) -> Result<Vec<ProductFact>, Rejection> {
        Products::decide(state.as_ref(), command)
    }

    const OWNER: fn() -> By = || By::User(user(1));
    const STRANGER: fn() -> By = || By::User(user(2));

    #[test]
    fn a_product_is_made_once() {
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
    fn owners_and_managers_change_a_product_and_nobody_else() {
        let draft = given(&[created(5)]);
        let published = given(&[created(5), ProductFact::Published]);
        for by in [OWNER(), By::Manager, By::System] {
            assert_eq!(when(&draft, &wish(by, Change::Publish)), Ok(vec![ProductFact::Published]));
        }
        let theirs = wish(STRANGER(), Change::Delete);
        assert_eq!(when(&draft, &theirs), Err(Rejection::NoSuchProduct), "a draft is not shown");
        assert_eq!(when(&published, &theirs), Err(Rejection::NotYours));
    }

    #[test]
    fn what_costs_nothing_is_not_published() {
        let free = given(&[created(0)]);
        assert_eq!(when(&free, &wish(OWNER(), Change::Publish)), Err(Rejection::NoPrice));
        let published = given(&[created(5), ProductFact::Published]);
        let for_nothing = wish(OWNER(), Change::Price(price(0)));
        assert_eq!(when(&published, &for_nothing), Err(Rejection::NoPrice));
        let dearer = wish(OWNER(), Change::Price(price(9)));
        let changed = ProductFact::PriceChanged { price: price(9) };
        assert_eq!(when(&published, &dearer), Ok(vec![changed]));
    }

    #[test]
    fn what_is_so_already_leads_to_nothing() {
        let draft = given(&[created(5)]);
        for change in [
            Change::Text { name: Some("Chair".to_owned()), description: Some(None) },
            Change::Price(price(5)),
            Change::Unpublish(UnpublishReason::Asked),
        ] {
            assert_eq!(when(&draft, &wish(OWNER(), change)), Ok(Vec::new()));
        }
        let gone = given(&[created(5), ProductFact::Deleted]);
        assert_eq!(when(&gone, &wish(By::Manager, Change::Delete)), Ok(Vec::new()));
        assert_eq!(when(&gone, &wish(OWNER(), Change::Publish)), Err(Rejection::NoSuchProduct));
        assert_eq!(when(&None, &wish(By::System, Change::Delete)), Err(Rejection::NoSuchProduct));
    }

    #[test]
    fn a_stale_revision_is_refused() {
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
