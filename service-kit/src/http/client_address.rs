//! The address of a client.
//!
//! Behind a proxy, the peer of the connection is the proxy, and the client's address is in `X-Forwarded-For`. Anyone
//! can send that header, so it is trusted only as far as trusted proxies wrote it: each proxy appends the address of
//! its peer. The header is read from the right, from one trusted proxy to the next, up to the first address that is not
//! a trusted proxy. Entries further to the left are the client's own claim and are never read.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRef, FromRequestParts};
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net};

use crate::problem::{Code, Problem};

/// The header to which proxies append the address of their peer.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Bits of an IPv6 prefix before an IPv4 address that is mapped into it.
const MAPPED_BITS: u8 = 96;

/// The networks of trusted proxies. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Parses networks in CIDR notation or single addresses, separated by commas. Empty trusts no proxy: the client is
    /// the peer of the connection.
    ///
    /// # Errors
    /// A text for the operator. A network that covers every address is rejected: with it every client could choose its
    /// address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(network).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address, given its peer and headers. IPv4 mapped into IPv6 is returned as IPv4.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut address = peer.to_canonical();
        let lines = headers.get_all(X_FORWARDED_FOR).iter();
        // A line that is not text counts as one item that is not an address, and ends the search.
        let items = lines.flat_map(|line| line.to_str().unwrap_or("?").split(','));
        let items: Vec<&str> = items.collect();
        for item in items.into_iter().rev() {
            if !self.contain(address) {
                break;
            }
            let Some(seen) = forwarded(item.trim()) else { break };
            address = seen;
        }
        address
    }
}

fn network(item: &str) -> Result<IpNet, String> {
    let network = IpNet::from_str(item)
        .or_else(|_| IpAddr::from_str(item).map(IpNet::from))
        .map_err(|_| format!("{item:?} is not a network in CIDR notation"))?;
    let network = match network {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED_BITS => match v6.addr().to_ipv4_mapped() {
            Some(v4) => {
                Ipv4Net::new(v4, v6.prefix_len() - MAPPED_BITS).map_or(IpNet::V6(v6), IpNet::V4)
            }
            None => network,
        },
        IpNet::V4(_) | IpNet::V6(_) => network,
    };
    if network.prefix_len() == 0 {
        return Err(format!("{item:?} is every address there is"));
    }
    Ok(network)
}

/// An address as proxies write it, with or without a port.
fn forwarded(item: &str) -> Option<IpAddr> {
    let bare = item.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(item);
    IpAddr::from_str(bare)
        .or_else(|_| SocketAddr::from_str(item).map(|address| address.ip()))
        .ok()
        .map(|address| address.to_canonical())
}

/// The address that a request comes from, as far as it can be known. The router's state provides the
/// [`TrustedProxies`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl<S> FromRequestParts<S> for ClientAddress
where
    S: Send + Sync,
    TrustedProxies: FromRef<S>,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else {
            let cause = "a request without the address of its peer: not served by http::serve";
            return Err(Problem::new(Code::Internal).because(cause));
        };
        Ok(Self(TrustedProxies::from_ref(state).client(peer.ip(), &parts.headers)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Request};

    fn client(trusted: &str, peer: &str, lines: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
        }
        let proxies = TrustedProxies::parse(trusted).unwrap();
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_no_proxy() {
        let (one, net) = ("10.0.0.1", "10.0.0.0/8, 2001:db8:1::/48");
        for (trusted, peer, lines, expected) in [
            // No proxy is trusted.
            ("", "192.0.2.7", &["203.0.113.1"][..], "192.0.2.7"),
            ("", "10.0.0.1", &["203.0.113.1"], "10.0.0.1"),
            // The peer is not trusted: a forging client.
            (one, "10.0.0.2", &["203.0.113.1"], "10.0.0.2"),
            // One hop, two hops, over several lines.
            (one, "10.0.0.1", &["203.0.113.1"], "203.0.113.1"),
            (net, "10.0.0.1", &["203.0.113.1, 10.9.9.9"], "203.0.113.1"),
            (net, "10.0.0.1", &["203.0.113.1", " 10.9.9.9 ", "10.1.1.1"], "203.0.113.1"),
            // The client's claim is to the left of what the proxy saw.
            (one, "10.0.0.1", &["1.1.1.1, 203.0.113.1"], "203.0.113.1"),
            (net, "10.0.0.1", &["1.1.1.1", "203.0.113.1", "10.1.1.1"], "203.0.113.1"),
            (net, "10.0.0.1", &["10.2.2.2, 203.0.113.1"], "203.0.113.1"),
            // Only proxies, or an empty header: the last known address.
            (net, "10.0.0.1", &["10.2.2.2, 10.3.3.3"], "10.2.2.2"),
            (net, "10.0.0.1", &[], "10.0.0.1"),
            (net, "10.0.0.1", &[""], "10.0.0.1"),
            // An item that is not an address ends the search.
            (net, "10.0.0.1", &["203.0.113.1, unknown"], "10.0.0.1"),
            (net, "10.0.0.1", &["203.0.113.1, unknown, 10.3.3.3"], "10.3.3.3"),
            (net, "10.0.0.1", &["203.0.113.1,, 10.3.3.3"], "10.3.3.3"),
            (net, "10.0.0.1", &["203.0.113.1, 10.3.3"], "10.0.0.1"),
            (net, "10.0.0.1", &["for=203.0.113.1"], "10.0.0.1"),
            (net, "10.0.0.1", &["fe80::1%eth0"], "10.0.0.1"),
            (net, "10.0.0.1", &["203.0.113.1", "\u{ff}"], "10.0.0.1"),
            // Ports and brackets.
            (net, "10.0.0.1", &["203.0.113.1:4711"], "203.0.113.1"),
            (net, "10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            (net, "10.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
            (net, "2001:db8:1::1", &["2001:db8::7"], "2001:db8::7"),
            (net, "2001:db8:2::1", &["2001:db8::7"], "2001:db8:2::1"),
            // IPv4 mapped into IPv6.
            (net, "::ffff:10.0.0.1", &["::ffff:203.0.113.1"], "203.0.113.1"),
            ("::ffff:10.0.0.0/104", "10.0.0.1", &["203.0.113.1"], "203.0.113.1"),
        ] {
            let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            assert_eq!(client(trusted, peer, &lines), expected, "{trusted} {peer} {lines:?}");
        }
    }

    #[test]
    fn networks_are_checked() {
        for wrong in ["10.0.0.0/33", "10.0.0", "proxy.internal", "0.0.0.0/0", "::/0", "10.0.0.1;"] {
            assert!(TrustedProxies::parse(wrong).is_err(), "{wrong}");
        }
        assert!(TrustedProxies::parse(" 10.0.0.0/8 , ,192.0.2.1, 2001:db8::/32,").is_ok());
    }

    #[tokio::test]
    async fn a_handler_gets_the_address() {
        let proxies = TrustedProxies::parse("10.0.0.1").unwrap();
        let request = |peer: Option<SocketAddr>| {
            let mut request = Request::new(());
            request.headers_mut().insert(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.1"));
            if let Some(peer) = peer {
                request.extensions_mut().insert(ConnectInfo(peer));
            }
            request.into_parts().0
        };
        let peer = Some("10.0.0.1:4711".parse().unwrap());
        let address = ClientAddress::from_request_parts(&mut request(peer), &proxies).await;
        assert_eq!(address.unwrap(), ClientAddress("192.0.2.1".parse().unwrap()));
        let refused = ClientAddress::from_request_parts(&mut request(None), &proxies).await;
        assert_eq!(refused.unwrap_err().code(), Code::Internal);
    }
}
