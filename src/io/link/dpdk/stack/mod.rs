//! One lane's view of its ports' networks, pure: what becomes of a frame that came, and where a datagram goes. It knows
//! no DPDK, so that everything a stranger can send is tested without a port.

use core::net::{Ipv4Addr, SocketAddrV4};

use super::Counters;
use super::neighbours::{Due, Learned, Lookup, Neighbours};
use crate::limits::VOTERS_MAX;
use crate::types::Time;
use crate::wire::ethernet::{
    ARP_FRAME_BYTES, Arp, Checksums, Mac, Operation, Packet, Path, Udp, decode, encode_arp,
};

/// Whom events are told of: every peer, at the address that it has and at one that it had.
const DESTINATIONS_MAX: usize = 2 * VOTERS_MAX;

/// A port's place in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) mac: Mac,
    pub(super) address: Ipv4Addr,
    pub(super) prefix_bits: u8,
}

/// All that a lane knows.
#[derive(Debug)]
pub(super) struct Stack {
    lane: u16,
    lanes: u16,
    /// Lane 0's; lane i has the i-th after it.
    udp_port: u16,
    interfaces: Vec<(Interface, Neighbours)>,
    /// Who was sent to.
    destinations: Vec<SocketAddrV4>,
    pub(super) counters: Counters,
}

/// What is to be done about a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<'a> {
    /// Nothing; why is counted.
    Dropped,
    /// It is for this lane.
    Datagram {
        /// Its sender.
        from: SocketAddrV4,
        /// What it carries.
        bytes: &'a [u8],
    },
    /// It is for another lane.
    ForLane(u16),
    /// It was ARP.
    Arp {
        /// To be sent on the same port.
        answer: Option<[u8; ARP_FRAME_BYTES]>,
        /// This host's address was not known before.
        found: Option<Ipv4Addr>,
        /// Whether other lanes may have asked for it.
        share: bool,
    },
}

/// Where a datagram goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Over this port.
    Path(usize, Path),
    /// Its host is not known: send this over this port.
    Ask(usize, [u8; ARP_FRAME_BYTES]),
    /// It is lost; why is counted.
    Lost,
}

impl Interface {
    /// Whether this is the address of another host of its network.
    pub(super) fn holds(&self, ip: Ipv4Addr) -> bool {
        let host_bits = u32::MAX.checked_shr(self.prefix_bits.into()).unwrap_or(0);
        let host = ip.to_bits() & host_bits;
        // A network of two addresses has none for itself and none for everybody.
        let usable = self.prefix_bits >= 31 || (host != 0 && host != host_bits);
        (ip.to_bits() ^ self.address.to_bits()) & !host_bits == 0 && usable && ip != self.address
    }
}

impl Stack {
    pub(super) fn new(lane: u16, lanes: u16, udp_port: u16, interfaces: Vec<Interface>) -> Stack {
        assert!(lane < lanes, "a lane is one of the lanes");
        let interfaces = interfaces.into_iter().map(|interface| (interface, Neighbours::new())).collect();
        let destinations = Vec::with_capacity(DESTINATIONS_MAX);
        Stack { lane, lanes, udp_port, interfaces, destinations, counters: Counters::default() }
    }

    /// What becomes of a frame that came over this port.
    pub(super) fn receive<'a>(
        &mut self,
        port: usize,
        frame: &'a [u8],
        sums: Checksums,
        now: Time,
    ) -> Received<'a> {
        let ethernet = match decode(frame, sums) {
            Ok(ethernet) => ethernet,
            Err(why) => {
                self.counters.refused[why as usize] += 1;
                return Received::Dropped;
            }
        };
        let mac = self.interfaces[port].0.mac;
        match ethernet.packet {
            Packet::Arp(arp) if ethernet.to == mac || ethernet.to == Mac::BROADCAST => {
                self.receive_arp(port, &arp, now)
            }
            Packet::Udp(udp) if ethernet.to == mac => self.receive_udp(port, &udp),
            _ => {
                self.counters.other_station += 1;
                Received::Dropped
            }
        }
    }

    fn receive_udp<'a>(&mut self, port: usize, udp: &Udp<'a>) -> Received<'a> {
        let interface = &self.interfaces[port].0;
        if *udp.to.ip() != interface.address || !interface.holds(*udp.from.ip()) {
            self.counters.other_address += 1;
            return Received::Dropped;
        }
        match udp.to.port().checked_sub(self.udp_port) {
            Some(lane) if lane == self.lane => {
                self.counters.datagrams_in += 1;
                self.counters.bytes_in += udp.payload.len() as u64;
                Received::Datagram { from: udp.from, bytes: udp.payload }
            }
            Some(lane) if lane < self.lanes => Received::ForLane(lane),
            _ => {
                self.counters.other_port += 1;
                Received::Dropped
            }
        }
    }

    fn receive_arp(&mut self, port: usize, arp: &Arp, now: Time) -> Received<'static> {
        let (interface, neighbours) = &mut self.interfaces[port];
        self.counters.arp_in += 1;
        if arp.sender_ip == interface.address && arp.sender != interface.mac {
            // Somebody else has this port's address, or says so.
            self.counters.conflicts += 1;
            return Received::Dropped;
        }
        if !interface.holds(arp.sender_ip) {
            self.counters.other_address += 1;
            return Received::Dropped;
        }
        let learned = neighbours.learn(arp.sender_ip, arp.sender, now);
        let asked = arp.operation == Operation::Request && arp.target_ip == interface.address;
        let answer = asked.then(|| {
            self.counters.arp_answered += 1;
            let reply = Arp {
                operation: Operation::Reply,
                sender: interface.mac,
                sender_ip: interface.address,
                target: arp.sender,
                target_ip: arp.sender_ip,
            };
            encode_arp(arp.sender, &reply)
        });
        let found = (learned == Learned::New).then_some(arp.sender_ip);
        // Questions come in floods; what other lanes wait for are answers, and news of who has come.
        let share = self.lanes > 1 && (arp.operation == Operation::Reply || arp.sender_ip == arp.target_ip);
        Received::Arp { answer, found, share }
    }

    /// Where a datagram to this address goes.
    pub(super) fn route(&mut self, to: SocketAddrV4, now: Time) -> Route {
        let at = self.interfaces.iter().position(|(interface, _)| interface.holds(*to.ip()));
        let Some(port) = at else {
            self.counters.no_route += 1;
            return Route::Lost;
        };
        self.remember(to);
        let (interface, neighbours) = &mut self.interfaces[port];
        match neighbours.lookup(*to.ip(), now) {
            Lookup::Known(to_mac) => {
                let from = SocketAddrV4::new(interface.address, self.udp_port + self.lane);
                Route::Path(port, Path { from_mac: interface.mac, to_mac, from, to })
            }
            Lookup::Ask => {
                self.counters.unresolved += 1;
                self.counters.arp_asked += 1;
                Route::Ask(port, interface.question(*to.ip()))
            }
            Lookup::Asked => {
                self.counters.unresolved += 1;
                Route::Lost
            }
        }
    }

    fn remember(&mut self, to: SocketAddrV4) {
        if !self.destinations.contains(&to) {
            if self.destinations.len() == DESTINATIONS_MAX {
                self.destinations.remove(0);
            }
            self.destinations.push(to);
        }
    }

    /// What is due on this port: a question to send, or a host that has gone.
    pub(super) fn due(&mut self, port: usize, now: Time) -> Option<Result<[u8; ARP_FRAME_BYTES], Ipv4Addr>> {
        let (interface, neighbours) = &mut self.interfaces[port];
        match neighbours.due(now)? {
            Due::Ask(ip) => {
                self.counters.arp_asked += 1;
                Some(Ok(interface.question(ip)))
            }
            Due::Lost(ip) => Some(Err(ip)),
        }
    }

    /// When something will be due.
    pub(super) fn next_due(&self) -> Time {
        self.interfaces.iter().map(|(_, neighbours)| neighbours.next_due()).min().unwrap_or(Time::NEVER)
    }

    /// The destinations on this host.
    pub(super) fn at_host(&self, ip: Ipv4Addr) -> impl Iterator<Item = SocketAddrV4> + '_ {
        self.destinations.iter().copied().filter(move |to| *to.ip() == ip)
    }

    /// The destinations behind this port.
    pub(super) fn behind(&self, port: usize) -> impl Iterator<Item = SocketAddrV4> + '_ {
        let interface = self.interfaces[port].0;
        self.destinations.iter().copied().filter(move |to| interface.holds(*to.ip()))
    }

    /// Forgets who was behind this port.
    pub(super) fn forget(&mut self, port: usize) {
        self.interfaces[port].1.clear();
    }

    /// Tells everybody behind this port where it is.
    pub(super) fn announcement(&self, port: usize) -> [u8; ARP_FRAME_BYTES] {
        let interface = &self.interfaces[port].0;
        interface.question(interface.address)
    }
}

impl Interface {
    fn question(&self, target_ip: Ipv4Addr) -> [u8; ARP_FRAME_BYTES] {
        let operation = Operation::Request;
        let (sender, sender_ip, target) = (self.mac, self.address, Mac([0; 6]));
        encode_arp(Mac::BROADCAST, &Arp { operation, sender, sender_ip, target, target_ip })
    }
}

#[cfg(test)]
mod tests;
