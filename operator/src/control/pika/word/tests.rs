use super::*;
use crate::api::PikaPosition;
use crate::control::pika::LOOK;
use crate::control::pika::volume::may_restart;
use crate::control::testing::Server;

const METRICS: &str = "\
# HELP takhin_cdc_phase x.
takhin_cdc_phase{db=\"db0\",phase=\"snapshot\"} 0
takhin_cdc_phase{db=\"db0\",phase=\"streaming\"} 1
takhin_cdc_source_position_filenum{db=\"db1\"} 9
takhin_cdc_source_position_filenum{db=\"db0\"} 14
takhin_cdc_source_position_offset{db=\"db0\"} 884213
takhin_cdc_lag_bytes{db=\"db0\"} 1204
takhin_cdc_lag_seconds{db=\"db0\"} 1
nonsense
# EOF
";

fn source() -> PikaSource {
    let spec = json!({
        "clusterRef": { "name": "prod" },
        "source": { "host": "pika", "port": 9221 },
        "sink": { "topicPrefix": "p", "mode": "Dual" },
    });
    PikaSource::new("profiles", serde_json::from_value(spec).unwrap())
}

fn word() -> Word {
    Word::of(&source())
}

fn reason_of(word: &Word) -> (String, String) {
    let ready = word.conditions.get("Ready").unwrap();
    (ready.status.clone(), ready.reason.clone())
}

#[test]
fn a_source_that_follows_is_told_with_position_and_lag() {
    let mut word = word();
    word.said(&Readings::parse(METRICS), &(true, "ok\n".to_owned()));
    assert_eq!(word.status.topic.as_deref(), Some("p.snapshot,p.binlog"));
    assert_eq!(word.status.phase.as_deref(), Some("Streaming"));
    assert_eq!(
        word.status.position,
        Some(PikaPosition {
            file: 14,
            offset: 884_213
        })
    );
    assert_eq!(
        (word.status.lag_bytes, word.status.lag_seconds),
        (Some(1204), Some(1))
    );
    assert_eq!(reason_of(&word), ("True".to_owned(), "Streaming".to_owned()));
}

#[test]
fn what_it_lacks_is_told_in_its_own_words() {
    for (text, reason, sink, source) in [
        ("sink: not connected", "SinkUnreachable", "False", "True"),
        (
            "sink: topic p.binlog is missing: create it",
            "TopicNotReady",
            "False",
            "True",
        ),
        (
            "sink: cannot create topic p.binlog: POLICY_VIOLATION",
            "TopicNotReady",
            "False",
            "True",
        ),
        (
            "sink: cannot write to p: TOPIC_AUTHORIZATION_FAILED; grant this client",
            "SinkNotAuthorized",
            "False",
            "True",
        ),
        (
            "source: cannot connect to pika:9221: refused",
            "SourceUnreachable",
            "True",
            "False",
        ),
        (
            "source: wrong password: pika:9221 refuses what is in source.password_file",
            "SourceAuthFailed",
            "True",
            "False",
        ),
        (
            "source: snapshot.mode is always, and pika:9221 is Pika 3.0.16: of masters before 3.1 there are initial",
            "InvalidSpec",
            "True",
            "False",
        ),
        (
            "source: position 3:17 of db0 is lost: the master has deleted it; set source.on_position_lost",
            "PositionLost",
            "True",
            "False",
        ),
    ] {
        let mut word = word();
        word.said(&Readings::default(), &(false, format!("{text}\n")));
        assert_eq!(
            reason_of(&word),
            ("False".to_owned(), reason.to_owned()),
            "{text}"
        );
        let is = |kind: &str| word.conditions.get(kind).unwrap().status.clone();
        assert_eq!(
            (is("SinkConnected").as_str(), is("SourceConnected").as_str()),
            (sink, source)
        );
    }
}

#[test]
fn what_it_does_is_told_by_its_phase_and_lag() {
    let reading = |phase: &str, lag: i64| {
        let text = format!(
            "takhin_cdc_phase{{db=\"db0\",phase=\"{phase}\"}} 1\ntakhin_cdc_lag_seconds{{db=\"db0\"}} {lag}\n"
        );
        Readings::parse(&text)
    };
    let ready = (true, "ok\n".to_owned());
    let (mut word, mut next) = (word(), word());
    let snapshot = |word: &Word| {
        let said = word.conditions.get("SnapshotComplete").unwrap();
        (said.status.clone(), said.reason.clone())
    };
    let words = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    word.said(&reading("snapshot", 0), &ready);
    assert_eq!(reason_of(&word), words("True", "Snapshotting"));
    assert_eq!(snapshot(&word), words("False", "Snapshotting"));
    word.said(&reading("streaming", LATE_SECONDS + 1), &ready);
    assert_eq!(reason_of(&word), words("True", "Lagging"));
    assert_eq!(snapshot(&word), words("True", "Complete"));
    word.said(&reading("streaming", 0), &ready);
    assert_eq!(reason_of(&word), words("True", "Streaming"));
    word.mode = SnapshotMode::NoData;
    word.said(&reading("streaming", 0), &ready);
    assert_eq!(snapshot(&word), words("True", "NotWanted"));
    next.said(
        &reading("connecting", 0),
        &(false, "source: refused\n".to_owned()),
    );
    assert_eq!(next.conditions.get("SnapshotComplete"), None);
    next.not_running(None, &[]);
    assert_eq!(reason_of(&next), words("False", "WorkloadNotReady"));
    let pod =
        |phase: &str| serde_json::from_value(serde_json::json!({ "status": { "phase": phase } })).unwrap();
    next.paused(&[pod("Failed"), pod("Running")]);
    assert_eq!(reason_of(&next), words("False", "WorkloadNotReady"));
    next.paused(&[pod("Failed")]);
    assert_eq!(reason_of(&next), words("False", "Paused"));
    for (mode, part) in [
        (SnapshotMode::Initial, "goes on from its position"),
        (SnapshotMode::Always, "data set again"),
    ] {
        next.mode = mode;
        next.paused(&[pod("Failed")]);
        let message = &next.conditions.get("Ready").unwrap().message;
        assert!(message.contains(part), "{message}");
    }
    let mut source = source();
    source.metadata.generation = Some(8);
    source.status.get_or_insert_default().observed_generation = Some(7);
    next.reconciliation_paused(&source);
    let said = next.conditions.get("ReconciliationPaused").unwrap();
    assert_eq!(said.reason, "Annotation");
    assert_eq!(
        (said.observed_generation, next.status.observed_generation),
        (Some(7), Some(7))
    );
}

#[test]
fn a_data_set_alone_is_complete_when_the_master_is_left() {
    let connecting = Readings::parse("takhin_cdc_phase{db=\"db0\",phase=\"connecting\"} 1\n");
    let taking = Readings::parse("takhin_cdc_phase{db=\"db0\",phase=\"snapshot\"} 1\n");
    let told = |mode, readings: &Readings, is_ready| {
        let mut word = word();
        word.mode = mode;
        word.said(readings, &(is_ready, "source: not connected\n".to_owned()));
        (reason_of(&word).1, word.phase().unwrap().to_owned())
    };
    let words = |reason: &str, phase: &str| (reason.to_owned(), phase.to_owned());
    let mode = SnapshotMode::InitialOnly;
    assert_eq!(
        told(mode, &connecting, true),
        words("SnapshotComplete", "Complete")
    );
    assert_eq!(told(mode, &taking, true), words("Snapshotting", "Snapshot"));
    let away = told(mode, &connecting, false);
    assert_eq!(away, words("SourceUnreachable", "Connecting"));
    let begins = told(mode, &Readings::default(), true);
    assert_eq!(begins, words("WorkloadNotReady", "Connecting"));
    let follows = told(SnapshotMode::Initial, &connecting, true);
    assert_eq!(follows, words("WorkloadNotReady", "Connecting"));
}

#[test]
fn what_becomes_of_the_volume_is_told_with_what_to_do() {
    let told = |mode, volume| {
        let mut word = word();
        (word.mode, word.wished) = (mode, Some("2Gi".to_owned()));
        word.volume(Some(volume));
        let said = word.conditions.get("StorageExpanded").unwrap();
        (said.reason.clone(), said.message.clone())
    };
    let larger = Volume::Larger {
        has: "3Gi".to_owned(),
    };
    let (reason, message) = told(SnapshotMode::Initial, larger);
    assert_eq!(reason, "Expanded");
    assert!(message.contains("3Gi") && message.contains("2Gi"), "{message}");
    for (class, remedy) in [("logs", "allowVolumeExpansion"), ("", "no storage class")] {
        let class = class.to_owned();
        let (reason, message) = told(SnapshotMode::Initial, Volume::Refused { class });
        assert_eq!(reason, "ResizeNotSupported");
        assert!(message.contains(remedy) && message.contains("2Gi"), "{message}");
    }
    for (mode, phase, may) in [
        (SnapshotMode::Initial, "Streaming", true),
        (SnapshotMode::Initial, "Connecting", true),
        (SnapshotMode::Initial, "Snapshot", false),
        (SnapshotMode::Always, "Streaming", false),
    ] {
        assert_eq!(may_restart(mode, Some(phase)), may, "{mode:?} {phase}");
        let (_, message) = told(mode, Volume::Restart);
        assert_eq!(message.contains("delete the pod"), mode == SnapshotMode::Always);
    }
}

#[test]
fn why_no_pod_runs_is_told() {
    let told = |deployment: serde_json::Value, pod: serde_json::Value| {
        let mut word = word();
        let deployment: Deployment = serde_json::from_value(deployment).unwrap();
        let pods: Vec<Pod> = serde_json::from_value(pod).unwrap();
        word.not_running(Some(&deployment), &pods);
        assert_eq!(
            reason_of(&word),
            ("False".to_owned(), "WorkloadNotReady".to_owned())
        );
        word.conditions.get("Ready").unwrap().message.clone()
    };
    let quota = json!({ "type": "ReplicaFailure", "status": "True", "message": "exceeded quota: few" });
    let nothing = json!({});
    assert_eq!(told(nothing.clone(), json!([])), "no pod runs yet");
    assert_eq!(
        told(json!({ "status": { "conditions": [quota] } }), json!([])),
        "no pod runs: exceeded quota: few"
    );
    let condition = json!({ "type": "PodScheduled", "status": "False", "message": "0/3 nodes" });
    let unscheduled = json!([{ "status": { "phase": "Pending", "conditions": [condition] } }]);
    assert_eq!(
        told(nothing.clone(), unscheduled),
        "no pod runs: it has no node: 0/3 nodes"
    );
    let state = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
    let container = json!({
        "name": "cdc", "image": "x", "imageID": "", "ready": false, "restartCount": 1, "state": state,
    });
    let ends = json!([{ "status": { "phase": "Running", "containerStatuses": [container] } }]);
    assert_eq!(told(nothing, ends), "no pod runs: CrashLoopBackOff: back-off 10s");
}

#[test]
fn a_lost_position_is_told_with_what_to_do_in_the_resource() {
    let mut word = word();
    let said = "source: position 3:17 of db0 is lost: deleted; set source.on_position_lost".to_owned();
    word.said(&Readings::default(), &(false, said));
    let ready = word.conditions.get("Ready").unwrap();
    assert_eq!(ready.reason, "PositionLost");
    assert!(
        ready
            .message
            .ends_with("(here: spec.startFrom.mode: when_needed)"),
        "{}",
        ready.message
    );
}

/// Positions move all the time, and a status that is written begins the next pass at once.
#[tokio::test(start_paused = true)]
async fn how_far_it_is_is_written_with_each_look_and_what_it_does_at_once() {
    let server = Server::default();
    let path = "/apis/takhin.io/v1alpha1/namespaces/ns/pikasources/profiles";
    let mut source = source();
    source.metadata.namespace = Some("ns".to_owned());
    server.put(path, serde_json::to_value(&source).unwrap());
    let context = server.context();
    let begun = context.env.clock.instant();
    let write = async |phase: &str, at: i64| {
        let source: PikaSource = serde_json::from_value(server.get(path).unwrap()).unwrap();
        let mut word = Word::of(&source);
        let text = format!(
            "takhin_cdc_phase{{db=\"db0\",phase=\"{phase}\"}} 1\n\
             takhin_cdc_source_position_filenum{{db=\"db0\"}} {at}\n\
             takhin_cdc_source_position_offset{{db=\"db0\"}} {at}\n\
             takhin_cdc_lag_seconds{{db=\"db0\"}} {}\n",
            LATE_SECONDS + at % 2
        );
        word.said(&Readings::parse(&text), &(true, "ok\n".to_owned()));
        word.write(&context, &source, "ns", LOOK).await.unwrap();
        server.writes().len()
    };
    let mut writes = 0;
    for at in 1.. {
        let wrote = write("streaming", at).await;
        writes += wrote;
        let pause = if wrote == 0 {
            LOOK
        } else {
            Duration::from_millis(200)
        };
        context.env.clock.sleep(pause).await;
        if begun.elapsed() > 2 * LOOK {
            break;
        }
    }
    assert!((2..=3).contains(&writes), "{writes} in a minute");
    for phase in ["snapshot", "streaming"] {
        assert_eq!(write(phase, 7).await, 1, "{phase}");
    }
}
