//! A connection of the master: its first two lines are read here, the rest is between two programs.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use takhin_runtime::{ReadHalf, Stream, WriteHalf};
use tracing::{debug, warn};

use super::Receiver;
use super::program::Program;
use crate::source::error::SourceError;

/// Longest line with which either side begins.
const MAX_LINE: usize = 512;

impl Receiver<'_> {
    /// Serves a connection until it ends. An error means that the dump is spoiled.
    pub(super) async fn serve(&self, stream: Stream) -> Result<(), SourceError> {
        let (mut reading, mut writing) = stream.into_split();
        let mut program = self.modules.start()?;
        let greeting = self.greeting(&mut program).await?;
        if send(&mut writing, greeting.clone()).await.is_err() {
            return Ok(());
        }
        let mut buffer = BytesMut::new();
        let mut hello = BytesMut::new();
        for _ in 0..2 {
            let line = self.line(&mut reading, &mut buffer);
            match self.env.clock.timeout(self.config.source.timeout, line).await {
                Ok(Some(line)) => hello.extend_from_slice(&line),
                // Masters look first whether anybody listens, and say nothing.
                Ok(None) | Err(_) => return Ok(()),
            }
        }
        let said = String::from_utf8_lossy(&hello).into_owned();
        let mut lines = said.lines();
        let module = match (lines.next(), lines.next()) {
            (Some(first), Some(module)) if first.starts_with("@RSYNCD:") => module,
            _ => {
                warn!("a connection that does not speak rsync was closed");
                return Ok(());
            }
        };
        match self.modules.admit(self.env, module).await? {
            None => {
                warn!(module, "the master pushes to a module that no slave has");
                let text = format!("@ERROR: Unknown module '{module}'\n");
                let _ = send(&mut writing, text.into()).await;
                return Ok(());
            }
            Some(false) => {}
            Some(true) => {
                // It has read the names that it knows before it said anything.
                program = self.modules.start()?;
                if self.greeting(&mut program).await? != greeting {
                    return Err(self.failed("two runs of the program rsync differ"));
                }
            }
        }
        debug!(module, "the master pushes");
        hello.unsplit(buffer);
        self.between((reading, writing), program, hello.freeze()).await
    }

    /// Carries bytes both ways until the program has ended.
    async fn between(
        &self,
        (mut reading, mut writing): (ReadHalf, WriteHalf),
        program: Program,
        first: Bytes,
    ) -> Result<(), SourceError> {
        let Program {
            mut child,
            mut input,
            mut output,
            errors,
        } = program;
        let pushed = async {
            let mut chunk = BytesMut::from(&first[..]);
            loop {
                self.came(chunk.len()).await;
                if input.write(&chunk).await.is_err() {
                    break;
                }
                chunk.clear();
                if !matches!(reading.read_buf(&mut chunk).await, Ok(1..)) {
                    break;
                }
            }
            // It sees the end, and says how it has ended.
            drop(input);
            std::future::pending::<()>().await;
        };
        let answered = async {
            let mut refusal = String::new();
            while let Some(bytes) = output.read().await {
                if refusal.is_empty() && bytes.starts_with(b"@ERROR") {
                    refusal = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_LINE)])
                        .trim()
                        .to_owned();
                }
                // Whoever has gone is noticed by the other direction.
                let _ = send(&mut writing, bytes).await;
            }
            refusal
        };
        let ended = async {
            let (said, refusal) = tokio::join!(errors.last_words(), answered);
            let said = if refusal.is_empty() { said } else { refusal };
            (said, child.wait().await)
        };
        let (said, status) = tokio::select! {
            ended = ended => ended,
            () = pushed => return Ok(()),
        };
        let _ = writing.shutdown().await;
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.broken(status.code(), &said)),
            Err(source) => Err(self.modules.no_program(source)),
        }
    }

    /// Why a program has failed.
    fn broken(&self, code: Option<i32>, said: &str) -> SourceError {
        if is_disk_full(said) {
            return SourceError::SnapshotDisk {
                dir: self.pushing.root.display().to_string(),
                source: std::io::ErrorKind::StorageFull.into(),
            };
        }
        if said.contains("auth failed") {
            return self.failed(
                "the master's rsync gives another password than source.password_file, or than `default` if that is not set: it \
                 should be its requirepass",
            );
        }
        let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
        self.failed(&match said.is_empty() {
            true => format!("the master's rsync was broken off ({code})"),
            false => format!("the master's rsync was broken off ({code}): {said}"),
        })
    }

    /// The line with which a program begins.
    async fn greeting(&self, program: &mut Program) -> Result<Bytes, SourceError> {
        let mut line = BytesMut::new();
        let reading = async {
            while !line.ends_with(b"\n") {
                match program.output.read().await {
                    Some(bytes) if line.len() + bytes.len() <= MAX_LINE => line.extend_from_slice(&bytes),
                    _ => return Err(self.failed("the program rsync does not begin as a daemon does")),
                }
            }
            Ok(line.freeze())
        };
        match self.env.clock.timeout(self.config.source.timeout, reading).await {
            Ok(line) => line,
            Err(_) => Err(self.failed("the program rsync says nothing")),
        }
    }

    /// The master's next line; `None` if it says no more, or one that is too long.
    async fn line(&self, reading: &mut ReadHalf, buffer: &mut BytesMut) -> Option<BytesMut> {
        loop {
            if let Some(at) = buffer.iter().position(|byte| *byte == b'\n') {
                return (at < MAX_LINE).then(|| buffer.split_to(at + 1));
            }
            if buffer.len() >= MAX_LINE || !matches!(reading.read_buf(buffer).await, Ok(1..)) {
                return None;
            }
        }
    }
}

/// Whether a program that says this had no room.
fn is_disk_full(said: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"]
        .iter()
        .any(|words| said.contains(words))
}

async fn send(writing: &mut WriteHalf, bytes: Bytes) -> std::io::Result<()> {
    writing.write_all(&mut VecDeque::from([bytes])).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of rsync 3.5.0.
    #[test]
    fn a_full_disk_is_told_from_other_faults() {
        let full = "rsync: [receiver] write failed on \"/strings/1.sst\" (in document): No space left on device (28)";
        assert!(is_disk_full(full));
        assert!(!is_disk_full(
            "rsync: connection unexpectedly closed (173 bytes received so far) [generator]"
        ));
    }
}
