//! The links of a lane to its peers, as the configuration orders them.
//!
//! A link that this machine or this build does not have is left out with a line that says what is missing. Only when
//! none is left does the node not start.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use super::config::{Config, LinkKind};
use super::report::line;
use crate::io::datagram::{self, DatagramLink};
use crate::io::link::choice::{Candidate, Choice};
#[cfg(feature = "dpdk")]
use crate::io::link::dpdk::DpdkCarrier;
#[cfg(feature = "rdma")]
use crate::io::link::rdma::{self, RdmaCarrier};
use crate::io::link::tcp::{self, TcpLink};
use crate::io::link::udp::{self, UdpCarrier};
use crate::io::pool::Pool;
use crate::io::reactor::Reactor;
use crate::io::{Full, Link, LinkEvent};
use crate::types::{LaneId, NodeId, StoreId, Time};
use crate::wire::datagram::MAGIC;
use crate::wire::identity::Identity;

/// The links of a lane.
pub(super) type Links = Choice<Way>;

/// The sockets of a lane's links, bound before anything else is touched, so that an address in use is found at once.
pub(super) struct Sockets {
    pub(super) stream: Option<TcpListener>,
    pub(super) datagrams: Option<UdpSocket>,
}

/// What all links of a lane are told.
pub(super) struct Seat<'a> {
    pub(super) config: &'a Config,
    pub(super) lane: LaneId,
    pub(super) identity: Identity,
    pub(super) stores: &'a [(NodeId, StoreId)],
    pub(super) reactor: &'a Reactor,
    pub(super) pool: &'a Pool,
    /// How long the lane polls before it blocks; `None`: it never blocks.
    pub(super) spin: Option<Duration>,
}

/// One link.
pub(super) enum Way {
    Tcp(SharedTcp),
    Udp(Box<DatagramLink<UdpCarrier>>),
    #[cfg(feature = "dpdk")]
    Dpdk(Box<DatagramLink<DpdkCarrier>>),
    #[cfg(feature = "rdma")]
    Rdma(Box<RdmaLink>),
}

/// The link over TCP: for frames, or only beside the one over RDMA, or both.
pub(super) struct SharedTcp {
    pub(super) link: Rc<RefCell<TcpLink>>,
    carries: bool,
}

/// The link over RDMA, and the link over TCP by which its queue pairs find each other, polled by its own candidate.
#[cfg(feature = "rdma")]
pub(super) struct RdmaLink {
    pub(super) link: DatagramLink<RdmaCarrier>,
    side: Rc<RefCell<TcpLink>>,
}

impl Sockets {
    /// Whether TCP is listened on: for itself, or because another link is set up over it.
    pub(super) fn wants_stream(config: &Config) -> bool {
        config.links.iter().any(|kind| matches!(kind, LinkKind::Tcp | LinkKind::Rdma))
    }

    pub(super) fn wants_datagrams(config: &Config) -> bool {
        config.links.contains(&LinkKind::Udp)
    }
}

impl Seat<'_> {
    /// Makes the links.
    pub(super) fn links(&self, sockets: Sockets) -> io::Result<Links> {
        let Sockets { mut stream, mut datagrams } = sockets;
        let tcp = stream.take().map(|listener| self.tcp(listener)).transpose()?;
        let tcp = || Rc::clone(tcp.as_ref().expect("TCP is listened on where it is needed"));
        let mut ways = Vec::new();
        for &kind in &self.config.links {
            let made = match kind {
                LinkKind::Tcp => Ok(Way::Tcp(SharedTcp { link: tcp(), carries: true })),
                LinkKind::Udp => self
                    .udp(datagrams.take().expect("a link's socket is bound before, and each is named once")),
                LinkKind::Rdma => self.rdma(tcp()),
                LinkKind::Dpdk => self.dpdk(),
            };
            match made {
                Ok(way) => ways.push(way),
                Err(error) => line(format_args!("lane {}: no link over {kind}: {error}", self.lane)),
            }
        }
        if !ways.iter().any(Candidate::carries) && self.peers().next().is_some() {
            let wanted: Vec<&str> = self.config.links.iter().map(|kind| kind.name()).collect();
            return Err(io::Error::other(format!(
                "none of the links that are configured ({}) is to be had; see the lines above",
                wanted.join(", ")
            )));
        }
        if ways.iter().filter(|way| way.carries()).count() == 1 {
            // Nothing is won by leaving the only one, and what was under way to a peer that was only slow would be
            // lost.
            let unheard = 2 * self.config.raft.election_timeout();
            ways.iter_mut().for_each(|way| way.allow_silence(unheard));
        }
        if Sockets::wants_stream(self.config) && !self.config.links.contains(&LinkKind::Tcp) {
            ways.push(Way::Tcp(SharedTcp { link: tcp(), carries: false }));
        }
        Ok(Choice::new(ways, self.peers().map(|(id, _)| id)))
    }

    fn peers(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> + '_ {
        let others = self.config.members.iter().filter(|member| member.node_id() != self.config.node_id());
        others.map(|member| (member.node_id(), member.peer_of(self.lane)))
    }

    fn tcp(&self, listener: TcpListener) -> io::Result<Rc<RefCell<TcpLink>>> {
        let options = tcp::LinkOptions {
            identity: self.identity,
            listener,
            peers: self.peers().collect(),
            stores: self.stores.to_vec(),
        };
        Ok(Rc::new(RefCell::new(TcpLink::new(options, self.reactor.clone())?)))
    }

    #[cfg(not(feature = "rdma"))]
    fn rdma(&self, _side: Rc<RefCell<TcpLink>>) -> io::Result<Way> {
        let _ = (self.pool, self.spin);
        Err(io::Error::other("this build has no feature rdma"))
    }

    #[cfg(feature = "rdma")]
    fn rdma(&self, side: Rc<RefCell<TcpLink>>) -> io::Result<Way> {
        let peers: Vec<NodeId> = self.peers().map(|(id, _)| id).collect();
        let wanted = &self.config.rdma;
        let options = rdma::Options {
            device: wanted.device.clone(),
            port: wanted.port,
            gid_index: wanted.gid_index,
            slots: wanted.slots as usize,
            slot_bytes: wanted.slot_bytes as usize,
            spin: self.spin,
            ..rdma::Options::new(self.identity.node, self.lane, peers.clone(), super::identity::draw())
        };
        let carrier = RdmaCarrier::new(options, self.pool, self.reactor.clone()).map_err(io::Error::other)?;
        let peers = peers.into_iter().map(|peer| (peer, peer)).collect();
        let link = DatagramLink::new(self.datagrams(peers), carrier);
        Ok(Way::Rdma(Box::new(RdmaLink { link, side })))
    }

    fn udp(&self, socket: UdpSocket) -> io::Result<Way> {
        let peers = self.config.members.len() - 1;
        let mut options = udp::Options::new(socket, peers, self.config.udp.mtu_bytes as usize);
        options.known = self.peers().map(|(_, address)| address).collect();
        options.begins_with = Some(MAGIC.to_le_bytes());
        options.busy_poll = self.config.cpu.busy_poll;
        let carrier = UdpCarrier::new(options, self.reactor)?;
        for note in carrier.notes() {
            line(format_args!("lane {}: udp: {note}", self.lane));
        }
        Ok(Way::Udp(Box::new(DatagramLink::new(self.datagrams(self.peers().collect()), carrier))))
    }

    #[cfg(feature = "dpdk")]
    fn dpdk(&self) -> io::Result<Way> {
        let config = &self.config.dpdk;
        if config.ports.is_empty() {
            return Err(io::Error::other("the configuration has no [[dpdk.port]]"));
        }
        let carrier = DpdkCarrier::open(&config.link_options(self.config.lanes), self.lane.0)
            .map_err(|error| io::Error::other(error.to_string()))?;
        for note in carrier.notes() {
            line(format_args!("lane {}: dpdk: {note}", self.lane));
        }
        let others = self.peers();
        let peers = others.filter_map(|(id, _)| Some((id, config.address_of(id, self.lane)?))).collect();
        Ok(Way::Dpdk(Box::new(DatagramLink::new(self.datagrams(peers), carrier))))
    }

    #[cfg(not(feature = "dpdk"))]
    fn dpdk(&self) -> io::Result<Way> {
        Err(io::Error::other("this build has no feature dpdk"))
    }

    fn datagrams<A>(&self, peers: Vec<(NodeId, A)>) -> datagram::Options<A> {
        let [low, high] = [(); 2].map(|()| u128::from(super::identity::draw()));
        let seed = high << 64 | low;
        datagram::Options {
            // A link that has gone silent is left before followers miss their leader.
            unheard: self.config.raft.election_timeout() / 2,
            ..datagram::Options::new(self.identity, peers, self.stores.to_vec(), seed)
        }
    }
}

/// Does the same with whichever link it is.
macro_rules! each {
    ($way:expr, $link:ident => $what:expr) => {
        match $way {
            Way::Tcp($link) => $what,
            Way::Udp($link) => $what,
            #[cfg(feature = "dpdk")]
            Way::Dpdk($link) => $what,
            #[cfg(feature = "rdma")]
            Way::Rdma($link) => $what,
        }
    };
}

impl Way {
    /// A peer that says nothing for so long is taken for gone. With TCP the system decides.
    fn allow_silence(&mut self, unheard: Duration) {
        match self {
            Way::Tcp(_) => {}
            Way::Udp(link) => link.allow_silence(unheard),
            #[cfg(feature = "dpdk")]
            Way::Dpdk(link) => link.allow_silence(unheard),
            #[cfg(feature = "rdma")]
            Way::Rdma(way) => way.link.allow_silence(unheard),
        }
    }
}

impl Link for Way {
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        each!(self, link => link.poll(now, sink))
    }

    fn send(&mut self, to: NodeId, parts: &[&[u8]]) -> Result<(), Full<()>> {
        each!(self, link => link.send(to, parts))
    }

    fn flush(&mut self) {
        each!(self, link => link.flush())
    }

    fn next_wake(&self) -> Time {
        each!(self, link => link.next_wake())
    }

    fn is_carrying(&self, to: NodeId, given_at: Time) -> bool {
        each!(self, link => link.is_carrying(to, given_at))
    }
}

impl Link for SharedTcp {
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        self.link.borrow_mut().poll(now, sink)
    }

    fn send(&mut self, to: NodeId, parts: &[&[u8]]) -> Result<(), Full<()>> {
        self.link.borrow_mut().send(to, parts)
    }

    fn next_wake(&self) -> Time {
        self.link.borrow().next_wake()
    }
}

impl SharedTcp {
    fn learned(&mut self) -> Vec<(NodeId, StoreId)> {
        self.link.borrow_mut().learned()
    }

    fn know(&mut self, peer: NodeId, store: StoreId) {
        self.link.borrow_mut().know(peer, store);
    }
}

#[cfg(feature = "rdma")]
impl Link for RdmaLink {
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        self.link.carrier_mut().exchange(now, &mut self.side.borrow_mut());
        self.link.poll(now, sink)
    }

    fn send(&mut self, to: NodeId, parts: &[&[u8]]) -> Result<(), Full<()>> {
        self.link.send(to, parts)
    }

    fn flush(&mut self) {
        self.link.flush();
    }

    fn next_wake(&self) -> Time {
        self.link.next_wake()
    }

    fn is_carrying(&self, to: NodeId, given_at: Time) -> bool {
        self.link.is_carrying(to, given_at)
    }
}

#[cfg(feature = "rdma")]
impl RdmaLink {
    fn learned(&mut self) -> Vec<(NodeId, StoreId)> {
        self.link.learned()
    }

    fn know(&mut self, peer: NodeId, store: StoreId) {
        self.link.know(peer, store);
    }
}

impl Candidate for Way {
    fn name(&self) -> &'static str {
        match self {
            Way::Tcp(_) => LinkKind::Tcp.name(),
            Way::Udp(_) => LinkKind::Udp.name(),
            #[cfg(feature = "dpdk")]
            Way::Dpdk(_) => LinkKind::Dpdk.name(),
            #[cfg(feature = "rdma")]
            Way::Rdma(_) => LinkKind::Rdma.name(),
        }
    }

    fn carries(&self) -> bool {
        !matches!(self, Way::Tcp(SharedTcp { carries: false, .. }))
    }

    fn learned(&mut self) -> Vec<(NodeId, StoreId)> {
        each!(self, link => link.learned())
    }

    fn know(&mut self, peer: NodeId, store: StoreId) {
        each!(self, link => link.know(peer, store));
    }

    fn tell(&mut self, tell: &mut dyn FnMut(fmt::Arguments<'_>)) {
        match self {
            // It writes its lines itself.
            Way::Tcp(_) => {}
            Way::Udp(link) => {
                while let Some(notice) = link.notice() {
                    tell(format_args!("udp: {notice}"));
                }
            }
            #[cfg(feature = "dpdk")]
            Way::Dpdk(link) => {
                while let Some(notice) = link.notice() {
                    tell(format_args!("dpdk: {notice}"));
                }
            }
            #[cfg(feature = "rdma")]
            Way::Rdma(way) => {
                let link = &mut way.link;
                while let Some(notice) = link.carrier_mut().notice() {
                    tell(format_args!("rdma: {notice}"));
                }
                while let Some(notice) = link.notice() {
                    tell(format_args!("rdma: {notice}"));
                }
            }
        }
    }
}
