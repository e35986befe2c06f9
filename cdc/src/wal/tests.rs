use bytes::Bytes;
use futures_util::FutureExt as _;
use takhin_pika::binlog::Item;
use takhin_runtime::disk::sim::{CrashMode, Fault, FaultRule, Op, SimDisk, When};

use super::format::HEADER;
use super::*;

const MAX: u64 = 1 << 20;

fn received(number: u32) -> Received {
    let offset = u64::from(number) * 100;
    Received {
        item: Item {
            exec_time: number,
            origin: 1,
            logic_id: 7,
            start: Position::new(0, offset),
            content: Bytes::from(vec![number.to_le_bytes()[0]; 9000]),
        },
        index: 0,
        end: Position::new(0, offset + 100),
    }
}

fn open(disk: &SimDisk) -> Result<Wal, WalError> {
    Wal::open(Arc::new(disk.incarnation()), Path::new("/cdc/wal"), ("db0", MAX))
}

fn begun(disk: &SimDisk) -> Wal {
    let wal = open(disk).unwrap();
    assert!(wal.position().is_none());
    wal.reset(Position::default(), Before::Record(None), "3.0.16")
        .unwrap();
    wal
}

/// As of a master from 3.1 on.
fn begun_of(disk: &SimDisk) -> (Wal, Origin) {
    let wal = open(disk).unwrap();
    let origin = Origin {
        replication_id: "7e035615492b6d81e011c233b5bbb54496c26c23304660271a".to_owned(),
        epoch: 3,
    };
    assert!(origin.fits());
    let base = Base {
        end: Position::default(),
        last: None,
        master: "3.5.5".to_owned(),
        origin: Some(origin.clone()),
    };
    wal.begin(base, false).unwrap();
    (wal, origin)
}

/// What is kept from a record on.
fn kept(wal: &Wal, from: u32) -> Vec<Received> {
    let at = Position::new(0, u64::from(from) * 100);
    let mut cursor = wal.cursor(at).unwrap().unwrap();
    let mut all = Vec::new();
    loop {
        let more = wal.read(&mut cursor).unwrap();
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

fn numbers(from: u32, to: u32) -> Vec<Received> {
    (from..to).map(received).collect()
}

fn fail(disk: &SimDisk, op: Op, path: &str, fault: Fault) {
    disk.arm(FaultRule {
        op,
        path: path.to_owned(),
        when: When::Nth(1),
        fault,
    });
}

/// 1: fails without the sync of the records, and without that of the directory.
#[test]
fn what_was_told_of_outlives_a_loss_of_power() {
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        let mut wal = begun(&disk);
        let mut written = 0;
        for round in 0..6 {
            for _ in 0..4 {
                wal.append(&numbers(written, written + 3)).unwrap();
                written += 3;
            }
            disk.crash(if round % 3 == 2 {
                CrashMode::Process
            } else {
                CrashMode::Power
            });
            wal = open(&disk).unwrap();
            let last = LastRecord {
                header: received(written - 1).item.start,
                commands: 1,
            };
            assert_eq!(wal.position(), Some((received(written - 1).end, Some(last))));
            assert_eq!(kept(&wal, 0), numbers(0, written), "seed {seed}");
        }
        assert!(wal.state.lock().segments.len() > 3);
        assert_eq!(wal.beginning(), Some((Position::default(), "3.0.16".to_owned())));
        assert_eq!(kept(&wal, 17), numbers(17, written));
    }
}

/// 1: fails without the sync of what a segment begins with.
#[test]
fn a_beginning_outlives_a_loss_of_power() {
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        let (end, wal) = (received(7).end, open(&disk).unwrap());
        wal.reset(end, Before::Record(None), "3.0.16").unwrap();
        disk.crash(CrashMode::Power);
        assert_eq!(open(&disk).unwrap().position(), Some((end, None)), "seed {seed}");
    }
}

/// 2: fails if what was torn is left behind what comes next.
#[test]
fn a_torn_end_is_cut() {
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        let wal = begun(&disk);
        wal.append(&numbers(0, 2)).unwrap();
        // The power goes while a write is on its way: its sectors are there or not, in no order.
        fail(&disk, Op::SyncData, ".wal", Fault::Eio);
        assert!(wal.append(&numbers(2, 6)).is_err());
        disk.crash(if seed % 2 == 0 {
            CrashMode::Power
        } else {
            CrashMode::Process
        });
        let wal = open(&disk).unwrap();
        let (end, _) = wal.position().unwrap();
        let left = u32::try_from(end.offset / 100).unwrap();
        assert!((2..=6).contains(&left), "{left}");
        wal.append(&numbers(left, left + 1)).unwrap();
        disk.crash(CrashMode::Process);
        assert_eq!(
            kept(&open(&disk).unwrap(), 0),
            numbers(0, left + 1),
            "seed {seed}"
        );
    }
}

/// 2: sectors of one write reach the medium in any order; fails if what is behind the tear is not cut off.
#[test]
fn nothing_behind_a_tear_comes_back() {
    let disk = SimDisk::new(2);
    let wal = begun(&disk);
    wal.append(&numbers(0, 1)).unwrap();
    let len = wal.state.lock().segments[0].len;
    wal.append(&numbers(1, 4)).unwrap();
    let path = wal.path(1);
    drop(wal);
    disk.corrupt(&path, len + 100).unwrap();
    disk.crash(CrashMode::Process);
    let wal = open(&disk).unwrap();
    assert_eq!(wal.position().unwrap().0, received(0).end);
    wal.append(&numbers(1, 2)).unwrap();
    disk.crash(CrashMode::Process);
    assert_eq!(kept(&open(&disk).unwrap(), 0), numbers(0, 2));
}

/// 2: a file that ends anywhere.
#[test]
fn a_file_may_end_at_any_byte() {
    let disk = SimDisk::new(1);
    let wal = begun(&disk);
    wal.append(&numbers(0, 2)).unwrap();
    let (path, whole) = (wal.path(1), wal.state.lock().segments[0].len);
    drop(wal);
    for cut in (0..whole).rev().step_by(97) {
        disk.open(&path, OpenMode::Write).unwrap().set_len(cut).unwrap();
        disk.crash(CrashMode::Process);
        let wal = open(&disk).unwrap();
        let left = match wal.position() {
            Some((end, _)) => u32::try_from(end.offset / 100).unwrap(),
            None => 0,
        };
        assert!(u64::from(left) <= cut / 9000, "{cut}: {left}");
        if left > 0 {
            assert_eq!(kept(&wal, 0), numbers(0, left));
        }
    }
}

/// 3: fails if a write that failed is not cut off: its second record stands behind the one that is written instead.
#[test]
fn what_could_not_be_written_is_cut_off() {
    for (op, fault) in [
        (Op::Write, Fault::Short),
        (Op::Write, Fault::Enospc),
        (Op::SyncData, Fault::Eio),
        (Op::SyncData, Fault::Enospc),
    ] {
        for seed in 0..10 {
            let disk = SimDisk::new(seed);
            let wal = begun(&disk);
            wal.append(&numbers(0, 2)).unwrap();
            fail(&disk, op, ".wal", fault);
            let failed = wal.append(&numbers(2, 5)).unwrap_err();
            assert!(failed.to_string().contains("nothing more is read"), "{failed}");
            assert_eq!(kept(&wal, 0), numbers(0, 2), "what failed is told of");
            wal.append(&numbers(2, 3)).unwrap();
            disk.crash(CrashMode::Process);
            assert_eq!(kept(&open(&disk).unwrap(), 0), numbers(0, 3));
        }
    }
}

/// 3: the cut itself, where the file system keeps what it could not sync.
#[test]
fn nothing_stands_behind_what_is_written_instead() {
    let disk = SimDisk::new(3);
    let wal = begun(&disk);
    wal.append(&numbers(0, 1)).unwrap();
    let len = wal.state.lock().segments[0].len;
    // As after a sync that failed and lost nothing.
    let mut bytes = Vec::new();
    numbers(1, 3).iter().for_each(|command| put(&mut bytes, command));
    let file = Arc::clone(&wal.state.lock().segments[0].file);
    file.write_at(&mut [IoSlice::new(&bytes)], len).unwrap();
    wal.state.lock().is_torn = true;
    wal.append(&numbers(1, 2)).unwrap();
    disk.crash(CrashMode::Process);
    assert_eq!(kept(&open(&disk).unwrap(), 0), numbers(0, 2));
}

/// 4.
#[test]
fn damage_is_an_error() {
    let disk = SimDisk::new(4);
    let wal = begun(&disk);
    for number in 0..30 {
        wal.append(&[received(number)]).unwrap();
    }
    let (first, second) = (wal.path(1), wal.path(2));
    assert!(wal.state.lock().segments.len() > 2);
    drop(wal);
    let error = |disk: &SimDisk| {
        disk.crash(CrashMode::Process);
        open(disk).unwrap_err().to_string()
    };
    disk.corrupt(&first, HEADER as u64 + 50).unwrap();
    assert!(error(&disk).contains("a record makes no sense): remove the directory"));
    disk.corrupt(&first, HEADER as u64 + 50).unwrap();
    disk.crash(CrashMode::Process);
    assert_eq!(kept(&open(&disk).unwrap(), 0), numbers(0, 30));
    disk.corrupt(&second, 20).unwrap();
    assert!(error(&disk).contains("its header makes no sense"));
    disk.remove_file(&second).unwrap();
    assert!(error(&disk).contains("does not begin where the one before ends"));
    let file = disk.open(&first, OpenMode::Write).unwrap();
    file.write_at(&mut [IoSlice::new(&3_u32.to_le_bytes())], 8)
        .unwrap();
    assert!(error(&disk).contains("has version 3, and this takhin-cdc knows 2 at most"));
}

/// 5: fails if segments are deleted without telling the medium after each.
#[test]
fn what_is_deleted_leaves_no_gap() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let wal = begun(&disk);
        for number in 0..40 {
            wal.append(&[received(number)]).unwrap();
        }
        let segments = wal.state.lock().segments.len();
        kept(&wal, 0);
        wal.trim(received(seed_below(seed, 30)).end).unwrap();
        assert!(wal.state.lock().segments.len() <= segments);
        disk.crash(CrashMode::Power);
        let wal = open(&disk).unwrap();
        let (begin, _) = wal.beginning().unwrap();
        let first = u32::try_from(begin.offset / 100).unwrap();
        assert!(first <= seed_below(seed, 30) + 1, "what is not saved was deleted");
        assert_eq!(kept(&wal, first), numbers(first, 40), "seed {seed}");
    }
}

/// 5: fails if anything is deleted behind what could not be.
#[test]
fn nothing_is_deleted_behind_what_could_not_be() {
    for seed in 0..40 {
        for op in [Op::Remove, Op::SyncDir] {
            let disk = SimDisk::new(seed);
            let wal = begun(&disk);
            for number in 0..40 {
                wal.append(&[received(number)]).unwrap();
            }
            kept(&wal, 0);
            fail(&disk, op, "wal", Fault::Eio);
            assert!(wal.trim(received(30).end).is_err());
            for number in 40..50 {
                wal.trim(received(30).end).unwrap();
                wal.append(&[received(number)]).unwrap();
            }
            for number in 50.. {
                if wal.is_full() {
                    break;
                }
                wal.append(&[received(number)]).unwrap();
            }
            // Nobody waits for what will not be.
            let room = wal.room().now_or_never().unwrap().unwrap_err();
            assert!(room.to_string().contains("start takhin-cdc again"), "{room}");
            disk.crash(CrashMode::Power);
            let wal = open(&disk).unwrap();
            let (begin, _) = wal.beginning().unwrap();
            let first = u32::try_from(begin.offset / 100).unwrap();
            assert!(first < 30, "{op:?} {first}");
            let all = kept(&wal, first);
            let (end, _) = wal.position().unwrap();
            let last = u32::try_from(end.offset / 100).unwrap();
            assert!(last > 50);
            assert_eq!(all, numbers(first, last), "{op:?}, seed {seed}");
        }
    }
}

fn seed_below(seed: u64, bound: u64) -> u32 {
    u32::try_from(seed.wrapping_mul(0x9e37_79b9) % bound).unwrap()
}

/// 6.
#[test]
fn as_much_is_kept_as_may_be() {
    let disk = SimDisk::new(6);
    let wal = begun(&disk);
    let mut number = 0;
    while !wal.is_full() {
        wal.append(&[received(number)]).unwrap();
        number += 1;
    }
    let len = |wal: &Wal| wal.changed.get().len;
    assert!((MAX..MAX + 10_000).contains(&len(&wal)), "{}", len(&wal));
    assert_eq!(wal.cursor(Position::new(0, 50)).unwrap(), None, "within a record");
    assert_eq!(wal.cursor(Position::new(1, 0)).unwrap(), None, "behind the end");
    kept(&wal, 0);
    wal.trim(received(number / 2).end).unwrap();
    assert!(!wal.is_full());
    assert_eq!(
        wal.cursor(Position::default()).unwrap(),
        None,
        "before what is kept"
    );
    // Another one has the directory.
    assert!(matches!(open(&disk), Err(WalError::Locked(_))));
}

/// 1: whose binlog it is too, from segment to segment.
#[test]
fn whose_binlog_it_is_outlives_a_loss_of_power() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let (mut wal, origin) = begun_of(&disk);
        for number in 0..40 {
            if number % 8 == 0 {
                disk.crash(CrashMode::Power);
                wal = open(&disk).unwrap();
            }
            wal.append(&[received(number)]).unwrap();
        }
        assert!(wal.state.lock().segments.len() > 3);
        kept(&wal, 0);
        wal.trim(received(30).end).unwrap();
        disk.crash(CrashMode::Power);
        let wal = open(&disk).unwrap();
        assert_eq!(wal.origin(), Some(origin), "seed {seed}");
        assert_eq!(wal.beginning().unwrap().1, "3.5.5");
        assert_eq!(kept(&wal, 31), numbers(31, 40));
    }
}

/// 2: at any byte of the longer header too.
#[test]
fn a_file_with_an_origin_may_end_at_any_byte() {
    let disk = SimDisk::new(1);
    let (wal, origin) = begun_of(&disk);
    wal.append(&numbers(0, 2)).unwrap();
    let (path, whole) = (wal.path(1), wal.state.lock().segments[0].len);
    drop(wal);
    let header = format::LONG_HEADER as u64;
    for cut in (0..whole)
        .rev()
        .filter(|cut| cut % 97 == 0 || *cut <= header + 10)
    {
        disk.open(&path, OpenMode::Write).unwrap().set_len(cut).unwrap();
        disk.crash(CrashMode::Process);
        let wal = open(&disk).unwrap();
        if cut < header {
            assert!(wal.position().is_none(), "{cut}");
            // Deleted: the next ones are shorter still.
            break;
        }
        let left = u32::try_from(wal.position().unwrap().0.offset / 100).unwrap();
        assert!(u64::from(left) <= cut / 9000, "{cut}: {left}");
        assert_eq!(wal.origin().as_ref(), Some(&origin));
        assert_eq!(kept(&wal, 0), numbers(0, left));
    }
    for cut in 0..header {
        let (wal, _) = begun_of(&disk);
        let path = wal.path(1);
        drop(wal);
        disk.open(&path, OpenMode::Write).unwrap().set_len(cut).unwrap();
        disk.crash(CrashMode::Process);
        assert!(open(&disk).unwrap().position().is_none(), "{cut}");
    }
}

/// 4: another binlog would be written under the wrong name.
#[test]
fn no_byte_of_whose_binlog_it_is_can_be_spoiled_unnoticed() {
    let disk = SimDisk::new(5);
    let (wal, _) = begun_of(&disk);
    wal.append(&numbers(0, 2)).unwrap();
    let path = wal.path(1);
    drop(wal);
    for at in 0..format::LONG_HEADER as u64 {
        disk.corrupt(&path, at).unwrap();
        disk.crash(CrashMode::Process);
        assert!(open(&disk).is_err(), "{at}");
        disk.corrupt(&path, at).unwrap();
    }
    disk.crash(CrashMode::Process);
    assert!(open(&disk).is_ok());
}

/// 6: what is larger than all of the log fills it with one segment, which nothing would ever follow.
#[test]
fn one_piece_may_fill_the_log() {
    let disk = SimDisk::new(7);
    let wal = begun(&disk);
    let mut large = received(0);
    large.item.content = Bytes::from(vec![b'x'; usize::try_from(MAX).unwrap()]);
    wal.append(&[large.clone()]).unwrap();
    let mut cursor = wal.cursor(Position::default()).unwrap().unwrap();
    assert_eq!(wal.read(&mut cursor).unwrap(), [large]);
    assert!(wal.is_full());
    wal.trim(Position::new(0, 50)).unwrap();
    assert!(wal.is_full(), "what is not saved was deleted");
    wal.trim(received(0).end).unwrap();
    assert!(!wal.is_full());
    assert_eq!(wal.position().unwrap().0, received(0).end);
    wal.append(&numbers(1, 3)).unwrap();
    // Whoever has read the segment that is gone goes on in the next one.
    assert_eq!(wal.read(&mut cursor).unwrap(), numbers(1, 3));
    disk.crash(CrashMode::Power);
    assert_eq!(kept(&open(&disk).unwrap(), 1), numbers(1, 3));
}

/// 4: whatever has become of a file, by chance.
#[test]
fn what_is_read_was_written() {
    let random = takhin_runtime::Rng::from_seed(12);
    let below = |bound: u64| random.range(0..bound.max(1));
    let (mut opened, mut refused) = (0, 0);
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        let wal = match seed % 2 {
            0 => begun(&disk),
            _ => begun_of(&disk).0,
        };
        wal.append(&numbers(0, 3)).unwrap();
        let (path, len) = (wal.path(1), wal.state.lock().segments[0].len);
        drop(wal);
        let file = disk.open(&path, OpenMode::Write).unwrap();
        let at = match below(3) {
            // The header, and what is before a record, are a small part of it.
            0 => below(200),
            _ => below(len + 1),
        };
        if below(4) == 0 {
            file.set_len(at).unwrap();
        }
        let bytes: Vec<u8> = (0..below(40)).map(|_| below(256).to_le_bytes()[0]).collect();
        file.write_at(&mut [IoSlice::new(&bytes)], at).unwrap();
        drop(file);
        disk.crash(CrashMode::Process);
        match open(&disk) {
            Ok(wal) if wal.position().is_some() => {
                assert!(numbers(0, 3).starts_with(&kept(&wal, 0)), "seed {seed}");
                opened += 1;
            }
            Ok(_) => {}
            Err(_) => refused += 1,
        }
    }
    assert!(opened > 100 && refused > 30, "{opened} {refused}");
}

/// What outlives the connection over which it came may be kept by the next one already, or be of before another data set.
#[test]
fn nothing_is_kept_twice_or_elsewhere() {
    let disk = SimDisk::new(9);
    let (wal, origin) = begun_of(&disk);
    let other = begun(&SimDisk::new(10));
    for wal in [&wal, &other] {
        wal.append(&numbers(0, 4)).unwrap();
        for (from, to) in [(0, 4), (3, 5)] {
            let failed = wal.append(&numbers(from, to)).unwrap_err();
            assert!(matches!(failed, WalError::Elsewhere(_)), "{failed}");
        }
        assert_eq!(kept(wal, 0), numbers(0, 4));
    }
    let begin = |end| {
        let base = Base {
            end,
            last: None,
            master: "3.5.5".to_owned(),
            origin: Some(origin.clone()),
        };
        wal.begin(base, false).unwrap();
    };
    begin(received(1).end);
    assert!(wal.append(&numbers(4, 6)).is_err(), "a gap");
    wal.append(&numbers(2, 3)).unwrap();
    wal.clear().unwrap();
    let forgotten = wal.append(&numbers(3, 4));
    assert!(matches!(forgotten, Err(WalError::Elsewhere(_))), "{forgotten:?}");
}

/// A database that is gone leaves an empty directory.
#[test]
fn what_is_empty_takes_no_share() {
    let disk = SimDisk::new(11);
    let open = || Logs::open(Arc::new(disk.incarnation()), Path::new("/cdc/wal"), MAX).unwrap();
    let begin = |db: &str| Begin {
        db: db.to_owned(),
        at: Position::default(),
        origin: Origin {
            replication_id: String::new(),
            epoch: 0,
        },
    };
    let logs = open();
    logs.begin(
        "3.5.5",
        (0..8).map(|number| begin(&format!("db{number}"))).collect(),
    )
    .unwrap();
    logs.clear().unwrap();
    logs.begin("3.5.5", vec![begin("db0")]).unwrap();
    let fill = |logs: &Logs| {
        let wal = Arc::clone(&logs.begun()["db0"]);
        while !wal.is_full() {
            let (end, _) = wal.position().unwrap();
            let next = u32::try_from(end.offset / 100).unwrap();
            wal.append(&[received(next)]).unwrap();
        }
        wal.changed.get().len
    };
    drop(logs);
    assert!(fill(&open()) >= MAX);
}

/// A process may have 1024 open files, as a rule, and a master eight databases.
#[test]
fn large_logs_have_no_more_files() {
    for max in [1, 1 << 20, 1 << 30, 5 << 30, 64 << 30, 1 << 40, u64::MAX] {
        let segments = max.div_ceil(segment_len(max));
        assert!((1..=SEGMENTS + 1).contains(&segments), "{max}: {segments}");
    }
    assert_eq!(segment_len(1 << 20), 64 << 10);
    assert_eq!(segment_len(2 << 30), LARGEST);
}

#[test]
fn what_is_forgotten_is_gone() {
    let disk = SimDisk::new(8);
    let (wal, _) = begun_of(&disk);
    for number in 0..30 {
        wal.append(&[received(number)]).unwrap();
    }
    wal.clear().unwrap();
    assert!(wal.position().is_none() && !wal.is_full());
    disk.crash(CrashMode::Power);
    assert!(open(&disk).unwrap().position().is_none());
}
