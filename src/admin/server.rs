//! The thread that answers: one `poll` over the listener and a bounded number of connections, each of which is read up
//! to a bound, answered once and closed. What comes over one connection is never waited for.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::Timespec;

use super::http::{self, Asked, Page, Refusal};
use super::panel::Panel;
use super::text;

/// What others may take of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many are served at once. Who comes then waits in the listener's queue until one is done, or its time is up.
    pub connections: usize,
    /// The longest request, in bytes.
    pub request_bytes: usize,
    /// How long a whole request may take to come; the same again for the answer to be taken, and for the other end to
    /// close.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: 16, request_bytes: 8 << 10, patience: Duration::from_secs(5) }
    }
}

/// How long nobody is let in after the system refused to.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves a [`Panel`]. Dropped, the thread ends.
#[derive(Debug)]
pub struct Server {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
    address: SocketAddr,
}

impl Server {
    /// Serves on a thread that runs on none of the cores `lanes_on`, if there are others. An error is the system's.
    pub fn start(
        listener: TcpListener,
        panel: Panel,
        limits: Limits,
        lanes_on: Vec<usize>,
    ) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let room = Room {
            listener,
            stop: stop.try_clone()?,
            panel,
            limits,
            connections: Vec::new(),
            rests_until: None,
        };
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            keep_off(&lanes_on);
            room.run();
        })?;
        Ok(Server { stop, thread: Some(thread), address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the system does not grant is done without.
fn keep_off(cores: &[usize]) {
    let Ok(mut allowed) = rustix::thread::sched_getaffinity(None) else { return };
    for &core in cores.iter().filter(|core| **core < rustix::thread::CpuSet::MAX_CPU) {
        allowed.unset(core);
    }
    if allowed.count() > 0 {
        let _ = rustix::thread::sched_setaffinity(None, &allowed);
    }
}

/// The server's thread.
struct Room {
    listener: TcpListener,
    stop: OwnedFd,
    panel: Panel,
    limits: Limits,
    connections: Vec<Connection>,
    /// The system let nobody in: it is asked again then.
    rests_until: Option<Instant>,
}

struct Connection {
    socket: TcpStream,
    phase: Phase,
    deadline: Instant,
}

enum Phase {
    /// What has come of the request.
    Asking(Vec<u8>),
    /// The answer, and how much of it is sent.
    Answering(Vec<u8>, usize),
    /// All is said. What still comes is read and forgotten until the other end closes: closing before would take the
    /// answer away from who has sent more than was read.
    Leaving,
}

impl Room {
    fn run(mut self) {
        // An error here is of the process as a whole; nobody could be told of it but the one who finds the port deaf.
        while let Ok(ready) = self.wait() {
            if ready[0] {
                return;
            }
            let now = Instant::now();
            // From the last to the first: what is taken out does not move what is still to be looked at.
            for at in (0..self.connections.len()).rev() {
                let is_late = now >= self.connections[at].deadline;
                let goes_on = if is_late { self.give_up(at) } else { !ready[2 + at] || self.attend(at) };
                if !goes_on {
                    self.connections.swap_remove(at);
                }
            }
            if ready[1] {
                self.accept(now);
            }
        }
    }

    /// Which descriptor has something: the one that says stop, the listener, then the connections.
    fn wait(&mut self) -> io::Result<Vec<bool>> {
        let now = Instant::now();
        self.rests_until = self.rests_until.filter(|until| *until > now);
        let lets_in = self.connections.len() < self.limits.connections && self.rests_until.is_none();
        let nothing = PollFlags::empty();
        let interest = |wanted: bool| if wanted { PollFlags::IN } else { nothing };
        let mut polled = vec![
            PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), interest(lets_in)),
        ];
        polled.extend(self.connections.iter().map(|connection| {
            let flags = match connection.phase {
                Phase::Answering(..) => PollFlags::OUT,
                Phase::Asking(_) | Phase::Leaving => PollFlags::IN,
            };
            PollFd::from_borrowed_fd(connection.socket.as_fd(), flags)
        }));
        let deadlines = self.connections.iter().map(|connection| connection.deadline);
        let until = deadlines.chain(self.rests_until).min();
        let timeout = until.map(|until| timespec(until.saturating_duration_since(now)));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(vec![false; polled.len()]),
            Err(error) => return Err(error.into()),
        }
        Ok(polled.iter().map(|descriptor| !descriptor.revents().is_empty()).collect())
    }

    fn accept(&mut self, now: Instant) {
        while self.connections.len() < self.limits.connections {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    if socket.set_nonblocking(true).is_ok() {
                        let deadline = now + self.limits.patience;
                        self.connections.push(Connection {
                            socket,
                            phase: Phase::Asking(Vec::new()),
                            deadline,
                        });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Who hung up already is nobody's loss; descriptors and memory may be there again in a while.
                Err(_) => return self.rests_until = Some(now + ACCEPT_PAUSE),
            }
        }
    }

    /// A connection's time is up. Who was about to ask is told so. Whether it goes on.
    fn give_up(&mut self, at: usize) -> bool {
        if !matches!(self.connections[at].phase, Phase::Asking(_)) {
            return false;
        }
        self.begin_answer(at, http::refusal(Refusal::TooSlow));
        true
    }

    /// Something came, or can be sent, or the other end hung up. Whether the connection goes on.
    fn attend(&mut self, at: usize) -> bool {
        let attended = match self.connections[at].phase {
            Phase::Asking(_) => self.read(at),
            Phase::Answering(..) => self.write(at),
            Phase::Leaving => self.forget(at),
        };
        match attended {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                true
            }
            attended => attended.unwrap_or(false),
        }
    }

    fn read(&mut self, at: usize) -> io::Result<bool> {
        let Connection { socket, phase, .. } = &mut self.connections[at];
        let Phase::Asking(request) = phase else { return Ok(true) };
        let mut bytes = [0; 4096];
        let room = bytes.len().min(self.limits.request_bytes - request.len());
        let len = socket.read(&mut bytes[..room])?;
        request.extend_from_slice(&bytes[..len]);
        let answer = match http::parse(request, self.limits.request_bytes) {
            // It has closed its half before it had asked.
            Asked::More if len == 0 && request.is_empty() => return Ok(false),
            Asked::More if len == 0 => http::refusal(Refusal::NotUnderstood),
            Asked::More => return Ok(true),
            Asked::Refused(refusal) => http::refusal(refusal),
            Asked::Page(page) => self.page(page),
        };
        self.begin_answer(at, answer);
        Ok(true)
    }

    fn page(&mut self, page: Page) -> Vec<u8> {
        let Room { panel, stop, .. } = self;
        // Until the time is up, or the server is to stop.
        let mut wait = |pause: Duration| {
            let mut stop = [PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
            !matches!(poll(&mut stop, Some(&timespec(pause))), Ok(1..))
        };
        match page {
            Page::Metrics => http::answer("200 OK", text::CONTENT_TYPE, &panel.metrics(&mut wait)),
            Page::Health => match panel.health(&mut wait) {
                Ok(()) => http::answer("200 OK", "text/plain; charset=utf-8", "ok\n"),
                Err(why) => http::answer("503 Service Unavailable", "text/plain; charset=utf-8", &why),
            },
        }
    }

    fn begin_answer(&mut self, at: usize, answer: Vec<u8>) {
        let connection = &mut self.connections[at];
        connection.phase = Phase::Answering(answer, 0);
        connection.deadline = Instant::now() + self.limits.patience;
    }

    fn write(&mut self, at: usize) -> io::Result<bool> {
        let Connection { socket, phase, deadline } = &mut self.connections[at];
        let Phase::Answering(answer, sent) = phase else { return Ok(true) };
        *sent += socket.write(&answer[*sent..])?;
        if *sent == answer.len() {
            socket.shutdown(Shutdown::Write)?;
            *phase = Phase::Leaving;
            *deadline = Instant::now() + self.limits.patience;
        }
        Ok(true)
    }

    fn forget(&mut self, at: usize) -> io::Result<bool> {
        Ok(self.connections[at].socket.read(&mut [0; 4096])? > 0)
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { connections: 4, request_bytes: 1024, patience: Duration::from_millis(300) };

    fn serve() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Server::start(listener, Panel::new(Vec::new(), || (), |_| ()), LIMITS, vec![0]).unwrap()
    }

    fn connect(server: &Server) -> TcpStream {
        let socket = TcpStream::connect(server.address()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    fn rest(mut socket: TcpStream) -> String {
        let mut said = String::new();
        socket.read_to_string(&mut said).unwrap();
        said
    }

    const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn who_is_too_slow_is_told_so_whatever_drips_in() {
        let server = serve();
        let begun = Instant::now();
        let mut drips = connect(&server);
        let slow = connect(&server);
        // A byte of a request that has no end, again and again: that something comes is not enough.
        while begun.elapsed() < LIMITS.patience {
            let _ = drips.write_all(b"G");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        for socket in [slow, drips] {
            assert!(rest(socket).starts_with("HTTP/1.1 408 "));
        }
        assert!(begun.elapsed() >= LIMITS.patience);
    }

    #[test]
    fn more_than_are_served_at_once_wait_until_the_silent_are_gone() {
        let server = serve();
        let silent: Vec<TcpStream> = (0..2 * LIMITS.connections).map(|_| connect(&server)).collect();
        let begun = Instant::now();
        let mut socket = connect(&server);
        socket.write_all(HEALTH).unwrap();
        assert!(rest(socket).ends_with("\r\n\r\nok\n"));
        assert!(begun.elapsed() >= LIMITS.patience, "it came before its turn: {:?}", begun.elapsed());
        drop(silent);
    }

    #[test]
    fn a_request_in_pieces_and_one_that_is_half_closed_are_answered() {
        let server = serve();
        for half_closed in [false, true] {
            let mut socket = connect(&server);
            for piece in HEALTH.chunks(7) {
                socket.write_all(piece).unwrap();
            }
            if half_closed {
                socket.shutdown(Shutdown::Write).unwrap();
            }
            assert!(rest(socket).starts_with("HTTP/1.1 200 OK"));
        }
    }

    #[test]
    fn it_ends_although_somebody_is_connected() {
        let server = serve();
        let socket = connect(&server);
        drop(server);
        // Closed, in whatever way.
        let _ = rest_or_nothing(socket);
    }

    fn rest_or_nothing(mut socket: TcpStream) -> io::Result<usize> {
        socket.read(&mut [0; 16])
    }
}
