//! Free ports, claimed so that neither another cluster of this machine nor an outgoing connection takes them while
//! their node is down.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

/// Below the range from which systems take the ports of outgoing connections.
const FIRST: u16 = 17_000;
const LAST: u16 = 32_000;

/// Ports are claimed in blocks of so many, each by a lock on a file.
const BLOCK: u16 = 50;

/// Claimed ports, one after another. Given back when dropped, by the lock, even if the process is killed.
#[derive(Debug)]
pub(super) struct Ports {
    first: u16,
    _locks: Vec<File>,
}

impl Ports {
    pub(super) fn claim(count: usize) -> io::Result<Ports> {
        let blocks = count.div_ceil(usize::from(BLOCK)).max(1) as u16;
        let directory = std::env::temp_dir().join("plimsoll-ports");
        fs::create_dir_all(&directory)?;
        let mut first = FIRST;
        while first + blocks * BLOCK <= LAST {
            let locks: io::Result<Vec<File>> =
                (0..blocks).map(|block| lock(&directory, first + block * BLOCK)).collect();
            if let Ok(locks) = locks
                && (first..first + count as u16).all(is_free)
            {
                return Ok(Ports { first, _locks: locks });
            }
            first += BLOCK;
        }
        Err(io::Error::other(format!("no {count} free ports in a row between {FIRST} and {LAST}")))
    }

    pub(super) fn at(&self, place: usize) -> u16 {
        self.first + place as u16
    }
}

fn lock(directory: &std::path::Path, first: u16) -> io::Result<File> {
    let path = directory.join(first.to_string());
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.try_lock()?;
    Ok(file)
}

/// Whether nobody listens there. Asked by a socket that does not listen itself: a child that another thread of this
/// process is starting has it open until it runs its own program, and would keep the port from the node.
fn is_free(port: u16) -> bool {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    socket.is_ok_and(|socket| {
        sockopt::set_socket_reuseaddr(&socket, true).is_ok()
            && bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).is_ok()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_free_if_nobody_listens_and_stays_so_though_a_child_has_the_question_open() {
        let ports = Ports::claim(1).unwrap();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, ports.at(0));
        // Stands for the child's.
        let question =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        sockopt::set_socket_reuseaddr(&question, true).unwrap();
        bind(&question, &address).unwrap();
        assert!(is_free(address.port()));
        let _node = TcpListener::bind(address).unwrap();
        assert!(!is_free(address.port()));
    }
}
