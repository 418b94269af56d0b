//! Limits on the connections of a listener, in total and per client network.
//!
//! A connection costs memory and a file descriptor for as long as its client likes. When there is no capacity for
//! another one, the connection that has been idle for longest is closed: a client that holds many open without a
//! request loses its own, and locks nobody out. If none is idle, the one whose body is overdue for longest is closed.
//! The new connection is rejected only if all others are serving requests.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::client_address::TrustedProxies;

/// The limits.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// In total.
    pub total: usize,
    /// Per client network: an IPv4 address, or a /64 of IPv6.
    pub per_network: usize,
    /// Proxies, whose connections carry requests of many clients.
    pub proxies: TrustedProxies,
}

/// The connections of one listener.
pub(super) struct Connections {
    limits: ConnectionLimits,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    taken: HashMap<u64, Taken>,
    by_network: HashMap<IpAddr, usize>,
}

struct Taken {
    network: Option<IpAddr>,
    /// What it waits for.
    turn: Turn,
    give_way: CancellationToken,
}

/// What a connection waits for. The order is the one in which connections are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// The client, for a request, since then.
    Idle(Instant),
    /// The client, for more of a request's body, since then.
    Body(Instant),
    /// The service, for its answer.
    Service,
}

/// The slot of one connection, released on drop.
pub(super) struct Seat {
    all: Arc<Connections>,
    number: u64,
    /// Cancelled when the slot is needed for another connection.
    pub(super) give_way: CancellationToken,
}

impl Connections {
    pub(super) fn within(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, seats: Mutex::default() })
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for a connection; `None` if every slot that it could have is serving a request.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Seat> {
        let network = (!self.limits.proxies.contain(peer.to_canonical())).then(|| network(peer));
        let mut seats = self.seats();
        if let Some(network) = network
            && seats.by_network.get(&network).copied().unwrap_or_default()
                >= self.limits.per_network
        {
            seats.free_one(|taken| taken.network == Some(network))?;
        }
        if seats.taken.len() >= self.limits.total {
            seats.free_one(|_| true)?;
        }
        let (number, give_way) = (seats.next, CancellationToken::new());
        seats.next += 1;
        let turn = Turn::Idle(Instant::now());
        seats.taken.insert(number, Taken { network, turn, give_way: give_way.clone() });
        if let Some(network) = network {
            *seats.by_network.entry(network).or_default() += 1;
        }
        drop(seats);
        Some(Seat { all: self.clone(), number, give_way })
    }
}

impl Seats {
    /// Closes the connection that has waited for its client for longest, among some.
    fn free_one(&mut self, among: impl Fn(&Taken) -> bool) -> Option<()> {
        let waiting = self
            .taken
            .iter()
            .filter(|(_, taken)| among(taken) && taken.turn != Turn::Service)
            .map(|(number, taken)| (taken.turn, *number));
        let (_, number) = waiting.min()?;
        self.remove(number)?.give_way.cancel();
        Some(())
    }

    fn remove(&mut self, number: u64) -> Option<Taken> {
        let taken = self.taken.remove(&number)?;
        if let Some(network) = taken.network
            && let Some(count) = self.by_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
        Some(taken)
    }
}

impl Seat {
    /// Call when a request, or more of it, has arrived.
    pub(super) fn works(&self) {
        self.set(Turn::Service);
    }

    /// Call when more of the body has to arrive.
    pub(super) fn waits(&self) {
        self.set(Turn::Body(Instant::now()));
    }

    /// Call when the request is answered.
    pub(super) fn rests(&self) {
        self.set(Turn::Idle(Instant::now()));
    }

    fn set(&self, turn: Turn) {
        if let Some(taken) = self.all.seats().taken.get_mut(&self.number) {
            taken.turn = turn;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.all.seats().remove(self.number);
    }
}

/// The network that counts as one client: for IPv6 the smallest one that customers get.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(total: usize, per_network: usize) -> Arc<Connections> {
        let proxies = TrustedProxies::parse("10.0.0.0/8").unwrap();
        Connections::within(ConnectionLimits { total, per_network, proxies })
    }

    fn admit(all: &Arc<Connections>, peer: &str) -> Option<Seat> {
        all.admit(peer.parse().unwrap())
    }

    #[test]
    fn the_longest_idle_connection_of_a_network_gives_way() {
        let all = connections(100, 2);
        let first = admit(&all, "192.0.2.1").unwrap();
        let second = admit(&all, "192.0.2.1").unwrap();
        let other = admit(&all, "192.0.2.2").unwrap();
        first.works();
        let third = admit(&all, "192.0.2.1").unwrap();
        let gone = |seat: &Seat| seat.give_way.is_cancelled();
        assert_eq!([&first, &second, &third, &other].map(gone), [false, true, false, false]);
        third.works();
        assert!(admit(&all, "192.0.2.1").is_none(), "both are at work");
        first.rests();
        assert!(admit(&all, "192.0.2.1").is_some());
    }

    #[test]
    fn whose_body_is_waited_for_gives_way_where_nobody_is_idle() {
        let all = connections(3, 100);
        let [slow, slower, busy] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        let (slow, slower, busy) = (admit(&all, slow), admit(&all, slower), admit(&all, busy));
        let (slow, slower, busy) = (slow.unwrap(), slower.unwrap(), busy.unwrap());
        slower.waits();
        slow.waits();
        busy.works();
        let idle = admit(&all, "192.0.2.4").unwrap();
        let next = admit(&all, "192.0.2.5").unwrap();
        let gone = |seat: &Seat| seat.give_way.is_cancelled();
        assert_eq!([&slower, &idle, &slow, &busy].map(gone), [true, true, false, false]);
        next.works();
        assert!(admit(&all, "192.0.2.6").is_some());
        assert!(gone(&slow) && !gone(&busy));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_proxy_is_many() {
        let all = connections(100, 1);
        let one = admit(&all, "2001:db8::1").unwrap();
        let _same = admit(&all, "2001:db8::2").unwrap();
        assert!(one.give_way.is_cancelled());
        let proxied: Vec<_> = (0..5).map(|_| admit(&all, "10.0.0.1").unwrap()).collect();
        assert!(proxied.iter().all(|seat| !seat.give_way.is_cancelled()));
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_is_gone() {
        let all = connections(2, 2);
        let busy: Vec<_> = ["192.0.2.1", "192.0.2.2"].map(|peer| admit(&all, peer).unwrap()).into();
        busy.iter().for_each(Seat::works);
        assert!(admit(&all, "192.0.2.3").is_none());
        drop(busy);
        assert!(admit(&all, "192.0.2.3").is_some());
        assert!(all.seats().taken.is_empty() && all.seats().by_network.is_empty());
    }
}
