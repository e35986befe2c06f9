//! The suite that every [`Disk`] must pass.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use crate::disk::{DirEntry, Disk, File, OpenMode};

/// Checks what [`Disk`] and [`File`] promise while nothing fails, inside the empty directory `root`.
///
/// # Panics
/// At the first broken promise.
pub fn disk_conformance(disk: &dyn Disk, root: &Path) {
    opening(disk, &root.join("opening"));
    bytes(disk, &root.join("bytes"));
    many_slices(disk, &root.join("slices"));
    lengths(disk, &root.join("lengths"));
    listing(disk, &root.join("listing"));
    renaming(disk, &root.join("renaming"));
    removing(disk, &root.join("removing"));
    locking(disk, &root.join("locking"));
    space_and_boot(disk, root);
}

fn make(disk: &dyn Disk, dir: &Path) {
    disk.create_dir_all(dir).expect("create a directory");
}

fn create(disk: &dyn Disk, path: &Path, content: &[u8]) -> Arc<dyn File> {
    let file = disk.open(path, OpenMode::CreateNew).expect("create a file");
    file.write_at(&mut [IoSlice::new(content)], 0).expect("write");
    file
}

fn content(file: &dyn File) -> Vec<u8> {
    let len = usize::try_from(file.len().expect("length")).expect("small");
    let mut buf = vec![0; len];
    file.read_exact_at(&mut buf, 0).expect("read all");
    buf
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    match result {
        Ok(_) => panic!("succeeded where it must fail"),
        Err(e) => e.kind(),
    }
}

fn opening(disk: &dyn Disk, dir: &Path) {
    let file = dir.join("a");
    assert_eq!(
        kind(disk.open(&file, OpenMode::CreateNew)),
        io::ErrorKind::NotFound,
        "no directory yet"
    );
    make(disk, &dir.join("deep/er"));
    make(disk, &dir.join("deep/er")); // again is fine
    for mode in [OpenMode::Read, OpenMode::Write] {
        assert_eq!(kind(disk.open(&file, mode)), io::ErrorKind::NotFound);
    }
    assert!(!disk.exists(&file).expect("exists"));
    create(disk, &file, b"kept");
    assert!(disk.exists(&file).expect("exists"));
    assert_eq!(
        kind(disk.open(&file, OpenMode::CreateNew)),
        io::ErrorKind::AlreadyExists
    );
    for mode in [OpenMode::Read, OpenMode::Write, OpenMode::CreateOrWrite] {
        assert_eq!(
            content(&*disk.open(&file, mode).expect("open")),
            b"kept",
            "{mode:?} must not truncate"
        );
    }
    let reader = disk.open(&file, OpenMode::Read).expect("open");
    reader
        .write_at(&mut [IoSlice::new(b"x")], 0)
        .expect_err("opened for reading");
    reader.set_len(0).expect_err("opened for reading");
    assert_eq!(kind(disk.open(dir, OpenMode::Read)), io::ErrorKind::IsADirectory);
    assert_eq!(
        kind(disk.open(&file.join("b"), OpenMode::Read)),
        io::ErrorKind::NotADirectory
    );
    assert!(disk.create_dir_all(&file).is_err(), "a file is in the way");
}

fn bytes(disk: &dyn Disk, dir: &Path) {
    make(disk, dir);
    let file = create(disk, &dir.join("a"), b"");
    assert!(file.is_empty().expect("length"));
    file.write_at(&mut [], 9).expect("nothing to write");
    file.write_at(&mut [IoSlice::new(b"")], 9)
        .expect("nothing to write");
    assert_eq!(file.len().expect("length"), 0, "an empty write extends nothing");

    file.write_at(
        &mut [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")],
        3,
    )
    .expect("write");
    assert_eq!(content(&*file), b"\0\0\0abcde", "the gap reads as zeros");
    file.write_at(&mut [IoSlice::new(b"XY")], 4).expect("overwrite");
    let other = disk.open(&dir.join("a"), OpenMode::Read).expect("second handle");
    assert_eq!(
        content(&*other),
        b"\0\0\0aXYde",
        "visible to every reader at once"
    );

    let mut buf = [9; 4];
    assert_eq!(file.read_at(&mut buf, 6).expect("read"), 2, "short at the end");
    assert_eq!(&buf[..2], b"de");
    assert_eq!(file.read_at(&mut buf, 8).expect("read"), 0, "at the end");
    assert_eq!(
        file.read_at(&mut buf, 1 << 40).expect("read"),
        0,
        "far past the end"
    );
    assert_eq!(file.read_at(&mut [], 0).expect("read"), 0);
    assert_eq!(
        kind(file.read_exact_at(&mut buf, 6)),
        io::ErrorKind::UnexpectedEof
    );
    file.sync_data().expect("sync");
    assert_eq!(content(&*file), b"\0\0\0aXYde");
    assert!(file.is_cached(0, 0));
}

/// More slices than one system call takes.
fn many_slices(disk: &dyn Disk, dir: &Path) {
    make(disk, dir);
    let file = create(disk, &dir.join("a"), b"");
    let pieces: Vec<[u8; 3]> = (0..5000_u32)
        .map(|i| [i.to_le_bytes()[0], i.to_le_bytes()[1], 7])
        .collect();
    let mut parts: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    file.write_at(&mut parts, 0).expect("write");
    assert_eq!(content(&*file), pieces.concat());
}

fn lengths(disk: &dyn Disk, dir: &Path) {
    make(disk, dir);
    let file = create(disk, &dir.join("a"), b"abcdef");
    file.set_len(3).expect("cut");
    file.set_len(5).expect("extend");
    assert_eq!(content(&*file), b"abc\0\0", "cut bytes do not come back");
    file.set_len(0).expect("cut");
    assert!(file.is_empty().expect("length"));
}

fn listing(disk: &dyn Disk, dir: &Path) {
    assert_eq!(kind(disk.read_dir(dir)), io::ErrorKind::NotFound);
    make(disk, &dir.join("b"));
    create(disk, &dir.join("c"), b"123");
    create(disk, &dir.join("a"), b"");
    create(disk, &dir.join("b/inner"), b"");
    let entry = |name: &str, is_dir, len| DirEntry {
        name: name.to_owned(),
        is_dir,
        len,
    };
    let expected = [entry("a", false, 0), entry("b", true, 0), entry("c", false, 3)];
    assert_eq!(disk.read_dir(dir).expect("list"), expected);
    disk.sync_dir(dir).expect("sync the directory");
    disk.sync_fs(dir).expect("sync the file system");
}

fn renaming(disk: &dyn Disk, dir: &Path) {
    make(disk, &dir.join("sub"));
    let (a, b) = (dir.join("a"), dir.join("b"));
    let old = create(disk, &b, b"old");
    create(disk, &a, b"new");
    disk.rename(&a, &b).expect("replace");
    assert!(!disk.exists(&a).expect("exists"));
    assert_eq!(content(&*disk.open(&b, OpenMode::Read).expect("open")), b"new");
    assert_eq!(content(&*old), b"old", "an open handle keeps the replaced file");
    disk.rename(&b, &dir.join("sub/c")).expect("to another directory");
    disk.rename(&dir.join("sub"), &dir.join("moved"))
        .expect("a directory with its content");
    assert_eq!(
        content(&*disk.open(&dir.join("moved/c"), OpenMode::Read).expect("open")),
        b"new"
    );
    assert_eq!(kind(disk.rename(&a, &b)), io::ErrorKind::NotFound);
    disk.rename(&dir.join("moved"), &dir.join("moved/inside"))
        .expect_err("into itself");
}

fn removing(disk: &dyn Disk, dir: &Path) {
    make(disk, &dir.join("sub/deeper"));
    let file = create(disk, &dir.join("a"), b"abc");
    disk.remove_file(&dir.join("a")).expect("remove");
    assert_eq!(content(&*file), b"abc", "an open handle keeps the file");
    assert_eq!(kind(disk.remove_file(&dir.join("a"))), io::ErrorKind::NotFound);
    create(disk, &dir.join("sub/deeper/x"), b"");
    assert!(disk.remove_file(&dir.join("sub")).is_err(), "a directory");
    disk.remove_dir_all(&dir.join("sub")).expect("remove a tree");
    assert!(!disk.exists(&dir.join("sub")).expect("exists"));
    assert_eq!(
        kind(disk.remove_dir_all(&dir.join("sub"))),
        io::ErrorKind::NotFound
    );
    assert!(disk.read_dir(dir).expect("list").is_empty());
}

fn locking(disk: &dyn Disk, dir: &Path) {
    make(disk, dir);
    let path = dir.join("lock");
    let guard = disk.lock(&path).expect("lock");
    assert_eq!(kind(disk.lock(&path)), io::ErrorKind::WouldBlock);
    drop(guard);
    disk.lock(&path).expect("free again");
}

fn space_and_boot(disk: &dyn Disk, root: &Path) {
    let space = disk.space(root).expect("space");
    assert!(space.total > 0 && space.free <= space.total, "{space:?}");
    let boot_id = disk.boot_id().expect("boot id");
    assert!(!boot_id.is_empty() && boot_id == disk.boot_id().expect("boot id"));
}
