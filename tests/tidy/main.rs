//! The habits of the code base, kept by a test: the dependency arrows, the sizes, where `unsafe` may stand, who may
//! say that something is durable, what is banned.
//!
//! It reads the sources as text. That is crude, and it is enough: whoever trips it by accident is told where, and
//! nobody trips it without knowing.

#![allow(clippy::unwrap_used)]

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use source::{Source, Sources, collect, functions, paths, root, says_why, tokens};

/// What a module of `src/` may name besides itself, one row each; the longest name that fits a file is its row.
///
/// The arrows point down only: `ffi → client → node → shard → {raft, log, wire, engine} → {types, limits}`. The io
/// *traits* and the pool are "io"; a concrete backend ([`BACKENDS`]) is allowed only where it is spelled out.
#[rustfmt::skip]
const ARROWS: &[(&str, &[&str])] = &[
    ("types",       &["limits"]),
    ("limits",      &[]),
    ("raft",        &["types", "limits"]),
    ("wire",        &["types", "limits", "raft::Message", "raft::message", "raft::Role"]),
    ("log",         &["types", "limits", "io", "raft::effects::Entries", "raft::effects::Span",
                      "raft::Entries", "raft::Span"]),
    ("engine",      &["types", "limits", "log::record"]),
    ("io",          &["types", "limits"]),
    ("io::clock",   &["types", "limits"]),
    ("io::datagram", &["types", "limits", "io", "wire"]),
    ("io::reactor", &["types", "limits"]),
    ("io::disk",    &["types", "limits", "io::reactor"]),
    ("io::ring",    &["types", "limits"]),
    ("io::ring::port", &["types", "limits", "io::reactor", "io::link", "io::ring"]),
    ("io::link",    &["types", "limits", "io::reactor", "wire"]),
    ("shard",       &["types", "limits", "io", "raft", "log", "wire", "engine"]),
    ("admin",       &["types", "limits"]),
    ("sim",         &["types", "limits", "io", "raft", "log", "wire", "engine", "shard"]),
    ("node",        &["types", "limits", "io", "raft", "log", "wire", "engine", "shard", "admin",
                      "io::disk", "io::link", "io::clock", "io::reactor", "io::ring"]),
    ("client",      &["types", "limits", "wire", "engine", "raft::Role", "log::record", "log::assemble", "node::config"]),
    ("client::ring", &["types", "limits", "wire", "engine", "raft::Role", "log::record", "node::desk", "io", "io::ring",
                      "io::reactor"]),
    ("ffi",         &["types", "limits", "client", "node", "engine", "raft::Role", "wire::client", "wire::attach"]),
    ("local",       &["types", "limits", "client", "node", "raft::Role"]),
    ("bin::plimsoll-sim", &["sim", "node::config"]),
    ("bin::plimsoll::bench::flood", &["types", "limits", "io", "wire",
                      "io::link", "io::clock", "io::reactor"]),
    ("bin::plimsoll::bench::link", &["types", "limits", "io", "wire",
                      "io::link", "io::clock", "io::reactor"]),
    ("bin::plimsoll::bench::ring", &["types", "client", "node", "local", "wire::client", "io::ring"]),
    ("bin::plimsoll::bench::watermark", &["types", "client", "node", "local", "engine", "wire::client", "raft::Role"]),
    ("bin",         &["types", "limits", "client", "node", "local", "log", "wire::client", "raft::Role"]),
];

/// The concrete backends: a row of [`ARROWS`] allows one only by its own name.
const BACKENDS: &[&str] = &["io::disk", "io::link", "io::clock", "io::reactor", "io::ring"];

/// What builds without an operating system.
const NO_STD: &[&str] = &[
    "types",
    "limits",
    "raft",
    "log",
    "wire",
    "engine",
    "io",
    "io::pool",
    "io::datagram",
    "io::ring",
    "io::ring::bell",
    "io::ring::memory",
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Longer than the bounds, each with the lines that it may have today. Only ever to be lowered or struck out.
/// A function is `path::name`.
const LONGER: &[(&str, usize)] = &[];

/// The files that may say `unsafe`. Each explains at its top why it must.
const UNSAFE_FILES: &[&str] = &[
    "src/ffi/barrier.rs",
    "src/ffi/error.rs",
    "src/ffi/hook.rs",
    "src/ffi/mako.rs",
    "src/ffi/node.rs",
    "src/ffi/poll.rs",
    "src/ffi/replica.rs",
    "src/ffi/request.rs",
    "src/ffi/stream.rs",
    "src/ffi/waker.rs",
    "src/io/clock/tsc.rs",
    "src/io/disk/device/discard.rs",
    "src/io/disk/uring.rs",
    "src/io/link/dpdk/eal.rs",
    "src/io/link/dpdk/host/mod.rs",
    "src/io/link/dpdk/host/port.rs",
    "src/io/link/dpdk/host/tests.rs",
    "src/io/link/dpdk/mbuf.rs",
    "src/io/link/rdma/verbs/completion.rs",
    "src/io/link/rdma/verbs/device.rs",
    "src/io/link/rdma/verbs/memory.rs",
    "src/io/link/rdma/verbs/queues.rs",
    "src/io/link/rdma/verbs/receive.rs",
    "src/io/link/rdma/verbs/send.rs",
    "src/io/link/udp/ring.rs",
    "src/io/link/udp/socket.rs",
    "src/io/pool.rs",
    "src/io/reactor/napi.rs",
    "src/io/reactor/polled.rs",
    "src/io/reactor/uring/mod.rs",
    "src/io/reactor/uring/datagrams.rs",
    "src/io/ring/memory.rs",
    "src/io/ring/mod.rs",
    "src/io/ring/shared.rs",
    "tests/allocations.rs",
    "tests/engine/seccomp.rs",
    "tests/engine/strict.rs",
];

/// How far to the right a line goes that is a comment.
const COMMENT_COLUMNS_MAX: usize = 120;

/// Who may call what mints a promise: the function, and the beginnings of the paths that may.
const MINTS: &[(&str, &[&str])] = &[
    ("Flushed::by_disk", &["src/io/disk/", "src/sim/"]),
    ("Durable::covered_by", &["src/log/", "src/sim/model.rs"]),
    ("Ack::received", &["src/wire/peer.rs", "src/sim/fuzz/"]),
    ("Grant::received", &["src/wire/peer.rs", "src/sim/fuzz/"]),
];

/// What no code says (the text with comments and literals blanked out), and where it may all the same.
const BANNED: &[(&str, &[&str])] = &[
    ("todo!", &[]),
    ("unimplemented!", &[]),
    ("dbg!", &[]),
    // A lane never sleeps: it polls, or it blocks in `Park`. Tests wait for an event.
    ("thread::sleep", &["tests/", "bench/"]),
    // The protocol's time is handed in. Wall-clock time is for what people and engines read.
    ("SystemTime::now", &["src/bin/", "src/node/", "examples/", "tests/", "bench/"]),
    // Measured time comes from `io::Clock`.
    (
        "Instant::now",
        &[
            "src/admin/",
            "src/io/clock/",
            "src/io/disk/",
            "src/io/link/",
            "src/io/reactor/",
            "src/bin/",
            "src/node/",
            "src/client/",
            "src/local/",
            "examples/",
            "tests/",
            "bench/",
        ],
    ),
];

#[test]
fn dependencies_point_down_only() {
    let sources = Sources::read(&["src"], 15);
    let mut wrong = Report::default();
    for file in sources.product() {
        let module = file.module.join("::");
        let Some((row, allowed)) = row_of(&module) else {
            if !module.is_empty() {
                wrong.add(file, 1, &format!("module {module} has no row in ARROWS"));
            }
            continue;
        };
        for (path, line) in paths(file) {
            if !may_name(row, allowed, &path, &sources.tops) {
                wrong.add(file, line, &format!("{row} may not name {path}"));
            }
        }
    }
    wrong.assert_empty();
}

#[test]
fn files_and_functions_are_short() {
    let sources = Sources::read(&["src", "bench", "examples", "tests"], 18);
    let longer: BTreeMap<&str, usize> = LONGER.iter().copied().collect();
    let mut used = BTreeSet::new();
    let mut wrong = Report::default();
    let mut functions_seen = 0;
    for file in &sources.files {
        let functions = functions(file);
        functions_seen += functions.len();
        let whole = (file.path.clone(), 1, file.raw.lines().count(), FILE_LINES_MAX);
        let each = functions
            .into_iter()
            .map(|(name, line, lines)| (format!("{}::{name}", file.path), line, lines, FUNCTION_LINES_MAX));
        for (name, line, lines, bound) in std::iter::once(whole).chain(each) {
            if lines <= bound {
                continue;
            }
            let today = longer.get(name.as_str()).copied();
            used.extend(today.map(|_| name.clone()));
            if lines > today.unwrap_or(bound) {
                wrong.add(
                    file,
                    line,
                    &format!("{name} has {lines} lines, {} are allowed", today.unwrap_or(bound)),
                );
            }
        }
    }
    for (name, _) in LONGER {
        if !used.contains(*name) {
            let _ = writeln!(wrong.0, "LONGER lists {name}, which is short or gone: strike it out");
        }
    }
    wrong.assert_empty();
    assert!(functions_seen > 40, "only {functions_seen} functions were found: the parser is blind");
}

#[test]
fn unsafe_stands_where_it_is_listed_and_says_why() {
    let sources = Sources::read(&["src", "bench", "examples", "tests"], 18);
    let mut wrong = Report::default();
    for file in &sources.files {
        let listed = UNSAFE_FILES.contains(&file.path.as_str());
        let allows = file.code.contains("allow(unsafe_code");
        if allows != listed {
            wrong.add(file, 1, "allow(unsafe_code) and UNSAFE_FILES disagree about this file");
        }
        let tokens = tokens(&file.code);
        for pair in tokens.windows(2).filter(|pair| pair[0].text == "unsafe") {
            // `unsafe(...)` is the attribute's spelling, and a function type or declaration promises nothing.
            if !matches!(pair[1].text, "{" | "impl") {
                continue;
            }
            if !allows {
                wrong.add(file, pair[0].line, "unsafe outside the files that are listed");
            }
            if !says_why(file, pair[0].line) {
                wrong.add(file, pair[0].line, "unsafe without a SAFETY comment directly above");
            }
        }
    }
    for path in UNSAFE_FILES {
        if !sources.files.iter().any(|file| file.path == *path) {
            let _ = writeln!(wrong.0, "UNSAFE_FILES lists {path}, which is not there: strike it out");
        }
    }
    wrong.assert_empty();
}

/// Code is kept short by the formatter; comments are not.
#[test]
fn comments_fit_a_page() {
    let sources = Sources::read(&["src", "bench", "examples", "tests"], 18);
    let mut wrong = Report::default();
    for file in &sources.files {
        for (number, line) in file.raw.lines().enumerate() {
            let text = line.trim_start();
            // The row of a table cannot be broken.
            let is_row = ["//! |", "/// |"].iter().any(|row| text.starts_with(row));
            if text.starts_with("//") && !is_row && line.chars().count() > COMMENT_COLUMNS_MAX {
                wrong.add(file, number + 1, &format!("a comment of over {COMMENT_COLUMNS_MAX} columns"));
            }
        }
    }
    wrong.assert_empty();
}

#[test]
fn only_a_disk_or_a_peer_makes_a_promise() {
    let sources = Sources::read(&["src"], 15);
    let mut wrong = Report::default();
    let mut definitions = 0;
    for file in sources.product() {
        // Spaces would hide a call from a plain search.
        let lines = file.product_code.lines().map(|line| line.replace(' ', ""));
        for (number, line) in lines.enumerate() {
            for (call, allowed) in MINTS {
                let (owner, function) = call.split_once("::").unwrap_or((call, ""));
                if line.contains(&format!("fn{function}(")) {
                    definitions += 1;
                }
                let named = line.contains(call)
                    || (line.contains(&format!("Self::{function}("))
                        && file.code.contains(&format!("struct {owner}")));
                if named && !allowed.iter().any(|prefix| file.path.starts_with(prefix)) {
                    wrong.add(file, number + 1, &format!("{call} is for {} alone", allowed.join(", ")));
                }
            }
        }
    }
    wrong.assert_empty();
    assert!(definitions >= 2, "only {definitions} of the minting functions are defined: were they renamed?");
}

#[test]
fn banned_words_do_not_come_back() {
    let sources = Sources::read(&["src", "bench", "examples", "tests"], 18);
    let mut wrong = Report::default();
    for file in &sources.files {
        for (number, line) in file.product_code.lines().enumerate() {
            for (word, allowed) in BANNED {
                if line.contains(word) && !allowed.iter().any(|prefix| file.path.starts_with(prefix)) {
                    wrong.add(file, number + 1, &format!("{word} is banned here"));
                }
            }
        }
    }
    wrong.assert_empty();
}

#[test]
fn nothing_names_a_machine() {
    // In pieces, so that this file does not name one.
    let machine_paths = [["/ro", "ot/"].concat(), ["/ho", "me/"].concat(), ["/wo", "rk/"].concat()];
    let mut texts = Vec::new();
    for top in ["src", "bench", "tests", "deploy", "include", "examples", ".ci"] {
        collect(&root().join(top), &mut texts);
    }
    for page in ["README.md", "CHANGELOG.md", "tuning.md", "Cargo.toml"] {
        texts.push(root().join(page));
    }
    let mut wrong = String::new();
    for path in &texts {
        let Ok(text) = fs::read_to_string(path) else { continue };
        for (number, line) in text.lines().enumerate() {
            if machine_paths.iter().any(|machine| line.contains(machine)) {
                let _ = writeln!(wrong, "{}:{}: {}", path.display(), number + 1, line.trim());
            }
        }
    }
    assert!(wrong.is_empty(), "paths of one machine:\n{wrong}");
    assert!(texts.len() > 25, "only {} files were found", texts.len());
}

#[test]
fn the_protocol_knows_no_operating_system() {
    let sources = Sources::read(&["src"], 15);
    let mut wrong = Report::default();
    let mut looked_at = 0;
    for file in sources.product() {
        let module = file.module.join("::");
        let top = file.module.first().map_or("", String::as_str);
        let bound = NO_STD.contains(&module.as_str()) || (top != "io" && NO_STD.contains(&top));
        if !bound {
            continue;
        }
        looked_at += 1;
        for token in tokens(&file.product_code).iter().filter(|token| token.text == "std") {
            wrong.add(file, token.line, "std, where core and alloc must do");
        }
    }
    wrong.assert_empty();
    assert!(looked_at >= 12, "only {looked_at} files were looked at");
}

/// The rules are what the test of the arrows stands on: it is shown what it must refuse.
#[test]
fn an_arrow_that_points_up_is_seen() {
    let (row, allowed) = row_of("log::segment").unwrap();
    let tops = ["io", "log", "types", "raft", "node"].map(str::to_owned).into();
    for (path, may) in [
        ("io::Disk", true),
        ("io::pool::Slice", true),
        ("io::disk::Uring", false),
        ("raft::effects::Span", true),
        ("raft::Core", false),
        ("node::Node", false),
        ("log::record::Header", true),
        ("VERSION", true),
    ] {
        assert_eq!(may_name(row, allowed, path, &tops), may, "{path}");
    }
}

/// What went wrong, one line each.
#[derive(Default)]
struct Report(String);

impl Report {
    fn add(&mut self, file: &Source, line: usize, what: &str) {
        let _ = writeln!(self.0, "{}:{line}: {what}", file.path);
    }

    fn assert_empty(&self) {
        assert!(self.0.is_empty(), "{} violations:\n{}", self.0.lines().count(), self.0);
    }
}

fn row_of(module: &str) -> Option<(&'static str, &'static [&'static str])> {
    ARROWS.iter().filter(|(row, _)| under(module, row)).max_by_key(|(row, _)| row.len()).copied()
}

fn under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn may_name(row: &str, allowed: &[&str], path: &str, tops: &BTreeSet<String>) -> bool {
    let top = path.split("::").next().unwrap_or("");
    if !tops.contains(top) {
        return true; // a name at the crate's root that is no module
    }
    let own_top = row.split("::").next().unwrap_or("");
    if let Some(backend) = BACKENDS.iter().find(|backend| under(path, backend)) {
        return under(row, backend) || allowed.contains(backend);
    }
    top == own_top || allowed.iter().any(|prefix| under(path, prefix))
}
