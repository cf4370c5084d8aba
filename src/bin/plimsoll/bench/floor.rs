//! What the machine allows: the latency of one durable write, and of one datagram there and back, without Plimsoll.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::fs::{Mode, OFlags};

use crate::common::{Failure, Interrupt, histogram, record};

const WRITE_BYTES: usize = 4096;
const FILE_BYTES: u64 = 16 << 20;
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
    let file = File::from(open(OFlags::DIRECT).or_else(|_| open(OFlags::empty()))?);
    let aligned = AlignedBlock::new()?;
    let mut latencies = histogram();
    let (until, mut offset) = (Instant::now() + lasting, 0);
    while Instant::now() < until && !interrupt.has_come() {
        let begun = Instant::now();
        file.write_all_at(aligned.bytes(), offset)?;
        record(&mut latencies, begun.elapsed());
        offset = (offset + WRITE_BYTES as u64) % FILE_BYTES;
    }
    Ok(latencies)
}

/// Memory that a direct write takes.
struct AlignedBlock(Vec<u8>, usize);

impl AlignedBlock {
    fn new() -> io::Result<AlignedBlock> {
        let bytes = vec![0x5a; 2 * WRITE_BYTES];
        let at = bytes.as_ptr().align_offset(WRITE_BYTES);
        if at > WRITE_BYTES {
            Err(io::Error::other("memory cannot be aligned"))
        } else {
            Ok(AlignedBlock(bytes, at))
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.0[self.1..self.1 + WRITE_BYTES]
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
