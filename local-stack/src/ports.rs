//! Free ports of the loopback interface.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

/// The first port that is ever chosen.
///
/// The range is below the ports that the kernel uses for outgoing connections (from 32768 on Linux, from 49152 on
/// macOS). Any client could take a port from that range between a stop and a restart, and a reconnecting client could
/// even connect to itself.
const PORT_FIRST: u16 = 20_000;
/// The number of ports to choose from.
const PORT_COUNT: u16 = 12_000;
/// How many ports are tried before giving up.
const PORT_TRIES_MAX: u64 = 256;

/// A port of `127.0.0.1` on which nothing listens at the moment.
///
/// It is not reserved: another process may take it first, so the caller must be ready to ask for another one.
///
/// # Errors
///
/// None of many tried ports is free; only freeing ports helps.
pub fn free_port() -> io::Result<u16> {
    // Each `RandomState` has different keys, in this process and in others: concurrent starts rarely try the same
    // port.
    let random = RandomState::new();
    (0..PORT_TRIES_MAX)
        .filter_map(|attempt| {
            let offset = random.hash_one(attempt) % u64::from(PORT_COUNT);
            Some(PORT_FIRST + u16::try_from(offset).ok()?)
        })
        .find(|port| is_free(*port))
        .ok_or_else(|| {
            io::Error::new(io::ErrorKind::AddrInUse, "no free port on 127.0.0.1 was found")
        })
}

/// The port stored in a file, if it is free now: clients that know it find the server again.
#[must_use]
pub fn last_port(file: &Path) -> Option<u16> {
    let port = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (port > 0 && is_free(port)).then_some(port)
}

/// Stores a port for [`last_port`]. If that fails, the next start uses another port, and nothing else is lost.
pub fn keep_port(file: &Path, port: u16) {
    let _ = fs::write(file, port.to_string());
}

/// Whether a server could listen on the port now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_lies_below_those_of_outgoing_connections() {
        let port = free_port().unwrap();
        assert!((PORT_FIRST..PORT_FIRST + PORT_COUNT).contains(&port));
    }

    #[test]
    fn the_last_port_is_taken_again_while_it_is_free() {
        let dir = crate::testing::temp_dir();
        let file = dir.path().join("nats.port");
        assert_eq!(last_port(&file), None, "no port was stored");
        let port = free_port().unwrap();
        keep_port(&file, port);
        assert_eq!(last_port(&file), Some(port));
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_eq!(last_port(&file), None, "the port is in use");
    }

    #[test]
    fn a_taken_port_is_not_free() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(taken.local_addr().unwrap().port()));
    }
}
