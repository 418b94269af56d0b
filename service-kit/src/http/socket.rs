//! A connection with time limits for slow clients, and with error bodies in every case.
//!
//! The HTTP library has one time limit, for heads. This has three: for an idle connection, for the head of a request
//! once it has begun, and for the client to read an answer. The library also rejects unreadable requests with empty
//! answers; here they get the body that every error has.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONNECTION};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::REQUEST_ID;
use crate::ambient;
use crate::problem::{Code, Problem};

/// Time limits of a client.
#[derive(Debug, Clone, Copy)]
pub struct SocketLimits {
    /// Without a request.
    pub idle: Duration,
    /// For the head of a request to arrive.
    pub head: Duration,
    /// For an answer to be read.
    pub answer: Duration,
}

/// The requests of a connection as the service counts them: begun and ended.
#[derive(Debug, Default)]
pub(super) struct Progress {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Progress {
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn requests(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn is_at_work(&self) -> bool {
        self.ended.load(Ordering::Relaxed) < self.requests()
    }
}

/// The connection as the HTTP library sees it.
pub(super) struct Socket {
    stream: TokioIo<TcpStream>,
    limits: SocketLimits,
    progress: Arc<Progress>,
    /// When something was last written, or the connection was made.
    active: Instant,
    /// When the head that is arriving began, and how many requests there had been before it.
    head: Option<(Instant, u64)>,
    reading: Pin<Box<Sleep>>,
    /// Since when output has been waiting for the client.
    stuck: Option<Instant>,
    writing: Pin<Box<Sleep>>,
    /// Output that replaces the library's.
    instead: Bytes,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, limits: SocketLimits, progress: Arc<Progress>) -> Self {
        Self {
            stream: TokioIo::new(stream),
            limits,
            progress,
            active: Instant::now(),
            head: None,
            reading: Box::pin(sleep(limits.idle)),
            stuck: None,
            writing: Box::pin(sleep(limits.answer)),
            instead: Bytes::new(),
        }
    }

    /// Until when input must arrive; `None` while a request is running, whose body has limits of its own.
    fn read_until(&self) -> Option<Instant> {
        if self.progress.is_at_work() {
            return None;
        }
        let arriving = self.head.filter(|(_, before)| *before == self.progress.requests());
        Some(match arriving {
            Some((began, _)) => began + self.limits.head,
            None => self.active + self.limits.idle,
        })
    }

    /// Nothing could be written: for how long is that borne?
    fn poll_stuck(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let since = *self.stuck.get_or_insert_with(Instant::now);
        poll_until(&mut self.writing, since + self.limits.answer, context).map(Err)
    }

    /// Writes what stands in the place of what the library wrote.
    fn poll_instead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.instead.has_remaining() {
            match Pin::new(&mut self.stream).poll_write(context, &self.instead) {
                Poll::Ready(written) => self.instead.advance(written?),
                Poll::Pending => return self.poll_stuck(context).map_ok(drop),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Pending until a time, and then the error that ends the connection.
fn poll_until(
    timer: &mut Pin<Box<Sleep>>,
    deadline: Instant,
    context: &mut Context<'_>,
) -> Poll<io::Error> {
    if timer.deadline() != deadline {
        timer.as_mut().reset(deadline);
    }
    timer.as_mut().poll(context).map(|()| io::ErrorKind::TimedOut.into())
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if read.is_ready() {
            let requests = this.progress.requests();
            if !this.progress.is_at_work() && this.head.is_none_or(|(_, before)| before != requests)
            {
                this.head = Some((Instant::now(), requests));
            }
            return read;
        }
        match this.read_until() {
            Some(deadline) => poll_until(&mut this.reading, deadline, context).map(Err),
            None => Poll::Pending,
        }
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        std::task::ready!(this.poll_instead(context))?;
        if let Some(instead) = instead_of(bytes) {
            this.instead = instead;
            return Poll::Ready(Ok(bytes.len()));
        }
        match Pin::new(&mut this.stream).poll_write(context, bytes) {
            Poll::Ready(written) => {
                this.active = Instant::now();
                Poll::Ready(written)
            }
            Poll::Pending => this.poll_stuck(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        std::task::ready!(this.poll_instead(context))?;
        let mut full = parts.iter().filter(|part| !part.is_empty());
        if let (Some(only), None) = (full.next(), full.next())
            && let Some(instead) = instead_of(only)
        {
            this.instead = instead;
            return Poll::Ready(Ok(only.len()));
        }
        match Pin::new(&mut this.stream).poll_write_vectored(context, parts) {
            Poll::Ready(written) => {
                this.active = Instant::now();
                Poll::Ready(written)
            }
            Poll::Pending => this.poll_stuck(context),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        std::task::ready!(this.poll_instead(context))?;
        // The library asks for this when it has nothing left to write.
        this.stuck = None;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_instead(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What is sent in the place of an answer that the library gave by itself, to a request that it could not read. A
/// service's own answers name their request; those of the library are a head alone.
fn instead_of(bytes: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (line, headers) = text.strip_prefix("HTTP/1.1 4")?.split_once("\r\n")?;
    let is_own = |line: &str| line.to_ascii_lowercase().starts_with(REQUEST_ID.as_str());
    if headers.find("\r\n\r\n")? + 4 != headers.len() || headers.lines().any(is_own) {
        return None;
    }
    let code = if line.starts_with("14") { Code::UriTooLong } else { Code::BadRequest };
    let detail = "the head of the request cannot be read, or is too large";
    Some(written(&Problem::new(code).detail(detail)))
}

/// An answer as it is sent, the last of its connection.
fn written(problem: &Problem) -> Bytes {
    let id = ambient::new_uuid().to_string();
    let status = problem.code().status();
    let body = serde_json::to_string(&problem.content(Some(&id))).unwrap_or_default();
    let reason = StatusCode::canonical_reason(&status).unwrap_or_default();
    let request_id = REQUEST_ID;
    let head = [
        ("content-type", crate::problem::PROBLEM_JSON),
        (request_id.as_str(), &id),
        (CACHE_CONTROL.as_str(), "no-store"),
        (CONNECTION.as_str(), "close"),
        ("content-length", &body.len().to_string()),
    ];
    let head: String = head.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {} {reason}\r\n{head}\r\n{body}", status.as_u16()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_library_says_by_itself_is_replaced() {
        let of_library =
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n";
        let text = String::from_utf8(instead_of(of_library).unwrap().to_vec()).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{text}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["code"], &body["status"]), (&"bad-request".into(), &400.into()));
        let too_long =
            instead_of(b"HTTP/1.1 414 URI Too Long\r\ncontent-length: 0\r\n\r\n").unwrap();
        assert!(too_long.starts_with(b"HTTP/1.1 414 "));
        for own in [
            &b"HTTP/1.1 404 Not Found\r\nX-Request-Id: 7\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 1\r\n\r\n{",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"4",
            b"",
        ] {
            assert_eq!(instead_of(own), None, "{}", String::from_utf8_lossy(own));
        }
    }
}
