//! Bytes that no client would send. Whatever comes, the broker refuses it as Kafka does, keeps its memory, and goes on
//! serving everybody else. Numbers like I-1 name rows of the table in `e2e/README.md`.

mod batches;
mod consumers;
mod frames;
mod groups;

use std::fs;

use anyhow::{Result, ensure};
use takhin_e2e::{Broker, Kind, records, wire};

use crate::suite::{Context, Suites, create_topic};

pub(crate) fn add(suites: &mut Suites) {
    suites.add("abuse::frames_with_false_lengths", frames::false_lengths);
    suites.add("abuse::unknown_apis_and_versions", frames::unknown_requests);
    suites.add("abuse::counts_larger_than_the_frame", frames::false_counts);
    suites.add("abuse::requests_pipelined_without_reading", frames::pipelining);
    suites.add("abuse::half_open_connections", frames::half_open);
    suites.add("abuse::forged_batches", batches::forged);
    suites.add("abuse::fetches_out_of_range", batches::odd_fetches);
    suites.add("abuse::names_that_are_paths", batches::names);
    suites.add("abuse::strangers_to_a_group", groups::strangers);
    suites.add("abuse::strangers_to_a_consumer_group", consumers::strangers);
    suites.add("abuse::assignments_of_what_is_not_there", groups::odd_assignments);
}

/// What a test may add to the resident memory of a broker without a garbage collector.
const GROWTH_MAX: u64 = 96 << 20;
/// A JVM grows to its heap whatever is asked of it: heap and everything beside it.
const JVM_MAX: u64 = 1200 << 20;

/// Runs `work` against the shared broker; afterwards another client must still be served, and memory must be bounded.
fn survive(context: &Context, work: impl FnOnce(&Broker) -> Result<()>) -> Result<()> {
    context.with_shared(|broker| {
        serve(broker)?;
        let before = broker.resident_bytes()?;
        work(broker)?;
        serve(broker)?;
        let after = broker.resident_bytes()?;
        let limit = match broker.kind() {
            Kind::Takhin => before + GROWTH_MAX,
            Kind::Kafka => JVM_MAX,
        };
        ensure!(
            after <= limit,
            "resident memory went from {before} to {after} bytes"
        );
        Ok(())
    })
}

/// One record in and out again by a connection of its own.
fn serve(broker: &Broker) -> Result<()> {
    let mut connection = wire::Connection::open(broker.address())?;
    let error = connection.create_topic("bystander", 1, &[])?;
    ensure!(
        error == 0 || error == TOPIC_ALREADY_EXISTS,
        "CreateTopics: error {error}"
    );
    let value = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let offset = produce_good(&mut connection, "bystander", value.as_bytes())?;
    let (error, _, batches) = connection.fetch("bystander", 0, offset, 1 << 20)?;
    ensure!(error == 0, "fetch: error {error}");
    let read = records::values(&batches)?;
    ensure!(
        read.contains(&(offset, value.into_bytes())),
        "the bystander's record did not come back"
    );
    Ok(())
}

const TOPIC_ALREADY_EXISTS: i16 = 36;

/// Produces one well-formed record; the leader of a topic just made may need a moment.
fn produce_good(connection: &mut wire::Connection, topic: &str, value: &[u8]) -> Result<i64> {
    let batch = records::batch(&[value], batches::NOW)?;
    takhin_e2e::wait::value(
        format_args!("a leader of {topic}"),
        std::time::Duration::from_secs(10),
        || {
            match connection.produce(topic, 0, &batch)? {
                (0, offset) => Ok(Some(offset)),
                // UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER
                (3 | 5 | 6, _) => Ok(None),
                (error, _) => anyhow::bail!("produce to {topic}: error {error}"),
            }
        },
    )
}

/// A topic of this test's own, empty.
fn fresh_topic(broker: &Broker, name: &str) -> Result<wire::Connection> {
    create_topic(broker, name, 1, &[])?;
    wire::Connection::open(broker.address())
}
