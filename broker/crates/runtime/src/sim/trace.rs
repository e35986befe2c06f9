//! What a simulated world did, in order, as one running hash.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// Most lines kept for reading; the hash goes on after that.
const MAX_LINES: usize = 1 << 20;

/// The ordered record of a simulated world: disk operations, network deliveries, and whatever the program adds.
///
/// Two runs of one seed must end with the same hash. Clones share one record.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
    print: bool,
}

impl Trace {
    /// Also keeps the events as readable lines (the first million), to find where two runs part.
    pub fn keep_lines(&self) {
        self.0.lock().lines.get_or_insert_default();
    }

    /// Prints the events as they come, to see why a run stands still.
    pub fn print_lines(&self) {
        self.0.lock().print = true;
    }

    /// Adds one event.
    pub fn event(&self, kind: &'static str, name: &str, numbers: &[u64]) {
        let mut state = self.0.lock();
        let mut hash = mix(state.hash, kind.len() as u64);
        hash = mix_bytes(hash, kind.as_bytes());
        hash = mix_bytes(hash, name.as_bytes());
        state.hash = numbers.iter().fold(hash, |hash, n| mix(hash, *n));
        state.events += 1;
        if state.print {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "{kind} {name} {numbers:?}");
        }
        if let Some(lines) = &mut state.lines
            && lines.len() < MAX_LINES
        {
            lines.push(format!("{kind} {name} {numbers:?}"));
        }
    }

    /// Adds a line of text, such as a log line.
    pub fn line(&self, text: &str) {
        self.event("line", text, &[]);
    }

    /// Hash of all events so far, their order included.
    pub fn hash(&self) -> u64 {
        self.0.lock().hash
    }

    /// Number of events so far.
    pub fn events(&self) -> u64 {
        self.0.lock().events
    }

    /// The lines kept since [`Trace::keep_lines`].
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().lines.clone().unwrap_or_default()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        write!(f, "Trace({} events, hash {:016x})", state.events, state.hash)
    }
}

/// Hash of some bytes, for events that carry contents.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    mix_bytes(0, bytes)
}

fn mix_bytes(mut hash: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(mix(hash, u64::from_le_bytes(last)), bytes.len() as u64)
}

/// The finalizer of SplitMix64 over the xor of both.
fn mix(hash: u64, word: u64) -> u64 {
    let mut z = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
