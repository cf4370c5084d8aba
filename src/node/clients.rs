//! A lane's clients: those that come over TCP and those that are attached by rings, as one port.

use crate::io::link::tcp::TcpPort;
use crate::io::ring::port::RingPort;
use crate::io::{ClientId, Flow, Port, PortEvent};
use crate::types::Time;

/// See the module.
pub(super) struct ClientPorts {
    pub(super) tcp: TcpPort,
    pub(super) rings: RingPort,
    /// Who is asked first: in turn, for the first may leave nothing of a turn to the second.
    rings_first: bool,
}

impl ClientPorts {
    pub(super) fn new(tcp: TcpPort, rings: RingPort) -> ClientPorts {
        ClientPorts { tcp, rings, rings_first: false }
    }
}

impl Port for ClientPorts {
    fn poll(&mut self, now: Time, sink: &mut impl FnMut(PortEvent<'_>) -> Flow) -> usize {
        self.rings_first = !self.rings_first;
        let mut is_enough = false;
        let mut watched = |event: PortEvent<'_>| {
            let flow = sink(event);
            is_enough = flow != Flow::More;
            flow
        };
        let ClientPorts { tcp, rings, rings_first } = self;
        let first = if *rings_first { rings.poll(now, &mut watched) } else { tcp.poll(now, &mut watched) };
        if is_enough {
            return first;
        }
        first + if *rings_first { tcp.poll(now, sink) } else { rings.poll(now, sink) }
    }

    fn send(&mut self, to: ClientId, parts: &[&[u8]]) {
        if RingPort::is_one(to) { self.rings.send(to, parts) } else { self.tcp.send(to, parts) }
    }

    fn close(&mut self, client: ClientId, why: &str) {
        if RingPort::is_one(client) { self.rings.close(client, why) } else { self.tcp.close(client, why) }
    }

    fn before_park(&mut self) -> bool {
        self.rings.before_park()
    }
}
