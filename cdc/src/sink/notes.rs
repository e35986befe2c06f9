//! Rounds that brokers have, until their positions are on the medium: one after the other, while the next round is sent.
//!
//! *What was acknowledged to the master <= the position in the file <= what brokers have acknowledged*: a round comes here when
//! brokers have all of it, is saved behind those before it, and nobody is told of it before that.

use std::collections::VecDeque;
use std::pin::Pin;

use super::round::Round;
use crate::checkpoint::{CheckpointError, Checkpoints};

/// Rounds whose positions are not saved yet before no other is begun: one that is being saved, and one behind it.
const MOST: usize = 2;

/// Saves positions; does nothing before it is polled.
pub(super) type Saving = Pin<Box<dyn Future<Output = Result<(), CheckpointError>> + Send>>;

/// What is to be noted of a round.
pub(super) struct Note {
    pub(super) round: Round,
    /// Its positions.
    pub(super) reached: Checkpoints,
    pub(super) saving: Saving,
}

/// Notes in the order of their rounds.
#[derive(Default)]
pub(super) struct Notes(VecDeque<Note>);

impl Notes {
    /// Adds that of the round behind the last one.
    pub(super) fn push(&mut self, note: Note) {
        self.0.push_back(note);
    }

    /// Whether everything is noted.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether another round may be begun: rounds keep their memory until they are noted.
    pub(super) fn may_grow(&self) -> bool {
        self.0.len() < MOST
    }

    /// Waits until the first round is noted, and takes it out; never returns while there is none.
    ///
    /// # Cancel safety
    ///
    /// Safe: the next call goes on waiting.
    pub(super) async fn next(&mut self) -> Result<(Round, Checkpoints), CheckpointError> {
        let Some(first) = self.0.front_mut() else {
            return std::future::pending().await;
        };
        let saved = first.saving.as_mut().await;
        match self.0.pop_front() {
            Some(Note { round, reached, .. }) => saved.map(|()| (round, reached)),
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    /// A note of a round of so many bytes, and what ends its being saved. `begun` is the round whose saving began last.
    fn note(bytes: u64, begun: &Arc<AtomicU64>) -> (oneshot::Sender<()>, Note) {
        let (end, ended) = oneshot::channel();
        let begun = Arc::clone(begun);
        let saving = async move {
            begun.store(bytes, Ordering::Relaxed);
            let _ = ended.await;
            Ok(())
        };
        let mut round = Round::default();
        round.bytes = bytes;
        let note = Note {
            round,
            reached: Checkpoints::new(),
            saving: Box::pin(saving),
        };
        (end, note)
    }

    /// A position that is saved behind a later one would be behind what the master was told.
    #[test]
    fn rounds_are_noted_one_after_the_other_and_another_is_begun_meanwhile() {
        let (mut notes, begun) = (Notes::default(), Arc::default());
        assert!(notes.next().now_or_never().is_none());
        let (first, note_1) = note(1, &begun);
        notes.push(note_1);
        assert!(notes.next().now_or_never().is_none());
        // The next round is sent while this one is saved; there are never more than two.
        assert!(notes.may_grow());
        let (second, note_2) = note(2, &begun);
        notes.push(note_2);
        assert!(!notes.may_grow());
        second.send(()).unwrap();
        assert!(notes.next().now_or_never().is_none());
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        first.send(()).unwrap();
        for bytes in [1, 2] {
            let (round, _) = notes.next().now_or_never().unwrap().unwrap();
            assert_eq!((round.bytes, begun.load(Ordering::Relaxed)), (bytes, bytes));
        }
        assert!(notes.is_empty() && notes.may_grow());
    }
}
