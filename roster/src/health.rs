//! `roster health`: one question to `/readyz`, for health checks in images that hold nothing else.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::WrongUse;

/// Time for the whole question.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer read, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Asks; an error when the answer is not 200.
pub async fn check(url: &str) -> anyhow::Result<()> {
    let (host, path) = parse(url)?;
    let answer = timeout(ASK_TIMEOUT, ask(host, path)).await.context("no answer in time")??;
    let status = answer.split_whitespace().nth(1).unwrap_or_default();
    if status == "200" {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    bail!("not ready: {status} {body}")
}

/// Host with port, and path.
fn parse(url: &str) -> Result<(&str, &str), WrongUse> {
    let wrong = || WrongUse("--url: give an address like http://127.0.0.1:9090/readyz".to_owned());
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = host.rsplit_once(':').filter(|(name, _)| !name.is_empty()).map(|(_, port)| port);
    let is_address = port.is_some_and(|port| port.parse::<u16>().is_ok());
    if is_address { Ok((host, path)) } else { Err(wrong()) }
}

async fn ask(host: &str, path: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(host).await;
    let mut stream = stream.with_context(|| format!("cannot connect to {host}"))?;
    // HTTP/1.0: the server closes when it has answered.
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_with_a_port_can_be_asked() {
        assert_eq!(parse("http://127.0.0.1:9090/readyz").unwrap(), ("127.0.0.1:9090", "readyz"));
        assert_eq!(parse("http://[::1]:9090").unwrap(), ("[::1]:9090", ""));
        for wrong in
            ["nonsense", "https://h:1/", "http://", "http://h/", "http://:1/", "http://h:x/"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
