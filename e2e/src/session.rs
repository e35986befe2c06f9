//! A client program that is told what to do while it runs (`clients/README.md`): several consumers in groups, and the
//! admin client beside them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Running};
use crate::{tools, wait};

/// For one answer of a client on a busy machine; a JVM start and a rebalance fit in.
pub const LIMIT: Duration = Duration::from_secs(45);

/// What a session prints.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Assigned {
        name: String,
        partitions: Vec<String>,
    },
    Revoked {
        name: String,
        partitions: Vec<String>,
    },
    Read {
        name: String,
        record: (String, i64),
    },
    Wrote {
        name: String,
        number: u64,
        record: (String, i64),
    },
    Committed {
        name: String,
        offsets: BTreeMap<String, i64>,
    },
    Left {
        name: String,
    },
    Failed {
        name: String,
        code: i16,
    },
    Answer {
        answer: Value,
    },
    Refused {
        name: Option<String>,
        code: Option<i16>,
    },
}

/// What is known of one consumer in a group, or of a writer.
#[derive(Debug, Default)]
pub struct Member {
    /// Partitions that are its own now, as `topic-partition`.
    pub owned: BTreeSet<String>,
    /// Every partition that was taken from it, in order.
    pub revoked: Vec<String>,
    /// Every record that it read, in order: partition and offset.
    pub read: Vec<(String, i64)>,
    /// Records of a writer that were acknowledged: their numbers, with partition and offset.
    pub wrote: Vec<(u64, (String, i64))>,
    /// Commits that were acknowledged: the next offset of each partition.
    pub commits: Vec<BTreeMap<String, i64>>,
    /// Whether it has left.
    pub left: bool,
    /// The error code with which it was put out of its group.
    pub failed: Option<i16>,
}

/// The answer of an admin command, or the error code that the broker refused it with; `None` where the client itself
/// refused.
pub type Answer = std::result::Result<Value, Option<i16>>;

/// A running client program.
#[derive(Debug)]
pub struct Session {
    name: &'static str,
    process: Running,
    stdin: ChildStdin,
    lines: Receiver<String>,
    dir: TempDir,
    members: BTreeMap<String, Member>,
    /// Consumers that may fail.
    doomed: BTreeSet<String>,
    answers: VecDeque<Answer>,
}

impl Session {
    /// Starts `command`, which is waited for only by its first answer.
    pub fn start(name: &'static str, command: &mut Command, bootstrap: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let stderr = fs::File::create(dir.path().join("stderr"))?;
        command
            .arg(bootstrap)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut process = Running::start(command)?;
        let stdin = process.stdin().context("no standard input")?;
        let stdout = process.stdout().context("no standard output")?;
        let (sender, lines) = mpsc::channel();
        // It ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            name,
            process,
            stdin,
            lines,
            dir,
            members: BTreeMap::new(),
            doomed: BTreeSet::new(),
            answers: VecDeque::new(),
        })
    }

    /// confluent-kafka.
    pub fn confluent(bootstrap: &str) -> Result<Self> {
        Self::start(
            "confluent-kafka",
            &mut tools::python("confluent_session.py")?,
            bootstrap,
        )
    }

    /// kafka-python.
    pub fn kafka_python(bootstrap: &str) -> Result<Self> {
        Self::start(
            "kafka-python",
            &mut tools::python("kafka_python_session.py")?,
            bootstrap,
        )
    }

    /// kafkajs.
    pub fn kafkajs(bootstrap: &str) -> Result<Self> {
        Self::start("kafkajs", &mut tools::node("kafkajs_session.js")?, bootstrap)
    }

    /// The Java client.
    pub fn java(bootstrap: &str) -> Result<Self> {
        Self::start("java", &mut tools::java_source("Session.java")?, bootstrap)
    }

    /// Sends a command.
    pub fn tell(&mut self, words: &str) -> Result<()> {
        writeln!(self.stdin, "{words}").with_context(|| format!("{}: {words}", self.complaints()))
    }

    /// Tells a consumer to join `group`; `protocol` is an assignment strategy or `consumer` (KIP-848).
    pub fn join(
        &mut self,
        name: &str,
        group: &str,
        topic: &str,
        protocol: &str,
        instance: Option<&str>,
    ) -> Result<()> {
        self.members.insert(name.to_owned(), Member::default());
        let instance = instance.unwrap_or_default();
        self.tell(format!("join {name} {group} {topic} {protocol} {instance}").trim_end())
    }

    /// Tells a producer to write numbers to `topic`, each as `name number`, until it is told to leave.
    pub fn write(&mut self, name: &str, topic: &str) -> Result<()> {
        self.members.insert(name.to_owned(), Member::default());
        self.tell(&format!("write {name} {topic}"))
    }

    /// Sends an admin command and waits for its answer.
    pub fn ask(&mut self, words: &str) -> Result<Answer> {
        self.tell(words)?;
        let client = self.name;
        wait::value(format_args!("{client}: {words}"), LIMIT, || {
            self.pump()?;
            Ok(self.answers.pop_front())
        })
    }

    /// Like [`Session::ask`], and fails when it is refused.
    pub fn answer(&mut self, words: &str) -> Result<Value> {
        let answer = self.ask(words)?;
        answer.map_err(|code| anyhow::anyhow!("{}: {words}: refused with error code {code:?}", self.name))
    }

    /// Has these consumers commit all that they have read, and waits until it is acknowledged.
    pub fn commit(&mut self, names: &[&str]) -> Result<()> {
        let mut before = Vec::new();
        for name in names {
            before.push(self.member(name)?.commits.len());
            self.tell(&format!("commit {name}"))?;
        }
        let client = self.name;
        wait::until(format_args!("{client}: commits of {names:?}"), LIMIT, || {
            self.pump()?;
            for (name, before) in names.iter().zip(&before) {
                if self.member(name)?.commits.len() <= *before {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Ends a consumer in order.
    pub fn leave(&mut self, name: &str) -> Result<()> {
        self.tell(&format!("leave {name}"))?;
        let client = self.name;
        wait::until(format_args!("{client}: end of {name}"), LIMIT, || {
            self.pump()?;
            Ok(self.member(name)?.left)
        })
    }

    /// Waits until a consumer is put out of its group, and returns the error code.
    pub fn failure(&mut self, name: &str) -> Result<i16> {
        self.doomed.insert(name.to_owned());
        let client = self.name;
        wait::value(format_args!("{client}: the failure of {name}"), LIMIT, || {
            self.pump()?;
            Ok(self.member(name)?.failed)
        })
    }

    /// A consumer of this session.
    pub fn member(&self, name: &str) -> Result<&Member> {
        self.members
            .get(name)
            .with_context(|| format!("no member {name}"))
    }

    /// All consumers, for messages.
    pub fn members(&self) -> &BTreeMap<String, Member> {
        &self.members
    }

    /// Takes in what the program has printed so far.
    ///
    /// # Errors
    /// When it has ended, printed nonsense, a consumer's command was refused, or one failed that nobody expects to.
    pub fn pump(&mut self) -> Result<()> {
        loop {
            match self.lines.try_recv() {
                Ok(line) => self.take(&line)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    bail!("{} has ended:\n{}", self.name, self.complaints())
                }
            }
        }
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let event = serde_json::from_str(line).with_context(|| format!("{}: {line}", self.name))?;
        match event {
            Event::Assigned { name, partitions } => self.known(&name)?.owned.extend(partitions),
            Event::Revoked { name, partitions } => {
                let member = self.known(&name)?;
                member.owned.retain(|owned| !partitions.contains(owned));
                member.revoked.extend(partitions);
            }
            Event::Read { name, record } => self.known(&name)?.read.push(record),
            Event::Wrote { name, number, record } => self.known(&name)?.wrote.push((number, record)),
            Event::Committed { name, offsets } => self.known(&name)?.commits.push(offsets),
            Event::Left { name } => self.known(&name)?.left = true,
            Event::Failed { name, code } => {
                ensure!(
                    self.doomed.contains(&name),
                    "{}: {name} failed with error code {code}",
                    self.name
                );
                self.known(&name)?.failed = Some(code);
            }
            Event::Answer { answer } => self.answers.push_back(Ok(answer)),
            Event::Refused { name: None, code } => self.answers.push_back(Err(code)),
            Event::Refused {
                name: Some(name),
                code,
            } => {
                bail!(
                    "{}: a command of {name} was refused with error code {code:?}",
                    self.name
                )
            }
        }
        Ok(())
    }

    fn known(&mut self, name: &str) -> Result<&mut Member> {
        self.members
            .get_mut(name)
            .with_context(|| format!("an event of {name}, whom nobody told to join"))
    }

    /// kill -9: its consumers do not leave.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP: its consumers stay in their groups, and do nothing.
    pub fn freeze(&self) -> Result<()> {
        self.process.freeze()
    }

    /// SIGCONT: it goes on where it was frozen.
    pub fn thaw(&self) -> Result<()> {
        self.process.thaw()
    }

    /// Takes in what was printed before the end.
    ///
    /// # Errors
    /// When the program still runs, or printed nonsense.
    pub fn take_rest(&mut self) -> Result<()> {
        ensure!(self.process.ended()?.is_some(), "{} still runs", self.name);
        // The reading thread ends at the end of the pipe; a killed program may have cut its last line.
        while let Ok(line) = self.lines.recv() {
            if serde_json::from_str::<Value>(&line).is_ok() {
                self.take(&line)?;
            }
        }
        Ok(())
    }

    /// The end of its standard error, for messages.
    pub fn complaints(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
        process::tail(&text, 30)
    }
}
