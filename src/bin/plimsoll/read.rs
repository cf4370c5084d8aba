//! `plimsoll read`: the committed records of a shard, as one node holds them.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use plimsoll::client::{Reader, Record};
use plimsoll::types::{Index, NodeId, ShardId};

use crate::common::{Failure, Interrupt, Target, Verdict};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Which shard
    #[arg(long, default_value_t = 0)]
    shard: u32,
    /// From which node; without it, from the first that answers
    #[arg(long, value_name = "ID")]
    node: Option<u32>,
    /// The first index
    #[arg(long, value_name = "N", default_value_t = 1)]
    from: u64,
    /// Go on with what is committed later
    #[arg(long)]
    follow: bool,
    /// How records are written
    #[arg(long, value_enum, default_value_t = Output::Lines)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// The records' bytes, nothing between them
    Raw,
    /// Each record's bytes and a line feed
    Lines,
    /// Index, term, timestamp, epoch and bytes, in hex
    Hex,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::listen()?;
    let mut reader = open(arguments)?;
    let mut out = BufWriter::with_capacity(256 << 10, io::stdout().lock());
    let wait = if arguments.follow { Duration::from_millis(100) } else { Duration::ZERO };
    while !interrupt.has_come() {
        let written = match reader.next_record(wait)? {
            Some(record) => write(&mut out, arguments.output, &record),
            None if arguments.follow => out.flush(),
            None => break,
        };
        // Whoever closes the pipe has had enough.
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Verdict::Good),
            other => other.map_err(Failure::on("writing to standard output"))?,
        }
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure(format!("writing: {error}"))),
        // There may have been more.
        _ if interrupt.has_come() && !arguments.follow => Ok(Verdict::Bad),
        _ => Ok(Verdict::Good),
    }
}

fn open(arguments: &Arguments) -> Result<Reader, Failure> {
    let options = arguments.target.options()?;
    let (shard, from) = (ShardId(arguments.shard), Index(arguments.from));
    if let Some(node) = arguments.node {
        return Ok(Reader::open(options, NodeId(node), shard, from)?);
    }
    let mut errors = Vec::new();
    for (node, _) in &options.members {
        // Each gets a part of the time, so that one that is down does not use it up.
        let deadline = options.deadline / options.members.len() as u32;
        let opened =
            Reader::open(plimsoll::client::Options { deadline, ..options.clone() }, *node, shard, from);
        match opened {
            Ok(reader) => return Ok(reader),
            Err(error) => errors.push(error.to_string()),
        }
    }
    Err(Failure(errors.join("; ")))
}

fn write(out: &mut impl Write, output: Output, record: &Record<'_>) -> io::Result<()> {
    match output {
        Output::Raw => out.write_all(record.payload),
        Output::Lines => {
            out.write_all(record.payload)?;
            out.write_all(b"\n")
        }
        Output::Hex => {
            let (id, timestamp, epoch) = (record.id, record.timestamp, record.epoch);
            write!(out, "{} {} {timestamp} {epoch} ", id.index, id.term)?;
            for byte in record.payload {
                write!(out, "{byte:02x}")?;
            }
            out.write_all(b"\n")
        }
    }
}
