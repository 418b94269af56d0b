//! What is left of a request's body when its answer is ready.
//!
//! A request may be refused before its body was read. The connection can then neither be used again nor be closed
//! safely: the next request would begin in the middle of the body, and a client that is still sending may lose the
//! answer when its bytes meet a closed socket. So the rest is read, within bounds; beyond them the answer says that
//! the connection ends with it.
//!
//! While nothing of a body comes the connection waits for its client, and gives way to others like an idle one.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::timeout;

use super::body::LINES_BYTES_MAX;
use super::connections::Seat;

/// Most bytes that are read on: the largest body that any call takes, and some.
const REST_BYTES_MAX: usize = LINES_BYTES_MAX + 8 * 1024 * 1024;
/// Longest time that is spent on it.
const REST_TIMEOUT: Duration = Duration::from_secs(30);
/// The same when nothing comes, and for a client that was too slow already.
const STALL_TIMEOUT: Duration = Duration::from_secs(2);

struct Inner {
    body: Incoming,
    /// Whether anybody has asked for it: a client that waits for `100 Continue` sends nothing before that.
    begun: bool,
    seat: Arc<Seat>,
    /// Whether it is the client's turn.
    waits: bool,
}

/// The body of a request, of which a handler has the other end.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Inner>>);

impl Shared {
    pub(super) fn of(body: Incoming, seat: Arc<Seat>) -> Self {
        Self(Arc::new(Mutex::new(Inner { body, begun: false, seat, waits: false })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut inner = self.inner();
        inner.begun = true;
        let polled = Pin::new(&mut inner.body).poll_frame(context);
        if polled.is_pending() != inner.waits {
            inner.waits = polled.is_pending();
            if inner.waits {
                inner.seat.waits();
            } else {
                inner.seat.works();
            }
        }
        polled
    }

    /// Reads to the end; `false` when that is too far away, or when the client waits for a word before it sends.
    /// `was_slow` says that it did not come in its time.
    pub(super) async fn read_on(self, waits_for_continue: bool, was_slow: bool) -> bool {
        {
            let inner = self.inner();
            if inner.body.is_end_stream() {
                return true;
            }
            if waits_for_continue && !inner.begun {
                return false;
            }
        }
        let run_detached = async {
            let mut seen = 0;
            loop {
                let next = std::future::poll_fn(|context| self.poll(context));
                let frame = match timeout(STALL_TIMEOUT, next).await {
                    Ok(Some(Ok(frame))) => frame,
                    Ok(None) => return true,
                    Ok(Some(Err(_))) | Err(_) => return false,
                };
                seen += frame.data_ref().map_or(0, Bytes::len);
                if seen > REST_BYTES_MAX {
                    return false;
                }
            }
        };
        let most = if was_slow { STALL_TIMEOUT } else { REST_TIMEOUT };
        timeout(most, run_detached).await.unwrap_or(false)
    }
}

/// The handler's end.
impl Body for Shared {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.poll(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner().body.size_hint()
    }
}
