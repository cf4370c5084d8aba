//! One process: an embedded node, the workers, and the thread that keeps them together. It follows all streams as a
//! replica, makes tenures, settles what an epoch that was cut short has left, and speaks with the coordinator over its
//! pipes.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plimsoll::client::ring::{Attachment, Options, Replica, Stream};
use plimsoll::engine::Fate;
use plimsoll::node::{Config, Node};
use plimsoll::types::{Epoch, ShardId, Stamp, Timestamp};

use crate::bank::Random;
use crate::clock::Clock;
use crate::common::{Failure, Load, Settings};
use crate::journal::{Journal, Of};
use crate::replay::Replayed;
use crate::session::note_of;
use crate::tables::Tables;
use crate::tenure::{Counts, Order, Ready, Reply, Shared, Tenure, Told};
use crate::worker::Worker;

/// How often the replica is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(1);

/// How often the coordinator is told at most, but for what it waits for.
const TELL_PERIOD: Duration = Duration::from_millis(20);

/// What may wait for the watermark in each stream of the replica.
const DEFERRED_BYTES_MAX: usize = 16 << 20;

const WORKERS: u64 = 1;
const REPLICA: u64 = 2;

/// What the coordinator wants.
enum Command {
    Quiet,
    /// As [`Shared::give`] is to be.
    Give(u64),
    Dump(PathBuf),
    End,
}

struct Keeper {
    shared: Arc<Shared>,
    replica: Replica,
    replayed: Replayed,
    orders: Vec<Sender<Order>>,
    told: Receiver<Told>,
    ready: Vec<Option<Ready>>,
    /// How many workers have not left the last tenure.
    serving: usize,
    /// In which epoch it was.
    last_tenure: Option<Epoch>,
    /// Replies of tenures that are over.
    left: VecDeque<(Epoch, Reply)>,
    released: Journal,
    /// The last watermark that a worker was told.
    watermark: Stamp,
    quiet: usize,
    told_last: String,
    told_at: Instant,
    /// Of the replies released, those before this tenure.
    released_before: u64,
}

pub(crate) fn run(settings: &Settings, config: &Path, life: u32) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(Failure::on("asking to end with the coordinator"))?;
    // A thread that dies of a defect takes the process with it: nobody waits for it.
    let say_it = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say_it(panic);
        std::process::abort();
    }));
    let config = Config::load(config).map_err(Failure::of)?;
    let (id, cluster) = (config.node_id(), config.cluster_id());
    let node = Node::start(config).map_err(Failure::of)?;
    let directory = settings.dir.clone().ok_or_else(|| Failure("a process needs --dir".to_owned()))?;
    let shared = Arc::new(Shared {
        node: id,
        home: AtomicU32::new(0),
        give: AtomicU64::new(0),
        quiet: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        counts: Counts::default(),
    });
    let desk = node.desk();
    let attach = |shard, session| {
        // The workers share their cores with the lanes.
        let options = Options { spin: Duration::ZERO, ..Options::new(cluster, ShardId(shard), session) };
        Attachment::embedded(&desk, options).map_err(Failure::of)
    };
    let (tell, told) = channel();
    let (mut orders, mut threads) = (Vec::new(), Vec::new());
    for index in 0..settings.workers {
        let (order, ordered) = channel();
        let load = load_of(settings, &directory, id.0, life, index)?;
        let stream = Stream::new(attach(index, WORKERS)?);
        let worker = Worker::new(index as usize, stream, load, Arc::clone(&shared), ordered, tell.clone());
        threads.push(thread(&format!("worker-{index}"), move || worker.run())?);
        orders.push(order);
    }
    let rings = (0..settings.workers).map(|shard| attach(shard, REPLICA)).collect::<Result<Vec<_>, _>>()?;
    let mut keeper = Keeper {
        replica: Replica::new(rings, DEFERRED_BYTES_MAX),
        replayed: Replayed::new(settings.accounts),
        ready: vec![None; orders.len()],
        orders,
        told,
        serving: 0,
        last_tenure: None,
        left: VecDeque::new(),
        released: Journal::create(Of::Released, &directory, &format!("{id}-{life}-keeper"))
            .map_err(Failure::of)?,
        watermark: Stamp::ZERO,
        quiet: 0,
        told_last: String::new(),
        told_at: Instant::now(),
        released_before: 0,
        shared,
    };
    keeper.work(&commands()?)?;
    keeper.shared.stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| drop(thread.join()));
    drop(keeper);
    node.stopper().stop();
    node.wait().map_err(Failure::of)
}

fn load_of(settings: &Settings, directory: &Path, node: u32, life: u32, index: u32) -> Result<Load, Failure> {
    let first_id = u64::from(node) << 56 | u64::from(life) << 40 | u64::from(index) << 32;
    let journal = |of| Journal::create(of, directory, &format!("{node}-{life}-{index}")).map_err(Failure::of);
    Ok(Load {
        random: Random::new(settings.seed ^ first_id),
        accounts: settings.accounts,
        workers: settings.workers,
        tick: Duration::from_micros(settings.tick_us.into()),
        period: Duration::from_secs(1) * settings.workers / settings.rate,
        next_id: first_id,
        begun: journal(Of::Begun)?,
        released: journal(Of::Released)?,
    })
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(Failure::on("starting a thread"))
}

/// What comes over standard input. Its end is an order to end.
fn commands() -> Result<Receiver<Command>, Failure> {
    let (give, commands) = channel();
    thread("commands", move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let command = match line.split_once(' ') {
                Some(("dump", path)) => Command::Dump(path.into()),
                Some(("give", what)) => Command::Give(what.parse().unwrap_or_default()),
                _ if line == "quiet" => Command::Quiet,
                _ => Command::End,
            };
            if give.send(command).is_err() {
                return;
            }
        }
    })?;
    Ok(commands)
}

impl Keeper {
    fn work(&mut self, commands: &Receiver<Command>) -> Result<(), Failure> {
        loop {
            match commands.recv_timeout(LOOK_PERIOD) {
                Ok(Command::Quiet) => self.shared.quiet.store(true, Ordering::Relaxed),
                Ok(Command::Give(what)) => self.shared.give.store(what, Ordering::Relaxed),
                Ok(Command::Dump(path)) => {
                    let text = self.replayed.dump(self.replica.watermark());
                    std::fs::write(&path, text).map_err(Failure::on(path.display()))?;
                    say(&format!("dumped {}", self.replica.replay().counters().dead));
                }
                Ok(Command::End) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.follow()?;
            while let Ok(told) = self.told.try_recv() {
                self.take(told)?;
            }
            self.settle()?;
            if let Some((epoch, last)) = self.may_begin() {
                self.begin(epoch, last);
            }
            self.tell_coordinator();
        }
    }

    fn follow(&mut self) -> Result<(), Failure> {
        let mut wrong = Ok(());
        let Keeper { replica, replayed, .. } = self;
        let followed = replica.poll(|shard, stamp, bytes| {
            if wrong.is_ok() {
                wrong =
                    replayed.apply(stamp, bytes).map_err(Failure::on(format!("stream {shard} at {stamp}")));
            }
        });
        followed.map_err(Failure::of)?;
        wrong
    }

    fn take(&mut self, told: Told) -> Result<(), Failure> {
        match told {
            Told::Ready(worker, ready) => self.ready[worker] = ready,
            Told::Watermark(stamp) => self.watermark = self.watermark.max(stamp),
            Told::Left(epoch, replies) => {
                self.serving -= 1;
                self.left.extend(replies.into_iter().map(|reply| (epoch, reply)));
            }
            Told::Quiet => self.quiet += 1,
            Told::Failed(why) => return Err(Failure(why)),
        }
        Ok(())
    }

    /// Gives the replies of tenures that are over, as far as it is settled what they are: their transactions are in the
    /// tables, or have never happened.
    fn settle(&mut self) -> Result<(), Failure> {
        let fold = self.replica.replay().fold();
        let open = fold.registry().open_epoch();
        if self.left.front().is_none_or(|&(epoch, _)| epoch >= open) {
            return Ok(());
        }
        let (mut settled, mut living) = (0, Vec::new());
        while let Some((epoch, reply)) = self.left.pop_front_if(|&mut (epoch, _)| epoch < open) {
            settled += 1;
            if fold.fate(Stamp::new(epoch, Timestamp(reply.stamp))) == Fate::Live {
                living.push(note_of(reply));
            }
        }
        let counts = &self.shared.counts;
        counts.died.fetch_add(settled - living.len() as u64, Ordering::Relaxed);
        counts.released.fetch_add(living.len() as u64, Ordering::Relaxed);
        self.released.note(living).map_err(Failure::of)
    }

    /// The epoch in which a tenure may begin, and the last stamp of it that is taken: this process leads every stream,
    /// each stream takes what it submits, and the tables hold all that lives of the epochs before.
    fn may_begin(&self) -> Option<(Epoch, u64)> {
        let ready: Vec<Stamp> = self.ready.iter().flatten().map(|&Ready(stamp)| stamp).collect();
        let epoch = ready.first()?.epoch;
        let fold = self.replica.replay().fold();
        let streams = fold.registry().streams().collect::<Vec<_>>();
        let is_certified = fold.registry().open_epoch() == epoch
            && streams.len() == self.orders.len()
            && epoch.0.checked_sub(1).is_none_or(|before| {
                streams.iter().all(|&stream| fold.position(stream).has_closed(Epoch(before)))
            });
        let may = self.serving == 0
            && self.last_tenure.is_none_or(|last| last < epoch)
            && ready.len() == self.orders.len()
            && ready.iter().all(|stamp| stamp.epoch == epoch)
            && is_certified;
        let last = ready.iter().map(|stamp| stamp.timestamp.0).max()?;
        may.then_some((epoch, last))
    }

    fn begin(&mut self, epoch: Epoch, last: u64) {
        let Replayed { savings, checking, .. } = &self.replayed;
        let tenure = Arc::new(Tenure {
            epoch,
            tables: Tables::of(savings, checking),
            clock: Clock::new(last),
            over: AtomicBool::new(false),
        });
        for order in &self.orders {
            // A worker that does not listen has told why.
            let _ = order.send(Arc::clone(&tenure));
        }
        self.ready.fill(None);
        self.serving = self.orders.len();
        self.last_tenure = Some(epoch);
        self.released_before = self.shared.counts.released.load(Ordering::Relaxed);
    }

    fn tell_coordinator(&mut self) {
        let counts = &self.shared.counts;
        let [released, died, begun, repeated] =
            [&counts.released, &counts.died, &counts.begun, &counts.repeated]
                .map(|count| count.load(Ordering::Relaxed));
        let tenure = self.last_tenure.filter(|_| self.serving > 0).map_or(0, |epoch| epoch.0 + 1);
        let served = if self.serving == 0 { 0 } else { released - self.released_before };
        let line = format!(
            "state {} {} {} {} {repeated} {tenure} {served} {} {}",
            self.replica.watermark().epoch,
            self.replica.watermark().timestamp,
            self.watermark.epoch,
            self.watermark.timestamp,
            begun.saturating_sub(released + died),
            u8::from(self.quiet == self.orders.len()),
        );
        if line != self.told_last && self.told_at.elapsed() >= TELL_PERIOD {
            say(&line);
            (self.told_last, self.told_at) = (line, Instant::now());
        }
    }
}

/// One line to the coordinator. If it is gone, so is this process.
fn say(what: &str) {
    let _ = writeln!(std::io::stdout(), "{what}");
}
