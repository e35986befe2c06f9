//! Tests that share something that takes long to start, such as a Kubernetes, one after the other.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;
use libtest_mimic::{Arguments, Conclusion, Trial};

/// What the tests share, and how it is had.
#[derive(Debug)]
pub struct Stage<T> {
    /// Starts it, for the first test and after one that failed.
    pub set: fn() -> Result<T>,
    /// Looks at it after a test, and has the last word on that.
    pub judge: fn(&mut T, Result<()>) -> Result<()>,
}

/// All tests, in the order in which they run.
pub struct Suites<T> {
    stage: Stage<T>,
    shared: Arc<Mutex<Option<T>>>,
    trials: Vec<Trial>,
}

impl<T> fmt::Debug for Suites<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suites")
            .field("trials", &self.trials.len())
            .finish_non_exhaustive()
    }
}

impl<T> Clone for Stage<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Stage<T> {}

impl<T: Send + 'static> Suites<T> {
    /// No tests yet.
    pub fn new(stage: Stage<T>) -> Self {
        Self {
            stage,
            shared: Arc::default(),
            trials: Vec::new(),
        }
    }

    /// Adds a test, which gets what is shared. A test that fails takes it with it: the next one finds a fresh one.
    pub fn add(&mut self, name: &str, test: fn(&T) -> Result<()>) {
        self.add_if(true, name, test);
    }

    /// The same, but one that cannot run here is listed as ignored.
    pub fn add_if(&mut self, runs: bool, name: &str, test: fn(&T) -> Result<()>) {
        let (stage, shared) = (self.stage, Arc::clone(&self.shared));
        let trial = Trial::test(name.to_owned(), move || {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = Instant::now();
            let result = stage.run(&mut shared, test);
            eprintln!("        {:.1} s", begun.elapsed().as_secs_f64());
            result.map_err(|error| {
                let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
                causes.join("\n").into()
            })
        });
        self.trials.push(trial.with_ignored_flag(!runs));
    }

    /// Runs them, one after the other.
    pub fn run(self, mut arguments: Arguments) -> Conclusion {
        // Two cores, and one stage for all.
        arguments.test_threads = Some(1);
        let conclusion = libtest_mimic::run(&arguments, self.trials);
        // Statics and `exit` run no destructors: what is shared ends here.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        conclusion
    }
}

impl<T> Stage<T> {
    fn run(self, shared: &mut Option<T>, test: fn(&T) -> Result<()>) -> Result<()> {
        let mut one = match shared.take() {
            Some(one) => one,
            None => (self.set)()?,
        };
        let done = test(&one);
        (self.judge)(&mut one, done)?;
        *shared = Some(one);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use anyhow::bail;

    use super::*;

    #[test]
    fn what_is_shared_is_made_anew_after_a_failure_only() {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let stage = Stage {
            set: || Ok(MADE.fetch_add(1, Ordering::Relaxed)),
            judge: |_, done| done,
        };
        let mut shared = None;
        for (test, seen) in [
            ((|_| Ok(())) as fn(&u32) -> Result<()>, 1),
            (
                |one| {
                    assert_eq!(*one, 0);
                    bail!("wrong")
                },
                1,
            ),
            (
                |one| {
                    assert_eq!(*one, 1);
                    Ok(())
                },
                2,
            ),
        ] {
            let _ = stage.run(&mut shared, test);
            assert_eq!(MADE.load(Ordering::Relaxed), seen);
        }
        assert_eq!(shared, Some(1));
    }
}
