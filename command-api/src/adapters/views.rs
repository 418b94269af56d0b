//! The views, as their position is heard of.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use events::Position;
use service_kit::views_position::{ViewsPosition, Waited};

use crate::ports::Views;

#[async_trait]
impl Views for ViewsPosition {
    async fn have(&self, position: Position, limit: Duration) -> bool {
        let began = Instant::now();
        let waited = self.wait_for(position, limit).await;
        self.count(waited, began.elapsed());
        waited == Waited::Reached
    }
}
