//! The Redis port: AUTH, INFO, CONFIG GET.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use bytes::BytesMut;
use takhin_pika::resp::{self, Command};

use super::{Inner, legacy};

/// Longest command.
const MAX: usize = 1 << 16;

pub(super) fn serve(inner: &Arc<Inner>, mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    let mut chunk = [0; 4096];
    // What was said, byte by byte, and the last command of it.
    let (mut said, mut before) = (BytesMut::new(), BytesMut::new());
    let mut is_known = inner.settings().password.is_none();
    loop {
        while let Some((command, len)) = resp::next_command(&mut buffer, MAX).map_err(io::Error::other)? {
            let bytes = said.split_to(len);
            let reply = match command.as_slice() {
                [name, rest @ ..] if &name[..] == b"trysync" && is_known => {
                    legacy::try_sync(inner, rest, [&before[..], &bytes].concat())
                }
                _ => answer(inner, &command, &mut is_known),
            };
            before = bytes;
            stream.write_all(reply.as_bytes())?;
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            n => {
                buffer.extend_from_slice(&chunk[..n]);
                said.extend_from_slice(&chunk[..n]);
            }
        }
        if inner.has_ended() {
            return Ok(());
        }
    }
}

fn answer(inner: &Inner, command: &Command, is_known: &mut bool) -> String {
    let words: Vec<String> = command
        .iter()
        .map(|word| String::from_utf8_lossy(word).to_ascii_lowercase())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let settings = inner.settings();
    match (words.as_slice(), &settings.password) {
        (["auth", _], None) => "-ERR Client sent AUTH, but no password is set\r\n".to_owned(),
        (["auth", given], Some(password)) => {
            *is_known = given == password;
            match *is_known {
                true => "+OK\r\n".to_owned(),
                false => "-ERR invalid password\r\n".to_owned(),
            }
        }
        (_, _) if !*is_known => "-NOAUTH Authentication required.\r\n".to_owned(),
        (["info", "replication"], _) => bulk(&replication(inner)),
        (["info", "log"], _) if legacy::is_legacy(&settings.version) => {
            let end = inner.state().legacy.end();
            bulk(&format!(
                "# Log\r\nbinlog_offset:{} {}\r\n",
                end.filenum, end.offset
            ))
        }
        (["info", ..], _) => bulk(&format!(
            "# Server\r\npika_version:{}\r\nos:Linux\r\n",
            settings.version
        )),
        (["config", "get", "binlog-file-size"], _) => {
            let size = settings.file_size.to_string();
            format!("*2\r\n{}{}", bulk("binlog-file-size"), bulk(&size))
        }
        (["config", "get", _], _) => "*0\r\n".to_owned(),
        _ => format!(
            "-ERR unknown or unsupported command '{}'\r\n",
            words.first().unwrap_or(&"")
        ),
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn replication(inner: &Inner) -> String {
    let mut text = String::from("# Replication(MASTER)\r\nrole:master\r\n");
    for (db, binlog) in &inner.state().binlogs {
        let end = binlog.end();
        let _ = write!(
            text,
            "{db}:binlog_offset={} {},safety_purge=none\r\n",
            end.filenum, end.offset
        );
    }
    text
}
