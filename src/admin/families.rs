//! Every metric that there is: its name, what kind it is, and what it means.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows while the node runs.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A gauge of nanoseconds, told in seconds.
    Seconds,
}

/// A metric as its reader sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Description {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

macro_rules! families {
    ($($family:ident $kind:ident $name:literal $help:literal)*) => {
        /// A metric. In the order in which they are told.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Family {
            $(#[doc = $help] $family,)*
        }

        impl Family {
            /// All of them.
            pub const ALL: &[Family] = &[$(Family::$family),*];

            /// Its name in the text.
            pub fn name(self) -> &'static str {
                self.description().name
            }

            pub(super) fn description(self) -> Description {
                match self {
                    $(Family::$family => Description { name: $name, kind: Kind::$kind, help: $help },)*
                }
            }
        }
    };
}

families! {
    NodeInfo Gauge "plimsoll_node_info" "Always 1: which node of which cluster this is, and of which version."
    LaneUp Gauge "plimsoll_lane_up" "1 if the lane has answered within a second; otherwise what stands here of it is older."

    Turns Counter "plimsoll_turns_total" "Turns of the lane's loop."
    TurnsSlow Counter "plimsoll_turns_slow_total" "Turns that found something to do and took longer than 1 ms."
    TurnLongest Seconds "plimsoll_turn_longest_seconds" "The longest turn that found something to do since the node started."

    RaftIsLeader Gauge "plimsoll_raft_is_leader" "1 if this node leads the shard. Without a shard: how many it leads."
    RaftRole Gauge "plimsoll_raft_role" "0 follower, 1 asks whether it could lead, 2 candidate, 3 leader."
    RaftLeader Gauge "plimsoll_raft_leader" "The node that leads the shard as far as this one knows; 0: none is known."
    RaftTerm Gauge "plimsoll_raft_term" "The shard's term."
    RaftElections Counter "plimsoll_raft_elections_total" "Leaders that were elected here or learnt of."
    RaftCommit Gauge "plimsoll_raft_commit_index" "Up to which index entries are known to be committed. Without a shard: the sum."
    RaftApplied Gauge "plimsoll_raft_applied_index" "Up to which index submits and reads were told of commits. Without a shard: the sum."
    RaftDurable Gauge "plimsoll_raft_durable_index" "Up to which index entries are on this node's disk. Without a shard: the sum."
    RaftLast Gauge "plimsoll_raft_last_index" "The last entry of this node's log. Without a shard: the sum."
    RaftContradictions Counter "plimsoll_raft_contradictions_total" "Messages dropped because they contradict what is committed or acknowledged: a member lies, or has forgotten what it promised."
    SubmitsWaiting Gauge "plimsoll_submits_waiting" "Submits that wait for their outcome."
    FramesMalformed Counter "plimsoll_raft_frames_malformed_total" "Frames of members dropped because of what they held."

    LogWrites Counter "plimsoll_log_writes_total" "Writes to the log that were started."
    LogWritten Counter "plimsoll_log_written_bytes_total" "Their bytes, whole blocks."
    LogInFlight Gauge "plimsoll_log_writes_in_flight" "Writes to the log that are under way."
    LogSegments Gauge "plimsoll_log_segments" "Segments that are ready to be written or were written."
    LogEnd Gauge "plimsoll_log_end_bytes" "Where the next write goes, from the log's beginning."
    LogCapacity Gauge "plimsoll_log_capacity_bytes" "What the log may have at most; an eighth of it is kept from leaders."
    DiskNoSpace Gauge "plimsoll_disk_no_space" "1 while the filesystem has no room for the log's next segment."
    MemoryChunks Gauge "plimsoll_memory_chunks" "Chunks of 4 MiB that the lane has reserved."
    MemoryChunksFree Gauge "plimsoll_memory_chunks_free" "Of those, how many nobody holds."

    Clients Gauge "plimsoll_clients_connected" "Clients that are connected and were let in."
    Engines Gauge "plimsoll_engines_attached" "Engines' threads that are attached by rings."
    ClientsAccepted Counter "plimsoll_clients_accepted_total" "Clients that were let in."
    ClientsRefused Counter "plimsoll_clients_refused_total" "Clients whose hello was refused."
    ClientsDropped Counter "plimsoll_clients_dropped_total" "Clients dropped: full, they did not take what was sent; malformed, they were not understood; late, they said nothing in time."
    ClientFramesIn Counter "plimsoll_client_frames_received_total" "Frames of clients over TCP."
    ClientBytesIn Counter "plimsoll_client_received_bytes_total" "Their bytes."
    ClientFramesOut Counter "plimsoll_client_frames_sent_total" "Frames to clients over TCP."
    ClientBytesOut Counter "plimsoll_client_sent_bytes_total" "Their bytes."

    LinkTaken Gauge "plimsoll_link_taken" "1 for the link over which the peer is sent to; 0 everywhere: no link reaches it."
    LinkFramesIn Counter "plimsoll_link_frames_received_total" "Frames of peers."
    LinkBytesIn Counter "plimsoll_link_received_bytes_total" "Their bytes."
    LinkFramesOut Counter "plimsoll_link_frames_sent_total" "Frames taken to be sent to peers."
    LinkBytesOut Counter "plimsoll_link_sent_bytes_total" "Their bytes."
    LinkFramesFull Counter "plimsoll_link_frames_full_total" "Frames to peers not taken because too much waited before them; Raft repeats them."
    LinkRefused Counter "plimsoll_link_hellos_refused_total" "Hellos refused, this node's by others included."
    LinkReconnects Counter "plimsoll_link_reconnects_total" "Connections or sessions with a peer that came up for a second time or later."
    LinkConnectionsDropped Counter "plimsoll_link_connections_dropped_total" "Connections dropped: malformed, what came was not understood; late, nothing or half a frame came in the time allowed."
    LinkUnheard Counter "plimsoll_link_sessions_unheard_total" "Sessions that ended because nothing was heard or answered any more."
    LinkDatagramsIn Counter "plimsoll_link_datagrams_received_total" "Datagrams that came, whatever became of them."
    LinkDatagramsOut Counter "plimsoll_link_datagrams_sent_total" "Datagrams that were taken to be sent."
    LinkDatagramsDropped Counter "plimsoll_link_datagrams_dropped_total" "Datagrams dropped, by the reason: duplicated, beyond their credit, malformed, alien (of no session known here), unasked, unanswered and hello_unanswered (more than are answered)."
    LinkDatagramsLost Counter "plimsoll_link_datagrams_lost_total" "Datagrams of a session that were passed over and have not come since: lost, or still to come."
    LinkDatagramsReordered Counter "plimsoll_link_datagrams_reordered_total" "Datagrams that came after later ones."
    LinkFragmentsIn Counter "plimsoll_link_fragments_received_total" "Fragments of frames that came and were new."
    LinkFragmentsDropped Counter "plimsoll_link_fragments_dropped_total" "Fragments dropped, by the reason: late, contrary to others of their frame, crowded out."
    LinkFramesAbandoned Counter "plimsoll_link_frames_abandoned_total" "Frames that never were whole."
    LinkRepairs Counter "plimsoll_link_repair_requests_total" "Requests for missing fragments: asked here, withheld because those before brought nothing, missed because the frame was not kept any more."
    LinkRepaired Counter "plimsoll_link_fragments_repaired_total" "Fragments sent again because a peer asked for them."
    LinkStarved Counter "plimsoll_link_credits_asked_total" "Times that more credit was asked for because none came by itself."

    CarrierDatagramsIn Counter "plimsoll_carrier_datagrams_received_total" "Datagrams that the socket, port or device gave."
    CarrierBytesIn Counter "plimsoll_carrier_received_bytes_total" "Their bytes."
    CarrierDatagramsOut Counter "plimsoll_carrier_datagrams_sent_total" "Datagrams that the socket, port or device took."
    CarrierBytesOut Counter "plimsoll_carrier_sent_bytes_total" "Their bytes; over RDMA by way: gathered from where they lay, or copied."
    CarrierMessagesIn Counter "plimsoll_carrier_messages_received_total" "Messages in which the system gave datagrams: fewer where it joined them."
    CarrierMessagesOut Counter "plimsoll_carrier_messages_sent_total" "Messages in which the system took datagrams: fewer where they were joined."
    CarrierFull Counter "plimsoll_carrier_full_total" "Datagrams not taken because there was no room."
    CarrierDropped Counter "plimsoll_carrier_datagrams_dropped_total" "Datagrams dropped or lost, by the reason."
    CarrierUnreachable Counter "plimsoll_carrier_unreachable_total" "Times that the network said that datagrams cannot arrive."
    CarrierPathsConnected Counter "plimsoll_carrier_paths_connected_total" "RDMA: paths to peers that were connected."
    CarrierPathsEnded Counter "plimsoll_carrier_paths_ended_total" "RDMA: paths to peers that broke or were given up."
    CarrierHandedOver Counter "plimsoll_carrier_handed_over_total" "DPDK: frames given to the lane that they were for."
    CarrierConflicts Counter "plimsoll_carrier_address_conflicts_total" "DPDK: packets of others that claim a port's own address."

    Streams Gauge "plimsoll_streams_registered" "Streams of the engine that are registered."
    EpochOpen Gauge "plimsoll_epoch_open" "The epoch that takes records."
    WatermarkEpoch Gauge "plimsoll_watermark_epoch" "The epoch of the watermark on this node; with no stream registered there is none."
    WatermarkTimestamp Gauge "plimsoll_watermark_timestamp" "The engine's timestamp up to which everything is committed in every registered stream."
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_convention() {
        let mut names = BTreeSet::new();
        for family in Family::ALL {
            let Description { name, kind, help } = family.description();
            assert!(names.insert(name), "{name} is there twice");
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(name.starts_with("plimsoll_") && name.bytes().all(plain), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), kind == Kind::Seconds, "{name}");
            assert!(help.ends_with('.') && !help.contains(['\n', '\\']), "{name}: {help}");
        }
        assert!(names.len() > 50);
    }
}
