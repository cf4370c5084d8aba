//! Runs the simulator over seeds. See `plimsoll::sim`.

mod fuzz;
mod watch;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use plimsoll::sim::explore::Explored;
use plimsoll::sim::random::mix;
use plimsoll::sim::{Bounds, Counts, Plan, Run, Telling, run, shrink};
use watch::Watch;

/// Runs whole clusters through faults, in virtual time.
#[derive(Parser)]
struct Arguments {
    /// So many seeds from 0 on, or a range of them: 2000, 5000..7000
    #[arg(long, value_parser = parse_seeds, default_value = "200")]
    seeds: Range<u64>,
    /// Replays one seed and prints all that happens
    #[arg(long)]
    seed: Option<u64>,
    /// Runs seeds that nobody ran before until so many seconds are over
    #[arg(long, value_name = "SECONDS")]
    swarm: Option<u64>,
    /// Prints the result as JSON
    #[arg(long)]
    json: bool,
    /// Writes what clients asked and were told, as JSON lines
    #[arg(long, value_name = "FILE")]
    history: Option<std::path::PathBuf>,
    /// Looks for a shorter run of the failing seed
    #[arg(long)]
    shrink: bool,
    /// Narrows the run, as printed by --shrink
    #[arg(long, value_parser = parse_bounds, default_value = "0:0:0:0")]
    bounds: Bounds,
    /// Goes on after a violation
    #[arg(long)]
    keep_going: bool,
    /// With --seed: prints nothing but the violation
    #[arg(long)]
    quiet: bool,
    /// Every directed graph of links between three nodes, with the promised liveness
    #[arg(long)]
    graphs: bool,
    /// Explores every course of so many steps that a small cluster can take
    #[arg(long, value_name = "STEPS")]
    explore: Option<u32>,
    /// Arbitrary input for: wire, ethernet, log, raft, datagram, datagram-link, config; the corpus is in tests/corpus
    #[arg(long, value_name = "TARGET")]
    fuzz: Option<String>,
    /// With --fuzz: for so long
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

fn parse_seeds(word: &str) -> Result<Range<u64>, String> {
    let number = |word: &str| word.parse::<u64>().map_err(|error| format!("{word}: {error}"));
    match word.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => Ok(0..number(word)?),
    }
}

fn parse_bounds(word: &str) -> Result<Bounds, String> {
    shrink::from_word(word).ok_or_else(|| format!("{word} is not what --shrink prints"))
}

/// All runs together.
#[derive(Default)]
struct Totals {
    seeds: u64,
    violations: u64,
    simulated_ns: u64,
    counts: Counts,
    hash: u64,
}

impl Totals {
    fn add(&mut self, run: &Run) {
        self.seeds += 1;
        self.violations += u64::from(run.violation.is_some());
        self.simulated_ns += run.simulated_ns;
        let (all, one) = (&mut self.counts, &run.counts);
        all.commits += one.commits;
        all.elections += one.elections;
        all.crashes += one.crashes;
        all.faults += one.faults;
        all.acknowledged += one.acknowledged;
        all.index_reads += one.index_reads;
        all.disk_stops += one.disk_stops;
        all.reads_back += one.reads_back;
        all.datagrams += one.datagrams;
        all.repaired += one.repaired;
        all.sessions += one.sessions;
        all.replayed += one.replayed;
        all.dead += one.dead;
        all.epochs += one.epochs;
        all.deaths += one.deaths;
        all.cuts += one.cuts;
        self.hash = mix(self.hash ^ run.hash);
    }

    /// What is too little for so much time: such a run shows nothing.
    fn too_little(&self) -> Option<String> {
        let seconds = self.simulated_ns / 1_000_000_000;
        let Counts { commits, elections, faults, crashes, datagrams, repaired, sessions, reads_back, .. } =
            self.counts;
        let Counts { replayed, dead, epochs, deaths, cuts, .. } = self.counts;
        let rates = [
            ("datagrams", datagrams, 20 * seconds),
            ("fragments sent again", repaired, seconds / 200),
            ("sessions that came up again", sessions, seconds / 50),
            ("commits", commits, seconds),
            ("elections", elections, seconds / 50),
            ("faults", faults, seconds / 20),
            ("crashes", crashes, seconds / 100),
            ("regions that were read back", reads_back, seconds),
        ];
        // Three seeds of ten have an engine, and not each of them loses something.
        let of_engines = [
            ("entries of engines that were replayed", replayed, seconds),
            ("entries of engines that are dead", dead, seconds / 20),
            ("closed epochs", epochs, seconds / 50),
            ("threads of engines that died", deaths, seconds / 50),
            ("epochs that were cut for them", cuts, seconds / 200),
        ];
        let rates = rates.into_iter().filter(|_| self.seeds >= 20);
        let of_engines = of_engines.into_iter().filter(|_| self.seeds >= 100);
        let poor = rates.chain(of_engines).find(|(_, found, least)| found < least)?;
        Some(format!("{} {} in {seconds} simulated seconds are too few to show anything", poor.1, poor.0))
    }

    fn print(&self, json: bool, took: Duration) {
        let Counts { commits, elections, crashes, faults, acknowledged, index_reads, .. } = self.counts;
        let Counts { disk_stops, datagrams, repaired, sessions, reads_back, .. } = self.counts;
        let Counts { replayed, dead, epochs, deaths, cuts, .. } = self.counts;
        let simulated_s = self.simulated_ns as f64 / 1e9;
        let ratio = simulated_s / took.as_secs_f64();
        let hash = format!("{:016x}", self.hash);
        if json {
            let all = serde_json::json!({
                "seeds": self.seeds, "violations": self.violations, "simulated_s": simulated_s, "commits": commits,
                "elections": elections, "crashes": crashes, "faults": faults, "hash": hash,
                "acknowledged": acknowledged, "index_reads": index_reads, "disk_stops": disk_stops,
                "reads_back": reads_back,
                "datagrams": datagrams, "repaired": repaired, "sessions": sessions, "replayed": replayed,
                "dead": dead, "epochs": epochs, "deaths": deaths, "cuts": cuts, "ratio": ratio,
            });
            println!("{all}");
        } else {
            println!(
                "{} seeds, {} violations, {simulated_s:.0} s simulated in {:.1} s ({ratio:.0} times faster): {commits} \
                 commits, {acknowledged} acknowledged, {index_reads} linearizable reads, {elections} elections, \
                 {crashes} crashes, {disk_stops} failed disks, {reads_back} regions read back, {faults} faults; {datagrams} datagrams, {repaired} \
                 fragments sent again, {sessions} sessions anew; {replayed} entries of engines replayed, {dead} dead, \
                 {epochs} epochs closed, {deaths} threads died, {cuts} epochs cut for them; hash {hash}",
                self.seeds,
                self.violations,
                took.as_secs_f64(),
            );
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tell_panics();
    let good = match arguments.seed {
        Some(seed) if arguments.shrink => shrink_seed(seed, &arguments.bounds),
        Some(seed) => replay(seed, &arguments),
        None if arguments.graphs => graphs(arguments.json),
        None if arguments.fuzz.is_some() => {
            fuzz::run(arguments.fuzz.as_deref().unwrap_or_default(), Duration::from_secs(arguments.seconds))
        }
        None if arguments.explore.is_some() => explore(arguments.explore.unwrap_or_default()),
        None => sweep(&arguments),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A panic of the code under test is a violation like any other: the seed first, then the trace.
fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if let Some((seed, trace)) = plimsoll::sim::interrupted() {
            eprintln!("seed {seed}: {panic}");
            trace.iter().for_each(|line| eprintln!("  {line}"));
            eprintln!("seed {seed}: {panic}");
        } else {
            eprintln!("{panic}");
            fuzz::keep();
        }
        std::process::exit(1);
    }));
}

fn tell(run: &Run) {
    let Some(violation) = &run.violation else { return };
    eprintln!("seed {}: {violation}", run.seed);
    run.trace.iter().for_each(|line| eprintln!("  {line}"));
    eprintln!("seed {}: {violation}", run.seed);
}

fn replay(seed: u64, arguments: &Arguments) -> bool {
    let telling = Telling { verbose: !arguments.quiet, history: arguments.history.is_some() };
    if telling.verbose {
        println!("seed {seed}: {:#?}", Plan::draw(seed, &arguments.bounds));
    }
    let begin = Instant::now();
    let watch = Watch::new();
    watch.begins(seed);
    let run = run(seed, &arguments.bounds, telling);
    drop(watch);
    let mut totals = Totals::default();
    totals.add(&run);
    tell(&run);
    totals.print(arguments.json, begin.elapsed());
    write_history(arguments, &[run]) && totals.violations == 0
}

fn sweep(arguments: &Arguments) -> bool {
    let begin = Instant::now();
    let telling = Telling { verbose: false, history: arguments.history.is_some() };
    let mut totals = Totals::default();
    let mut histories = Vec::new();
    let watch = Watch::new();
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let seeds = if arguments.swarm.is_some() { fresh..u64::MAX } else { arguments.seeds.clone() };
    for seed in seeds {
        if arguments.swarm.is_some_and(|seconds| begin.elapsed() >= Duration::from_secs(seconds)) {
            break;
        }
        watch.begins(seed);
        let mut run = run(seed, &arguments.bounds, telling);
        totals.add(&run);
        tell(&run);
        run.trace.clear();
        if telling.history {
            histories.push(run.clone());
        }
        if run.violation.is_some() && !arguments.keep_going {
            break;
        }
    }
    totals.print(arguments.json, begin.elapsed());
    let too_little = totals.too_little().filter(|_| totals.violations == 0);
    if let Some(too_little) = &too_little {
        eprintln!("{too_little}");
    }
    write_history(arguments, &histories) && totals.violations == 0 && too_little.is_none()
}

fn write_history(arguments: &Arguments, runs: &[Run]) -> bool {
    let Some(path) = &arguments.history else { return true };
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        for line in runs.iter().flat_map(|run| &run.history) {
            writeln!(file, "{line}")?;
        }
        file.flush()
    };
    write().inspect_err(|error| eprintln!("{}: {error}", path.display())).is_ok()
}

/// Each attempt is a process of its own: the code under test may panic.
fn shrink_seed(seed: u64, bounds: &Bounds) -> bool {
    let Ok(program) = std::env::current_exe() else { return false };
    let fails = |bounds: &Bounds| {
        let word = shrink::to_word(bounds);
        let seed = seed.to_string();
        let mut attempt = Command::new(&program);
        attempt.args(["--seed", &seed, "--quiet", "--bounds", &word]).stdout(std::process::Stdio::null());
        attempt.stderr(std::process::Stdio::null()).status().is_ok_and(|status| !status.success())
    };
    if !fails(bounds) {
        eprintln!("seed {seed} does not fail");
        return true;
    }
    let best = shrink::shrink(seed, bounds, fails);
    println!("seed {seed} still fails with --bounds {}", shrink::to_word(&best));
    false
}

fn graphs(json: bool) -> bool {
    let begin = Instant::now();
    let mut totals = Totals::default();
    for graph in plimsoll::sim::plan::graphs_of_three() {
        for seed in 0..4 {
            let bounds = Bounds { graph: Some(graph), nodes: Some(3), ..Bounds::default() };
            let run = run(seed, &bounds, Telling::default());
            if run.violation.is_some() {
                eprintln!("graph {graph:09b}");
            }
            tell(&run);
            totals.add(&run);
        }
    }
    totals.print(json, begin.elapsed());
    totals.violations == 0
}

fn explore(depth: u32) -> bool {
    let begin = Instant::now();
    match plimsoll::sim::explore::explore(depth) {
        Ok(explored) => {
            let Explored { states, steps, committed, led, depth } = explored;
            println!(
                "{states} states, {steps} steps, to a depth of {depth}: {led} with a leader, {committed} with a \
                 committed entry; nothing wrong, in {:.1} s",
                begin.elapsed().as_secs_f64()
            );
            true
        }
        Err(why) => {
            eprintln!("{why}");
            false
        }
    }
}
