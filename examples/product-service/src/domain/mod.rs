//! The rules of a product: pure decisions without clock, randomness or I/O.

mod decide;
mod product;

pub use decide::{Change, Command, NewProduct, Products, Rejection, Requester};
pub use product::{
    Name, Price, Product, ProductFact, ProductId, Snapshot, Status, UnpublishReason,
};
