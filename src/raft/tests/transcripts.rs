//! Golden transcripts: `tests/transcripts/*.txt` hold commands and, below each, what the cluster did. One per rule.
//!
//! `UPDATE_TRANSCRIPTS=1 cargo test --lib transcripts` writes what is done now; the difference is to be reviewed.
//!
//! ```text
//! cluster N             N fresh nodes, 1 to N
//! boot ID 1,1,2 vote=3  this node starts with entries of these terms on disk, in term 3
//! campaign ID           time moves on to when this node calls an election; it alone notices
//! tick ID [MS]          time moves on, this node notices
//! run MS                time moves on, all notice and do what follows
//! deliver A->B [N]      the N oldest messages of this way arrive, or all
//! late A->B             the newest message of this way arrives first
//! double A->B           the oldest message of this way is there twice
//! drop A->B             all messages of this way are lost
//! cut A->B / heal       messages of this way are lost from now on / are not any more
//! flush ID [N]          the disk finishes its N oldest writes, or all
//! durable ID INDEX@TERM the disk tells (late) of an entry
//! propose ID N [BYTES]  N proposals in one turn
//! read ID NAMES...      reads in one turn
//! ask ID NAME           a read; the turn goes on
//! transfer ID TO        leadership is to go to TO
//! down ID PEER          this node sees its connection to PEER close
//! crash ID / start ID   the process ends / begins anew
//! stabilize             disks and network do all there is to do; time stands still
//! status                what each node is
//! lead ID               campaign and stabilize; says no more than that it leads
//! quietly COMMAND       says only who changes its role, term or leader, who commits, and what reads come to
//! ```

use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::vec::Vec;
use std::{fs, panic};

use super::super::*;
use super::cluster::Cluster;

/// There is one for each rule; fewer were found in the wrong place.
const TRANSCRIPTS_MIN: usize = 32;

#[test]
fn transcripts_are_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let files =
        fs::read_dir(&directory).expect("the directory of transcripts").map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "txt")).collect();
    files.sort();
    assert!(files.len() >= TRANSCRIPTS_MIN, "{} transcripts in {}", files.len(), directory.display());
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some();
    let mut differing = Vec::new();
    for path in files {
        let written = fs::read_to_string(&path).unwrap();
        let (done, commands) = replay(&written, &path);
        assert!(commands >= 3, "{} holds {commands} commands", path.display());
        if done == written {
            continue;
        }
        if update {
            fs::write(&path, done).unwrap();
        } else {
            let at = done.lines().zip(written.lines()).take_while(|(done, written)| done == written).count();
            let line = |text: &str| text.lines().nth(at).unwrap_or("(end)").to_string();
            differing.push(format!(
                "{}:{}\n  written: {}\n  done:    {}",
                path.display(),
                at + 1,
                line(&written),
                line(&done)
            ));
        }
    }
    assert!(differing.is_empty(), "UPDATE_TRANSCRIPTS=1 would rewrite:\n{}", differing.join("\n"));
}

/// The transcript with the output that its commands have now, and how many commands it holds.
fn replay(written: &str, path: &Path) -> (String, usize) {
    let mut cluster = Cluster::new(1, 1);
    let (mut done, mut commands, mut in_output) = (String::new(), 0, false);
    for line in written.lines() {
        if in_output {
            in_output = !line.is_empty();
            if in_output {
                continue;
            }
        }
        if line.is_empty() || line.starts_with('#') {
            done += line;
            done.push('\n');
            continue;
        }
        if line == "----" {
            in_output = true;
            continue;
        }
        commands += 1;
        cluster.trace = Some(Vec::new());
        let (quiet, command) = line.strip_prefix("quietly ").map_or((false, line), |command| (true, command));
        run(&mut cluster, command).unwrap_or_else(|wrong| panic!("{}: `{line}`: {wrong}", path.display()));
        let mut trace = cluster.trace.take().unwrap_or_default();
        if quiet {
            let told = [" is ", " commits ", " read "];
            trace.retain(|line| told.iter().any(|word| line.contains(word)));
        }
        let output = if trace.is_empty() { "(nothing)".into() } else { trace.join("\n") };
        done += &format!("{line}\n----\n{output}\n");
    }
    (done, commands)
}

fn run(cluster: &mut Cluster, line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| -> Result<u32, String> {
        words.get(at).and_then(|word| word.parse().ok()).ok_or(format!("word {at} is no number"))
    };
    let way = || -> Result<(u32, u32), String> {
        let (from, to) = words.get(1).and_then(|way| way.split_once("->")).ok_or("no way A->B")?;
        Ok((from.parse().map_err(|_| "from whom")?, to.parse().map_err(|_| "to whom")?))
    };
    match words[0] {
        "cluster" => {
            let voters = number(1)?;
            *cluster = Cluster::new(voters, 42);
            cluster.trace = Some(Vec::new());
            cluster.say(format!("{voters} nodes"));
        }
        "boot" => boot(cluster, number(1)?, &words)?,
        "campaign" | "lead" | "tick" | "run" => {
            pass_time(cluster, words[0], number(1)?, number(2).unwrap_or(0))?
        }
        "deliver" => deliver(cluster, way()?, if words.len() > 2 { number(2)? } else { u32::MAX }),
        "late" | "double" | "drop" => reroute(cluster, words[0], way()?)?,
        "cut" => {
            cluster.cut.insert(way()?);
        }
        "heal" => cluster.cut.clear(),
        "flush" => {
            let id = number(1)?;
            let times = if words.len() > 2 { number(2)? } else { u32::MAX };
            for _ in 0..times {
                if !cluster.flush_one(id) {
                    break;
                }
            }
            cluster.replicate(id);
        }
        "durable" => {
            let (index, term) =
                words.get(2).and_then(|entry| entry.split_once('@')).ok_or("no INDEX@TERM")?;
            let index = Index(index.parse().map_err(|_| "which index")?);
            let entry = EntryId { term: Term(term.parse().map_err(|_| "which term")?), index };
            input(cluster, number(1)?, Input::DurableLog(Durable::pretend(entry)));
        }
        "propose" => propose(cluster, number(1)?, number(2)?, if words.len() > 3 { number(3)? } else { 100 }),
        "ask" => cluster.read(number(1)?, number(2)?.into()),
        "read" => {
            let id = number(1)?;
            for at in 2..words.len() {
                cluster.read(id, number(at)?.into());
            }
            cluster.replicate(id);
        }
        "transfer" => input(cluster, number(1)?, Input::Transfer { to: NodeId(number(2)?) }),
        "down" => input(cluster, number(1)?, Input::PeerDown(NodeId(number(2)?))),
        "crash" => cluster.crash(number(1)?),
        "start" => cluster.start(number(1)?),
        "stabilize" => cluster.stabilize(),
        "status" => status(cluster),
        other => return Err(format!("no command {other}")),
    }
    Ok(())
}

fn pass_time(cluster: &mut Cluster, how: &str, first: u32, millis: u32) -> Result<(), String> {
    match how {
        "tick" => {
            cluster.now = cluster.now.after(Duration::from_millis(millis.into()));
            input(cluster, first, Input::Tick);
        }
        "run" => cluster.run_for(Duration::from_millis(first.into())),
        _ => {
            let wake = cluster.raft(first).ok_or("is down")?.next_wake();
            cluster.now = cluster.now.max(wake);
            input(cluster, first, Input::Tick);
        }
    }
    if how == "lead" {
        cluster.stabilize();
        let raft = cluster.raft(first).ok_or("is down")?;
        let line = format!("{first} is {:?} in term {}, commit {}", raft.role(), raft.term(), raft.commit());
        cluster.trace = Some(std::vec![line]);
    }
    Ok(())
}

fn input(cluster: &mut Cluster, id: u32, input: Input) {
    cluster.step(id, input);
    cluster.replicate(id);
}

fn boot(cluster: &mut Cluster, id: u32, words: &[&str]) -> Result<(), String> {
    let terms = words.get(2).ok_or("no terms")?;
    let terms: Result<Vec<u64>, _> = terms.split(',').filter(|term| *term != "-").map(str::parse).collect();
    let vote = words.get(3).and_then(|vote| vote.strip_prefix("vote=")).ok_or("no vote=TERM")?;
    cluster.boot(id, &terms.map_err(|_| "terms")?, vote.parse().map_err(|_| "vote")?);
    Ok(())
}

fn deliver(cluster: &mut Cluster, way: (u32, u32), mut times: u32) {
    // What is sent meanwhile is not meant.
    let mut waiting = cluster.network.len();
    let mut at = 0;
    while at < waiting && times > 0 {
        if (cluster.network[at].from, cluster.network[at].to) != way {
            at += 1;
            continue;
        }
        let envelope = cluster.network.remove(at).unwrap();
        waiting -= 1;
        times -= 1;
        cluster.deliver(envelope);
    }
    cluster.replicate(way.1);
}

fn reroute(cluster: &mut Cluster, how: &str, way: (u32, u32)) -> Result<(), String> {
    let is_meant = |at: &usize| (cluster.network[*at].from, cluster.network[*at].to) == way;
    let meant: Vec<usize> = (0..cluster.network.len()).filter(is_meant).collect();
    let (first, last) = (*meant.first().ok_or("nothing on this way")?, *meant.last().unwrap());
    match how {
        "late" => {
            let envelope = cluster.network.remove(last).unwrap();
            cluster.deliver(envelope);
            cluster.replicate(way.1);
        }
        "double" => {
            let envelope = cluster.network[first].clone();
            cluster.network.insert(first, envelope);
        }
        _ => {
            cluster.say(format!("{} lost", meant.len()));
            cluster.network.retain(|envelope| (envelope.from, envelope.to) != way);
        }
    }
    Ok(())
}

fn propose(cluster: &mut Cluster, id: u32, count: u32, bytes: u32) {
    for _ in 0..count {
        match cluster.propose(id, bytes as usize) {
            Ok(_) => {}
            Err(Refused::NotLeader { leader }) => cluster.say(format!("refused: leader {leader:?}")),
            Err(Refused::Transferring { to }) => cluster.say(format!("refused: handing over to {to}")),
        }
    }
    cluster.replicate(id);
}

fn status(cluster: &mut Cluster) {
    let mut lines = Vec::new();
    for (id, node) in &cluster.nodes {
        let terms: Vec<String> = node.log.iter().map(|item| item.term.to_string()).collect();
        let log = terms.join(",");
        let Some(raft) = &node.raft else {
            lines.push(format!("{id}: down, log {log}"));
            continue;
        };
        let leader = raft.leader().map_or_else(|| "nobody".into(), |leader| leader.to_string());
        let progress: Vec<String> = raft.progress().map(|(voter, at)| format!("{voter}:{at}")).collect();
        lines.push(format!(
            "{id}: {:?}, term {}, leader {leader}, commit {}, on disk {}, log {log}{}{}",
            raft.role(),
            raft.term(),
            raft.commit(),
            node.disk_log.len(),
            if progress.is_empty() { "" } else { ", progress " },
            progress.join(" ")
        ));
    }
    for line in lines {
        cluster.say(line);
    }
}
