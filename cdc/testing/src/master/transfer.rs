//! The port of files: lists a dump, and sends pieces of its files.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use md5::{Digest as _, Md5};
use takhin_pika::Position;
use takhin_pika::frame;
use takhin_pika::info::DumpInfo;
use takhin_pika::message::{
    FileResponse, MetaResponse, TransferKind, TransferRequest, TransferResponse, TransferStatus,
};

use super::{Inner, State};
use crate::recording::Connection;

/// Longest request.
const MAX: usize = 1 << 16;

/// Most bytes of a piece: less than slaves ask for, as at the end of a real master's block.
const PIECE: usize = 1500;

/// Files of a dump by name.
#[derive(Debug, Clone, Default)]
pub struct DumpFiles {
    files: BTreeMap<String, Bytes>,
    uuid: String,
}

impl DumpFiles {
    /// The files below a directory. Streams of the 3.5 layout are left out, as real masters do.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub fn read(dir: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !entry.path().is_dir() {
                files.insert(name, std::fs::read(entry.path())?.into());
                continue;
            }
            if name == "streams" {
                continue;
            }
            for file in std::fs::read_dir(entry.path())? {
                let file = file?;
                let path = format!("{name}/{}", file.file_name().to_string_lossy());
                files.insert(path, std::fs::read(file.path())?.into());
            }
        }
        let info = files.get("info").context("a dump without info")?;
        let uuid = Md5::digest(info)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self { files, uuid })
    }

    /// The dumps that were transferred over recorded connections, by database: files as they were sent.
    ///
    /// # Errors
    ///
    /// The recording makes no sense, or has less than was listed.
    pub fn recorded(connections: &[Connection]) -> Result<BTreeMap<String, Self>> {
        let mut found: BTreeMap<String, (Vec<String>, Self)> = BTreeMap::new();
        let mut pieces: BTreeMap<(String, String), BTreeMap<u64, Bytes>> = BTreeMap::new();
        for connection in connections {
            let (_, responses) = connection.transfer()?;
            let sent = |response: &TransferResponse| response.code == i32::from(TransferStatus::TransferOk);
            for response in responses.into_iter().filter(sent) {
                let db = response.db_name;
                if let Some(meta) = response.meta_resp {
                    let (listed, dump) = found.entry(db.clone()).or_default();
                    (*listed, dump.uuid) = (meta.filenames, response.snapshot_uuid);
                }
                if let Some(piece) = response.file_resp {
                    let file = pieces.entry((db, piece.filename)).or_default();
                    file.insert(piece.offset, piece.data);
                }
            }
        }
        for ((db, name), pieces) in pieces {
            let mut whole = Vec::new();
            for (offset, piece) in pieces {
                ensure!(offset == whole.len() as u64, "{db}/{name}: a gap before {offset}");
                whole.extend_from_slice(&piece);
            }
            let (_, dump) = found.get_mut(&db).context("files that nobody has listed")?;
            dump.files.insert(name, whole.into());
        }
        let whole = |(db, (listed, dump)): (String, (Vec<String>, Self))| {
            let is_there = |name: &String| dump.files.contains_key(name);
            ensure!(
                listed.iter().all(is_there),
                "{db}: files of {listed:?} were not sent"
            );
            Ok((db, dump))
        };
        found.into_iter().map(whole).collect()
    }

    /// Bytes of all files.
    pub fn size(&self) -> usize {
        self.files.values().map(Bytes::len).sum()
    }

    /// Where the changes go on after it.
    ///
    /// # Errors
    ///
    /// It does not say so.
    pub fn position(&self) -> Result<Position> {
        let text = self.files.get("info").context("a dump without info")?;
        let info = DumpInfo::parse(std::str::from_utf8(text)?);
        Ok(info.context("the info of the dump")?.position)
    }
}

pub(super) fn serve(inner: &Arc<Inner>, mut stream: TcpStream) -> io::Result<()> {
    inner.state().transfers += 1;
    let mut buffer = BytesMut::new();
    let mut chunk = [0; 4096];
    let mut answers = 0;
    let cut = inner.state().faults.cut_files_after.pop();
    loop {
        while let Some(bytes) = frame::next(&mut buffer, MAX).map_err(io::Error::other)? {
            let request: TransferRequest = frame::decode(bytes).map_err(io::Error::other)?;
            if inner.has_ended() || cut == Some(answers) {
                return Ok(());
            }
            answers += 1;
            let is_list = request.r#type == i32::from(TransferKind::TransferMeta);
            if is_list && inner.state().is_mute() {
                continue;
            }
            let answer = answer(&mut inner.state(), &request);
            stream.write_all(&frame::encode(&answer))?;
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            n => buffer.extend_from_slice(&chunk[..n]),
        }
    }
}

impl State {
    /// Whether one more question for a list is not answered.
    fn is_mute(&mut self) -> bool {
        let is_mute = self.faults.mute_lists > 0;
        self.faults.mute_lists = self.faults.mute_lists.saturating_sub(1);
        is_mute
    }
}

fn answer(state: &mut State, request: &TransferRequest) -> TransferResponse {
    let State { dumps, faults, .. } = state;
    let mut answer = TransferResponse {
        r#type: request.r#type,
        reader_index: request.reader_index,
        snapshot_uuid: String::new(),
        db_name: request.db_name.clone(),
        slot_id: 0,
        code: TransferStatus::TransferErr.into(),
        meta_resp: None,
        file_resp: None,
    };
    if let Some(left) = &mut faults.another_dump_after {
        if *left == 0 {
            faults.another_dump_after = None;
            for dump in dumps.values_mut() {
                // The same content by another name, which nobody can know beforehand.
                let info = dump.files.get("info").cloned().unwrap_or_default();
                let renewed = [b"1".as_slice(), &info].concat();
                dump.uuid = Md5::digest(&renewed)
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                dump.files.insert("info".into(), renewed.into());
            }
        } else {
            *left -= 1;
        }
    }
    let Some(dump) = dumps.get(&request.db_name) else {
        return answer;
    };
    if request.r#type == i32::from(TransferKind::TransferMeta) {
        if faults.not_ready > 0 {
            faults.not_ready -= 1;
            return answer;
        }
        let mut filenames: Vec<String> = dump.files.keys().cloned().collect();
        filenames.extend(faults.listed_too.clone());
        answer.meta_resp = Some(MetaResponse { filenames });
    } else if let Some(wanted) = &request.file_req {
        let Some(file) = dump.files.get(&wanted.filename) else {
            return answer;
        };
        let from = usize::try_from(wanted.offset)
            .unwrap_or(usize::MAX)
            .min(file.len());
        let count = usize::try_from(wanted.count).unwrap_or(usize::MAX).min(PIECE);
        let to = from.saturating_add(count).min(file.len());
        answer.file_resp = Some(FileResponse {
            eof: i32::from(to == file.len()),
            count: (to - from) as u64,
            offset: wanted.offset,
            data: file.slice(from..to),
            checksum: String::new(),
            filename: wanted.filename.clone(),
        });
    }
    answer.snapshot_uuid.clone_from(&dump.uuid);
    answer.code = TransferStatus::TransferOk.into();
    answer
}
