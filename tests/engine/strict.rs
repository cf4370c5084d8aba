//! That an engine's thread makes no system call to submit and to take its answers: the kernel is told to kill the
//! thread at the first one (seccomp's strict mode, in which reading, writing and ending alone are allowed: the one
//! thing that an attachment ever writes is what wakes a lane that sleeps, and the lane of this test never does).
#![allow(unsafe_code, reason = "the kernel is asked by number")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use plimsoll::types::ClusterId;

use crate::*;

const VARIABLE: &str = "PLIMSOLL_TEST_STRICT_CHILD";
const DONE: &[u8] = b"> ten thousand records, and no system call\n";
const RECORDS: u64 = 10_000;
const UNDER_WAY: usize = 64;

#[test]
fn submits_and_answers_take_no_system_call() {
    let tune = |config: &mut Config| {
        config.engine.socket = Some(config.data_dir.with_extension("engines"));
        // A lane that sleeps must be woken, and that is one.
        config.cpu.shared = false;
        config.cpu.busy_poll = true;
    };
    let directory = Cluster::fresh_directory(&std::env::temp_dir(), "rings-strict").unwrap();
    let shape = Shape { nodes: 1, segment_mib: 16, capacity_mib: 128, chunks: 8, tune, ..Shape::default() };
    let mut cluster = Cluster::new(Path::new(env!("CARGO_BIN_EXE_plimsoll")), &directory, &shape).unwrap();
    cluster.start(NODE).unwrap();
    cluster.await_leaders().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["strict::engine", "--exact", "--nocapture"])
        .env(VARIABLE, format!("{} {}", socket(&cluster).display(), cluster.config(NODE).cluster_id().0))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).split(b'\n');
    let is_done = lines.map_while(Result::ok).any(|line| line == DONE[..DONE.len() - 1]);
    // Its thread has ended without the test's harness knowing.
    let _ = child.kill();
    child.wait().unwrap();
    assert!(is_done, "the engine's thread was killed: it made a system call");
    assert_eq!(log_of(&cluster, 2 * RECORDS).len() as u64, 2 * RECORDS);
    cluster.check().unwrap();
}

#[test]
fn engine() {
    let Ok(order) = std::env::var(VARIABLE) else { return };
    let (socket, cluster) = order.rsplit_once(' ').unwrap();
    let options = Options::new(ClusterId(cluster.parse().unwrap()), SHARD, 1);
    let mut attachment = Attachment::connect(socket.as_ref(), options).unwrap();
    // Once in peace, so that memory that grows has grown.
    work(&mut attachment);
    // SAFETY: changes what this thread may ask the kernel for, and nothing in memory.
    let entered = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
    if entered != 0 {
        eprintln!("seccomp is refused here; nothing was shown");
    }
    work(&mut attachment);
    // SAFETY: the bytes are there. Ending by number ends this thread alone, which holds nothing that others wait for.
    unsafe {
        libc::write(1, DONE.as_ptr().cast(), DONE.len());
        libc::syscall(libc::SYS_exit, 0);
    }
}

fn work(attachment: &mut Attachment) {
    let (mut submitted, mut committed) = (0, 0);
    while committed < RECORDS {
        while submitted < RECORDS && attachment.outstanding() < UNDER_WAY {
            let Ok(mut room) = attachment.reserve(64) else { break };
            room.bytes().fill(submitted as u8);
            room.publish(Timestamp(submitted), Epoch(0), Acks::Quorum);
            submitted += 1;
        }
        attachment.poll(|reply| {
            if matches!(reply, Reply::Outcome { outcome: Outcome::Committed { .. }, .. }) {
                committed += 1;
            }
        });
        std::hint::spin_loop();
    }
}
