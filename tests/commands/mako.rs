//! `config import-mako`: from Mako's files to configurations that a node takes.

use std::fs;
use std::path::Path;

use plimsoll::local::Cluster;
use plimsoll::node::config::Config;

use crate::{refused, run, texts};

fn example(name: &str) -> String {
    format!("{}/tests/mako/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn makos_files_become_nodes_configurations_and_nothing_is_overwritten() {
    let directory = Cluster::fresh_directory(&std::env::temp_dir(), "import").unwrap();
    let output = directory.join("made");
    let files = ["six-partitions.yml", "processes.yml", "mode.yml"].map(example);
    let mut arguments = vec!["config", "import-mako", "--lanes", "3", "--cluster", "books", "-o"];
    let output_text = output.display().to_string();
    arguments.push(&output_text);
    arguments.extend(files.iter().map(String::as_str));

    let (said, complained) = texts(&run(&arguments));
    assert_eq!(said.lines().count(), 3, "{said}{complained}");
    assert!(complained.contains("learners are not supported yet"), "{complained}");
    for (process, node) in [("localhost", 1), ("p1", 2), ("p2", 3)] {
        let config = Config::load(&output.join(format!("{process}.toml"))).unwrap();
        assert_eq!((config.node, config.shards, config.lanes, &*config.cluster), (node, 6, 3, "books"));
        assert_eq!(config.data_dir, Path::new("/var/lib/plimsoll").join(process));
    }
    assert!(refused(&arguments).contains("localhost.toml is there already"));
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn what_cannot_be_converted_is_named_in_one_line() {
    let said = refused(&["config", "import-mako", &example("mode.yml"), "/nowhere/at-all.yml"]);
    assert!(said.contains("/nowhere/at-all.yml"), "{said}");
    let said = refused(&["config", "import-mako", &example("six-partitions.yml")]);
    assert!(said.contains("process does not name s101"), "{said}");
    let said = refused(&["config", "import-mako", &example("mode.yml"), "-o", "/nowhere"]);
    assert!(said.contains("site.server is not there"), "{said}");
}
