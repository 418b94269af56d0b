//! Something that comes in the order of positions, to be walked along beside the log.

use events::Position;
use futures::StreamExt;
use futures::stream::BoxStream;

/// Items with the positions of the log that they come from.
pub struct Ordered<T> {
    items: BoxStream<'static, anyhow::Result<(Position, T)>>,
    next: Option<(Position, T)>,
    last: Position,
    /// Those that came behind a later one, or twice.
    disordered: Vec<(Position, T)>,
}

impl<T> Ordered<T> {
    pub fn new(items: BoxStream<'static, anyhow::Result<(Position, T)>>) -> Self {
        Self { items, next: None, last: Position(0), disordered: Vec::new() }
    }

    /// The next item if it is of this position or an earlier one.
    pub async fn next_to(&mut self, position: Position) -> anyhow::Result<Option<(Position, T)>> {
        while self.next.is_none() {
            let Some(item) = self.items.next().await else { return Ok(None) };
            let (at, item) = item?;
            if at > self.last {
                self.last = at;
                self.next = Some((at, item));
            } else {
                self.disordered.push((at, item));
            }
        }
        Ok(self.next.take_if(|(at, _)| *at <= position))
    }

    /// Those that are not where they belong, since the last question.
    pub fn disordered(&mut self) -> Vec<(Position, T)> {
        std::mem::take(&mut self.disordered)
    }
}
