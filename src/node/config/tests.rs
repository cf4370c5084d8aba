#![allow(clippy::unwrap_used)]
use super::*;

fn three() -> Config {
    let member = |id: u32| Member {
        id,
        peer: format!("127.0.0.1:{}", 7100 + 10 * id).parse().unwrap(),
        client: format!("127.0.0.1:{}", 7200 + 10 * id).parse().unwrap(),
    };
    Config::new("books", NodeId(2), "/data", vec![member(1), member(2), member(3)])
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Config), key: &str, part: &str) {
    let mut config = three();
    change(&mut config);
    let error = config.check().unwrap_err();
    assert_eq!(error.key, key, "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn what_is_written_is_read_back() {
    let mut config = three();
    assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config);
    config.cluster = "a \"quoted\" \\ name\n\u{e9}".to_owned();
    config.data_dir = "/tmp/with space".into();
    config.shards = 8;
    config.lanes = 2;
    config.cpu = Cpu { cores: vec![0, 1], shared: true, spin_us: Spin::Micros(50), busy_poll: false };
    config.raft = Raft { election_timeout_ms: 900, heartbeat_ms: 300 };
    config.log = Log {
        device: Devices::default(),
        segment_mib: 8,
        capacity_mib: Some(64),
        segments_ahead: 2,
        io_poll: false,
    };
    config.memory = Memory { chunks: 32 };
    config.links = vec![LinkKind::Rdma, LinkKind::Udp, LinkKind::Tcp];
    config.udp = Udp { mtu_bytes: 9000 };
    config.rdma =
        Rdma { device: Some("mlx5_0".to_owned()), port: 2, gid_index: Some(3), slots: 256, slot_bytes: 8192 };
    assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config);
    config.log.device = Devices(vec!["/dev/a \"b\"".into(), "/dev/c".into()]);
    (config.log.capacity_mib, config.log.io_poll) = (None, true);
    assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config);
}

#[test]
fn what_is_written_of_an_engine_is_read_back() {
    let mut config = three();
    config.engine =
        Engine { streams: true, epoch_grace_ms: 7, socket: Some("/run/plimsoll/a \"b\"/1".into()) };
    let text = config.to_toml();
    let set: Vec<_> = text.lines().skip_while(|line| *line != "[engine]").skip(1).take(3).collect();
    assert_eq!(
        set,
        ["streams = true", "epoch_grace_ms = 7", "socket = \"/run/plimsoll/a \\\"b\\\"/1\""],
        "{text}"
    );
    let back = Config::from_toml(&text).unwrap();
    assert_eq!(back, config);
    assert_eq!(back.engine.epoch_grace(), Duration::from_millis(7));
    back.check().unwrap();
    let short = text.replace("streams = true\nepoch_grace_ms = 7\n", "");
    let Engine { streams, epoch_grace_ms, socket } = Config::from_toml(&short).unwrap().engine;
    assert_eq!((streams, epoch_grace_ms, socket), (false, 100, config.engine.socket));
    refused(|config| config.engine.epoch_grace_ms = 60_001, "engine.epoch_grace_ms", "0 to 60000");
    refused(|config| config.engine.socket = Some("run/1".into()), "engine.socket", "an absolute path");
    refused(
        |config| config.engine.socket = Some(format!("/{:0107}", 1).into()),
        "engine.socket",
        "107 bytes",
    );
}

#[test]
fn an_operators_port_is_one_that_can_be_listened_on_and_is_nobody_elses() {
    let mut config = three();
    assert!(!config.to_toml().contains("[admin]"), "nothing is listened on without being asked for");
    config.admin.listen = Some("[::1]:9464".parse().unwrap());
    assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config);
    // A peer's ports are on another machine.
    config.admin.listen = Some("127.0.0.1:7110".parse().unwrap());
    config.check().unwrap();
    for (listen, part) in [
        ("127.0.0.1:0", "cannot be listened on"),
        ("224.0.0.1:9464", "cannot be listened on"),
        ("127.0.0.1:7120", "the ports 7120 to 7120 (one per lane) of this node's peer"),
        ("0.0.0.0:7220", "this node's client"),
    ] {
        refused(|config| config.admin.listen = Some(listen.parse().unwrap()), "admin.listen", part);
    }
    let on_three_lanes = |config: &mut Config| {
        (config.lanes, config.shards) = (3, 3);
        config.admin.listen = Some("127.0.0.1:7122".parse().unwrap());
    };
    refused(on_three_lanes, "admin.listen", "7120 to 7122");
}

#[test]
fn a_short_file_has_defaults() {
    let text = "cluster = \"books\"\nnode = 1\ndata_dir = \"d\"\n[[member]]\nid = 1\n\
                peer = \"127.0.0.1:7100\"\nclient = \"127.0.0.1:7200\"\n";
    let config = Config::from_toml(text).unwrap();
    config.check().unwrap();
    assert_eq!((config.lanes, config.shards), (1, 1));
    assert_eq!(config.log.segments_max(), Some(64));
    assert_eq!(config.log.segment_bytes(), 64 << 20);
    assert_eq!(config.raft.heartbeat(), Duration::from_millis(30));
    assert_eq!(config.memory.bytes(), 64 << 20);
    assert_eq!(config.cpu.spin_us, Spin::Auto);
    assert_eq!((config.links, config.udp.mtu_bytes), (vec![LinkKind::Tcp], 1500));
}

#[test]
fn links_are_named_once_each_and_known() {
    refused(|config| config.links.clear(), "link", "name at least one of rdma, dpdk, udp, tcp");
    refused(|config| config.links = vec![LinkKind::Udp, LinkKind::Tcp, LinkKind::Udp], "link", "udp twice");
    refused(|config| config.rdma.device = Some(String::new()), "rdma.device", "is empty");
    refused(|config| config.rdma.port = 0, "rdma.port", "1 to 255");
    refused(|config| config.rdma.slots = 63, "rdma.slots", "64 to 16384");
    refused(|config| config.rdma.slots = 100, "rdma.slots", "multiple of 64");
    refused(|config| config.rdma.slot_bytes = 2 << 20, "rdma.slot_bytes", "4096 to 1048576");
    refused(|config| config.rdma.slot_bytes = 5000, "rdma.slot_bytes", "power of two");
    refused(|config| config.udp.mtu_bytes = 1279, "udp.mtu_bytes", "1280 to 65535");
    refused(|config| config.udp.mtu_bytes = 65_536, "udp.mtu_bytes", "1280 to 65535");
    let text = three().to_toml().replace("link = [\"tcp\"]", "link = [\"udp\", \"token-ring\"]");
    let error = Config::from_toml(&text).unwrap_err().to_string();
    assert!(error.contains("token-ring") && error.contains("line 6"), "{error}");
}

#[test]
fn unknown_and_ill_typed_keys_are_named_with_their_line() {
    let good = three().to_toml();
    for (from, to, line_of, part) in [
        ("heartbeat_ms", "hartbeat_ms", "hartbeat_ms", "unknown field `hartbeat_ms`"),
        ("shards = 1", "shards = -1", "shards = -1", "u32"),
        ("\"auto\"", "\"some\"", "spin_us", "\"auto\" or a number"),
        ("\"auto\"", "-5", "spin_us", "\"auto\" or a number"),
        ("127.0.0.1:7110", "localhost", "localhost", "socket address"),
        ("\n[log]", "\n[logs]", "[logs]", "unknown field `logs`"),
    ] {
        let text = good.replacen(from, to, 1);
        let error = Config::from_toml(&text).unwrap_err().to_string();
        let line = 1 + text.lines().position(|line| line.contains(line_of)).unwrap();
        assert!(error.contains(part), "{error}");
        assert!(error.contains(&format!("line {line}:")), "{error} is not in line {line}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nowhere/plimsoll.toml")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/plimsoll.toml") && error.contains("cannot be read"), "{error}");
}

#[test]
fn identity_and_members_are_checked() {
    refused(|config| config.cluster.clear(), "cluster", "empty");
    refused(|config| config.node = 9, "node", "[1, 2, 3]");
    refused(|config| config.node = 0, "node", "is 0");
    refused(|config| config.members[0].id = 0, "member.id", "1 to");
    refused(|config| config.members[0].id = 3, "member.id", "3 is given twice");
    refused(|config| config.members.clear(), "member (their number)", "1 to 15");
    refused(|config| config.data_dir = PathBuf::new(), "data_dir", "is empty");
    refused(|config| config.lanes = 0, "lanes", "1 to 256");
    refused(|config| config.shards = 65_537, "shards", "1 to 65536");
    refused(|config| config.lanes = 2, "lanes", "more than the 1 shards");
}

#[test]
fn ports_of_all_lanes_must_not_overlap() {
    let wide = |config: &mut Config| (config.lanes, config.shards) = (11, 11);
    refused(wide, "member 2 peer", "7120 to 7130 (one per lane) overlap 7110 to 7120 of member 1 peer");
    let fits = |config: &mut Config| (config.lanes, config.shards) = (10, 10);
    let mut config = three();
    fits(&mut config);
    config.check().unwrap();
    assert_eq!(config.members[0].peer_of(LaneId(9)).port(), 7119);
    refused(
        |config| config.members[2].client = config.members[0].peer,
        "member 3 client",
        "of member 1 peer",
    );
    refused(|config| config.members[0].peer.set_port(0), "member 1 peer", "cannot be connected to");
    let any = "0.0.0.0:7000".parse().unwrap();
    refused(|config| config.members[0].peer = any, "member 1 peer", "cannot be connected to");
    refused(
        |config| {
            fits(config);
            config.members[1].client.set_port(65_530);
        },
        "member 2 client",
        "port 65539",
    );
    let mut config = three();
    config.members[1].peer = "127.0.0.2:7110".parse().unwrap();
    config.check().unwrap();
}

#[test]
fn times_and_sizes_are_checked() {
    refused(
        |config| config.raft.heartbeat_ms = 51,
        "raft.heartbeat_ms",
        "a third of raft.election_timeout_ms (150)",
    );
    refused(|config| config.raft.heartbeat_ms = 0, "raft.heartbeat_ms", "1 to 50");
    refused(|config| config.raft.election_timeout_ms = 9, "raft.election_timeout_ms", "10 to 60000");
    refused(|config| config.log.segment_mib = 7, "log.segment_mib", "8 to 1024");
    refused(|config| config.log.capacity_mib = Some(64), "log.capacity_mib", "128 to");
    refused(|config| config.log.capacity_mib = Some(200), "log.capacity_mib", "multiple");
    refused(|config| config.log.segments_ahead = 0, "log.segments_ahead", "1 to 65535");
    refused(|config| config.memory.chunks = 3, "memory.chunks", "4 to");
}

#[test]
fn cores_exist_and_are_shared_only_when_told() {
    refused(|config| config.cpu.cores = vec![99_999], "cpu.cores", "core 99999");
    refused(|config| config.cpu.cores = vec![0, 1], "cpu.cores", "2 cores for 1 lanes");
    let two = |config: &mut Config| (config.lanes, config.shards) = (2, 2);
    refused(|config| (two(config), config.cpu.cores = vec![0]).1, "cpu.cores", "cpu.shared = true");
    refused(|config| (two(config), config.cpu.cores = vec![0, 0]).1, "cpu.cores", "cpu.shared = true");
    refused(|config| (config.cpu.shared, config.cpu.busy_poll) = (true, true), "cpu.busy_poll", "starves");
    refused(|config| config.cpu.spin_us = Spin::Micros(1_000_001), "cpu.spin_us", "0 to 1000000");
    let core = core_affinity::get_core_ids().unwrap()[0].id;
    let mut config = three();
    two(&mut config);
    config.cpu = Cpu { cores: vec![core], shared: true, ..Cpu::default() };
    config.check().unwrap();
    assert_eq!(config.core_of(LaneId(1)), Some(core));
    assert_eq!(config.shards_of(LaneId(1)).collect::<Vec<_>>(), [ShardId(1)]);
}

#[test]
fn cluster_ids() {
    assert_eq!(cluster_id("00000000000000ff"), ClusterId(255));
    // The published FNV-1a 64 test vectors.
    assert_eq!(cluster_id("a"), ClusterId(0xaf63_dc4c_8601_ec8c));
    assert_eq!(cluster_id("foobar"), ClusterId(0x8594_4171_f739_67e8));
}

/// 16 384 chunks are within the bounds and more than most machines have: the system killed the node while it reserved
/// them.
#[test]
fn memory_that_the_machine_does_not_have_is_refused() {
    let mut config = three();
    (config.lanes, config.shards, config.memory.chunks) = (2, 2, 128);
    config.check_memory(1 << 30).unwrap();
    let error = config.check_memory((1 << 30) - 1).unwrap_err();
    assert_eq!(error.key, "memory.chunks");
    assert!(error.to_string().contains("1024 MiB for 2 lanes, of 1023 MiB"), "{error}");
    config.check_memory(0).unwrap();
}

#[test]
fn devices_are_one_that_lanes_share_or_one_for_each() {
    let with = |device: &str| three().to_toml().replace("[log]\n", &format!("[log]\ndevice = {device}\n"));
    let one = Config::from_toml(&with("\"/dev/nvme0n1\"")).unwrap();
    assert_eq!(one.log.device, Devices(vec!["/dev/nvme0n1".into()]));
    assert_eq!(one.log.device.of(LaneId(3)), Some(Path::new("/dev/nvme0n1")));
    assert_eq!(one.log.segments_max(), None, "the device says");
    let room = Path::new("/dev/nvme0n1");
    assert_eq!(one.log.segments_on(room, 100), Ok(100));
    assert_eq!(one.log.segments_on(room, 1).unwrap_err().key, "log.segments_ahead");
    let bounded = Log { capacity_mib: Some(640), ..one.log };
    assert_eq!(bounded.segments_on(room, 100), Ok(10));
    let error = bounded.segments_on(room, 9).unwrap_err();
    assert_eq!(error.key, "log.capacity_mib");
    assert!(error.what.contains("is 640, but /dev/nvme0n1 has room for 576 in each lane"), "{error}");

    let mut two = Config::from_toml(&with("\"/dev/nvme0n1\"")).unwrap();
    (two.lanes, two.shards) = (2, 2);
    two.log.device = Devices(vec!["/dev/a".into(), "/dev/b".into()]);
    two.check_shape().unwrap();
    assert_eq!(two.log.device.of(LaneId(1)), Some(Path::new("/dev/b")));
    assert_eq!(Devices::default().of(LaneId(0)), None);

    let set = |paths: &[&str]| Devices(paths.iter().map(Into::into).collect());
    refused(|config| config.log.device = set(&["/dev/a", "/dev/b"]), "log.device", "2 devices for 1 lanes");
    refused(|config| config.log.device = set(&["sda"]), "log.device", "whole path");
    refused(|config| config.log.io_poll = true, "log.io_poll", "only a device can be polled");
    refused(
        |config| {
            (config.lanes, config.shards) = (2, 2);
            config.log.device = set(&["/dev/a", "/dev/a"]);
        },
        "log.device",
        "twice",
    );
    let error = Config::from_toml(&with("7")).unwrap_err();
    assert!(error.what.contains("the path of a block device, or a list of them"), "{error}");
}
