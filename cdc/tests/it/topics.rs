//! What people do to topics while they are written to: nothing is lost in what is left, and nothing is silent.

use takhin_client::{Client, ConfigResource, ErrorCode, TopicToCreate};
use takhin_pika_testing::master::{Master, Settings};
use takhin_pika_testing::numbers::Numbers;

use crate::broker::{Broker, until};
use crate::cdc::Cdc;
use crate::events::{check, read_until, with_client};

fn master() -> Master {
    Master::start(Settings {
        databases: 2,
        ..Settings::default()
    })
    .unwrap()
}

fn wait(master: &Master) {
    for db in ["db0", "db1"] {
        until("everything is acknowledged", || {
            master.acked(db) == Some(master.end(db))
        });
    }
}

/// Makes a topic that takes batches of so many bytes.
pub(crate) fn create(broker: &Broker, topic: &str, max_message: &str) {
    with_client(broker.kafka, async |client: Client| {
        let new = TopicToCreate {
            name: topic.to_owned(),
            partitions: Some(4),
            replication_factor: None,
            configs: vec![("max.message.bytes".to_owned(), max_message.to_owned())],
        };
        for (_, outcome) in client.create_topics(&[new]).await.unwrap() {
            let is_there = |refusal: &takhin_client::Refusal| refusal.is(ErrorCode::TopicAlreadyExists);
            assert!(outcome.as_ref().err().is_none_or(is_there), "{outcome:?}");
        }
    });
}

/// Has a topic take batches of so many bytes.
pub(crate) fn allow(broker: &Broker, topic: &str, max_message: &str) {
    with_client(broker.kafka, async |client: Client| {
        let raised = vec![("max.message.bytes".to_owned(), Some(max_message.to_owned()))];
        let changes = [(ConfigResource::Topic(topic.to_owned()), raised)];
        for (_, outcome) in client.alter_configs(&changes).await.unwrap() {
            outcome.unwrap();
        }
    });
}

/// Deletes a topic, and returns when it is gone.
fn delete(broker: &Broker, topic: &str) {
    with_client(broker.kafka, async |client: Client| {
        for (_, outcome) in client.delete_topics(&[topic]).await.unwrap() {
            outcome.unwrap();
        }
    });
}

#[test]
fn a_topic_that_is_deleted_is_made_again_and_written_on() {
    let broker = Broker::shared();
    let master = master();
    let mut writer = Numbers::new(90);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.start_and_wait();
    writer.write(&master, 300);
    wait(&master);
    let topic = cdc.topic("binlog");
    delete(broker, &topic);
    // What is in the topic from now on is that of another writer, whose numbers begin anew.
    let mut writer = Numbers::new(91);
    writer.write(&master, 300);
    until("it is said", || {
        cdc.log()
            .contains(&format!("topic {topic} was deleted while it was written to"))
    });
    wait(&master);
    assert!(cdc.metric(&format!("takhin_cdc_produce_retries_total{{topic=\"{topic}\"}}")) > 0.0);
    check(broker, &cdc, &writer);
    until("it is ready again", || cdc.is_ready());
    assert!(cdc.stop().success());
}

/// What was created before the end is there; what was not is created then.
#[test]
fn killed_while_topics_are_created() {
    let broker = Broker::shared();
    let master = master();
    for number in 0..4 {
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.start();
        let wanted = [cdc.topic("binlog"), cdc.topic("snapshot")];
        with_client(broker.kafka, async |client: Client| {
            let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
            // As soon as there are none, one, or both.
            loop {
                let found = client.describe_topics(Some(&names)).await.unwrap_or_default();
                if found.len() >= number % 3 {
                    break;
                }
            }
        });
        cdc.kill();
        // One of them by somebody else, as if the answer had been lost.
        create(broker, &wanted[1], "1000000");
        cdc.start_and_wait();
        assert!(!cdc.log().contains("cannot create topic"), "{}", cdc.log());
        assert!(cdc.stop().success());
    }
}

/// Whoever loses the file then would begin with the changes from then on.
#[test]
fn positions_whose_topic_is_deleted_are_written_again() {
    // The topic is that of all sources.
    let broker = Broker::start();
    let master = master();
    let mut writer = Numbers::new(92);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.start_and_wait();
    writer.write(&master, 100);
    wait(&master);
    let topic = "__pika_port_kafka_offsets";
    delete(&broker, topic);
    writer.write(&master, 100);
    wait(&master);
    until("it is said", || {
        cdc.log()
            .contains(&format!("topic {topic} was deleted while it was written to"))
    });
    let source = format!("source-{}", cdc.cluster);
    let ends = ["db0", "db1"].map(|db| (format!("{source}:{db}"), master.end(db).offset));
    read_until(broker.kafka, topic, "the newest positions", |read| {
        let has = |(key, offset): &(String, u64)| {
            read.iter()
                .any(|read| read.key == key && read.json["offset"] == *offset)
        };
        ends.iter().all(has)
    });
    cdc.kill();
    cdc.lose_file();
    writer.write(&master, 100);
    cdc.start_and_wait();
    wait(&master);
    check(&broker, &cdc, &writer);
}

/// Events of a key stay where those before are.
#[test]
fn partitions_that_are_added_are_left_alone() {
    let broker = Broker::shared();
    let master = master();
    let mut writer = Numbers::new(93);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.start_and_wait();
    writer.write(&master, 200);
    wait(&master);
    let topic = cdc.topic("binlog");
    with_client(broker.kafka, async |client: Client| {
        for (_, outcome) in client.create_partitions(&[(&topic, 9)]).await.unwrap() {
            outcome.unwrap();
        }
    });
    for round in 0..3 {
        writer.write(&master, 200);
        wait(&master);
        assert!(cdc.stop().success());
        if round == 1 {
            // As with a pod's directory: the topic has positions, and the number too.
            cdc.lose_file();
        }
        cdc.start_and_wait();
    }
    check(broker, &cdc, &writer);
    let read = read_until(broker.kafka, &topic, "all", |read| writer.is_whole(read));
    assert!(read.iter().all(|event| event.partition < 4));
    assert!(cdc.log().contains("only the first 4 partitions are written to"));
}

/// The other partitions take theirs each time: that is to be seldom, and the master is to keep its binlog until somebody has done
/// something.
#[test]
fn a_batch_that_brokers_refuse_is_sent_ever_more_rarely() {
    let broker = Broker::shared();
    let master = master();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("sink.compression=none");
    let topic = cdc.topic("binlog");
    create(broker, &topic, "20000");
    cdc.start_and_wait();
    for number in 0..100 {
        let key = format!("key{number}");
        master.execute("db0", &[b"set", key.as_bytes(), b"1"]);
    }
    master.execute("db0", &[b"set", b"large", &vec![b'x'; 50_000]]);
    let said = || cdc.log().matches("raise max.message.bytes of the topic").count();
    until("it is said", || {
        cdc.says().contains(&format!("cannot write to {topic}: ")) && said() == 1
    });
    // The master is asked for signs of life after 5 s.
    let requests = master.requests().len();
    until("it shows that it is there", || master.requests().len() > requests);
    assert_eq!((said(), master.connections()), (1, 1));
    until("it is tried again", || said() == 2);
    allow(broker, &topic, "1000000");
    until("it is acknowledged", || {
        master.acked("db0") == Some(master.end("db0"))
    });
    assert_eq!((said(), master.connections()), (2, 3));
    until("it is ready again", || cdc.is_ready());
    let read = read_until(broker.kafka, &topic, "all", |read| {
        read.iter().any(|event| event.text("key") == "large")
    });
    assert!(read.len() <= 3 * 101, "{} records", read.len());
}
