//! What may happen to a product: pure decisions, no clock, no random numbers, no waiting.

mod decide;
mod product;

pub use decide::{By, Change, Command, NewProduct, Products, Rejection};
pub use product::{
    Name, Price, Product, ProductFact, ProductId, Snapshot, Status, UnpublishReason,
};
