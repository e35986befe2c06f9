//! The committed reference pages are what the tables say; `make generate` renews them.

use takhin_config::docs::{
    SMALLEST_CDC_FILE, SMALLEST_FILE, cdc_reference, group_reference, node_reference, topic_reference,
};
use takhin_config::topic::TOPIC_KEYS;
use takhin_config::{CdcConfig, NodeConfig, Row, Sources, load, load_cdc};

#[test]
fn committed_pages_are_current() {
    assert_eq!(
        node_reference(),
        include_str!("../../../../../docs/reference/configuration.md")
    );
    assert_eq!(
        topic_reference(),
        include_str!("../../../../../docs/reference/topic-config.md")
    );
    assert_eq!(
        group_reference(),
        include_str!("../../../../../docs/reference/group-config.md")
    );
    assert_eq!(
        cdc_reference(),
        include_str!("../../../../../docs/reference/cdc-configuration.md")
    );
}

#[test]
fn every_setting_has_a_text_and_a_line() {
    let (node, topic) = (node_reference() + &cdc_reference(), topic_reference());
    for row in NodeConfig::rows().into_iter().chain(CdcConfig::rows()) {
        let (Row::Section { path, doc } | Row::Setting(takhin_config::SettingDoc { path, doc, .. })) = row;
        assert!(doc.ends_with('.') && doc.len() > 10, "{path}: {doc:?}");
        let name = path.rsplit('.').next().unwrap_or_default();
        assert!(node.contains(name), "{path}");
    }
    for key in TOPIC_KEYS {
        assert!(
            key.doc.ends_with('.') && topic.contains(&format!("| `{}` |", key.name)),
            "{}",
            key.name
        );
    }
}

#[test]
fn smallest_file_of_the_page_loads() {
    let file = Some(("smallest.yaml".to_owned(), SMALLEST_FILE.to_owned()));
    let loaded = load(&Sources {
        file,
        ..Sources::default()
    })
    .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.config.node.rack.as_deref(), Some("z1"));
    assert_eq!(loaded.config.kafka.listeners[0].bind.port(), 9092);
}

#[test]
fn smallest_file_of_takhin_cdc_loads() {
    let file = Some(("smallest.yaml".to_owned(), SMALLEST_CDC_FILE.to_owned()));
    let config = load_cdc(&Sources {
        file,
        ..Sources::default()
    });
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.topics().1, "pika.prod.binlog");
}
