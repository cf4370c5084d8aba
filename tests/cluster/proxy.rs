//! Proxies between the nodes, so that one of them can be cut off and let back while its process runs on.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
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
    /// No datagrams are carried.
    cut_datagrams: AtomicBool,
    /// How many of a thousand datagrams are lost; as many come twice, and as many after the next one.
    unkind_permille: AtomicU32,
    /// Datagrams that were lost, doubled or put behind others.
    mistreated: AtomicU64,
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

    /// Between no two nodes datagrams come through, or again all do; connections stay.
    pub(crate) fn cut_datagrams(&self, cut: bool) {
        for proxy in &self.0 {
            proxy.shared.cut_datagrams.store(cut, Ordering::SeqCst);
        }
    }

    /// So many of a thousand datagrams are lost, so many come twice, and so many change places with the next.
    pub(crate) fn be_unkind(&self, permille: u32) {
        for proxy in &self.0 {
            proxy.shared.unkind_permille.store(permille, Ordering::SeqCst);
        }
    }

    /// How many datagrams were lost, doubled or put behind others so far.
    pub(crate) fn mistreated(&self) -> u64 {
        self.0.iter().map(|proxy| proxy.shared.mistreated.load(Ordering::SeqCst)).sum()
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
        let (listener, datagrams) = same_port();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        relay(datagrams, target, &shared);
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

/// A port at which both connections and datagrams are taken: a node's address stands for both.
fn same_port() -> (TcpListener, UdpSocket) {
    for _ in 0..100 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(datagrams) = UdpSocket::bind(listener.local_addr().unwrap()) {
            return (listener, datagrams);
        }
    }
    panic!("no port is free for connections and datagrams alike");
}

/// Carries datagrams to the target and its answers back to whoever sent last. What comes while the way is cut is lost.
fn relay(near: UdpSocket, target: SocketAddr, shared: &Arc<Shared>) {
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    far.connect(target).unwrap();
    let asker: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
    let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let (shared_too, asker_too) = (Arc::clone(shared), Arc::clone(&asker));
    std::thread::spawn(move || {
        pump(&near_too, &shared_too, |bytes, from| {
            *asker_too.lock().unwrap() = Some(from);
            let _ = far_too.send(bytes);
        });
    });
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        pump(&far, &shared, |bytes, _| {
            let asker = *asker.lock().unwrap();
            let _ = asker.map(|asker| near.send_to(bytes, asker));
        });
    });
}

fn pump(socket: &UdpSocket, shared: &Shared, mut send: impl FnMut(&[u8], SocketAddr)) {
    // A socket has no other end that closes: now and then the thread looks whether it is over.
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut bytes = vec![0; 64 << 10];
    let mut held: Option<(Vec<u8>, SocketAddr)> = None;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    while !shared.over.load(Ordering::SeqCst) {
        // An error says that nobody listens at the other end at this moment, or that nothing came.
        let Ok((len, from)) = socket.recv_from(&mut bytes) else { continue };
        if shared.cut.load(Ordering::SeqCst) || shared.cut_datagrams.load(Ordering::SeqCst) {
            continue;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let permille = u64::from(shared.unkind_permille.load(Ordering::SeqCst));
        let drawn = random % 1000;
        shared.mistreated.fetch_add(u64::from(drawn < 3 * permille), Ordering::SeqCst);
        if drawn < permille {
            continue;
        }
        let late = (drawn < 2 * permille && held.is_none()).then(|| (bytes[..len].to_vec(), from));
        if late.is_some() {
            held = late;
            continue;
        }
        send(&bytes[..len], from);
        if drawn < 3 * permille {
            send(&bytes[..len], from);
        }
        if let Some((bytes, from)) = held.take() {
            send(&bytes, from);
        }
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
