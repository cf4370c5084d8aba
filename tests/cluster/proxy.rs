//! Proxies between the nodes, so that one of them can be cut off and let back while its process runs on.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::local::Cluster;
use plimsoll::types::NodeId;

/// One proxy for each ordered pair of nodes.
pub(crate) struct Proxies(Vec<Proxy>);

struct Proxy {
    from: NodeId,
    to: NodeId,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Nothing is carried; what is connected stays connected, as with a pulled cable.
    cut: AtomicBool,
    over: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Proxies {
    /// Puts a proxy in front of every node for each of the others. Before the nodes are started; one lane.
    pub(crate) fn between(cluster: &mut Cluster) -> Proxies {
        let ids = cluster.ids();
        let mut proxies = Vec::new();
        for &from in &ids {
            for &to in ids.iter().filter(|&&to| to != from) {
                let target = cluster.config(to).me().unwrap().peer;
                let (proxy, address) = Proxy::start(from, to, target);
                cluster
                    .reconfigure(from, |config| {
                        let member = config.members.iter_mut().find(|member| member.node_id() == to).unwrap();
                        member.peer = address;
                    })
                    .unwrap();
                proxies.push(proxy);
            }
        }
        Proxies(proxies)
    }

    /// Nothing comes through to or from this node.
    pub(crate) fn cut(&self, node: NodeId) {
        self.set(node, true);
    }

    /// Everything comes through again.
    pub(crate) fn heal(&self, node: NodeId) {
        self.set(node, false);
    }

    fn set(&self, node: NodeId, cut: bool) {
        for proxy in self.0.iter().filter(|proxy| proxy.from == node || proxy.to == node) {
            proxy.shared.cut.store(cut, Ordering::SeqCst);
        }
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        for Proxy { shared, .. } in &self.0 {
            shared.over.store(true, Ordering::SeqCst);
            for socket in shared.sockets.lock().unwrap().drain(..) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Proxy {
    fn start(from: NodeId, to: NodeId, target: SocketAddr) -> (Proxy, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if accepting.over.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(near), Ok(far)) = (socket, TcpStream::connect(target)) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let shared = Arc::clone(&accepting);
                    std::thread::spawn(move || carry(from, to, &shared));
                }
                accepting.sockets.lock().unwrap().extend([near, far]);
            }
        });
        (Proxy { from, to, shared }, address)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    to.set_nodelay(true).unwrap();
    let mut bytes = vec![0; 64 << 10];
    while let Ok(len) = from.read(&mut bytes)
        && len > 0
    {
        // What was under way when the cable was pulled arrives when it is back, as TCP does it.
        while shared.cut.load(Ordering::SeqCst) && !shared.over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
