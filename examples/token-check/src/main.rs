//! A service with one route, which returns the id and the roles of the caller from Roster's access token.
//!
//! ```sh
//! roster services creds product --verifier --out product-verifier.creds
//! cargo run -p token-check -- product-verifier --issuer http://127.0.0.1:8080 --nats nats://127.0.0.1:4222
//! curl http://127.0.0.1:8090/whoami -H "authorization: Bearer $TOKEN"
//! ```

use std::io::Write as _;
use std::{error::Error, net::SocketAddr, path::PathBuf};

use axum::{Json, Router, routing::get};
use clap::Parser;
use serde_json::{Value, json};
use service_kit::http::Serving;
use service_kit::remote_keys::{KeySource, RemoteKeys};
use service_kit::tokens::Authenticated;
use service_kit::verification::{Accepted, Verification};
use service_kit::{config::Nats, health::Readiness, http, nats};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Args {
    /// The name of the NATS user; its credentials are in NAME.creds.
    name: String,
    /// Required `iss` of tokens, and the address of the keys unless --jwks is given.
    #[arg(long)]
    issuer: String,
    #[arg(long, default_value = "roster")]
    audience: String,
    #[arg(long)]
    jwks: Option<String>,
    /// Certificate authority of the key server, if the system does not trust it.
    #[arg(long)]
    ca: Option<PathBuf>,
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    nats: String,
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Args { name, issuer, audience, jwks, ca, nats: url, listen } = Args::parse();
    let bus = Nats {
        url,
        url_file: PathBuf::new(),
        credentials_file: format!("{name}.creds").into(),
        ca_file: PathBuf::new(),
        request_timeout_ms: 5_000,
        start_wait_s: 60,
    };
    let jwks = jwks.unwrap_or_else(|| format!("{issuer}/.well-known/jwks.json"));

    let stop = CancellationToken::new();
    let keys = RemoteKeys::fetch(&KeySource { ca_file: ca, ..KeySource::at(jwks) }, &stop).await?;
    let (bus, accepted) = (nats::connect(&bus, &name).await?, Accepted::new(issuer, audience));
    let verification = Verification::start(keys, &bus, accepted, &stop).await?;
    let routes = Router::new().route("/whoami", get(whoami)).with_state(verification.verifier());
    // A service that is reachable from outside serves its health on a separate listener.
    let routes = routes.merge(verification.check(Readiness::default()).routes());

    let listener = http::bind(listen).await?;
    writeln!(std::io::stdout(), "ready url=http://{}", listener.local_addr()?)?;
    http::serve(listener, routes, Serving::defaults()?, stop).await;
    Ok(())
}

async fn whoami(Authenticated(caller): Authenticated) -> Json<Value> {
    Json(json!({"sub": caller.user, "roles": caller.roles}))
}
