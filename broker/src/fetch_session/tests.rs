//! The rules of KIP-227, as Kafka's `FetchSessionTest` has them.

use super::*;

const KAFKA_SLOTS: usize = 3;

fn key(partition: i32) -> Key {
    Key {
        topic: TopicRef::Id(uuid::Uuid::from_u128(7)),
        partition,
    }
}

fn wanted(fetch_offset: i64) -> Wanted {
    Wanted {
        fetch_offset,
        max_bytes: 1 << 20,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    }
}

fn ask(session_id: i32, session_epoch: i32, partitions: &[i32]) -> Ask {
    let topics = partitions.iter().map(|p| (key(*p), wanted(0))).collect();
    Ask {
        session_id,
        session_epoch,
        uses_topic_ids: true,
        topics,
        forgotten: Vec::new(),
    }
}

fn sessions() -> (FetchSessions, Instant) {
    let env = Env::real();
    (FetchSessions::new(&env, KAFKA_SLOTS), env.clock.instant())
}

fn partitions(turn: &mut Turn) -> Vec<i32> {
    turn.entries.iter_mut().map(|entry| entry.key.partition).collect()
}

/// A session with these partitions; its id.
fn open(sessions: &FetchSessions, partitions: &[i32], now: Instant) -> i32 {
    sessions
        .begin(ask(0, INITIAL_EPOCH, partitions), now)
        .unwrap()
        .finish(now)
}

#[test]
fn a_session_lives_through_epochs_updates_and_forgetting() {
    let (sessions, now) = sessions();
    let id = open(&sessions, &[1, 2, 3], now);
    assert_ne!(id, 0);

    // Nothing named: all partitions, as they were.
    let mut turn = sessions.begin(ask(id, 1, &[]), now).unwrap();
    assert!(turn.is_incremental());
    assert_eq!(partitions(&mut turn), [1, 2, 3]);
    turn.entries.move_to_end(&key(1));
    assert_eq!(turn.finish(now), id);

    // What was served comes last; new ones after it; forgotten ones are gone; changed ones keep their place.
    let mut changed = ask(id, 2, &[4]);
    changed.topics.push((key(3), wanted(99)));
    changed.forgotten.push(key(2));
    let mut turn = sessions.begin(changed, now).unwrap();
    assert_eq!(partitions(&mut turn), [3, 1, 4]);
    assert_eq!(turn.entries.iter_mut().next().unwrap().wanted.fetch_offset, 99);
    assert_eq!(turn.finish(now), id);
    assert_eq!(sessions.partitions(), 3);

    // The final epoch closes it.
    let turn = sessions.begin(ask(id, FINAL_EPOCH, &[1]), now).unwrap();
    assert!(!turn.is_incremental());
    assert_eq!(turn.finish(now), 0);
    assert_eq!((sessions.len(), sessions.partitions()), (0, 0));
    assert_eq!(
        sessions.begin(ask(id, 3, &[]), now).unwrap_err(),
        ErrorCode::FetchSessionIdNotFound
    );
}

#[test]
fn a_wrong_epoch_or_kind_of_name_is_refused_and_the_session_stays() {
    let (sessions, now) = sessions();
    let id = open(&sessions, &[1], now);
    assert_eq!(
        sessions.begin(ask(id, 2, &[]), now).unwrap_err(),
        ErrorCode::InvalidFetchSessionEpoch
    );
    let by_name = Ask {
        uses_topic_ids: false,
        ..ask(id, 1, &[])
    };
    assert_eq!(
        sessions.begin(by_name, now).unwrap_err(),
        ErrorCode::FetchSessionTopicIdError
    );
    let other = if id == 5 { 6 } else { 5 };
    assert_eq!(
        sessions.begin(ask(other, 1, &[]), now).unwrap_err(),
        ErrorCode::FetchSessionIdNotFound
    );

    // Of two requests at a time one has the wrong epoch, whichever that is.
    let turn = sessions.begin(ask(id, 1, &[]), now).unwrap();
    assert_eq!(
        sessions.begin(ask(id, 1, &[]), now).unwrap_err(),
        ErrorCode::InvalidFetchSessionEpoch
    );
    assert_eq!(turn.finish(now), id);
    assert!(sessions.begin(ask(id, 2, &[]), now).is_ok());
}

#[test]
fn epochs_wrap_to_one() {
    let (sessions, now) = sessions();
    let id = open(&sessions, &[1], now);
    sessions
        .cache
        .lock()
        .slots
        .get_mut(&id)
        .unwrap()
        .session
        .as_mut()
        .unwrap()
        .epoch = i32::MAX;
    assert_eq!(
        sessions.begin(ask(id, i32::MAX, &[]), now).unwrap().finish(now),
        id
    );
    assert_eq!(sessions.begin(ask(id, 1, &[]), now).unwrap().finish(now), id);
}

#[test]
fn only_idle_sessions_give_way_and_who_finds_no_slot_goes_without() {
    let (sessions, now) = sessions();
    let first = open(&sessions, &[1], now);
    let later = now + Duration::from_secs(60);
    let others = [open(&sessions, &[1], later), open(&sessions, &[1], later)];
    assert_eq!(open(&sessions, &[1], later), 0, "all slots are fresh");

    // The first is idle for two minutes, the others for one.
    let newest = open(&sessions, &[1, 2], now + EVICTABLE_AFTER);
    assert_ne!(newest, 0);
    assert_eq!(sessions.len(), KAFKA_SLOTS);
    assert_eq!(sessions.partitions(), 4);
    let find = |id| {
        sessions
            .begin(ask(id, 1, &[]), later)
            .map(|turn| turn.finish(later))
    };
    assert_eq!(find(first), Err(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(find(others[0]), Ok(others[0]));
}

#[test]
fn a_request_that_dies_ends_its_session() {
    let (sessions, now) = sessions();
    let id = open(&sessions, &[1, 2], now);
    drop(sessions.begin(ask(id, 1, &[]), now).unwrap());
    assert_eq!((sessions.len(), sessions.partitions()), (0, 0));
    assert_eq!(
        sessions.begin(ask(id, 2, &[]), now).unwrap_err(),
        ErrorCode::FetchSessionIdNotFound
    );
}

#[test]
fn a_session_without_partitions_is_closed() {
    let (sessions, now) = sessions();
    assert_eq!(open(&sessions, &[], now), 0);
    let id = open(&sessions, &[1], now);
    let emptied = Ask {
        forgotten: vec![key(1)],
        ..ask(id, 1, &[])
    };
    let turn = sessions.begin(emptied, now).unwrap();
    assert!(turn.entries.is_empty());
    assert_eq!(turn.finish(now), 0);
    assert_eq!(sessions.len(), 0);
}

#[test]
fn partitions_of_all_sessions_are_bounded() {
    let (sessions, now) = sessions();
    let half: Vec<i32> = (0..).take(MAX_PARTITIONS / 2).collect();
    let (first, second) = (open(&sessions, &half, now), open(&sessions, &half, now));
    assert!(first != 0 && second != 0);
    assert_eq!(open(&sessions, &[1], now), 0);
    // One that grows beyond the bound is closed; the client begins anew.
    let grown = sessions
        .begin(ask(first, 1, &[i32::MAX]), now)
        .unwrap()
        .finish(now);
    assert_eq!(grown, 0);
    assert_eq!(sessions.partitions(), half.len());
}
