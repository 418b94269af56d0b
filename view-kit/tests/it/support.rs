//! One database for each test.

use std::sync::atomic::{AtomicUsize, Ordering};

use view_kit::ViewDatabase;

pub async fn database() -> ViewDatabase {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("view_kit_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    ViewDatabase::open(&local_stack::testing::mongod().url(), &name, "notes").await.unwrap()
}
