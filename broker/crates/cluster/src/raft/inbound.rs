//! What other brokers ask of a group's openraft.
//!
//! Requests to append go to openraft in the order in which the link delivered them: each waits in a queue of the group
//! and is handed over before the one behind it, while answers come as the log's flushes do.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use openraft::raft::{VoteRequest, VoteResponse};
use openraft_rt::WatchReceiver as _;
use tokio::sync::mpsc;

use super::doubt::Doubt;
use super::elections;
use super::group::Raft;
use super::types::TypeConfig;
use super::wire;
use crate::links::{Kind, Links};

/// Requests to append that may wait for one group's log; the next one is refused, and its sender begins again where the
/// log ends.
const MAX_WAITING: usize = 64;

/// How a request is answered; one that is dropped unanswered counts as refused.
pub(crate) type Answer = Box<dyn FnOnce(Result<Bytes, String>) + Send>;

/// A request to append.
pub(super) struct Append {
    body: Bytes,
    answer: Answer,
}

/// Where a running group takes requests.
#[derive(Clone)]
pub(super) struct Inbound {
    raft: Raft,
    links: Arc<dyn Links>,
    node: u64,
    doubt: Arc<Doubt>,
    appends: mpsc::Sender<Append>,
}

impl Inbound {
    /// The entrance, and the queue to be served by [`serve`].
    pub(super) fn new(
        raft: Raft,
        links: Arc<dyn Links>,
        node: u64,
        doubt: Arc<Doubt>,
    ) -> (Self, mpsc::Receiver<Append>) {
        let (appends, queue) = mpsc::channel(MAX_WAITING);
        let inbound = Self {
            raft,
            links,
            node,
            doubt,
            appends,
        };
        (inbound, queue)
    }

    /// Takes a request whose group has been read off `body`. What it returns is to be driven until it ends; requests to
    /// append are done with at once.
    pub(super) fn take(&self, kind: Kind, body: Bytes, answer: Answer) -> Option<BoxFuture<'static, ()>> {
        if kind == Kind::Append {
            if let Err(full) = self.appends.try_send(Append { body, answer }) {
                (full.into_inner().answer)(Err("too many requests wait for this partition".to_owned()));
            }
            return None;
        }
        let asked = self.clone();
        Some(async move { answer(asked.ask(kind, body).await) }.boxed())
    }

    async fn ask(&self, kind: Kind, body: Bytes) -> Result<Bytes, String> {
        let raft = &self.raft;
        match kind {
            Kind::Vote => {
                let request = wire::decode_vote(body).map_err(text)?;
                let reply = match self.refusal(&request) {
                    Some(refusal) => refusal,
                    None => raft.vote(request).await.map_err(text)?,
                };
                Ok(wire::encode_vote_reply(&reply))
            }
            Kind::PreVote => {
                let request = wire::decode_vote(body).map_err(text)?;
                let candidate = request.vote.leader_id().voted_for;
                elections::let_go_of(raft, &*self.links, candidate).await;
                let reply = match self.refusal(&request) {
                    Some(refusal) => refusal,
                    None => raft.pre_vote(request).await.map_err(text)?,
                };
                Ok(wire::encode_vote_reply(&reply))
            }
            Kind::Transfer => {
                let request = wire::decode_transfer(body).map_err(text)?;
                if *request.to_node_id() == self.node && self.doubt.is_any() {
                    return Err("the replica may lack acknowledged records".to_owned());
                }
                let reply = raft.handle_transfer_leader(request).await.map_err(text)?;
                Ok(wire::encode_transfer_reply(&reply))
            }
            Kind::Append => append(raft.clone(), body).await,
            Kind::Park
            | Kind::Standing
            | Kind::Leaders
            | Kind::Command
            | Kind::Purge
            | Kind::Pass
            | Kind::Copy
            | Kind::Quorum
            | Kind::Report
            | Kind::Recall
            | Kind::Room => Err("not for a group".to_owned()),
        }
    }

    /// The answer to a candidate for whom a replica in doubt does not vote.
    fn refusal(&self, request: &VoteRequest<TypeConfig>) -> Option<VoteResponse<TypeConfig>> {
        if self.doubt.may_vote_for(request.last_log_id) {
            return None;
        }
        let vote = self.raft.server_metrics().borrow_watched().vote;
        Some(VoteResponse::new(vote, None, false))
    }
}

/// Hands requests to append to openraft for as long as it is polled.
pub(super) async fn serve(raft: Raft, mut queue: mpsc::Receiver<Append>) -> Infallible {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = running.next(), if !running.is_empty() => {}
            next = queue.recv(), if running.len() < MAX_WAITING => {
                let Some(Append { body, answer }) = next else {
                    // The group is closing: nothing more comes.
                    return std::future::pending().await;
                };
                let mut appending = append(raft.clone(), body).boxed();
                // The first poll puts the request into openraft's queue, before the next one is looked at.
                match futures_util::poll!(&mut appending) {
                    std::task::Poll::Ready(result) => answer(result),
                    std::task::Poll::Pending => running.push(async move { answer(appending.await) }),
                }
            }
        }
    }
}

async fn append(raft: Raft, body: Bytes) -> Result<Bytes, String> {
    let request = wire::decode_append(body).map_err(text)?;
    let reply = raft.append_entries(request).await.map_err(text)?;
    Ok(wire::encode_append_reply(&reply))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
