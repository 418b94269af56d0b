//! The listener on real sockets: slow clients, many clients, and requests that are refused before they are read.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::Value;
use service_kit::config::Settings;
use service_kit::http::{Serving, bind, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest wait for what must come.
const LIMIT: Duration = Duration::from_secs(30);
/// More than any buffer of the system holds.
const LARGE_BYTES: usize = 8 * 1024 * 1024;

struct Listening {
    address: SocketAddr,
    _stop: DropGuard,
}

/// A listener with settings of its own under `[http]`.
async fn listening(settings: &str) -> Listening {
    let http = Settings::merge(&format!("[http]\n{settings}"), []).unwrap().http;
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new()
        .route("/small", get(|| async { "small" }))
        .route("/large", get(|| async { vec![b'x'; LARGE_BYTES] }))
        // Refuses before it has read anything.
        .route("/refuses", post(|| async { (StatusCode::UNAUTHORIZED, "refused") }))
        .route("/reads", post(|body: Bytes| async move { body.len().to_string() }));
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, routes, Serving::of(&http).unwrap(), stop.clone()));
    Listening { address, _stop: stop.drop_guard() }
}

impl Listening {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")
}

/// An answer: its head in lower case, and its body by its length.
async fn answer(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LIMIT, stream.read_u8()).await.expect("an answer").expect("a head"));
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    timeout(LIMIT, stream.read_exact(&mut body)).await.unwrap().unwrap();
    (head, body)
}

/// Waits for the end of a connection of which nothing else is to come.
async fn ends(stream: &mut TcpStream) {
    let mut rest = [0; 16];
    let read = timeout(LIMIT, stream.read(&mut rest)).await.expect("the end of the connection");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn a_client_that_never_reads_its_answers_is_cut() {
    let listening = listening("answer_timeout_s = 1").await;
    let mut stream = listening.connect().await;
    let flood = request("GET", "/large", "").repeat(100);
    // Nothing is read here; the requests pile up until the other side closes.
    let cut = async { while stream.write_all(flood.as_bytes()).await.is_ok() {} };
    timeout(LIMIT, cut).await.expect("the connection to be cut");
}

#[tokio::test]
async fn a_slow_reader_has_its_answer_whole() {
    let listening = listening("answer_timeout_s = 20").await;
    let mut stream = listening.connect().await;
    send(&mut stream, &request("GET", "/large", "")).await;
    stream.readable().await.unwrap();
    let (head, body) = answer(&mut stream).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(body.len(), LARGE_BYTES);
}

#[tokio::test]
async fn two_thousand_idle_connections_keep_nobody_out() {
    let listening = listening("connections_max = 300\nconnections_per_network_max = 100").await;
    let mut idle = Vec::new();
    for number in 0..2_000 {
        // From twenty networks.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("127.0.0.{}:0", 2 + number % 20).parse().unwrap()).unwrap();
        idle.push(socket.connect(listening.address).await.unwrap());
    }
    for stream in [listening.connect().await, listening.connect().await] {
        let mut stream = stream;
        send(&mut stream, &request("GET", "/small", "")).await;
        assert_eq!(answer(&mut stream).await.1, b"small");
    }
    // The first of them gave way.
    ends(&mut idle[0]).await;
}

#[tokio::test]
async fn connections_at_work_are_not_cut_for_others() {
    let listening = listening("connections_per_network_max = 2").await;
    let mut working = listening.connect().await;
    send(&mut working, &request("POST", "/reads", "Content-Length: 5\r\n")).await;
    send(&mut working, "be").await;
    for _ in 0..10 {
        let mut other = listening.connect().await;
        send(&mut other, &request("GET", "/small", "")).await;
        assert_eq!(answer(&mut other).await.1, b"small");
    }
    send(&mut working, "gun").await;
    assert_eq!(answer(&mut working).await.1, b"5");
}

#[tokio::test]
async fn bodies_that_do_not_come_keep_nobody_out() {
    let listening = listening("connections_max = 100\nconnections_per_network_max = 50").await;
    let mut slow = Vec::new();
    for number in 0..200 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("127.0.0.{}:0", 2 + number % 10).parse().unwrap()).unwrap();
        let mut stream = socket.connect(listening.address).await.unwrap();
        // Neither what reads its body nor what refuses it unread waits for the rest in a place of its own.
        let path = if number % 2 == 0 { "/reads" } else { "/refuses" };
        send(&mut stream, &request("POST", path, "Content-Length: 300\r\n")).await;
        send(&mut stream, "{").await;
        slow.push(stream);
    }
    for _ in 0..2 {
        let mut stream = listening.connect().await;
        send(&mut stream, &request("GET", "/small", "")).await;
        assert_eq!(answer(&mut stream).await.1, b"small");
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_answered_without_the_rest() {
    let listening = listening("").await;
    let mut stream = listening.connect().await;
    send(&mut stream, &request("POST", "/refuses", "Content-Length: 300\r\n")).await;
    send(&mut stream, "{").await;
    let (head, body) = timeout(Duration::from_secs(10), answer(&mut stream)).await.unwrap();
    assert!(head.starts_with("http/1.1 401") && head.contains("connection: close"), "{head}");
    assert_eq!(body, b"refused");
}

#[tokio::test]
async fn an_idle_connection_lives_longer_than_a_head_may_take() {
    let listening = listening("head_timeout_s = 1\nidle_timeout_s = 60").await;
    let mut stream = listening.connect().await;
    for _ in 0..2 {
        send(&mut stream, &request("GET", "/small", "")).await;
        assert_eq!(answer(&mut stream).await.1, b"small");
        // As long as is claimed, and no state to wait for.
        sleep(Duration::from_millis(1_500)).await;
    }
    send(&mut stream, "GET /small HTTP/1.1\r\nHost:").await;
    ends(&mut stream).await;
}

#[tokio::test]
async fn an_idle_connection_ends_at_its_time() {
    let listening = listening("idle_timeout_s = 1").await;
    let mut stream = listening.connect().await;
    send(&mut stream, &request("GET", "/small", "")).await;
    answer(&mut stream).await;
    ends(&mut stream).await;
}

#[tokio::test]
async fn a_request_that_is_refused_unread_leaves_the_connection_usable() {
    let listening = listening("").await;
    for bytes in [1, 100_000, 16 * 1024 * 1024] {
        let mut stream = listening.connect().await;
        send(&mut stream, &request("POST", "/refuses", &format!("Content-Length: {bytes}\r\n")))
            .await;
        // In a second packet, when the head may have been answered already.
        let body = vec![b'x'; bytes];
        stream.write_all(&body).await.unwrap();
        let (head, body) = answer(&mut stream).await;
        assert!(head.starts_with("http/1.1 401"), "{head}");
        assert!(!head.contains("connection: close"), "{head}");
        assert_eq!(body, b"refused");
        send(&mut stream, &request("GET", "/small", "")).await;
        assert_eq!(answer(&mut stream).await.1, b"small", "after {bytes} bytes");
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_without_sending() {
    let listening = listening("").await;
    let mut stream = listening.connect().await;
    let headers = "Content-Length: 100\r\nExpect: 100-continue\r\n";
    send(&mut stream, &request("POST", "/refuses", headers)).await;
    let (head, _) = answer(&mut stream).await;
    assert!(head.starts_with("http/1.1 401"), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    ends(&mut stream).await;
}

#[tokio::test]
async fn a_body_without_end_is_not_read_for_ever() {
    let listening = listening("").await;
    let mut stream = listening.connect().await;
    let headers = format!("Content-Length: {}\r\n", 1_u64 << 40);
    send(&mut stream, &request("POST", "/refuses", &headers)).await;
    let piece = vec![b'x'; 1024 * 1024];
    let (mut read, mut write) = stream.split();
    let mut said = vec![0; 4_096];
    let sending = async { while write.write_all(&piece).await.is_ok() {} };
    // Sending ends with the connection, when the answer is there already.
    let (count, ()) = tokio::join!(timeout(LIMIT, read.read(&mut said)), sending);
    let count = count.unwrap().unwrap();
    let text = String::from_utf8_lossy(&said[..count]).to_lowercase();
    assert!(text.starts_with("http/1.1 401") && text.contains("connection: close"), "{text}");
}

#[tokio::test]
async fn what_the_http_library_cannot_read_is_answered_with_a_problem() {
    let listening = listening("").await;
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let large = format!("X-Large: {}\r\n", "y".repeat(300_000));
    for head in [
        "GARBAGE\r\n\r\n".to_owned(),
        "GET /small HTTP/9.9\r\n\r\n".to_owned(),
        request("GET", "/small", &many),
        request("GET", "/small", &large),
    ] {
        let mut stream = listening.connect().await;
        // The other side may answer and close before it has everything.
        let _ = stream.write_all(head.as_bytes()).await;
        let (head, body) = answer(&mut stream).await;
        assert!(head.starts_with("http/1.1 400"), "{head}");
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["code"], "bad-request");
    }
}
