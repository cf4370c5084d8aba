//! What the machine allows, without Plimsoll: the latency of one durable write and of one datagram there and back, the
//! bytes of a stream to two receivers, and those of several logs on one disk.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use plimsoll::local::Cluster;
use rustix::fs::{Mode, OFlags};

use crate::common::{Failure, Interrupt, histogram, record};

const WRITE_BYTES: usize = 4096;
const FILE_BYTES: u64 = 16 << 20;
const ALIGN_BYTES: usize = 4096;
const LOG_WRITE_BYTES: usize = 1 << 20;
const LOG_WRITES: usize = 2;
const DATAGRAM_BYTES: usize = 64;

/// One 4 KiB write after another, each durable before the next begins.
pub(crate) fn disk(
    within: &Path,
    lasting: Duration,
    interrupt: &Interrupt,
) -> Result<Histogram<u64>, Failure> {
    let path = within.join("floor");
    let result = time_writes(&path, lasting, interrupt).map_err(Failure::on(path.display()));
    let _ = fs::remove_file(&path);
    result
}

fn time_writes(path: &Path, lasting: Duration, interrupt: &Interrupt) -> io::Result<Histogram<u64>> {
    let file = durable_file(path)?;
    let block = Aligned::new(WRITE_BYTES)?;
    let mut latencies = histogram();
    let (until, mut offset) = (Instant::now() + lasting, 0);
    while Instant::now() < until && !interrupt.has_come() {
        let begun = Instant::now();
        file.write_all_at(block.bytes(), offset)?;
        record(&mut latencies, begun.elapsed());
        offset = (offset + WRITE_BYTES as u64) % FILE_BYTES;
    }
    Ok(latencies)
}

/// So many files at once, each written round and round with a few writes of 1 MiB under way. The bytes in a second of
/// the slowest of them.
pub(crate) fn logs(
    within: &Path,
    count: usize,
    lasting: Duration,
    interrupt: &Interrupt,
) -> Result<f64, Failure> {
    let directory = Cluster::fresh_directory(within, "floor").map_err(Failure::on(within.display()))?;
    let result = time_logs(&directory, count, lasting, interrupt);
    let _ = fs::remove_dir_all(&directory);
    result.map_err(Failure::on(directory.display()))
}

fn time_logs(within: &Path, count: usize, lasting: Duration, interrupt: &Interrupt) -> io::Result<f64> {
    let files: Vec<File> =
        (0..count).map(|log| durable_file(&within.join(log.to_string()))).collect::<Result<_, _>>()?;
    let block = Aligned::new(LOG_WRITE_BYTES)?;
    let written: Vec<AtomicU64> = files.iter().map(|_| AtomicU64::new(0)).collect();
    let begun = Instant::now();
    let until = begun + lasting;
    std::thread::scope(|scope| {
        let writers: Vec<_> = files
            .iter()
            .zip(&written)
            .flat_map(|log| [log; LOG_WRITES])
            .map(|(file, written)| {
                let block = &block;
                scope.spawn(move || -> io::Result<()> {
                    while Instant::now() < until && !interrupt.has_come() {
                        let offset = written.fetch_add(LOG_WRITE_BYTES as u64, Ordering::Relaxed);
                        file.write_all_at(block.bytes(), offset % FILE_BYTES)?;
                    }
                    Ok(())
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| {
            writer.join().unwrap_or_else(|_| Err(io::Error::other("a writer has ended")))
        })
    })?;
    let fewest = written.iter().map(|written| written.load(Ordering::Relaxed)).min().unwrap_or(0);
    Ok(fewest as f64 / begun.elapsed().as_secs_f64())
}

/// A file of [`FILE_BYTES`] zeros whose writes are durable when they return, and direct where the filesystem can do
/// that.
fn durable_file(path: &Path) -> io::Result<File> {
    let blank = vec![0; 1 << 20];
    let file = File::create(path)?;
    for offset in (0..FILE_BYTES).step_by(blank.len()) {
        file.write_all_at(&blank, offset)?;
    }
    file.sync_all()?;
    let open = |flags| {
        rustix::fs::open(path, OFlags::WRONLY | OFlags::DSYNC | OFlags::CLOEXEC | flags, Mode::empty())
    };
    // A file system in memory knows no direct writes; what it offers instead is its floor.
    Ok(File::from(open(OFlags::DIRECT).or_else(|_| open(OFlags::empty()))?))
}

/// Memory that a direct write takes.
struct Aligned {
    bytes: Vec<u8>,
    at: usize,
    len_bytes: usize,
}

impl Aligned {
    fn new(len_bytes: usize) -> io::Result<Aligned> {
        let bytes = vec![0x5a; len_bytes + ALIGN_BYTES];
        let at = bytes.as_ptr().align_offset(ALIGN_BYTES);
        if at > ALIGN_BYTES {
            Err(io::Error::other("memory cannot be aligned"))
        } else {
            Ok(Aligned { bytes, at, len_bytes })
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.at..self.at + self.len_bytes]
    }
}

/// 64 bytes to another thread and back over loopback, both ends polling.
pub(crate) fn udp(lasting: Duration, interrupt: &Interrupt) -> Result<Histogram<u64>, Failure> {
    time_datagrams(lasting, interrupt).map_err(Failure::on("datagrams over 127.0.0.1"))
}

fn time_datagrams(lasting: Duration, interrupt: &Interrupt) -> io::Result<Histogram<u64>> {
    let (here, there) =
        (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
    here.connect(there.local_addr()?)?;
    there.connect(here.local_addr()?)?;
    here.set_nonblocking(true)?;
    there.set_nonblocking(true)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let mut bytes = [0; DATAGRAM_BYTES];
            while !done.load(Ordering::Relaxed) {
                if there.recv(&mut bytes).is_ok() {
                    // A datagram that is lost is sent again by the other end.
                    let _ = there.send(&bytes);
                }
                core::hint::spin_loop();
            }
        });
        let result = ping(&here, lasting, interrupt);
        done.store(true, Ordering::Relaxed);
        echo.join().map_err(|_| io::Error::other("the echo has ended"))?;
        result
    })
}

fn ping(socket: &UdpSocket, lasting: Duration, interrupt: &Interrupt) -> io::Result<Histogram<u64>> {
    let (mut latencies, mut number) = (histogram(), 0_u64);
    let until = Instant::now() + lasting;
    let mut bytes = [0; DATAGRAM_BYTES];
    while Instant::now() < until && !interrupt.has_come() {
        number += 1;
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let begun = Instant::now();
        socket.send(&bytes)?;
        let mut answer = [0; DATAGRAM_BYTES];
        while begun.elapsed() < Duration::from_millis(50) {
            match socket.recv(&mut answer) {
                Ok(_) if answer[..8] == number.to_le_bytes() => {
                    record(&mut latencies, begun.elapsed());
                    break;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => core::hint::spin_loop(),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(latencies)
}

/// Buffers of so many bytes, one after another, over TCP to two receivers, all three spinning. The bytes in a second
/// that both have received.
pub(crate) fn stream_to_two(
    buffer_bytes: usize,
    lasting: Duration,
    interrupt: &Interrupt,
) -> Result<f64, Failure> {
    time_stream(buffer_bytes, lasting, interrupt).map_err(Failure::on("a stream over 127.0.0.1"))
}

fn time_stream(buffer_bytes: usize, lasting: Duration, interrupt: &Interrupt) -> io::Result<f64> {
    let (first, second) = (connected()?, connected()?);
    let mut receivers = [first.1, second.1];
    std::thread::scope(|scope| {
        let counts = receivers.each_mut().map(|socket| scope.spawn(|| receive_all(socket)));
        let begun = Instant::now();
        send_to_both([first.0, second.0], &vec![0x5a; buffer_bytes], begun + lasting, interrupt)?;
        let mut fewest = u64::MAX;
        for count in counts {
            fewest = fewest.min(count.join().map_err(|_| io::Error::other("a receiver has ended"))??);
        }
        Ok(fewest as f64 / begun.elapsed().as_secs_f64())
    })
}

fn connected() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    let (there, _) = listener.accept()?;
    for socket in [&here, &there] {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
    }
    Ok((here, there))
}

/// The next buffer begins when both sockets have all of the last. The sockets are closed in the end.
fn send_to_both(
    mut sockets: [TcpStream; 2],
    buffer: &[u8],
    until: Instant,
    interrupt: &Interrupt,
) -> io::Result<()> {
    while Instant::now() < until && !interrupt.has_come() {
        let mut sent = [0; 2];
        while sent.iter().any(|sent| *sent < buffer.len()) {
            for (socket, sent) in sockets.iter_mut().zip(&mut sent) {
                match socket.write(&buffer[*sent..]) {
                    Ok(count) => *sent += count,
                    // On a machine with fewer cores than ends, the others may have this one.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

fn receive_all(socket: &mut TcpStream) -> io::Result<u64> {
    let (mut bytes, mut count) = (vec![0; 256 << 10], 0);
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => return Ok(count),
            Ok(more) => count += more as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
}
