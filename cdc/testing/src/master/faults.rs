//! What goes wrong on demand.

use takhin_pika::Position;

/// Faults that are still to happen.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The connection ends after so many more bytes of the stream; within a message, most of the time.
    pub cut_after: Option<usize>,
    /// The item of this index is left out once.
    pub leave_out: Option<usize>,
    /// The item of this index is sent twice once.
    pub twice: Option<usize>,
    /// The connection ends when changes of a database are asked for from there on, which TrySync says to be there.
    pub closes_at: Vec<(String, Position)>,
    /// Questions for a list of files that are answered with: not yet.
    pub not_ready: u32,
    /// Questions for a list of files that are not answered.
    pub mute_lists: u32,
    /// Connections of files end after so many answers, as many times as there are numbers.
    pub cut_files_after: Vec<u32>,
    /// After so many answers the master has made another dump.
    pub another_dump_after: Option<u32>,
    /// A name that is listed in addition.
    pub listed_too: Option<String>,
    /// Of masters before 3.5: the next calls of `rsync`, the last first, break after so many bytes, or fail without having said
    /// anything.
    pub push_cut_after: Vec<Option<usize>>,
    /// Of such masters: a name that is pushed in addition.
    pub push_too: Option<String>,
    /// Of such masters: the protocol of an `rsync` of their time; that of version 2.6 is 29, that of 3.0 is 30.
    pub push_protocol: Option<u32>,
    /// Of such masters: nothing more is pushed, and nobody is told.
    pub push_stops: bool,
    /// Of masters before 3.1: the host in the name of the module, if it is not the one that slaves know.
    pub module_host: Option<String>,
    /// Of masters before 3.1: so many records are lost with the connection that is cut.
    pub lost_with_it: usize,
}
