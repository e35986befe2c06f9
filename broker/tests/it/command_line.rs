//! The `takhin` program from outside: exit codes, remedies, offline tools.

use std::process::{Command, Output};

use crate::fetch::produce;
use crate::support::{Broker, batch};

fn takhin(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_takhin"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn check_config_lists_every_fault_or_every_origin() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("takhin.yaml");
    let path = path.to_str().unwrap();
    let write = |yaml: &str| {
        let disk = takhin_runtime::Env::real().disk;
        let file = disk
            .open(path.as_ref(), takhin_runtime::OpenMode::CreateOrWrite)
            .unwrap();
        file.set_len(0).unwrap();
        file.write_at(&mut [std::io::IoSlice::new(yaml.as_bytes())], 0)
            .unwrap();
    };
    write("node: { id: 7, data_dir: d }\ncluster: { name: demo, seeds: [\"127.0.0.1:33145\"] }\n");
    let good = takhin(&[
        "check-config",
        "--config",
        path,
        "--set",
        "kafka.num_partitions=3",
    ]);
    let out = text(&good.stdout);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    let line = |key: &str| out.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("node.id").ends_with(&format!("7  ({path})")), "{out}");
    assert!(line("kafka.num_partitions").ends_with("3  (--set)"), "{out}");
    assert!(
        line("storage.durability").ends_with("flushed  (default)"),
        "{out}"
    );

    write("node: { id: x }\nkafka: { limts: 1 }\n");
    let bad = takhin(&["check-config", "--config", path]);
    let errors = text(&bad.stderr);
    assert_eq!(bad.status.code(), Some(2));
    assert!(
        errors.contains("did you mean kafka.limits?") && errors.contains("node.id"),
        "{errors}"
    );
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    assert_eq!(takhin(&["nonsense"]).status.code(), Some(2));
    assert_eq!(
        takhin(&["start", "--config", "/nowhere/takhin.yaml"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(takhin(&["dump-log", "/nowhere"]).status.code(), Some(1));
    assert_eq!(takhin(&["dev", "--kafka", "nonsense"]).status.code(), Some(2));
    assert!(text(&takhin(&["dev", "--help"]).stdout).contains("kcat -P"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dump_log_shows_both_numberings() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    for values in [&["a", "b"][..], &["c"]] {
        produce(&mut client, id, 0, batch(values).to_bytes()).await;
    }
    let directory = format!("{}/partitions/{id}-0", broker.config.node.data_dir.display());
    broker.stop().await;
    let dumped = takhin(&["dump-log", "--json", &directory]);
    assert_eq!(dumped.status.code(), Some(0), "{}", text(&dumped.stderr));
    let lines: Vec<serde_json::Value> = text(&dumped.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["type"], "segment");
    let batches = &lines[1..];
    let hidden = batches.iter().filter(|batch| batch["hidden"] == true).count();
    assert!(hidden > 0, "leadership leaves its mark");
    let indexes: Vec<_> = batches
        .iter()
        .map(|batch| batch["raft_index"].as_u64().unwrap())
        .collect();
    assert!(
        indexes.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "no index is missing: {indexes:?}"
    );
    let offsets: Vec<_> = batches
        .iter()
        .filter(|batch| batch["hidden"] == false)
        .map(|batch| {
            (
                batch["base_offset"].as_i64().unwrap(),
                batch["last_offset"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(offsets, [(0, 1), (2, 2)], "control entries take no offset");
    let verified = takhin(&["dump-log", "--verify", &directory]);
    assert!(text(&verified.stdout).ends_with("0 faults\n"));
}
