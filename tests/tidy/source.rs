//! Rust sources as text: what is code and what is not, what is product and what is test, which paths are named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// One Rust file.
pub(crate) struct Source {
    /// From the repository's root.
    pub(crate) path: String,
    /// Where it stands in the crate: `src/io/disk/uring.rs` is io, disk, uring; `src/lib.rs` is nothing.
    pub(crate) module: Vec<String>,
    pub(crate) raw: String,
    /// `raw` with comments and literals blanked out: same lines, same columns.
    pub(crate) code: String,
    /// `code` with the items under `#[cfg(test)]` blanked out too.
    pub(crate) product_code: String,
}

pub(crate) struct Sources {
    pub(crate) files: Vec<Source>,
    /// The modules at the top of the crate.
    pub(crate) tops: BTreeSet<String>,
    /// The modules that are compiled for tests alone.
    test_modules: Vec<Vec<String>>,
}

impl Sources {
    /// All Rust files under these directories; fewer than `count_min` means that the test would see nothing.
    pub(crate) fn read(directories: &[&str], count_min: usize) -> Sources {
        let mut paths = Vec::new();
        for directory in directories {
            collect(&root().join(directory), &mut paths);
        }
        let mut files = Vec::new();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
            let raw = fs::read_to_string(path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            let code = blank(&raw);
            let product_code = without_tests(&code);
            files.push(Source { module: module_of(&path), path, raw, code, product_code });
        }
        assert!(files.len() >= count_min, "only {} files were found under {directories:?}", files.len());
        let tops = files.iter().filter_map(|file| file.module.first().cloned()).collect();
        let test_modules = files.iter().flat_map(test_modules_of).collect();
        Sources { files, tops, test_modules }
    }

    /// The files that are in the product, and not for tests alone.
    pub(crate) fn product(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().filter(|file| !self.test_modules.iter().any(|test| file.module.starts_with(test)))
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn collect(directory: &Path, into: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, into);
        } else {
            into.push(path);
        }
    }
}

fn module_of(path: &str) -> Vec<String> {
    let inside = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    let mut module: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

/// The modules that `file` declares as `#[cfg(test)] mod name;`.
fn test_modules_of(file: &Source) -> Vec<Vec<String>> {
    let all = tokens(&file.code);
    let names = all.windows(3).filter(|three| three[0].text == "mod" && three[2].text == ";");
    let kept = tokens(&file.product_code);
    let is_kept = |line: usize| kept.iter().any(|token| token.text == "mod" && token.line == line);
    names
        .filter(|three| !is_kept(three[0].line))
        .map(|three| file.module.iter().cloned().chain([three[1].text.to_owned()]).collect())
        .collect()
}

/// Every path of this crate that the product's part of `file` names, from the crate's root, with its line.
pub(crate) fn paths(file: &Source) -> Vec<(String, usize)> {
    let tokens = tokens(&file.product_code);
    let in_bin = file.path.starts_with("src/bin/");
    let mut found = Vec::new();
    let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // Imports first: what they bring in is then followed where it is used (`use crate::io;` and `io::disk::…`).
    for is_import in [true, false] {
        let mut at = 0;
        while at + 1 < tokens.len() {
            let begins = tokens[at + 1].text == "::" && (at == 0 || tokens[at - 1].text != "::");
            let imports = at > 0 && tokens[at - 1].text == "use";
            let start = match tokens[at].text {
                "crate" => Some(file.module[..usize::from(in_bin)].to_vec()),
                "plimsoll" if in_bin => Some(Vec::new()),
                "self" => Some(file.module.clone()),
                "super" => Some(file.module[..file.module.len().saturating_sub(1)].to_vec()),
                other if !imports => aliases.get(other).cloned(),
                _ => None,
            };
            if let (true, true, Some(start)) = (begins, imports == is_import, start) {
                let line = tokens[at].line;
                let mut leaves = Vec::new();
                at = tree(&tokens, at + 2, start, &mut leaves);
                for (path, alias) in leaves {
                    found.push((path.join("::"), line));
                    if imports {
                        aliases.insert(alias, path);
                    }
                }
            } else {
                at += 1;
            }
        }
    }
    found
}

/// Reads the rest of a path or of a nested import at `at`; gives each leaf with the name that it goes by, and where
/// the path ends.
fn tree(
    tokens: &[Token<'_>],
    mut at: usize,
    mut path: Vec<String>,
    leaves: &mut Vec<(Vec<String>, String)>,
) -> usize {
    loop {
        match tokens.get(at).map_or("", |token| token.text) {
            "super" => drop(path.pop()),
            "self" => {}
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    let next = tree(tokens, at, path.clone(), leaves);
                    // What is no import would stop here: a sign is stepped over, so that every loop ends.
                    at = if next == at { at + 1 } else { next };
                    at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                }
                return at + 1;
            }
            word if is_word(word) => path.push(word.to_owned()),
            "*" => {
                leaves.push((path, "*".to_owned()));
                return at + 1;
            }
            _ => {
                leaves.push((path.clone(), path.last().cloned().unwrap_or_default()));
                return at;
            }
        }
        match tokens.get(at + 1).map_or("", |token| token.text) {
            "::" => at += 2,
            "as" => {
                let alias = tokens.get(at + 2).map_or("", |token| token.text);
                leaves.push((path, alias.to_owned()));
                return at + 3;
            }
            _ => {
                leaves.push((path.clone(), path.last().cloned().unwrap_or_default()));
                return at + 1;
            }
        }
    }
}

/// Name, first line and count of lines of every function with a body.
pub(crate) fn functions(file: &Source) -> Vec<(String, usize, usize)> {
    let tokens = tokens(&file.code);
    let mut found = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        if pair[0].text != "fn" || !is_word(pair[1].text) {
            continue;
        }
        if let Some((open, close)) = body(&tokens, at) {
            let _ = open;
            found.push((pair[1].text.to_owned(), pair[0].line, tokens[close].line - pair[0].line + 1));
        }
    }
    found
}

/// The braces of the item that begins at `at`; `None` if a semicolon ends it first.
fn body(tokens: &[Token<'_>], at: usize) -> Option<(usize, usize)> {
    let mut nested = 0_i32;
    let mut open = None;
    for (here, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "(" | "[" => nested += 1,
            ")" | "]" => nested -= 1,
            ";" if nested == 0 => return None,
            "{" => {
                open = open.or((nested == 0).then_some(here));
                nested += 1;
            }
            "}" => {
                nested -= 1;
                if let (0, Some(open)) = (nested, open) {
                    return Some((open, here));
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether the comment above `line` (or above the statement that it goes on with) says SAFETY.
pub(crate) fn says_why(file: &Source, line: usize) -> bool {
    let raw: Vec<&str> = file.raw.lines().collect();
    let code: Vec<&str> = file.code.lines().collect();
    for above in (0..line - 1).rev() {
        let (text, words) = (raw[above].trim(), code[above].trim());
        if text.starts_with("//") {
            if text.contains("SAFETY") {
                return true;
            }
        } else if text.is_empty() || words.ends_with([';', '{', '}', ',']) {
            return false;
        }
    }
    false
}

#[derive(Clone, Copy)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    /// From 1.
    pub(crate) line: usize,
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_') && text != "as"
}

/// Words, `::`, and every other sign alone.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let len = if word > 0 {
                word
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            found.push(Token { text: &rest[..len], line: number + 1 });
            rest = rest[len..].trim_start();
        }
    }
    found
}

/// Blanks out the items under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut kept = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(start) = ["#[cfg(test)]", "#[cfg(all(test,"]
        .iter()
        .filter_map(|attribute| code[from..].find(attribute).map(|found| from + found))
        .min()
    {
        let (mut depth, mut end) = (0_i32, code.len());
        for (at, sign) in code[start..].char_indices() {
            match sign {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' => depth -= 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth <= 0 && matches!(sign, ';' | '}') {
                end = start + at + 1;
                break;
            }
        }
        kept[start..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        from = end;
    }
    String::from_utf8(kept).unwrap()
}

/// Blanks out comments and the insides of literals, byte for byte.
fn blank(raw: &str) -> String {
    let bytes = raw.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + literal_or_comment(&bytes[at..], at > 0 && is_word_byte(bytes[at - 1]));
        for byte in out[at..end].iter_mut().filter(|byte| **byte != b'\n') {
            *byte = b' ';
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).unwrap()
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The length of the comment or literal with which `rest` begins; 0 if with neither.
fn literal_or_comment(rest: &[u8], inside_word: bool) -> usize {
    let find = |needle: &[u8], from: usize| {
        let found = rest[from..].windows(needle.len()).position(|window| window == needle);
        found.map_or(rest.len(), |found| from + found + needle.len())
    };
    if rest.starts_with(b"//") {
        return find(b"\n", 0);
    }
    if rest.starts_with(b"/*") {
        return find(b"*/", 2);
    }
    if rest[0] == b'"' {
        return quoted(rest, b'"');
    }
    if rest[0] == b'\'' {
        // 'a', '\n', '€' are characters; 'a alone is a lifetime.
        let escaped = rest.get(1) == Some(&b'\\');
        let width = rest.get(1).map_or(1, |first| (first.leading_ones() as usize).max(1));
        return if escaped || rest.get(1 + width) == Some(&b'\'') { quoted(rest, b'\'') } else { 0 };
    }
    let prefix = rest.iter().take_while(|byte| matches!(byte, b'b' | b'c' | b'r')).count();
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    if !inside_word
        && (1..=2).contains(&prefix)
        && rest[prefix - 1] == b'r'
        && rest.get(prefix + hashes) == Some(&b'"')
    {
        let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
        return find(&close, prefix + hashes + 1);
    }
    0
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// The parser is what the tests above stand on: it is shown what it must see.
#[test]
fn the_parser_sees_through_disguises() {
    let raw = "use crate::io::{self, disk::{Uring as Ring, blocking::*}, Disk};\n\
               fn f<'a>(x: &'a str) { let _ = (\"crate::node\", '\"', r#\"crate::ffi \" \"#); /* crate::sim */ }\n\
               fn g() { io::link::open(); let _: crate::types::Index = super::raft::zero(); } // crate::bin\n\
               #[cfg(test)]\nmod tests { use crate::client; }\n#[cfg(test)]\nmod more;\n";
    let code = blank(raw);
    let module = vec!["log".to_owned(), "segment".to_owned()];
    let product_code = without_tests(&code);
    let file =
        Source { path: "src/log/segment.rs".to_owned(), module, raw: raw.to_owned(), code, product_code };
    let seen: BTreeSet<String> = paths(&file).into_iter().map(|(path, _)| path).collect();
    let expected = [
        "io",
        "io::disk::Uring",
        "io::disk::blocking",
        "io::Disk",
        "io::link::open",
        "types::Index",
        "log::raft::zero",
    ];
    assert_eq!(seen, expected.iter().map(|path| (*path).to_owned()).collect());
    assert_eq!(test_modules_of(&file), [["log", "segment", "more"].map(str::to_owned).to_vec()]);
    let names: Vec<String> = functions(&file).into_iter().map(|(name, _, _)| name).collect();
    assert_eq!(names, ["f", "g"]);

    let above = |text: &str, line| {
        let file = Source {
            path: String::new(),
            module: vec![],
            raw: text.into(),
            code: blank(text),
            product_code: String::new(),
        };
        says_why(&file, line)
    };
    assert!(above("// SAFETY: because\nlet x =\n    unsafe { y() };", 3));
    assert!(!above("// SAFETY: because\nlet a = 1;\nlet x = unsafe { y() };", 3));
    assert!(!above("let a = \"SAFETY\";\nlet x = unsafe { y() };", 2));
}
