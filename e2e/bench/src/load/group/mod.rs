//! Members of classic groups: a connection each, because a JoinGroup holds it until the group has its generation, and
//! one thread for all of them.

mod member;
mod socket;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use takhin_protocol::messages::StrBytes;

use self::member::{Call, Member, Next};
use self::socket::Socket;
use super::{Span, histogram, nanos};

/// How long members may take to join, to leave, or to get their last answers.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pause before a coordinator that is not ready is asked again.
const RETRY: Duration = Duration::from_millis(100);

/// Time between two commits of one member.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Answers taken from the kernel at a time.
const EVENTS: usize = 1024;

/// Groups that are wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Beginning of their names.
    pub(crate) prefix: String,
    /// The topic that they consume, with a partition for each member of a group.
    pub(crate) topic: String,
    /// How many groups.
    pub(crate) groups: usize,
    /// Members of each.
    pub(crate) members: usize,
    /// Time between two heartbeats of one member.
    pub(crate) heartbeat: Duration,
}

/// What commits took.
#[derive(Debug)]
pub(crate) struct Commits {
    /// Commits answered in the measured time.
    pub(crate) answered: u64,
    /// From due to answered, in nanoseconds, of commits that were due in the measured time.
    pub(crate) latency: Histogram<u64>,
    /// How often a member had to join again.
    pub(crate) rejoined: u64,
}

/// One member with its connection.
#[derive(Debug)]
struct Peer {
    member: Member,
    socket: Socket,
    /// What waits for its answer, and since when it was due.
    asked: Option<(Call, Instant)>,
    /// What is due behind it.
    waiting: VecDeque<(Call, Instant)>,
}

/// Groups with all their members.
#[derive(Debug)]
pub(crate) struct Groups {
    wanted: Wanted,
    epoll: OwnedFd,
    /// Those of one group stand together.
    peers: Vec<Peer>,
    timers: BinaryHeap<Reverse<(Instant, usize, Call)>>,
    scratch: Vec<u8>,
    /// Members that have their assignment.
    stable: usize,
    /// How often a member that had its assignment was told to join again.
    rejoined: u64,
}

/// An answer that arrived.
#[derive(Debug, Clone, Copy)]
struct Answered {
    call: Call,
    due: Instant,
    at: Instant,
}

impl Groups {
    /// Connects all members and waits until each has its assignment in a generation of the wanted size.
    pub(crate) fn join(addr: SocketAddr, wanted: Wanted) -> Result<Self> {
        let mut groups = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            peers: Vec::with_capacity(wanted.groups * wanted.members),
            timers: BinaryHeap::new(),
            scratch: vec![0; 64 << 10],
            stable: 0,
            rejoined: 0,
            wanted,
        };
        groups.connect(addr)?;
        let begin = Instant::now();
        let count = u32::try_from(groups.peers.len())?;
        for index in 0..groups.peers.len() {
            groups.ask(index, Call::Join, Instant::now())?;
            // Spread evenly, as they would be if members had not come all at once.
            let share = groups.wanted.heartbeat / count * u32::try_from(index)?;
            let first = begin + groups.wanted.heartbeat + share;
            groups.timers.push(Reverse((first, index, Call::Heartbeat)));
        }
        groups.until(|groups| groups.all_joined(), |_| ())?;
        Ok(groups)
    }

    fn connect(&mut self, addr: SocketAddr) -> Result<()> {
        let text = |text: String| StrBytes::from_string(text);
        let topic = text(self.wanted.topic.clone());
        for group in 0..self.wanted.groups {
            let name = text(format!("{}-{group}", self.wanted.prefix));
            for index in 0..self.wanted.members {
                let socket = Socket::open(addr)?;
                let data = epoll::EventData::new_u64(self.peers.len() as u64);
                // Edges, so that nobody need say for each request whether room to write is of interest.
                let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
                epoll::add(&self.epoll, &socket.stream, data, flags)?;
                self.peers.push(Peer {
                    member: Member::new(name.clone(), topic.clone(), i32::try_from(index)?),
                    socket,
                    asked: None,
                    waiting: VecDeque::new(),
                });
            }
        }
        Ok(())
    }

    /// Whether every member is stable and each group is in one generation of the wanted size.
    pub(crate) fn all_joined(&self) -> bool {
        self.stable == self.peers.len() && self.peers.chunks(self.wanted.members).all(is_whole)
    }

    /// One rebalance of all groups: every member's subscription changes, and all of them join anew.
    ///
    /// Returns the time from the first JoinGroup to the last SyncGroup's answer.
    pub(crate) fn rebalance(&mut self) -> Result<Duration> {
        self.until(Self::nothing_asked, |_| ())?;
        let before: Vec<_> = self.peers.iter().map(|peer| peer.member.generation()).collect();
        let begin = Instant::now();
        for index in 0..self.peers.len() {
            self.peers[index].member.resubscribe();
            self.ask(index, Call::Join, begin)?;
        }
        let mut end = begin;
        self.until(Self::all_joined, |answered| {
            if answered.call == Call::Sync {
                end = answered.at;
            }
        })?;
        for (peer, before) in self.peers.iter().zip(before) {
            let generation = peer.member.generation();
            ensure!(
                generation == before + 1,
                "a rebalance led from generation {before} to {generation}"
            );
        }
        Ok(end - begin)
    }

    /// Every member commits once per second, on a schedule that no answer delays, until `stop`.
    pub(crate) fn commit(&mut self, span: Span, stop: &AtomicBool) -> Result<Commits> {
        let begin = Instant::now();
        let count = u32::try_from(self.peers.len())?;
        for index in 0..self.peers.len() {
            let first = begin + COMMIT_INTERVAL / count * u32::try_from(index)?;
            self.timers.push(Reverse((first, index, Call::Commit)));
        }
        let from = begin + span.warm_up;
        let measured = from..from + span.measured;
        let (mut answered, mut latency, rejoined) = (0, histogram()?, self.rejoined);
        let mut count = |answer: Answered| {
            if answer.call == Call::Commit {
                answered += u64::from(measured.contains(&answer.at));
                if measured.contains(&answer.due) {
                    latency.saturating_record(nanos(answer.at.saturating_duration_since(answer.due)));
                }
            }
        };
        while !stop.load(Ordering::Relaxed) {
            self.turn(Duration::from_millis(50), &mut count)?;
        }
        self.timers.retain(|Reverse((_, _, call))| *call != Call::Commit);
        self.until(Self::nothing_asked, &mut count)?;
        Ok(Commits {
            answered,
            latency,
            rejoined: self.rejoined - rejoined,
        })
    }

    /// All members leave, so that their groups need not wait for sessions to end.
    pub(crate) fn leave(mut self) -> Result<()> {
        self.timers.clear();
        self.until(Self::nothing_asked, |_| ())?;
        for index in 0..self.peers.len() {
            self.ask(index, Call::Leave, Instant::now())?;
        }
        self.until(Self::nothing_asked, |_| ())
    }

    fn nothing_asked(&self) -> bool {
        self.peers.iter().all(|peer| peer.asked.is_none())
    }

    /// Turns until `done`; looks for that whenever something was answered.
    fn until(&mut self, done: impl Fn(&Self) -> bool, mut each: impl FnMut(Answered)) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        while !done(self) {
            ensure!(Instant::now() < give_up, "{}", self.describe_stall());
            self.turn(Duration::from_millis(50), &mut each)?;
        }
        Ok(())
    }

    fn describe_stall(&self) -> String {
        let count = |is: fn(&Peer) -> bool| self.peers.iter().filter(|peer| is(peer)).count();
        let lost = self.peers.iter().find(|peer| !peer.member.is_stable());
        format!(
            "after {PATIENCE:?} {} of {} members have an assignment and {} wait for answers; one without was answered {}",
            self.stable,
            self.peers.len(),
            count(|peer| peer.asked.is_some()),
            lost.map_or_else(|| "-".into(), |peer| peer.member.describe_last())
        )
    }

    /// Asks what is due, waits for answers until `timeout` or until something is due, and goes on with each answer.
    fn turn(&mut self, timeout: Duration, each: &mut impl FnMut(Answered)) -> Result<()> {
        let now = Instant::now();
        while let Some(Reverse((due, index, call))) = self.timers.peek().copied()
            && due <= now
        {
            self.timers.pop();
            self.on_timer(due, index, call)?;
        }
        let next = self.timers.peek().map_or(timeout, |Reverse((due, _, _))| {
            due.saturating_duration_since(now).min(timeout)
        });
        let next = Timespec::try_from(next).context("timeout")?;
        // Anew each time: the kernel's events may not go from one thread to another.
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&next)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(std::io::Error::from(e)).context("epoll"),
        }
        for event in events {
            let index = usize::try_from(event.data.u64())?;
            self.peers[index].socket.flush()?;
            if let Some(frame) = self.peers[index].socket.receive(&mut self.scratch)? {
                each(self.on_answer(index, frame)?);
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, due: Instant, index: usize, call: Call) -> Result<()> {
        let interval = match call {
            Call::Heartbeat => self.wanted.heartbeat,
            Call::Commit => COMMIT_INTERVAL,
            Call::Join | Call::Sync | Call::Leave => return self.ask(index, call, due),
        };
        self.timers.push(Reverse((due + interval, index, call)));
        if self.peers[index].member.is_stable() {
            self.ask(index, call, due)?;
        }
        Ok(())
    }

    fn on_answer(&mut self, index: usize, frame: bytes::Bytes) -> Result<Answered> {
        let peer = &mut self.peers[index];
        let Some((call, due)) = peer.asked.take() else {
            bail!("an answer without a request")
        };
        let (at, was_stable) = (Instant::now(), peer.member.is_stable());
        let next = peer.member.answer(call, frame)?;
        self.count_stable(was_stable, index);
        match next {
            Next::Rest => {}
            Next::Ask(call) => {
                self.rejoined += u64::from(was_stable && call == Call::Join);
                self.peers[index].waiting.clear();
                self.ask(index, call, at)?;
            }
            Next::Retry(call) => self.timers.push(Reverse((at + RETRY, index, call))),
        }
        if self.peers[index].asked.is_none()
            && let Some((call, due)) = self.peers[index].waiting.pop_front()
        {
            self.ask(index, call, due)?;
        }
        Ok(Answered { call, due, at })
    }

    /// Sends a request, behind the one that waits for its answer if there is one.
    fn ask(&mut self, index: usize, call: Call, due: Instant) -> Result<()> {
        let peer = &mut self.peers[index];
        if peer.asked.is_some() {
            // No more than fall due while the broker is waited for.
            peer.waiting.push_back((call, due));
            return Ok(());
        }
        let was_stable = peer.member.is_stable();
        peer.socket.send(peer.member.request(call)?)?;
        peer.asked = Some((call, due));
        self.count_stable(was_stable, index);
        Ok(())
    }

    fn count_stable(&mut self, before: bool, index: usize) {
        match (before, self.peers[index].member.is_stable()) {
            (false, true) => self.stable += 1,
            (true, false) => self.stable -= 1,
            _ => {}
        }
    }
}

/// Whether a group's members are all in one generation, whose leader knows as many.
fn is_whole(group: &[Peer]) -> bool {
    let generation = group[0].member.generation();
    let members = || group.iter().map(|peer| &peer.member);
    members().all(|member| member.is_stable() && member.generation() == generation)
        && members().any(|member| member.led() == group.len())
}
