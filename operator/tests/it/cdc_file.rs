//! What the operator writes for `takhin-cdc`, takhin-cdc reads.

use kube::core::ObjectMeta;
use serde_json::{Value, json};
use takhin_config::cdc::{OnPositionLost, SnapshotMode};
use takhin_config::{CdcConfig, Sources, load_cdc, yaml};
use takhin_operator::api::{PikaSource, PikaSourceSpec};
use takhin_operator::build::{Surroundings, cdc_children, cdc_file, cdc_service};

fn read(sink: Value, start: &str, password: bool) -> CdcConfig {
    let mut spec = json!({
        "clusterRef": { "name": "prod" },
        "source": { "host": "pika-0.pika.data.svc", "port": 9221 },
        "sink": sink,
        "startFrom": { "mode": start },
    });
    if password {
        spec["source"]["passwordSecretRef"] = json!({ "name": "pika-auth", "key": "password" });
    }
    read_spec(&serde_json::from_value(spec).unwrap(), None)
}

fn read_spec(spec: &PikaSourceSpec, balancer: Option<&str>) -> CdcConfig {
    let around = Surroundings {
        bootstrap: "prod-kafka:9092",
        image: "takhin/takhin:test",
        traces: Some("http://collector:4318"),
        balancer,
    };
    let text = yaml::to_string(&cdc_file(("data", "profiles"), spec, around)).unwrap();
    let sources = Sources {
        file: Some(("cdc.yaml".to_owned(), text)),
        ..Sources::default()
    };
    load_cdc(&sources).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_wish_is_a_configuration() {
    let config = read(json!({ "topic": "profiles.changes" }), "initial", true);
    let traces = config.telemetry.otlp_endpoint.as_ref().map(ToString::to_string);
    assert_eq!(traces.as_deref(), Some("http://collector:4318"));
    assert_eq!(
        config.topics(),
        ("profiles.changes".to_owned(), "profiles.changes".to_owned())
    );
    assert!(config.source.password_file.is_some());
    assert_eq!(config.snapshot.mode, SnapshotMode::Initial);
    assert_eq!(config.source.on_position_lost, OnPositionLost::Stop);

    let config = read(
        json!({ "topicPrefix": "p", "mode": "Dual" }),
        "when_needed",
        false,
    );
    assert_eq!(config.topics(), ("p.snapshot".to_owned(), "p.binlog".to_owned()));
    assert_eq!(config.source_id(), "data/profiles");

    let config = read(json!({ "topicPrefix": "p", "mode": "Single" }), "no_data", false);
    assert_eq!(config.topics().0, "p.stream");
}

#[test]
fn every_snapshot_mode_of_takhin_cdc_can_be_wished_for() {
    for (name, mode, is_resynced) in [
        ("initial", SnapshotMode::Initial, false),
        ("no_data", SnapshotMode::NoData, false),
        ("when_needed", SnapshotMode::WhenNeeded, true),
        ("always", SnapshotMode::Always, true),
        ("initial_only", SnapshotMode::InitialOnly, false),
    ] {
        let config = read(json!({ "topic": "profiles.changes" }), name, false);
        // It is the same there.
        let written = match mode {
            SnapshotMode::WhenNeeded => SnapshotMode::Initial,
            mode => mode,
        };
        assert_eq!(
            (config.snapshot.mode, config.is_resynced()),
            (written, is_resynced),
            "{name}"
        );
    }
}

#[test]
fn the_log_is_as_large_as_is_wished() {
    let with = |wal: Value| {
        let spec = json!({
            "clusterRef": { "name": "prod" },
            "source": { "host": "pika", "port": 9221 },
            "sink": { "topic": "profiles.changes" },
            "storage": { "size": "1Ti" },
            "wal": wal,
        });
        let wal = read_spec(&serde_json::from_value(spec).unwrap(), None).wal;
        (wal.enabled, wal.max_size.as_u64())
    };
    assert_eq!(with(Value::Null), (false, 4 << 30));
    assert_eq!(with(json!({ "enabled": true })), (true, 4 << 30));
    // The edges of what the rule of the field lets in.
    for (size, bytes) in [
        ("1Mi", 1 << 20),
        ("1.5Gi", 3 << 29),
        ("20G", 20_000_000_000),
        ("1Ti", 1 << 40),
    ] {
        assert_eq!(with(json!({ "maxSize": size })), (false, bytes), "{size}");
    }
}

/// A volume that is full of the log has no room for positions.
#[test]
fn the_log_leaves_room_on_its_volume() {
    let file = |spec: Value| {
        let mut all = json!({
            "clusterRef": { "name": "prod" },
            "source": { "host": "pika", "port": 9221 },
            "sink": { "topic": "profiles.changes" },
        });
        all.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        serde_json::from_value::<PikaSourceSpec>(all).unwrap()
    };
    let most = |spec: Value| read_spec(&file(spec), None).wal.max_size.as_u64();
    for (size, bytes) in [
        ("1", 1 << 20),
        ("1Gi", 3 << 28),
        ("5461Mi", 5461 * (3 << 18)),
        ("5462Mi", 4 << 30),
        ("1Ti", 4 << 30),
    ] {
        assert_eq!(most(json!({ "storage": { "size": size } })), bytes, "{size}");
        let on = json!({ "storage": { "size": size }, "wal": { "enabled": true } });
        assert_eq!(most(on), bytes, "{size} with a log");
    }
    let wished = json!({ "storage": { "size": "1Gi" }, "wal": { "maxSize": "1Gi" } });
    assert_eq!(most(wished), 1 << 30);
    assert_eq!(most(json!({})), 4 << 30);
    // Where takhin-cdc has that number anyway the file is as it always was, so that no pod is replaced.
    let around = Surroundings {
        bootstrap: "prod-kafka:9092",
        image: "takhin/takhin:test",
        traces: None,
        balancer: None,
    };
    for (size, is_said) in [("5461Mi", true), ("5462Mi", false)] {
        let spec = file(json!({ "storage": { "size": size } }));
        let text = cdc_file(("data", "profiles"), &spec, around);
        assert_eq!(text.get("wal").is_some(), is_said, "{size}");
    }
}

/// A wish that says how a master reaches the pod.
fn listed(listing: &Value) -> PikaSourceSpec {
    serde_json::from_value(json!({
        "clusterRef": { "name": "prod" },
        "source": { "host": "pika", "port": 55_534, "listedAs": listing },
        "sink": { "topic": "profiles.changes" },
    }))
    .unwrap()
}

/// What the master is told, and where it then connects to, are one address: by the file, or by what the pod's node is called.
#[test]
fn a_master_is_told_where_the_service_is() {
    let balancer = json!({ "type": "LoadBalancer", "port": 62_535 });
    let named = json!({ "type": "NodePort", "port": 1024, "host": "node-1" });
    for (listing, address, told) in [
        (&balancer, Some("192.0.2.1"), "192.0.2.1:62535"),
        (&balancer, Some("2001:db8::1"), "[2001:db8::1]:62535"),
        (&named, None, "node-1:1024"),
    ] {
        let config = read_spec(&listed(listing), address);
        assert_eq!(config.source.listed_as.unwrap().to_string(), told);
    }

    let spec = listed(&json!({ "type": "NodePort", "port": 29_333 }));
    let around = Surroundings {
        bootstrap: "prod-kafka:9092",
        image: "takhin/takhin:test",
        traces: None,
        balancer: None,
    };
    assert_eq!(read_spec(&spec, None).source.listed_as, None);
    let service = cdc_service(&spec, "data", "profiles").unwrap();
    let source = PikaSource {
        metadata: ObjectMeta::default(),
        spec,
        status: None,
    };
    let [_, config, deployment] = cdc_children(&source, "data", "profiles", around).unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let words = container["args"].as_array().unwrap();
    let setting = words.last().unwrap().as_str().unwrap();
    let name = container["env"][0]["name"].as_str().unwrap();
    let host_port = setting.replace(&format!("$({name})"), "10.0.0.7");
    let file = config["data"]["cdc.yaml"].as_str().unwrap().to_owned();
    let sources = Sources {
        file: Some(("cdc.yaml".to_owned(), file)),
        set: vec![host_port],
        ..Sources::default()
    };
    let config = load_cdc(&sources).unwrap_or_else(|error| panic!("{error}"));
    let port = config.source.listed_as.unwrap().port;
    for (above, at) in [(1000, 0), (3000, 1)] {
        let wanted = json!(port + above);
        assert_eq!(service["spec"]["ports"][at]["nodePort"], wanted);
        assert_eq!(service["spec"]["ports"][at]["targetPort"], wanted);
        assert_eq!(container["ports"][at + 1]["containerPort"], wanted);
    }
}
