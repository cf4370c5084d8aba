//! Finds libdpdk by pkg-config, compiles the shim against it and links both. Does nothing without the feature `link`.

fn main() {
    println!("cargo::rerun-if-changed=shim.c");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    #[cfg(feature = "link")]
    if let Err(why) = link::build() {
        println!("cargo::error={why}");
        println!(
            "cargo::error=the feature `dpdk` needs libdpdk with its headers, and pkg-config: on Debian `apt-get install \
             libdpdk-dev pkg-config`; without them build without that feature, and use another link"
        );
    }
}

#[cfg(feature = "link")]
mod link {
    use std::process::Command;

    /// What the shim calls; the drivers are plugins that libdpdk loads when it starts.
    const LIBRARIES: [&str; 6] = ["rte_ethdev", "rte_net", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal"];

    pub(super) fn build() -> Result<(), String> {
        let version = pkg_config("--modversion")?;
        let year = version.trim().split('.').next().and_then(|year| year.parse::<u32>().ok());
        if year.is_none_or(|year| year < 21) {
            return Err(format!("libdpdk {} is too old: 21.11 or later is needed", version.trim()));
        }
        let mut shim = cc::Build::new();
        shim.file("shim.c").flag("-std=gnu11").flag("-Wall").flag("-Wextra");
        // The headers are not ours to warn about.
        let flags = pkg_config("--cflags")?;
        let mut flags = flags.split_whitespace();
        while let Some(flag) = flags.next() {
            if let Some(folder) = flag.strip_prefix("-I") {
                shim.flag("-isystem").flag(folder);
            } else if flag == "-include" {
                shim.flag(flag).flag(flags.next().unwrap_or_default());
            } else {
                shim.flag(flag);
            }
        }
        shim.try_compile("plimsoll_dpdk_shim")
            .map_err(|error| format!("shim.c does not compile: {error}"))?;
        let libraries = pkg_config("--libs")?;
        for folder in libraries.split_whitespace().filter_map(|flag| flag.strip_prefix("-L")) {
            println!("cargo::rustc-link-search=native={folder}");
        }
        for library in LIBRARIES {
            println!("cargo::rustc-link-lib={library}");
        }
        Ok(())
    }

    fn pkg_config(question: &str) -> Result<String, String> {
        let program = std::env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
        let answer = Command::new(&program)
            .args([question, "libdpdk"])
            .output()
            .map_err(|error| format!("{program} cannot be run: {error}"))?;
        if !answer.status.success() {
            let why = String::from_utf8_lossy(&answer.stderr).replace('\n', " ");
            return Err(format!("{program} does not find libdpdk: {}", why.trim()));
        }
        String::from_utf8(answer.stdout).map_err(|_| format!("{program} answered in no known text"))
    }
}
