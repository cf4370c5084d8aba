//! Mako's YAML: what it says of sites, processes and hosts, and the nodes that take the place of its replication.
//!
//! ```yaml
//! site:
//!   server:              # a line per partition; the column is the locale, 0 the preferred leader, a 4th a learner
//!     - ["s101:27001", "s201:27101", "s301:27201"]
//! process: {s101: localhost, s201: p1, s301: p2}     # site -> process
//! host: {localhost: 127.0.0.1, p1: 127.0.0.1, p2: 127.0.0.1}     # process -> address
//! ```
//! A locale becomes a node (locale 0 is node 1), a partition a shard, all of them one cluster. A node's peers reach it
//! where the locale's first partition listens, its clients at the control port of that: [`CONTROL_PORT_OFFSET`] above.
//! Several files add up, as the engine reads them: sites one after another, the rest key by key.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode as _, Mapping, Scalar, Yaml};

use super::{Config, ConfigError, Member, wrong};
use crate::types::NodeId;

/// A site's control port lies so far above its port.
pub const CONTROL_PORT_OFFSET: u16 = 10_000;

/// The locales that vote; one more is a learner.
const VOTERS: usize = 3;

/// What Mako's files say, taken together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mako {
    /// A line for each partition; the column is the locale.
    pub sites: Vec<Vec<Site>>,
    /// The process of each site.
    pub processes: BTreeMap<String, String>,
    /// The host of each process.
    pub hosts: BTreeMap<String, String>,
    /// The engine's modes.
    pub modes: BTreeMap<String, String>,
    /// What is no matter of replication and was passed over.
    pub passed_over: BTreeSet<String>,
}

/// One replica of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its name, of which there is one only.
    pub name: String,
    /// Where it listens, on its process's host.
    pub port: u16,
}

/// What the files do not say of the nodes that are made of them.
#[derive(Clone, Debug)]
pub struct Target {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's lanes.
    pub lanes: u16,
    /// Each node keeps its log in a directory below this, called as its process.
    pub data_dir: PathBuf,
}

/// The nodes, and what whoever starts them should know.
#[derive(Clone, Debug)]
pub struct Converted {
    /// Each locale's process and its configuration, in the order of the locales.
    pub nodes: Vec<(String, Config)>,
    /// What could not be taken over, one line each.
    pub warnings: Vec<String>,
}

/// The host of each process in one file: the engine's `getHosts`.
pub fn hosts(file: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    Ok(Mako::load(&[file])?.hosts)
}

impl Mako {
    /// Reads files, one after another.
    pub fn load(files: &[impl AsRef<Path>]) -> Result<Mako, ConfigError> {
        let mut mako = Mako::default();
        for file in files {
            let file = file.as_ref();
            let in_file = |error: ConfigError| ConfigError { file: Some(file.to_owned()), ..error };
            let text = std::fs::read_to_string(file).map_err(|error| {
                in_file(wrong("", format!("cannot be read: {error}; give an existing file")))
            })?;
            mako.add(&text).map_err(in_file)?;
        }
        Ok(mako)
    }

    /// Adds what one file says.
    pub fn add(&mut self, text: &str) -> Result<(), ConfigError> {
        let documents =
            Yaml::load_from_str(text).map_err(|error| wrong("", format!("is not YAML: {error}")))?;
        for document in &documents {
            for (section, value) in mapping("the file", document)? {
                match scalar("a section's name", section)?.as_str() {
                    "site" => self.add_sites(value)?,
                    "process" => add_to("process", &mut self.processes, value)?,
                    "host" => add_to("host", &mut self.hosts, value)?,
                    "mode" => add_to("mode", &mut self.modes, value)?,
                    other => {
                        self.passed_over.insert(other.to_owned());
                    }
                }
            }
        }
        Ok(())
    }

    fn add_sites(&mut self, value: &Yaml<'_>) -> Result<(), ConfigError> {
        for (kind, lines) in mapping("site", value)? {
            let kind = scalar("a key of site", kind)?;
            if kind != "server" {
                self.passed_over.insert(format!("site.{kind}"));
                continue;
            }
            for line in sequence("site.server", lines)? {
                let replicas = sequence("a line of site.server", line)?;
                self.sites.push(replicas.iter().map(site).collect::<Result<_, _>>()?);
            }
        }
        Ok(())
    }

    /// The nodes that replicate what these sites would.
    pub fn convert(&self, target: &Target) -> Result<Converted, ConfigError> {
        let locales = self.locales()?;
        let mut members = Vec::new();
        let mut processes: Vec<&str> = Vec::new();
        for locale in 0..locales.min(VOTERS) {
            let process = self.process_of(locale)?;
            if let Some(other) = processes.iter().position(|other| *other == process) {
                let what = format!(
                    "{process} has the sites of locale {other} and of locale {locale}: a node holds one replica; give each \
                     locale a process"
                );
                return Err(wrong("process", what));
            }
            processes.push(process);
            members.push(self.member(locale, process)?);
        }
        let several_on_a_host =
            members.iter().map(|member| member.peer.ip()).collect::<BTreeSet<_>>().len() < members.len();
        let mut nodes = Vec::new();
        for (member, process) in members.iter().zip(processes) {
            let data_dir = target.data_dir.join(process);
            let mut config = Config::new(&target.cluster, member.node_id(), data_dir, members.clone());
            config.lanes = target.lanes;
            config.shards = self.sites.len() as u32;
            config.cpu.shared = several_on_a_host;
            config.check_shape()?;
            nodes.push((process.to_owned(), config));
        }
        let warnings = self.warnings(locales, &nodes[0].0, several_on_a_host);
        Ok(Converted { nodes, warnings })
    }

    /// How many replicas every partition has.
    fn locales(&self) -> Result<usize, ConfigError> {
        let Some(first) = self.sites.first() else {
            let what = "is not there or has no line: give one for each partition, as in [\"s101:27001\", \"s201:27101\"]";
            return Err(wrong("site.server", what.to_owned()));
        };
        if first.is_empty() || first.len() > VOTERS + 1 {
            let what = format!(
                "has {} columns; allowed is 1 to {VOTERS}, and a learner in the one after that",
                first.len()
            );
            return Err(wrong("site.server", what));
        }
        if let Some((partition, line)) =
            self.sites.iter().enumerate().find(|(_, line)| line.len() != first.len())
        {
            let what = format!(
                "has {} columns for partition {partition} and {} for partition 0: every partition lives on the same nodes; \
                 give each line the same number",
                line.len(),
                first.len()
            );
            return Err(wrong("site.server", what));
        }
        let mut names = BTreeSet::new();
        match self.sites.iter().flatten().find(|site| !names.insert(&site.name)) {
            Some(Site { name, .. }) => {
                Err(wrong("site.server", format!("names {name} twice; each site has a name of its own")))
            }
            None => Ok(first.len()),
        }
    }

    /// The one process that has all sites of a locale.
    fn process_of(&self, locale: usize) -> Result<&str, ConfigError> {
        let mut found: Option<(&str, &str)> = None;
        for Site { name, .. } in self.sites.iter().map(|line| &line[locale]) {
            let Some(process) = self.processes.get(name) else {
                let what =
                    format!("does not name {name}, a site of locale {locale}; say in which process it is");
                return Err(wrong("process", what));
            };
            match found {
                Some((other, elsewhere)) if elsewhere != process => {
                    let what = format!(
                        "puts {other} in {elsewhere} and {name} in {process}: the sites of a locale are one node here; \
                         put them in one process, or make a cluster of each"
                    );
                    return Err(wrong("process", what));
                }
                _ => found = Some((name, process)),
            }
        }
        let process = found.map_or("", |(_, process)| process);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if process.is_empty() || process.starts_with('.') || !process.bytes().all(is_plain) {
            let what = format!(
                "has {process:?}, which is to name a file and a directory: take letters, digits, - _ ."
            );
            return Err(wrong("process", what));
        }
        Ok(process)
    }

    fn member(&self, locale: usize, process: &str) -> Result<Member, ConfigError> {
        let Some(host) = self.hosts.get(process) else {
            return Err(wrong("host", format!("does not name {process}; say at which address it is")));
        };
        let ip = match host.as_str() {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            // A name may mean another machine tomorrow, and elsewhere.
            host => host.parse().map_err(|_| {
                wrong("host", format!("has {host} for {process}, which is no IP address; give its address"))
            })?,
        };
        let Site { name, port } = &self.sites[0][locale];
        let client = port.checked_add(CONTROL_PORT_OFFSET).ok_or_else(|| {
            let what = format!(
                "has {name}:{port}, whose control port would be {}; choose a port up to {}",
                u32::from(*port) + u32::from(CONTROL_PORT_OFFSET),
                u16::MAX - CONTROL_PORT_OFFSET
            );
            wrong("site.server", what)
        })?;
        let id = NodeId(locale as u32 + 1).0;
        Ok(Member { id, peer: SocketAddr::new(ip, *port), client: SocketAddr::new(ip, client) })
    }

    fn warnings(&self, locales: usize, preferred: &str, several_on_a_host: bool) -> Vec<String> {
        let mut warnings = Vec::new();
        if locales > VOTERS {
            let names: Vec<&str> = self.sites.iter().map(|line| line[VOTERS].name.as_str()).collect();
            warnings.push(format!("learners are not supported yet and are left out: {}", names.join(", ")));
        }
        if locales < VOTERS {
            warnings.push(format!("with {locales} replicas, none may fail; take {VOTERS}"));
        }
        if let Some(mode) = self.modes.get("ab").filter(|mode| *mode != "raft") {
            warnings.push(format!("mode.ab is {mode}: Plimsoll replicates by Raft, whatever it says"));
        }
        for what in &self.passed_over {
            warnings.push(format!("{what} is no matter of replication and is left out"));
        }
        if several_on_a_host {
            warnings.push("several nodes share a host: cpu.shared is set".to_owned());
        }
        warnings.push(format!(
            "the preferred leader is not in a configuration: `plimsoll transfer --shard N --to 1` brings a shard to {preferred}"
        ));
        warnings
    }
}

/// `name:port`
fn site(value: &Yaml<'_>) -> Result<Site, ConfigError> {
    let text = scalar("a site", value)?;
    let parsed = text.rsplit_once(':').and_then(|(name, port)| {
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!name.is_empty()).then(|| Site { name: name.to_owned(), port })
    });
    parsed.ok_or_else(|| {
        wrong("site.server", format!("has {text:?}; give each as NAME:PORT, the port 1 to {}", u16::MAX))
    })
}

/// Takes a section in. What an earlier file said otherwise is not overruled but refused.
fn add_to(section: &str, to: &mut BTreeMap<String, String>, value: &Yaml<'_>) -> Result<(), ConfigError> {
    for (key, value) in mapping(section, value)? {
        let key = scalar(section, key)?;
        let value = scalar(&format!("{section}.{key}"), value)?;
        match to.entry(key) {
            Entry::Vacant(free) => {
                free.insert(value);
            }
            Entry::Occupied(taken) if *taken.get() != value => {
                let what = format!("is {value}, and was {} before; say it once", taken.get());
                return Err(wrong(&format!("{section}.{}", taken.key()), what));
            }
            Entry::Occupied(_) => {}
        }
    }
    Ok(())
}

fn mapping<'a, 'b>(what: &str, value: &'a Yaml<'b>) -> Result<&'a Mapping<'b>, ConfigError> {
    value.as_mapping().ok_or_else(|| wrong(what, "is no mapping; give `key: value`".to_owned()))
}

fn sequence<'a, 'b>(what: &str, value: &'a Yaml<'b>) -> Result<&'a Vec<Yaml<'b>>, ConfigError> {
    value.as_sequence().ok_or_else(|| wrong(what, "is no list; give `[one, another]`".to_owned()))
}

/// A scalar's text. Only numbers may be written in more than one way, and nobody calls a process 0x10.
fn scalar(what: &str, value: &Yaml<'_>) -> Result<String, ConfigError> {
    match value {
        Yaml::Value(Scalar::String(text)) => Ok(text.clone().into_owned()),
        Yaml::Value(Scalar::Integer(number)) => Ok(number.to_string()),
        Yaml::Value(Scalar::Boolean(truth)) => Ok(truth.to_string()),
        _ => Err(wrong(what, "is no text; put it in quotes".to_owned())),
    }
}
