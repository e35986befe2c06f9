//! What is made of a manifest, as committed; `cargo run -p xtask -- generate` writes it anew. A difference in the template
//! of a pod means that an upgrade of the operator restarts brokers: that is for CHANGELOG.md.

use takhin_operator::build::Images;
use takhin_operator::render::render;

fn check(input: &str, golden: &str) {
    let images = Images {
        broker: "takhin/takhin:test".to_owned(),
        cdc: "takhin/takhin:test".to_owned(),
    };
    let rendered = render(input, &images, "cluster.local", Some("takhin-system")).unwrap();
    for (line, (is, was)) in rendered.lines().zip(golden.lines()).enumerate() {
        assert_eq!(is, was, "line {}", line + 1);
    }
    assert_eq!(rendered.lines().count(), golden.lines().count());
}

#[test]
fn a_small_cluster_and_a_source() {
    check(
        include_str!("../golden/small.in.yaml"),
        include_str!("../golden/small.yaml"),
    );
}

#[test]
fn a_cluster_with_everything() {
    check(
        include_str!("../golden/prod.in.yaml"),
        include_str!("../golden/prod.yaml"),
    );
}
