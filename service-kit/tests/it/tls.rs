//! TLS to NATS.

use std::path::Path;

use local_stack::testing::temp_dir;
use nats_access::Role;
use service_kit::config::{Nats, Settings};
use service_kit::nats::{ConnectError, connect};

use crate::support::{account, server_url};

/// The certificate of an authority that nobody has the key of.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUCQZi3Y9ZU/UQTG3zoirGWQaLZ5MwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTIwMTAwMTQ0N1oYDzIxMjYxMTA3MDAx
NDQ3WjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAR0KMqwG90wbK061NS51v75JEc2G9H9DIwa+C6MUs4wXgMIIZEyzCTLUFD5SboZ
YcsObCwWExVOBwwriTAADF80o1MwUTAdBgNVHQ4EFgQUKU49TY9/cmsW4qXi7is7
bMuVEQYwHwYDVR0jBBgwFoAUKU49TY9/cmsW4qXi7is7bMuVEQYwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAu2esilBpkY7ZnKqsc/+2xst2zOjD
odXUt8NScCMZJzsCIGDBfDxryPD9hEf+ewUaOtgrd/p45KCG2ELBcixMKZ3w
-----END CERTIFICATE-----
";

/// A NATS without TLS, as somebody offers it who wants to listen, and credentials that are good there.
fn plain(dir: &Path) -> Nats {
    let mut nats = Settings::merge("", []).unwrap().nats;
    nats.url = server_url();
    nats.credentials_file = dir.join("own.creds");
    let creds = account().creds(Role::CommandApi).unwrap();
    std::fs::write(&nats.credentials_file, creds).unwrap();
    nats
}

#[tokio::test]
async fn a_named_authority_requires_tls() {
    let dir = temp_dir();
    let mut nats = plain(dir.path());
    connect(&nats, "command-api").await.unwrap();
    nats.ca_file = dir.path().join("ca.pem");
    std::fs::write(&nats.ca_file, CERTIFICATE).unwrap();
    let error = connect(&nats, "command-api").await.unwrap_err();
    assert!(matches!(error, ConnectError::Connect(_)), "{error:?}");
    assert!(error.to_string().contains("the server does not speak TLS"), "{error}");
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_is_an_error() {
    let dir = temp_dir();
    let mut nats = plain(dir.path());
    nats.ca_file = dir.path().join("ca.pem");
    let error = connect(&nats, "command-api").await.unwrap_err();
    assert!(error.to_string().starts_with("nats.ca_file: "), "{error}");
    std::fs::write(&nats.ca_file, "none").unwrap();
    let error = connect(&nats, "command-api").await.unwrap_err();
    assert!(matches!(error, ConnectError::Authority(..)), "{error:?}");
}
