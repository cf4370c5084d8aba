//! Every course that a small cluster can take, to a depth: three nodes, two proposals, messages lost, doubled and in
//! any order, timeouts at any moment, crashes that keep any prefix of the writes under way.
//!
//! A message that is lost is one that is never delivered, so loss needs no step of its own. Clocks run apart without
//! bound: a timeout comes whenever the explorer wants.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::rc::Rc;

use super::model::Node;
use super::random::mix;
use crate::raft::{Input, Message, Role};
use crate::types::{NodeId, Term};

/// The nodes of the small cluster.
const NODES: usize = 3;

/// What an exploration has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// Different states.
    pub states: u64,
    /// Steps taken between them.
    pub steps: u64,
    /// States in which something is committed.
    pub committed: u64,
    /// States with a leader.
    pub led: u64,
    /// The deepest that was gone.
    pub depth: u32,
}

/// What can still happen beside deliveries and writes that finish.
#[derive(Clone, Copy, Debug)]
struct Budget {
    proposals: u32,
    duplicates: u32,
    crashes: u32,
    timeouts: u32,
}

/// A message under way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    from: usize,
    to: usize,
    message: Message,
    print: Print,
}

#[derive(Clone)]
struct State {
    /// Shared with the states before and after, in which most of them are the same.
    nodes: Vec<(Rc<Node>, Print)>,
    /// A set: two that are the same are one that may come twice. In the order of their prints, for that in which they
    /// were sent means nothing.
    messages: Vec<Sent>,
    budget: Budget,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    TimeOut(usize),
    Propose(usize),
    Written(usize),
    Deliver { message: usize, again: bool },
    Crash { node: usize, kept: usize },
}

struct Explorer {
    /// Per state, with how many steps to go it was looked at.
    seen: BTreeMap<Print, u32>,
    path: Vec<Step>,
    explored: Explored,
}

/// What the path so far has established: who led when, and what is committed for good.
#[derive(Clone, Debug, Default)]
struct Book {
    leaders: BTreeMap<Term, usize>,
    committed: Vec<(Term, Term)>,
}

/// Explores all courses of `depth` steps from nothing, and from a cluster that has just elected its first leader.
///
/// # Errors
/// The first course after which something does not hold that must.
pub fn explore(depth: u32) -> Result<Explored, String> {
    let budget = Budget { proposals: 2, duplicates: 1, crashes: 1, timeouts: 3 };
    let nothing = State {
        nodes: (0..NODES)
            .map(|id| Node::new(id, NODES))
            .map(|node| (Rc::new(node.clone()), print(&node)))
            .collect(),
        messages: Vec::new(),
        budget,
    };
    let mut explorer = Explorer { seen: BTreeMap::new(), path: Vec::new(), explored: Explored::default() };
    explorer.visit(&nothing, &Book::default(), depth)?;
    let mut led = nothing;
    let mut book = Book::default();
    elect(&mut led, &mut book);
    led.budget = budget;
    explorer.visit(&led, &book, depth)?;
    explorer.explored.states = explorer.seen.len() as u64;
    Ok(explorer.explored)
}

/// The shortest way to a leader: the first node stands, the second agrees.
fn elect(state: &mut State, book: &mut Book) {
    take(state, Step::TimeOut(0));
    for _ in 0..64 {
        if state.nodes[0].0.raft.role() == Role::Leader {
            break;
        }
        let writes = (0..NODES).find(|&node| state.nodes[node].0.has_writes());
        let between = |sent: &Sent| sent.from < 2 && sent.to < 2;
        let step = writes.map(Step::Written).or_else(|| {
            let message = state.messages.iter().position(between)?;
            Some(Step::Deliver { message, again: false })
        });
        take(state, step.expect("an election without faults goes on"));
    }
    assert_eq!(state.nodes[0].0.raft.role(), Role::Leader, "an election without faults has a winner");
    check(state, book).expect("nothing has gone wrong yet");
}

impl Explorer {
    fn visit(&mut self, state: &State, book: &Book, depth: u32) -> Result<(), String> {
        let key = fingerprint(state, book);
        let looked_at = self.seen.entry(key).or_insert(0);
        if *looked_at > depth {
            return Ok(());
        }
        let new = *looked_at == 0;
        *looked_at = depth + 1;
        if new {
            self.explored.committed += u64::from(!book.committed.is_empty());
            self.explored.led +=
                u64::from(state.nodes.iter().any(|(node, _)| node.raft.role() == Role::Leader));
        }
        self.explored.depth = self.explored.depth.max(self.path.len() as u32);
        if depth == 0 {
            return Ok(());
        }
        for step in steps(state) {
            let mut next = state.clone();
            let mut book = book.clone();
            take(&mut next, step);
            self.path.push(step);
            self.explored.steps += 1;
            check(&next, &mut book).map_err(|why| format!("{why}, after {:?}", self.path))?;
            self.visit(&next, &book, depth - 1)?;
            self.path.pop();
        }
        Ok(())
    }
}

/// All that can happen next.
fn steps(state: &State) -> Vec<Step> {
    let State { nodes, messages, budget } = state;
    let mut steps = Vec::new();
    for message in 0..messages.len() {
        steps.push(Step::Deliver { message, again: false });
        if budget.duplicates > 0 {
            steps.push(Step::Deliver { message, again: true });
        }
    }
    for (node, (state, _)) in nodes.iter().enumerate() {
        if state.has_writes() {
            steps.push(Step::Written(node));
        }
        if budget.timeouts > 0 {
            steps.push(Step::TimeOut(node));
        }
        if budget.proposals > 0 && state.raft.role() == Role::Leader {
            steps.push(Step::Propose(node));
        }
        if budget.crashes > 0 {
            steps.push(Step::Crash { node, kept: 0 });
            if state.has_writes() {
                steps.push(Step::Crash { node, kept: 1 });
            }
        }
    }
    steps
}

fn take(state: &mut State, step: Step) {
    let State { nodes, messages, budget } = state;
    let from = match step {
        Step::TimeOut(node) | Step::Propose(node) | Step::Written(node) | Step::Crash { node, .. } => node,
        Step::Deliver { message, .. } => messages[message].to,
    };
    let (node, print_of_node) = &mut nodes[from];
    let node = Rc::make_mut(node);
    let sent = match step {
        Step::TimeOut(_) => {
            budget.timeouts = budget.timeouts.saturating_sub(1);
            node.time_out()
        }
        Step::Propose(_) => {
            budget.proposals -= 1;
            node.propose()
        }
        Step::Written(_) => node.write_done(),
        Step::Deliver { message, again } => {
            let Sent { from, message: said, .. } = messages[message];
            if again {
                budget.duplicates -= 1;
            } else {
                messages.remove(message);
            }
            node.step(Input::Peer { from: NodeId(from as u32 + 1), message: said })
        }
        Step::Crash { kept, .. } => {
            budget.crashes -= 1;
            node.crash(kept);
            Vec::new()
        }
    };
    *print_of_node = print(&*node);
    for (to, message) in sent {
        let to = to.0 as usize - 1;
        let print = print(&(from, to, message));
        if let Err(place) = messages.binary_search_by_key(&print, |sent| sent.print) {
            messages.insert(place, Sent { from, to, message, print });
        }
    }
}

/// One leader per term, one committed log, and every leader has it.
fn check(state: &State, book: &mut Book) -> Result<(), String> {
    for (id, (node, _)) in state.nodes.iter().enumerate() {
        let term = node.raft.term();
        for (at, &entry) in node.committed().iter().enumerate() {
            let (known, _) = *book.committed.get(at).unwrap_or(&(entry, term));
            if known != entry {
                return Err(format!("node {} commits {}@{entry}, where {known} is", id + 1, at + 1));
            }
            if at == book.committed.len() {
                book.committed.push((entry, term));
            }
        }
    }
    for (id, (node, _)) in state.nodes.iter().enumerate() {
        if node.raft.role() != Role::Leader {
            continue;
        }
        let term = node.raft.term();
        let leader = *book.leaders.entry(term).or_insert(id);
        if leader != id {
            return Err(format!("nodes {} and {} lead in term {term}", leader + 1, id + 1));
        }
        let mut earlier = book.committed.iter().enumerate().filter(|(_, (_, in_term))| *in_term < term);
        if let Some((at, _)) = earlier.find(|(at, (entry, _))| node.log().get(*at) != Some(entry)) {
            return Err(format!("node {} leads without the committed entry {}", id + 1, at + 1));
        }
    }
    Ok(())
}

/// Stands for everything that can be seen of a state.
fn fingerprint(state: &State, book: &Book) -> Print {
    let mut all = print(&(state.budget, book));
    let nodes = state.nodes.iter().map(|(_, print)| *print);
    for (first, second) in nodes.chain(state.messages.iter().map(|sent| sent.print)) {
        all = (mix(all.0 ^ first), mix(all.1.wrapping_add(second)));
    }
    all
}

/// Two numbers that stand for a value.
type Print = (u64, u64);

fn print(value: &dyn Debug) -> Print {
    struct Hash(u64, u64);
    impl Write for Hash {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            for part in text.as_bytes().chunks(8) {
                let mut word = [0; 8];
                word[..part.len()].copy_from_slice(part);
                let word = u64::from_le_bytes(word) ^ (part.len() as u64) << 56;
                self.0 = mix(self.0 ^ word);
                self.1 = (self.1 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
            }
            Ok(())
        }
    }
    let mut hash = Hash(1, 2);
    write!(hash, "{value:?}").expect("a hash takes everything");
    (hash.0, hash.1)
}
