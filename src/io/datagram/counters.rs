/// What a link has seen since it was made, over all peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames given to the sink.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames taken to be sent.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Sends refused as `Full`.
    pub full: u64,
    /// Hellos refused, ours by others included.
    pub refused: u64,
    /// Sessions that came up with a peer for a second time or later.
    pub reconnects: u64,
    /// Sessions that ended because nothing was heard or answered any more.
    pub unheard: u64,

    /// Datagrams that came, whatever became of them.
    pub datagrams_in: u64,
    /// Datagrams that the carrier took.
    pub datagrams_out: u64,
    /// Numbers of sessions that were passed over and have not come since: lost, or still to come.
    pub lost: u64,
    /// Datagrams that came after later ones.
    pub reordered: u64,
    /// Dropped: their number had come before, or was too far back to tell.
    pub duplicated: u64,
    /// Dropped: numbered beyond what was given credit for.
    pub beyond: u64,
    /// Dropped: not understood, or a frame whose bounds or checksum do not hold.
    pub malformed: u64,
    /// Dropped: of a session that is not known here.
    pub alien: u64,
    /// Dropped: a hello, welcome or refusal that nobody waits for.
    pub unasked: u64,
    /// Dropped without an answer: more of them came at once than are answered.
    pub unanswered: u64,
    /// Dropped: a hello in the name of a peer that is heard, of which more came than are answered.
    pub hellos_unanswered: u64,

    /// Fragments that came and were new.
    pub fragments_in: u64,
    /// Dropped: fragments that were there already, or of frames that are done with.
    pub fragments_late: u64,
    /// Dropped: fragments that contradict others of their frame.
    pub fragments_contrary: u64,
    /// Dropped: fragments of frames for which there was no room.
    pub fragments_crowded: u64,
    /// Frames that were never whole.
    pub frames_abandoned: u64,
    /// Repair requests sent.
    pub repairs_asked: u64,
    /// Repair requests not sent: too many before them had brought nothing.
    pub repairs_withheld: u64,
    /// Fragments sent again because a peer asked for them.
    pub repaired: u64,
    /// Repair requests for frames that were not kept any more.
    pub repairs_missed: u64,
    /// Times that more credits were asked for because none came by themselves.
    pub starved: u64,
}
