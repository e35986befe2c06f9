//! Which settings restart brokers, which do not, and which are refused.

use serde_json::json;
use takhin_operator::api::TakhinClusterSpec;
use takhin_operator::build::{Names, NodeFile, node_file};

fn file(config: &[(&str, &str)], brokers: i32) -> Result<NodeFile, Vec<String>> {
    let config: std::collections::BTreeMap<_, _> = config.iter().copied().collect();
    let spec = json!({ "replicas": 3, "storage": { "type": "Ephemeral" }, "config": config });
    let spec: TakhinClusterSpec = serde_json::from_value(spec).unwrap();
    let names = Names {
        namespace: "streaming".to_owned(),
        cluster: "prod".to_owned(),
        domain: "cluster.local".to_owned(),
    };
    node_file(&spec, &names, brokers)
}

#[test]
fn only_what_brokers_read_at_start_changes_the_hash() {
    let plain = file(&[], 3).unwrap();
    let dynamic = file(&[("log.retention.ms", "1000"), ("num.partitions", "6")], 3).unwrap();
    assert_eq!(dynamic.hash, plain.hash);
    assert_eq!(dynamic.dynamic["num.partitions"], "6");
    assert_eq!(dynamic.dynamic["takhin.rebalance.enable"], "true");
    let fixed = file(&[("storage.flush_parallelism", "8")], 3).unwrap();
    assert_ne!(fixed.hash, plain.hash);
    assert!(fixed.text.contains("flush_parallelism"));
    let mut kept = file(&[("num.partitions", "6")], 3).unwrap();
    kept.keep_replicas();
    assert_eq!(kept.dynamic["takhin.rebalance.enable"], "false");
    assert_eq!((&kept.text, &kept.hash), (&dynamic.text, &dynamic.hash));
    // More seeds are for brokers that begin.
    let more = file(&[], 5).unwrap();
    assert_eq!(more.hash, plain.hash);
    assert!(
        more.text
            .contains("prod-4.prod-brokers.streaming.svc.cluster.local:33145")
    );
}

#[test]
fn what_is_wrong_is_named_with_what_to_do() {
    let said = |key: &str, value: &str| file(&[(key, value)], 3).unwrap_err().join("\n");
    assert!(said("log.retention.msx", "1").contains("did you mean log.retention.ms"));
    assert!(said("storage.flush_paralelism", "1").contains("did you mean storage.flush_parallelism"));
    assert!(said("storage.flush_parallelism", "9999").contains("9999"));
    assert!(said("num.partitions", "many").contains("num.partitions"));
    assert!(said("group.max.size", "5").contains("restart"));
    assert!(said("nonsense", "1").contains("nonsense"));
}
