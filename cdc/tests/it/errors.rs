//! What is said of what cannot work, and that it works once it can.

use std::collections::BTreeMap;

use takhin_pika::Position;
use takhin_pika::message::InnerRequest;
use takhin_pika_testing::master::{Master, Settings};

use crate::broker::{Broker, post, until};
use crate::cdc::Cdc;
use crate::events::{read_until, with_client};

fn master(change: impl FnOnce(&mut Settings)) -> Master {
    let mut settings = Settings::default();
    change(&mut settings);
    Master::start(settings).unwrap()
}

#[track_caller]
fn says(cdc: &Cdc, words: &str) {
    until(words, || cdc.says().contains(words));
    assert!(!cdc.is_ready());
}

#[test]
fn passwords() {
    let broker = Broker::shared();
    let master = master(|settings| settings.password = Some("s3cret".into()));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "wrong\n").unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.start();
    says(&cdc, "asks for a password: set source.password_file");
    cdc.kill();
    cdc.set(&format!("source.password_file={}", file.path().display()));
    cdc.start();
    says(&cdc, "source: wrong password");
    // The file is read again, and nobody has to start anything.
    std::fs::write(file.path(), "s3cret\n").unwrap();
    until("the right password is taken", || cdc.is_ready());
    cdc.kill();
    master.set(|settings| settings.password = None);
    cdc.start();
    says(&cdc, "has no password (requirepass)");
}

#[test]
fn versions_and_databases() {
    let broker = Broker::shared();
    for version in ["2.2.6", "2.3.2"] {
        let master = master(|settings| settings.version = version.into());
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.start();
        says(
            &cdc,
            &format!("is Pika {version}, which is not supported: 2.3.3 to 4.0 are"),
        );
        assert!(master.requests().is_empty());
    }
    for (version, wanted) in [("3.5.5", "legacy"), ("3.0.16", "pb")] {
        let master = master(|settings| settings.version = version.into());
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.set(&format!("source.sync_protocol={wanted}")).start();
        says(
            &cdc,
            &format!(
                "source.sync_protocol is {wanted}, and 127.0.0.1:{} is Pika {version}",
                master.port()
            ),
        );
    }
    let master = master(|settings| settings.databases = 2);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("filters.databases=db0,db3").start();
    says(
        &cdc,
        "filters.databases has db3, which the master lacks: it has db0, db1",
    );
    // One that had more: it is another one, or somebody has made them fewer.
    let at = ["db0", "db1", "db2"].map(|db| (db.to_owned(), Position::default()));
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.go_on_from(&Settings::default().replication_id, &at.into());
    cdc.start();
    says(
        &cdc,
        "there is a position of db2, which the master lacks: it has db0, db1; if it is the right master, name in \
         filters.databases which of them are to be followed",
    );
    cdc.kill();
    cdc.set("filters.databases=db0,db1");
    cdc.start_and_wait();
}

#[test]
fn nobody_there() {
    let broker = Broker::shared();
    let gone = master(|_| {});
    let mut cdc = Cdc::new(&gone, broker.kafka);
    drop(gone);
    cdc.start();
    says(&cdc, "source: cannot connect to 127.0.0.1:");

    let master = master(|_| {});
    let mut cdc = Cdc::new(&master, crate::broker::free_address());
    cdc.start();
    says(
        &cdc,
        "sink: cannot ask for the topics: cannot connect to 127.0.0.1:",
    );
}

#[test]
fn topics_that_are_missing() {
    let broker = Broker::shared();
    let master = master(|_| {});
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("sink.create_topics=false").start();
    says(&cdc, "is missing: create it, or set sink.create_topics");
}

#[test]
fn positions_that_are_lost() {
    let broker = Broker::shared();
    let id = Settings::default().replication_id;
    let lost = |change: &dyn Fn(&Master) -> (String, Position), words: &str| {
        let master = master(|_| {});
        for number in 0..1000_u32 {
            master.execute("db0", &[b"set", b"k", number.to_string().as_bytes()]);
        }
        let (replication_id, position) = change(&master);
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.go_on_from(&replication_id, &BTreeMap::from([("db0".to_owned(), position)]));
        cdc.start();
        says(&cdc, words);
        assert!(
            cdc.says()
                .contains(&format!("position {position} of db0 is lost")),
            "{}",
            cdc.says()
        );
        // Nothing was asked for instead.
        assert!(
            master
                .requests()
                .iter()
                .all(|request| request.binlog_sync.is_none())
        );
        assert_eq!(cdc.saved("db0"), Some(position));
    };
    lost(
        &|master| {
            master.purge("db0", 2);
            (id.clone(), Position::new(1, 0))
        },
        "the master has deleted the binlog there",
    );
    lost(
        &|_| (id.clone(), Position::new(900, 0)),
        "the master's binlog ends before it",
    );
    lost(
        &|_| (id.clone(), Position::new(0, 77)),
        "no item of the master's binlog begins there",
    );
    lost(
        &|master| ("another".to_owned(), master.end("db0")),
        "it is of the replication another",
    );
}

/// A master that was restored from a backup and has grown since has its `replication_id`, and an item may begin at the position.
#[test]
fn another_history_at_the_same_position_is_a_lost_position() {
    let broker = Broker::shared();
    let master = master(|_| {});
    let mut cdc = Cdc::new(&master, broker.kafka);
    let write = |value: &[u8]| master.execute("db0", &[b"set", b"k", value]);
    let is_acked = || master.acked("db0") == Some(master.end("db0"));
    cdc.start_and_wait();
    write(b"1");
    until("the first one is acknowledged", is_acked);
    // The same history goes on.
    assert!(cdc.stop().success());
    write(b"2");
    cdc.start_and_wait();
    until("the second one is acknowledged", is_acked);
    assert!(cdc.stop().success());
    let position = master.end("db0");
    master.number_on("db0", 7);
    write(b"3");
    cdc.start();
    says(
        &cdc,
        &format!("position {position} of db0 is lost: the item of db0 at"),
    );
    assert!(
        cdc.says().contains("has number 10, and 3 is to follow there"),
        "{}",
        cdc.says()
    );
    assert_eq!(cdc.saved("db0"), Some(position));
}

/// How often a slave has shown that it is there.
fn signs(master: &Master) -> usize {
    let is_sign = |request: &&InnerRequest| {
        let sync = request.binlog_sync.as_ref();
        sync.is_some_and(|sync| !sync.first_send && sync.ack_range_end.offset == 0)
    };
    master.requests().iter().filter(is_sign).count()
}

#[test]
fn records_that_are_too_large() {
    let broker = Broker::shared();
    let master = master(|_| {});
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("sink.max_record_size=64KiB");
    cdc.start_and_wait();
    master.execute("db0", &[b"set", b"small", b"1"]);
    let before = Some(master.end("db0"));
    until("it is acknowledged", || master.acked("db0") == before);
    master.execute("db0", &[b"set", b"large", &vec![b'x'; 100_000]]);
    master.execute("db0", &[b"set", b"small", b"2"]);
    says(&cdc, "more than sink.max_record_size (65536)");
    // The master keeps the rest for whoever starts it again.
    let heard = signs(&master);
    until("it shows that it is there", || signs(&master) > heard);
    assert_eq!(master.connections(), 1, "it tries in vain");
    assert_eq!((master.acked("db0"), cdc.saved("db0")), (before, before));
    let lag = || cdc.metric("takhin_cdc_lag_bytes{db=\"db0\"}");
    until("what waits is seen", || lag() > 0.0);
    cdc.kill();
    // Nothing is written by this process; how long nothing was is known all the same.
    cdc.start();
    let behind = || cdc.metric("takhin_cdc_lag_seconds{db=\"db0\"}");
    until("the time since is seen", || behind() >= 1.0);
    cdc.kill();
    cdc.set("sink.oversize=skip");
    cdc.start_and_wait();
    let read = read_until(broker.kafka, &cdc.topic("binlog"), "the small ones", |read| {
        read.iter().any(|event| event.args()[1] == b"2")
    });
    assert!(read.iter().all(|event| event.text("key") == "small"));
    assert_eq!(read.len(), 2, "something came twice");
    until("it is counted", || cdc.metric("takhin_cdc_oversize_total") >= 1.0);
}

#[test]
fn the_command_line() {
    let master = master(|_| {});
    let mut cdc = Cdc::new(&master, crate::broker::free_address());
    cdc.set("source.hots=x").start();
    assert_eq!(cdc.wait_end().code(), Some(2));
    assert!(
        cdc.log()
            .contains("--set: unknown setting source.hots: did you mean source.host?")
    );
}

#[test]
fn large_items_flushes_and_one_topic() {
    let broker = Broker::shared();
    let master = master(|settings| settings.version = "4.0.0".into());
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("sink.mode=single")
        .set("sink.partitions=3")
        .start_and_wait();
    let large = vec![0xfe; 3 << 20];
    master.execute("db0", &[b"set", b"k\xff\0", &large]);
    master.execute("db0", &[b"FLUSHDB"]);
    master.execute("db0", &[b"DEL", b"a", b"b"]);
    let read = read_until(broker.kafka, &cdc.topic("stream"), "all events", |read| {
        read.iter().filter(|event| event.text("op") == "flushdb").count() == 3
            && read.iter().filter(|event| event.text("op") == "del").count() == 2
            && read.iter().any(|event| event.text("op") == "set")
    });
    let set = read.iter().find(|event| event.text("op") == "set").unwrap();
    assert_eq!(set.args(), [b"k\xff\0".to_vec(), large]);
    assert_eq!(
        (&set.json["key"], set.key_bytes().unwrap()),
        (&serde_json::Value::Null, b"k\xff\0".to_vec())
    );
    // One event, which every partition has.
    let flushes: Vec<_> = read
        .iter()
        .filter(|event| event.text("op") == "flushdb")
        .collect();
    let partitions: std::collections::BTreeSet<_> = flushes.iter().map(|event| event.partition).collect();
    assert_eq!(partitions.len(), 3);
    assert!(
        flushes
            .iter()
            .all(|event| event.text("event_id") == flushes[0].text("event_id"))
    );
    let policy = with_client(broker.kafka, async |client| {
        client.describe_topics(None).await.unwrap()
    });
    let offsets = policy
        .iter()
        .find(|topic| topic.name == "__pika_port_kafka_offsets")
        .unwrap();
    assert_eq!(offsets.partitions.len(), 1);
}

#[test]
fn paused_nothing_is_written_and_nothing_is_lost() {
    let broker = Broker::shared();
    let master = master(|_| {});
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.start_and_wait();
    let events = || cdc.metric("takhin_cdc_events_total{db=\"db0\",kind=\"binlog\"}");
    master.execute("db0", &[b"set", b"k", b"1"]);
    until("it is written", || events() >= 1.0);
    assert_eq!(
        post(cdc.admin, "/v1/pause"),
        Some((200, "{\"paused\":true}\n".to_owned()))
    );
    let before = master.acked("db0");
    master.execute("db0", &[b"set", b"k", b"2"]);
    until("it has arrived", || cdc.metric("takhin_cdc_queue_bytes") > 0.0);
    // It shows that it is there all the same: masters forget whoever is silent for 20 s.
    let heard = signs(&master);
    until("it shows that it is there", || signs(&master) > heard);
    assert_eq!(
        (master.acked("db0"), cdc.metric("takhin_cdc_paused") > 0.0),
        (before, true)
    );
    assert_eq!(
        post(cdc.admin, "/v1/resume"),
        Some((200, "{\"paused\":false}\n".to_owned()))
    );
    until("the rest is written", || {
        master.acked("db0") == Some(master.end("db0"))
    });
    let read = read_until(broker.kafka, &cdc.topic("binlog"), "both", |read| read.len() >= 2);
    assert_eq!(
        read.iter()
            .map(|event| event.args()[1].clone())
            .collect::<Vec<_>>(),
        [b"1", b"2"]
    );
    assert_eq!(master.connections(), 1);
}

#[test]
fn positions_that_cannot_be_kept() {
    let broker = Broker::shared();
    let master = master(|_| {});
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.start_and_wait();
    master.execute("db0", &[b"set", b"k", b"1"]);
    until("it is acknowledged", || {
        master.acked("db0") == Some(master.end("db0"))
    });
    let before = master.acked("db0");
    // As with a disk that is full, or gone.
    cdc.lose_file();
    master.execute("db0", &[b"set", b"k", b"2"]);
    says(&cdc, "checkpoint.dir: cannot write");
    assert_eq!(master.acked("db0"), before, "acknowledged without a position");
    std::fs::create_dir_all(cdc.data()).unwrap();
    until("it goes on", || master.acked("db0") == Some(master.end("db0")));
    until("it is ready again", || cdc.is_ready());
    assert_eq!(cdc.saved("db0"), Some(master.end("db0")));
}
