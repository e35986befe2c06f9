//! The list of tests, and the broker that well-behaved ones share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Conclusion, Trial};
use takhin_e2e::{Broker, Kind, wire};

/// What a test gets.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) kind: Kind,
    shared: Arc<Mutex<Option<Broker>>>,
}

impl Context {
    /// Works with the shared broker, which is started when first asked for.
    ///
    /// A test that fails takes the broker with it: the next one finds a fresh one.
    pub(crate) fn with_shared<T>(&self, work: impl FnOnce(&Broker) -> Result<T>) -> Result<T> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut broker = match shared.take() {
            Some(broker) => broker,
            None => {
                let mut fresh = Broker::new(self.kind)?;
                fresh.start()?;
                fresh
            }
        };
        let result = work(&broker).map_err(|e| e.context(format!("broker log:\n{}", broker.log_tail())))?;
        ensure!(
            broker.is_running()?,
            "the broker has ended\n{}",
            broker.log_tail()
        );
        *shared = Some(broker);
        Ok(result)
    }
}

/// All tests, in the order in which they run.
#[derive(Debug)]
pub(crate) struct Suites {
    context: Context,
    trials: Vec<Trial>,
}

impl Suites {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            context: Context {
                kind,
                shared: Arc::default(),
            },
            trials: Vec::new(),
        }
    }

    /// Adds a test for both brokers.
    pub(crate) fn add(&mut self, name: &str, test: fn(&Context) -> Result<()>) {
        let context = self.context.clone();
        self.trials.push(Trial::test(name.to_owned(), move || {
            let start = Instant::now();
            let result = test(&context);
            eprintln!("        {:.1} s", start.elapsed().as_secs_f64());
            // Causes without the backtrace that `{e:?}` would add: the text says what a reader needs.
            result.map_err(|e| {
                e.chain()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n")
                    .into()
            })
        }));
    }

    /// Adds a test that knows the broker from inside: it does not exist for Apache Kafka.
    pub(crate) fn add_takhin(&mut self, name: &str, test: fn(&Context) -> Result<()>) {
        if self.context.kind == Kind::Takhin {
            self.add(name, test);
        }
    }

    pub(crate) fn run(self, arguments: &Arguments) -> Conclusion {
        let conclusion = libtest_mimic::run(arguments, self.trials);
        // Statics and `exit` run no destructors: the shared broker ends here.
        self.context
            .shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        conclusion
    }
}

/// Creates a topic, and fails unless the broker says that it did.
pub(crate) fn create_topic(
    broker: &Broker,
    topic: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> Result<()> {
    let error = wire::Connection::open(broker.address())?.create_topic(topic, partitions, configs)?;
    ensure!(error == 0, "CreateTopics {topic}: error {error}");
    Ok(())
}
