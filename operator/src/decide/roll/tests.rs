use super::*;

fn pod(broker: i32, state: PodState, reasons: &[&str]) -> Pod {
    Pod {
        broker,
        name: format!("prod-{broker}"),
        state,
        reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
    }
}

fn three(reasons: &[&str]) -> Observed {
    let word = |controller| Word {
        leaders: 4,
        controller,
        draining: false,
    };
    Observed {
        pods: (0..3)
            .map(|broker| pod(broker, PodState::Ready, reasons))
            .collect(),
        wished: 3,
        words: Some(BTreeMap::from([
            (0, word(false)),
            (1, word(true)),
            (2, word(false)),
        ])),
        drain_timeout: Duration::from_secs(60),
        ..Observed::default()
    }
}

fn broken() -> PodState {
    PodState::NotRunning("ErrImagePull".to_owned())
}

/// Does what a step says to a model of the cluster.
fn obey(observed: &mut Observed, step: &Step, deleted: &mut Vec<String>) {
    let words = observed.words.as_mut().unwrap();
    match step {
        Step::Begin { pod, .. } => {
            observed.current = Some(pod.clone());
            observed.since = Duration::ZERO;
        }
        Step::Drain { broker } => {
            let word = words.get_mut(broker).unwrap();
            (word.draining, word.leaders) = (true, 0);
            if std::mem::take(&mut word.controller) {
                let heir = words.iter_mut().find(|(id, _)| *id != broker).unwrap();
                heir.1.controller = true;
            }
        }
        Step::Undrain { broker } => words.get_mut(broker).unwrap().draining = false,
        Step::Replace { pod, .. } | Step::ReplaceIfSafe { pod, .. } => {
            deleted.push(pod.clone());
            let pod = observed.pods.iter_mut().find(|other| other.name == *pod).unwrap();
            (pod.state, pod.reasons) = (PodState::Ready, Vec::new());
        }
        Step::Wait { .. } | Step::Done => {}
    }
}

fn run(mut observed: Observed) -> Vec<String> {
    let mut deleted = Vec::new();
    for _ in 0..100 {
        let step = decide(&observed);
        if step == Step::Done {
            let draining = observed.words.unwrap().values().any(|word| word.draining);
            assert!(!draining, "a broker was left drained");
            return deleted;
        }
        obey(&mut observed, &step, &mut deleted);
    }
    panic!("no end after {deleted:?}");
}

#[test]
fn each_broker_is_restarted_once_and_the_controller_last() {
    assert_eq!(run(three(&["ConfigChanged"])), ["prod-2", "prod-0", "prod-1"]);
    assert_eq!(run(three(&[])), Vec::<String>::new());
}

#[test]
fn a_restart_goes_on_from_whatever_is_found() {
    let mut drained = three(&["ConfigChanged"]);
    drained.current = Some("prod-2".to_owned());
    let word = drained.words.as_mut().unwrap().get_mut(&2).unwrap();
    (word.draining, word.leaders) = (true, 0);
    assert_eq!(run(drained.clone()), ["prod-2", "prod-0", "prod-1"]);
    // The wish was taken back in the middle: the broker is undrained and nobody is restarted.
    drained.pods.iter_mut().for_each(|pod| pod.reasons.clear());
    assert_eq!(decide(&drained), Step::Undrain { broker: 2 });
    assert_eq!(run(drained), Vec::<String>::new());
}

#[test]
fn a_pod_that_does_not_run_is_replaced_at_once() {
    let mut observed = three(&["SpecChanged"]);
    observed.pods[0].state = broken();
    observed.words = None;
    let step = decide(&observed);
    assert!(matches!(step, Step::Replace { pod, .. } if pod == "prod-0"));
    // With the current template it is left to Kubernetes, and nobody else is stopped meanwhile.
    observed.pods[0].reasons.clear();
    assert!(matches!(decide(&observed), Step::Wait { until, .. } if until == "prod-0 to become ready"));
}

#[test]
fn nobody_is_stopped_while_another_is_away() {
    let mut observed = three(&["ConfigChanged"]);
    observed.pods[1].state = PodState::NotReady;
    // The one that is away is itself due, and goes first.
    assert!(matches!(decide(&observed), Step::Begin { pod, .. } if pod == "prod-1"));
    observed.pods[1].reasons.clear();
    assert!(matches!(decide(&observed), Step::Wait { until, .. } if until == "prod-1 to become ready"));
    let mut observed = three(&["ConfigChanged"]);
    observed.pods.remove(1);
    assert!(matches!(decide(&observed), Step::Wait { until, .. } if until == "1 pods that are missing"));
}

#[test]
fn leaders_have_time_to_leave_and_no_more() {
    let mut observed = three(&["ConfigChanged"]);
    observed.current = Some("prod-2".to_owned());
    assert_eq!(decide(&observed), Step::Drain { broker: 2 });
    observed.words.as_mut().unwrap().get_mut(&2).unwrap().draining = true;
    assert!(matches!(decide(&observed), Step::Wait { until, .. } if until.contains("4 leaders")));
    observed.since = Duration::from_secs(60);
    assert!(matches!(decide(&observed), Step::ReplaceIfSafe { broker: 2, .. }));
}

#[test]
fn without_anybody_who_answers_only_what_serves_nobody_is_replaced() {
    let mut observed = three(&["ConfigChanged"]);
    observed.current = Some("prod-2".to_owned());
    observed.words = None;
    assert!(matches!(decide(&observed), Step::Wait { .. }));
    observed.pods[2].state = PodState::NotReady;
    assert!(matches!(decide(&observed), Step::ReplaceIfSafe { broker: 2, .. }));
}

#[test]
fn one_broker_alone_is_not_drained() {
    let mut observed = three(&["ConfigChanged"]);
    observed.pods.truncate(1);
    (observed.wished, observed.current) = (1, Some("prod-0".to_owned()));
    assert!(matches!(decide(&observed), Step::ReplaceIfSafe { broker: 0, .. }));
}
