//! Connections between clients and nodes: in order and without loss while they last.

use super::fabric::{ClientInput, Event, Fabric, NodeState, PortInput, Shared};
use super::plan::US;
use crate::io::{ClientId, Flow, Port, PortEvent};
use crate::types::Time;

/// The longest way between a client and a node.
const DELAY_NS_MAX: u64 = 400 * US;

/// One node's clients as its lane sees them.
pub(super) struct SimPort {
    pub(super) fabric: Shared,
    pub(super) node: usize,
}

impl Port for SimPort {
    fn poll(&mut self, _now: Time, sink: &mut impl FnMut(PortEvent<'_>) -> Flow) -> usize {
        let mut waiting = core::mem::take(&mut self.fabric.borrow_mut().nodes[self.node].port);
        let mut taken = 0;
        for event in &waiting {
            taken += 1;
            let flow = match event {
                PortInput::Opened(client) => sink(PortEvent::Opened(*client)),
                PortInput::Frame(from, bytes) => sink(PortEvent::Frame { from: *from, bytes }),
                PortInput::Closed(client) => sink(PortEvent::Closed(*client)),
            };
            if flow == Flow::Stop {
                break;
            }
        }
        waiting.drain(..taken);
        self.fabric.borrow_mut().nodes[self.node].port = waiting;
        taken
    }

    fn send(&mut self, to: ClientId, parts: &[&[u8]]) {
        let bytes = parts.concat();
        let mut fabric = self.fabric.borrow_mut();
        let connections = &fabric.nodes[self.node].connections;
        let Some(&(_, client)) = connections.iter().find(|(id, _)| *id == to) else { return };
        fabric.mark(to.0 << 32 ^ bytes.len() as u64);
        fabric.send_to_client(self.node, client, ClientInput::Frame(to, bytes));
    }

    fn close(&mut self, client: ClientId, why: &str) {
        let mut fabric = self.fabric.borrow_mut();
        let node = self.node + 1;
        fabric.oracle.fail(format!("node {node} drops an honest client {client:?}: {why}"));
    }
}

impl Fabric {
    /// Sends something to a node, behind what the client has sent before. What goes to a former life, of whose end the
    /// client has not heard yet, is lost.
    pub(super) fn send_to_node(&mut self, client: usize, node: usize, event: PortInput) {
        let NodeState { life, connections, .. } = &self.nodes[node];
        let (PortInput::Opened(connection) | PortInput::Frame(connection, _) | PortInput::Closed(connection)) =
            &event;
        if !connections.iter().any(|(id, _)| id == connection) {
            return;
        }
        let life = *life;
        let at_ns = self.now_ns + self.random.skewed(20 * US, DELAY_NS_MAX);
        let at_ns = self.in_order(client, node, at_ns, 0);
        self.schedule(at_ns, Event::ToNode { node, life, event });
    }

    /// Sends something to a client, behind what the node has sent before.
    pub(super) fn send_to_client(&mut self, node: usize, client: usize, event: ClientInput) {
        let at_ns = self.now_ns + self.random.skewed(20 * US, DELAY_NS_MAX);
        let at_ns = self.in_order(client, node, at_ns, 1);
        self.schedule(at_ns, Event::ToClient { client, event });
    }

    fn in_order(&mut self, client: usize, node: usize, at_ns: u64, direction: usize) -> u64 {
        let place = (client * self.nodes.len() + node) * 2 + direction;
        if self.streams_ns.len() <= place {
            self.streams_ns.resize(place + 1, 0);
        }
        self.streams_ns[place] = self.streams_ns[place].max(at_ns);
        self.streams_ns[place]
    }

    /// Every connection of a node that is gone closes.
    pub(super) fn close_all(&mut self, node: usize) {
        let at_once = self.random.chance(500_000);
        for (connection, client) in core::mem::take(&mut self.nodes[node].connections) {
            let event = ClientInput::Closed(connection);
            if at_once {
                // What it had sent is lost with it.
                self.schedule(self.now_ns, Event::ToClient { client, event });
            } else {
                self.send_to_client(node, client, event);
            }
        }
    }
}
