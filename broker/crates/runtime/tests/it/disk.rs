//! Both disks under one suite, and the simulated one's faults one by one.

use std::io::{self, IoSlice};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use takhin_runtime::sim::{CrashMode, Fault, FaultRule, Op, SimDisk, When};
use takhin_runtime::testing::disk_conformance;
use takhin_runtime::{Disk, File, OpenMode, RealDisk};

#[test]
fn real_disk_conforms() {
    let dir = tempfile::tempdir().unwrap();
    disk_conformance(&RealDisk, dir.path());
}

#[test]
fn sim_disk_conforms() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk_conformance(&disk, Path::new("/data"));
    disk_conformance(&disk.incarnation(), Path::new("relative"));
}

#[test]
fn real_files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let (sub, file) = (dir.path().join("sub"), dir.path().join("sub/file"));
    RealDisk.create_dir_all(&sub).unwrap();
    RealDisk.open(&file, OpenMode::CreateOrWrite).unwrap();
    let mode = |path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&sub), mode(&file)), (0o700, 0o600));
}

fn rule(op: Op, when: When, fault: Fault) -> FaultRule {
    FaultRule {
        op,
        path: "log".to_owned(),
        when,
        fault,
    }
}

fn new_file(disk: &SimDisk) -> Arc<dyn File> {
    let file = disk.open(Path::new("00.log"), OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    file
}

fn write(file: &Arc<dyn File>, bytes: &[u8], pos: u64) -> io::Result<()> {
    file.write_at(&mut [IoSlice::new(bytes)], pos)
}

fn reopened(disk: &SimDisk) -> Vec<u8> {
    let file = disk.open(Path::new("00.log"), OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_failed_sync_loses_its_bytes_for_good() {
    let disk = SimDisk::new(3);
    let file = new_file(&disk);
    write(&file, &[1; 1024], 0).unwrap();
    file.sync_data().unwrap();
    write(&file, &[2; 1024], 1024).unwrap();
    disk.arm(rule(Op::SyncData, When::Nth(1), Fault::Eio));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5), "EIO");
    assert_eq!(reopened(&disk).len(), 2048, "the cache still shows the bytes");
    write(&file, &[3; 512], 2048).unwrap();
    file.sync_data().unwrap(); // succeeds, and proves nothing about the earlier bytes
    disk.crash(CrashMode::Power);
    assert_eq!(
        reopened(&disk),
        [vec![1; 1024], vec![0; 1024], vec![3; 512]].concat()
    );
}

#[test]
fn a_failed_directory_sync_loses_its_names() {
    let disk = SimDisk::new(3);
    disk.arm(FaultRule {
        op: Op::SyncDir,
        path: String::new(),
        when: When::Nth(1),
        fault: Fault::Eio,
    });
    disk.open(Path::new("a"), OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new("")).unwrap_err();
    disk.sync_dir(Path::new("")).unwrap();
    assert!(disk.exists(Path::new("a")).unwrap());
    disk.crash(CrashMode::Power);
    assert!(!disk.exists(Path::new("a")).unwrap());
}

#[test]
fn syncing_one_directory_brings_the_other_half_of_a_rename() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        for dir in ["a", "b"] {
            disk.create_dir_all(Path::new(dir)).unwrap();
        }
        disk.open(Path::new("a/x"), OpenMode::CreateNew).unwrap();
        disk.rename(Path::new("a/x"), Path::new("b/x")).unwrap();
        disk.sync_dir(Path::new("b")).unwrap();
        disk.crash(CrashMode::Power);
        let found = ["a/x", "b/x"].map(|path| disk.exists(Path::new(path)).unwrap());
        assert_eq!(found, [false, true], "seed {seed}");
    }
}

#[test]
fn a_full_disk_keeps_what_fits() {
    let disk = SimDisk::new(3);
    let file = new_file(&disk);
    disk.set_capacity(Some(1000));
    write(&file, &[1; 600], 0).unwrap();
    assert_eq!(
        write(&file, &[2; 600], 600).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert_eq!(file.len().unwrap(), 1000);
    write(&file, &[3; 1000], 0).expect("overwriting needs no space");
    assert_eq!(disk.space(Path::new("")).unwrap().free, 0);
    disk.set_capacity(None);
    write(&file, &[2; 600], 1000).unwrap();
}

#[test]
fn a_short_write_leaves_a_prefix() {
    let data: Vec<u8> = (0..200).collect();
    let lengths: Vec<usize> = (0..20)
        .map(|seed| {
            let disk = SimDisk::new(seed);
            let file = new_file(&disk);
            disk.arm(rule(Op::Write, When::Nth(2), Fault::Short));
            write(&file, &[], 0).unwrap();
            write(&file, &data, 0).unwrap_err();
            let kept = reopened(&disk);
            assert_eq!(kept, data[..kept.len()]);
            kept.len()
        })
        .collect();
    assert!(lengths.iter().all(|len| *len < data.len()));
    assert!(
        lengths.iter().any(|len| *len != lengths[0]),
        "the seed decides: {lengths:?}"
    );
}

#[test]
fn a_power_cut_tears_between_sectors_only() {
    let (mut whole, mut torn, mut none) = (0, 0, 0);
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let file = new_file(&disk);
        write(&file, &[1; 4096], 0).unwrap();
        file.sync_data().unwrap();
        write(&file, &[2; 2048], 1024).unwrap();
        disk.crash(CrashMode::Power);
        let bytes = reopened(&disk);
        assert_eq!(
            (&bytes[..1024], &bytes[3072..]),
            (&[1; 1024][..], &[1; 1024][..]),
            "outside the write"
        );
        let new: Vec<bool> = bytes[1024..3072]
            .chunks(512)
            .map(|sector| {
                assert!(
                    sector.iter().all(|byte| *byte == sector[0]),
                    "a sector is never torn"
                );
                sector[0] == 2
            })
            .collect();
        match new.iter().filter(|new| **new).count() {
            0 => none += 1,
            4 => whole += 1,
            _ => torn += 1,
        }
    }
    assert!(
        whole > 10 && torn > 10 && none > 10,
        "{whole} whole, {torn} torn, {none} lost"
    );
}

#[test]
fn a_killed_process_loses_nothing_but_its_handles() {
    let disk = SimDisk::new(3);
    let machine = disk.incarnation();
    let boot_id = disk.boot_id().unwrap();
    let file = machine.open(Path::new("00.log"), OpenMode::CreateNew).unwrap();
    let lock = machine.lock(Path::new("lock")).unwrap();
    write(&file, b"unsynced", 0).unwrap();
    disk.crash(CrashMode::Process);
    assert!(
        write(&file, b"late", 0).is_err()
            && file.len().is_err()
            && machine.exists(Path::new("lock")).is_err()
    );
    assert_eq!(reopened(&disk), b"unsynced");
    assert_eq!(disk.boot_id().unwrap(), boot_id);
    let again = disk.lock(Path::new("lock")).expect("the crash freed it");
    drop(lock); // the dead holder's guard must not free the new one's lock
    assert!(disk.lock(Path::new("lock")).is_err());
    drop(again);

    disk.crash(CrashMode::Power);
    assert_ne!(disk.boot_id().unwrap(), boot_id);
}

#[test]
fn a_rotten_bit_stays() {
    let disk = SimDisk::new(3);
    let file = new_file(&disk);
    write(&file, &[0; 8], 0).unwrap();
    disk.corrupt("00.log", 5).unwrap();
    file.sync_data().unwrap();
    disk.crash(CrashMode::Power);
    assert_eq!(reopened(&disk), [0, 0, 0, 0, 0, 1, 0, 0]);
    assert!(disk.corrupt("00.log", 8).is_err());
}
