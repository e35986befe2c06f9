use takhin_runtime::sim::{CrashMode, SimDisk};

use super::*;

const PATH: &str = "/data";

fn expected(node_id: u32) -> Expected {
    Expected {
        node_id,
        cluster_id: None,
        new_directory_id: Uuid::from_u128(77),
        now_ms: 1000,
    }
}

fn open(disk: &SimDisk) -> Result<DataDir, DataDirError> {
    DataDir::open(Arc::new(disk.incarnation()), Path::new(PATH), &expected(1))
}

#[test]
fn the_previous_stop_is_told_apart() {
    let disk = SimDisk::new(1);
    let dir = open(&disk).unwrap();
    assert_eq!(dir.previous_stop(), PreviousStop::Clean);
    let id = dir.meta().directory_id;
    dir.close().unwrap();
    let dir = open(&disk).unwrap();
    assert_eq!(
        (dir.previous_stop(), dir.meta().directory_id),
        (PreviousStop::Clean, id)
    );
    disk.crash(CrashMode::Process);
    assert_eq!(open(&disk).unwrap().previous_stop(), PreviousStop::Killed);
    disk.crash(CrashMode::Power);
    assert_eq!(open(&disk).unwrap().previous_stop(), PreviousStop::PowerLoss);
    disk.crash(CrashMode::Process);
    let dir = open(&disk).unwrap();
    assert_eq!(
        dir.previous_stop(),
        PreviousStop::PowerLoss,
        "killed while recovering from it"
    );
    dir.recovered().unwrap();
    disk.crash(CrashMode::Process);
    assert_eq!(open(&disk).unwrap().previous_stop(), PreviousStop::Killed);
}

#[test]
fn a_first_start_may_lose_power_at_any_operation() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let rule = takhin_runtime::sim::FaultRule {
            op: if seed % 2 == 0 {
                takhin_runtime::sim::Op::SyncDir
            } else {
                takhin_runtime::sim::Op::SyncData
            },
            path: String::new(),
            when: takhin_runtime::sim::When::Nth(1 + seed / 2 % 8),
            fault: takhin_runtime::sim::Fault::Eio,
        };
        disk.arm(rule);
        drop(open(&disk));
        disk.clear_faults();
        disk.crash(CrashMode::Power);
        let dir = open(&disk).unwrap();
        assert_eq!(dir.meta().node_id, 1);
    }
}

#[test]
fn a_directory_of_somebody_else_is_refused_with_a_remedy() {
    let disk = SimDisk::new(1);
    let mut dir = open(&disk).unwrap();
    dir.set_cluster_id("demo").unwrap();
    assert!(matches!(
        dir.set_cluster_id("other"),
        Err(DataDirError::OtherCluster { .. })
    ));
    let locked = open(&disk).unwrap_err();
    assert!(matches!(locked, DataDirError::Locked { .. }));
    assert!(locked.to_string().contains("stop it"));
    drop(dir);
    let shared: Arc<dyn Disk> = Arc::new(disk.incarnation());
    let other = DataDir::open(shared.clone(), Path::new(PATH), &expected(2)).unwrap_err();
    assert!(matches!(
        other,
        DataDirError::OtherNode {
            found: 1,
            expected: 2,
            ..
        }
    ));
    let cluster = Expected {
        cluster_id: Some("prod".into()),
        ..expected(1)
    };
    assert!(matches!(
        DataDir::open(shared.clone(), Path::new(PATH), &cluster),
        Err(DataDirError::OtherCluster { .. })
    ));
    disk.corrupt("/data/node.meta", 20).unwrap();
    assert!(matches!(open(&disk), Err(DataDirError::Damaged { .. })));
    disk.open(
        Path::new("/home/notes.txt"),
        takhin_runtime::disk::OpenMode::CreateNew,
    )
    .unwrap_err();
    disk.create_dir_all(Path::new("/home")).unwrap();
    disk.open(
        Path::new("/home/notes.txt"),
        takhin_runtime::disk::OpenMode::CreateNew,
    )
    .unwrap();
    let foreign = DataDir::open(shared, Path::new("/home"), &expected(1)).unwrap_err();
    assert!(matches!(foreign, DataDirError::Foreign { .. }));
}

#[test]
fn a_lost_journal_is_not_an_empty_one() {
    let disk = SimDisk::new(1);
    open(&disk).unwrap().close().unwrap();
    disk.remove_file(Path::new("/data/journal")).unwrap();
    assert!(matches!(
        open(&disk),
        Err(DataDirError::Journal(JournalError::Missing { .. }))
    ));
}

/// Whoever was refused under one id may come again under another one, unless it has promised something.
#[test]
fn a_directory_is_emptied_only_if_it_is_new_and_holds_no_promise() {
    let names = |disk: &SimDisk| {
        let disk = disk.incarnation();
        let entries = disk.read_dir(Path::new(PATH)).unwrap();
        entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    let disk = SimDisk::new(1);
    open(&disk).unwrap().discard().unwrap();
    assert_eq!(names(&disk), Vec::<String>::new());
    disk.crash(CrashMode::Power);
    let as_two = DataDir::open(Arc::new(disk.incarnation()), Path::new(PATH), &expected(2)).unwrap();
    drop(as_two);
    // Opened before, or voted: it stays what it is.
    let again = DataDir::open(Arc::new(disk.incarnation()), Path::new(PATH), &expected(2)).unwrap();
    again.discard().unwrap();
    assert!(matches!(
        open(&disk),
        Err(DataDirError::OtherNode { found: 2, .. })
    ));

    let disk = SimDisk::new(2);
    let voted = open(&disk).unwrap();
    voted
        .journal()
        .put(&[(b"vote".to_vec(), Some(b"1".to_vec()))], true)
        .unwrap();
    voted.discard().unwrap();
    assert!(names(&disk).contains(&META.to_owned()));
}
