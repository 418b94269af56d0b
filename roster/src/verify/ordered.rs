//! Something that comes in the order of positions, to be walked along beside the log.

use events::Position;
use futures::StreamExt;
use futures::stream::BoxStream;

/// Items with the positions of the log that they come from.
pub struct Ordered<T> {
    items: BoxStream<'static, anyhow::Result<(Position, T)>>,
    next: Option<(Position, T)>,
    last: Position,
}

/// The next item.
pub enum Next<T> {
    /// In its place.
    InPlace(Position, T),
    /// Behind a later one, or once more.
    Late(Position, T),
}

impl<T> Ordered<T> {
    pub fn new(items: BoxStream<'static, anyhow::Result<(Position, T)>>) -> Self {
        Self { items, next: None, last: Position(0) }
    }

    /// The next item if it is of this position or an earlier one.
    pub async fn next_to(&mut self, position: Position) -> anyhow::Result<Option<Next<T>>> {
        if self.next.is_none() {
            let Some(item) = self.items.next().await else { return Ok(None) };
            let (at, item) = item?;
            if at <= self.last {
                return Ok(Some(Next::Late(at, item)));
            }
            self.last = at;
            self.next = Some((at, item));
        }
        let next = self.next.take_if(|(at, _)| *at <= position);
        Ok(next.map(|(at, item)| Next::InPlace(at, item)))
    }
}
