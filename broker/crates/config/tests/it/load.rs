//! Precedence, origins, and the faults that people make.

use std::collections::BTreeMap;

use proptest::prelude::*;
use takhin_config::{ByteSize, NodeConfig, Origin, Row, Sources, load};

fn with_file(text: &str) -> Sources {
    Sources {
        file: Some(("t.yaml".to_owned(), text.to_owned())),
        ..Sources::dev("data")
    }
}

fn faults(sources: &Sources) -> Vec<String> {
    match load(sources) {
        Ok(_) => Vec::new(),
        Err(error) => error.faults.iter().map(ToString::to_string).collect(),
    }
}

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn set_wins_over_environment_over_file_over_default() {
    let mut sources = with_file("kafka: { num_partitions: 2, limits: { max_request_size: 2MiB } }\nadmin:\n");
    let partitions = |sources: &Sources| {
        let loaded = load(sources).unwrap_or_else(|error| panic!("{error}"));
        (
            loaded.config.kafka.num_partitions,
            loaded.origin("kafka.num_partitions").cloned(),
        )
    };
    assert_eq!(partitions(&Sources::dev("data")), (1, Some(Origin::Default)));
    assert_eq!(partitions(&sources), (2, Some(Origin::File("t.yaml".to_owned()))));
    sources.env = env(&[
        ("TAKHIN__KAFKA__NUM_PARTITIONS", "3"),
        ("TAKHIN_CACHE", "x"),
        ("PATH", "/bin"),
    ]);
    assert_eq!(
        partitions(&sources),
        (3, Some(Origin::Env("TAKHIN__KAFKA__NUM_PARTITIONS".to_owned())))
    );
    sources.set = vec![
        "kafka.num_partitions=4".to_owned(),
        "kafka.num_partitions=5".to_owned(),
    ];
    assert_eq!(partitions(&sources), (5, Some(Origin::Set)));
    let loaded = load(&sources).unwrap();
    assert_eq!(
        loaded.config.kafka.limits.max_request_size,
        ByteSize::mib(2),
        "what nobody overrode stays"
    );
}

#[test]
fn lists_are_replaced_as_a_whole_or_changed_by_position() {
    let mut sources = with_file(
        "kafka: { listeners: [ { name: a, bind: '127.0.0.1:1' }, { name: b, bind: '127.0.0.1:2' } ] }",
    );
    sources.env = env(&[("TAKHIN__KAFKA__LISTENERS__1__BIND", "127.0.0.1:3")]);
    sources.set = vec![
        "kafka.listeners.2.name=c".to_owned(),
        "kafka.listeners.2.bind=[::1]:4".to_owned(),
    ];
    let listeners = load(&sources)
        .unwrap_or_else(|error| panic!("{error}"))
        .config
        .kafka
        .listeners;
    let shown: Vec<_> = listeners
        .iter()
        .map(|l| format!("{}={}", l.name, l.bind))
        .collect();
    assert_eq!(shown, ["a=127.0.0.1:1", "b=127.0.0.1:3", "c=[::1]:4"]);

    sources.set = vec!["kafka.listeners=[{bind: '127.0.0.1:7'}]".to_owned()];
    let listeners = load(&sources).unwrap().config.kafka.listeners;
    assert_eq!((listeners.len(), listeners[0].bind.port()), (1, 7));

    sources.set = vec!["kafka.listeners.9.name=x".to_owned()];
    assert_eq!(
        faults(&sources),
        ["--set: kafka.listeners.9.name 9 is not an element of a list of 2"]
    );
}

#[test]
fn all_faults_are_told_at_once_with_source_and_remedy() {
    let mut sources = with_file(
        "node: { id: -3 }\nkafka:\n  listners: []\n  num_partitions: many\n  limits: 7\n  message_max_bytes: 2GiB\nmetrics: {}\n",
    );
    sources.env = env(&[
        ("TAKHIN__STORAGE__SEGMENT_AGE", "7"),
        ("TAKHIN__ADMIN__BIND__PORT", "1"),
    ]);
    sources.set = vec!["kafka.delete_topic_enable=yes".to_owned(), "nonsense".to_owned()];
    let found = faults(&sources);
    let expected = [
        "--set: \"nonsense\" is not of the form section.key=value",
        "t.yaml: unknown setting metrics: the configuration has node, cluster, kafka, rpc, admin, storage, telemetry",
        "t.yaml: node.id is -3; allowed is 0 to 2147483647",
        "t.yaml: unknown setting kafka.listners: did you mean kafka.listeners?",
        "t.yaml: kafka.limits is a section with the settings max_connections, max_connections_per_ip, \
         max_request_size, max_request_memory, max_pipelined_requests, connections_max_idle, request_receive_timeout",
        "--set: kafka.delete_topic_enable is \"yes\"; expected true or false",
        "t.yaml: kafka.num_partitions is \"many\"; expected a whole number, 1 to 10000",
        "t.yaml: kafka.message_max_bytes is 2GiB; allowed is 1KiB to 1GiB",
        "environment TAKHIN__ADMIN__BIND__PORT: admin.bind is one value of type address, not a list or section",
        "environment TAKHIN__STORAGE__SEGMENT_AGE: storage.segment_age is \"7\"; expected a duration with its unit \
         (ms, s, m, h or d), as in 250ms or 10s, 1ms to 36500d",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_development_broker_is_its_own_seed_wherever_it_listens() {
    let set = vec!["rpc.bind=127.0.0.1:5".to_owned()];
    let loaded = load(&Sources {
        set,
        ..Sources::dev("data")
    })
    .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.config.cluster.seeds, [loaded.config.rpc.configured()]);
}

#[test]
fn start_needs_what_has_no_safe_default() {
    let found = faults(&Sources::default());
    let paths: Vec<_> = found.iter().filter_map(|fault| fault.split(' ').next()).collect();
    assert_eq!(
        paths,
        ["node.id", "node.data_dir", "cluster.name", "cluster.seeds"]
    );
    assert!(
        found.iter().all(|fault| fault.contains("has no value")),
        "{found:?}"
    );
}

#[test]
fn addresses_that_others_reach_need_consent_per_listener_kind() {
    let mut sources = Sources::dev("data");
    sources.set = [
        "kafka.listeners.0.bind=0.0.0.0:9092",
        "kafka.listeners.0.advertise=db:9092",
        "admin.bind=10.0.0.1:9644",
    ]
    .map(str::to_owned)
    .to_vec();
    let found = faults(&sources);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("kafka.allow_insecure") && found[1].contains("admin.allow_insecure"),
        "{found:?}"
    );
    sources.set.extend([
        "kafka.allow_insecure=true".to_owned(),
        "admin.allow_insecure=true".to_owned(),
    ]);
    assert_eq!(faults(&sources), [""; 0]);
    sources
        .set
        .push("kafka.listeners=[{bind: '0.0.0.0:9092'}]".to_owned());
    assert!(faults(&sources)[0].contains("clients cannot connect to 0.0.0.0"));
}

#[test]
fn settings_that_disagree_name_each_other() {
    for (set, told) in [
        (
            "kafka.limits.max_request_size=1GiB",
            "more than kafka.limits.max_request_memory (512MiB)",
        ),
        (
            "kafka.message_max_bytes=200MiB",
            "more than kafka.limits.max_request_size (100MiB)",
        ),
        (
            "kafka.limits.max_connections=10",
            "kafka.limits.max_connections_per_ip",
        ),
        ("admin.bind=127.0.0.1:9092", "another listener has"),
        (
            "kafka.default_replication_factor=3",
            "more than the number of brokers",
        ),
        ("kafka.listeners=[]", "no client could connect"),
    ] {
        let found = faults(&Sources {
            set: vec![set.to_owned()],
            ..Sources::dev("data")
        });
        let expected = if set.starts_with("kafka.limits.max_connections=") {
            0
        } else {
            1
        };
        assert_eq!(found.len(), expected, "{set}: {found:?}");
        assert!(expected == 0 || found[0].contains(told), "{set}: {found:?}");
    }
}

#[test]
fn a_file_that_is_not_a_mapping_of_sections_is_refused() {
    for text in [
        "- a",
        "just text",
        "node: [",
        "1: 2",
        "node: {id: !tag 3}",
        "node: {id: 1, id: 2}",
    ] {
        assert_eq!(
            faults(&with_file(text)).len(),
            1,
            "{text}: {:?}",
            faults(&with_file(text))
        );
    }
    let deep = format!("node: {}1{}", "[".repeat(40), "]".repeat(40));
    assert_eq!(
        faults(&with_file(&deep)),
        ["t.yaml: holds nested more than 16 levels deep"]
    );
    assert_eq!(faults(&with_file("")), [""; 0]);
}

/// Every value that the reference shows is accepted under the name it shows, from command line and environment.
#[test]
fn every_documented_default_is_read_back() {
    let loaded = load(&Sources::dev("data")).unwrap();
    for (value, _) in loaded.values() {
        let set = vec![format!("{}={}", value.path, value.value)];
        let by_set = load(&Sources {
            set,
            ..Sources::dev("data")
        })
        .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(by_set.config, loaded.config, "{}", value.path);
        let name = format!("TAKHIN__{}", value.path.to_uppercase().replace('.', "__"));
        let env = BTreeMap::from([(name.clone(), value.value.clone())]);
        let by_env = load(&Sources {
            env,
            ..Sources::dev("data")
        })
        .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(by_env.config, loaded.config, "{name}");
    }
    let shown = loaded.values().len();
    let documented = NodeConfig::rows()
        .iter()
        .filter(|row| matches!(row, Row::Setting(_)))
        .count();
    assert_eq!(
        documented - shown,
        4,
        "rack, token file and two advertised addresses have no value"
    );
}

proptest! {
    #[test]
    fn any_text_is_loaded_or_refused(file in "[a-z0-9:\\-{}\\[\\], \n'\"&*!|>.]{0,200}", set in ".{0,60}", value in ".{0,30}") {
        let env = BTreeMap::from([(format!("TAKHIN__{}", set.to_uppercase()), value)]);
        let _ = load(&Sources { env, set: vec![set], ..with_file(&file) });
    }

    #[test]
    fn any_value_of_any_setting_is_loaded_or_its_fault_names_it(index in 0usize..100, value in "[a-zA-Z0-9:.,\\-]{0,20}") {
        let values = load(&Sources::dev("data")).unwrap().values();
        let path = &values[index % values.len()].0.path;
        let set = vec![format!("{path}={value}")];
        if let Err(error) = load(&Sources { set, ..Sources::dev("data") }) {
            let told = error.to_string();
            let section = path.split('.').next().unwrap_or_default();
            prop_assert!(told.contains(section) && told.contains("is ") || told.contains("names "), "{}", told);
        }
    }
}
