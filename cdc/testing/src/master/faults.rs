//! What goes wrong on demand.

/// Faults that are still to happen.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The connection ends after so many more bytes of the stream; within a message, most of the time.
    pub cut_after: Option<usize>,
    /// The item of this index is left out once.
    pub leave_out: Option<usize>,
    /// The item of this index is sent twice once.
    pub twice: Option<usize>,
}
