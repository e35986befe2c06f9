use takhin_runtime::sim::{CrashMode, Fault, FaultRule, Op, SimDisk, When};

use super::*;

const PATH: &str = "/data/journal";

fn disk() -> SimDisk {
    let disk = SimDisk::new(7);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk
}

fn create(disk: &SimDisk) -> Journal {
    Journal::create(Arc::new(disk.incarnation()), Path::new(PATH)).unwrap()
}

fn open(disk: &SimDisk, previous: PreviousStop) -> Result<Journal, JournalError> {
    Journal::open(Arc::new(disk.incarnation()), Path::new(PATH), previous)
}

fn set(key: &str, value: &str) -> Vec<Change> {
    vec![(key.into(), Some(value.into()))]
}

fn bytes(disk: &SimDisk) -> Vec<u8> {
    let file = disk.open(Path::new(PATH), OpenMode::Read).unwrap();
    let mut all = vec![0; to_usize(file.len().unwrap())];
    file.read_exact_at(&mut all, 0).unwrap();
    all
}

/// A vote that was read must not be forgotten, even if the process before had failed to sync it.
#[test]
fn what_a_restart_reads_survives_a_power_loss() {
    let disk = disk();
    let journal = create(&disk);
    disk.arm(FaultRule {
        op: Op::SyncData,
        path: PATH.into(),
        when: When::Nth(1),
        fault: Fault::Eio,
    });
    journal.put(&set("vote/1", "a"), true).unwrap_err();
    disk.clear_faults();
    disk.crash(CrashMode::Process);
    let read = open(&disk, PreviousStop::Killed).unwrap().get(b"vote/1");
    assert_eq!(read.as_deref(), Some(&b"a"[..]), "the page cache has it");
    disk.crash(CrashMode::Power);
    let kept = open(&disk, PreviousStop::PowerLoss).unwrap().get(b"vote/1");
    assert_eq!(kept, read);
}

#[test]
fn synced_puts_survive_every_power_loss_and_puts_are_atomic() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        disk.create_dir_all(Path::new("/data")).unwrap();
        let journal = create(&disk);
        journal.put(&set("vote/1", "a"), true).unwrap();
        journal
            .put(
                &[
                    (b"vote/1".to_vec(), None),
                    (b"vote/2".to_vec(), Some(b"b".to_vec())),
                ],
                true,
            )
            .unwrap();
        journal
            .put(
                &[
                    (b"x".to_vec(), Some(vec![1; 600])),
                    (b"y".to_vec(), Some(vec![2; 600])),
                ],
                false,
            )
            .unwrap();
        disk.crash(CrashMode::Power);
        let journal = open(&disk, PreviousStop::PowerLoss).unwrap();
        assert_eq!(journal.iter(b"vote/"), [(b"vote/2".to_vec(), b"b".to_vec())]);
        assert_eq!(journal.get(b"x").is_some(), journal.get(b"y").is_some());
    }
}

#[test]
fn damage_in_the_middle_and_a_missing_file_are_errors() {
    let disk = disk();
    let journal = create(&disk);
    let end_of_first = journal.file_len();
    journal.put(&set("a", "1"), true).unwrap();
    journal.put(&set("b", "2"), true).unwrap();
    drop(journal);
    disk.corrupt(PATH, end_of_first + 20).unwrap();
    for previous in [PreviousStop::Clean, PreviousStop::Killed, PreviousStop::PowerLoss] {
        let error = open(&disk, previous).unwrap_err();
        assert!(matches!(error, JournalError::Unreadable { position, .. } if position == end_of_first));
    }
    disk.remove_file(Path::new(PATH)).unwrap();
    assert!(matches!(
        open(&disk, PreviousStop::Killed),
        Err(JournalError::Missing { .. })
    ));
}

#[test]
fn a_torn_tail_is_cut_at_any_length_but_a_flipped_bit_is_not_a_torn_tail() {
    let disk = disk();
    let journal = create(&disk);
    journal.put(&set("a", "1"), true).unwrap();
    let whole = to_usize(journal.file_len());
    journal.put(&set("b", "2"), true).unwrap();
    drop(journal);
    let all = bytes(&disk);
    for len in whole..all.len() {
        let file = disk.open(Path::new(PATH), OpenMode::Write).unwrap();
        file.set_len(0).unwrap();
        file.write_at(&mut [IoSlice::new(&all[..len])], 0).unwrap();
        let journal = open(&disk, PreviousStop::Killed).unwrap();
        assert_eq!(
            (journal.get(b"a"), journal.get(b"b")),
            (Some(b"1".to_vec()), None)
        );
        journal.put(&set("c", "3"), true).unwrap();
        let journal = open(&disk, PreviousStop::Clean).unwrap();
        assert_eq!(journal.get(b"c"), Some(b"3".to_vec()));
    }
    let file = disk.open(Path::new(PATH), OpenMode::Write).unwrap();
    file.set_len(0).unwrap();
    file.write_at(&mut [IoSlice::new(&all)], 0).unwrap();
    disk.corrupt(PATH, all.len() as u64 - 1).unwrap();
    assert!(matches!(
        open(&disk, PreviousStop::Killed),
        Err(JournalError::Unreadable { .. })
    ));
}

#[test]
fn compaction_keeps_the_newest_values_and_survives_a_crash_at_any_operation() {
    let disk = disk();
    let journal = create(&disk);
    let big = "x".repeat(10_000);
    for i in 0..100 {
        journal
            .put(&[(vec![i % 3], Some(format!("{i}{big}").into_bytes()))], true)
            .unwrap();
        assert!(journal.file_len() < MIN_COMPACT + 20_000);
    }
    disk.crash(CrashMode::Power);
    let journal = open(&disk, PreviousStop::PowerLoss).unwrap();
    for key in 0..3_u8 {
        let newest = (0..100).rev().find(|i| i % 3 == key).unwrap();
        assert_eq!(journal.get(&[key]), Some(format!("{newest}{big}").into_bytes()));
    }
}

#[test]
fn a_failed_sync_is_final_and_a_full_disk_is_not() {
    let disk = disk();
    let journal = create(&disk);
    disk.set_capacity(Some(journal.file_len() + 10));
    assert!(matches!(
        journal.put(&set("a", "1"), true),
        Err(JournalError::Full { .. })
    ));
    disk.set_capacity(None);
    journal.put(&set("a", "2"), true).unwrap();
    disk.arm(FaultRule {
        op: Op::SyncData,
        path: "journal".into(),
        when: When::Nth(1),
        fault: Fault::Eio,
    });
    assert!(matches!(
        journal.put(&set("a", "3"), true),
        Err(JournalError::Io { .. })
    ));
    assert!(matches!(
        journal.put(&set("a", "4"), true),
        Err(JournalError::Failed { .. })
    ));
    disk.crash(CrashMode::Power);
    let journal = open(&disk, PreviousStop::PowerLoss).unwrap();
    assert_eq!(journal.get(b"a"), Some(b"2".to_vec()));
}

#[test]
fn concurrent_puts_share_syncs_and_all_arrive() {
    let disk = disk();
    let journal = create(&disk);
    let keys: Vec<u8> = (0..64).collect();
    takhin_runtime::thread::parallel(8, &keys, |key| {
        journal.put(&[(vec![*key], Some(vec![*key]))], true).unwrap()
    });
    disk.crash(CrashMode::Power);
    assert_eq!(
        open(&disk, PreviousStop::PowerLoss).unwrap().iter(b"").len(),
        keys.len()
    );
}
