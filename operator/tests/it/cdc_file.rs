//! What the operator writes for `takhin-cdc`, takhin-cdc reads.

use serde_json::{Value, json};
use takhin_config::cdc::{OnPositionLost, SnapshotMode};
use takhin_config::{CdcConfig, Sources, load_cdc, yaml};
use takhin_operator::api::PikaSourceSpec;
use takhin_operator::build::cdc_file;

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
    let spec: PikaSourceSpec = serde_json::from_value(spec).unwrap();
    let text = yaml::to_string(&cdc_file(
        ("data", "profiles"),
        &spec,
        "prod-kafka:9092",
        Some("http://collector:4318"),
    ))
    .unwrap();
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
    assert_eq!(config.source.on_position_lost, OnPositionLost::Resync);
    assert_eq!(config.source_id(), "data/profiles");

    let config = read(json!({ "topicPrefix": "p", "mode": "Single" }), "no_data", false);
    assert_eq!(config.topics().0, "p.stream");
    assert_eq!(config.snapshot.mode, SnapshotMode::NoData);
}
