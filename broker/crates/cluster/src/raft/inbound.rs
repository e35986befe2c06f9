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
use tokio::sync::mpsc;

use super::elections;
use super::group::Raft;
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
    appends: mpsc::Sender<Append>,
}

impl Inbound {
    /// The entrance, and the queue to be served by [`serve`].
    pub(super) fn new(raft: Raft, links: Arc<dyn Links>) -> (Self, mpsc::Receiver<Append>) {
        let (appends, queue) = mpsc::channel(MAX_WAITING);
        (Self { raft, links, appends }, queue)
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
        let (raft, links) = (self.raft.clone(), Arc::clone(&self.links));
        Some(async move { answer(ask(&raft, &*links, kind, body).await) }.boxed())
    }
}

async fn ask(raft: &Raft, links: &dyn Links, kind: Kind, body: Bytes) -> Result<Bytes, String> {
    match kind {
        Kind::Vote => {
            let request = wire::decode_vote(body).map_err(text)?;
            raft.vote(request)
                .await
                .map(|reply| wire::encode_vote_reply(&reply))
                .map_err(text)
        }
        Kind::PreVote => {
            let request = wire::decode_vote(body).map_err(text)?;
            let candidate = request.vote.leader_id().voted_for;
            elections::let_go_of(raft, links, candidate).await;
            raft.pre_vote(request)
                .await
                .map(|reply| wire::encode_vote_reply(&reply))
                .map_err(text)
        }
        Kind::Transfer => {
            let request = wire::decode_transfer(body).map_err(text)?;
            let reply = raft.handle_transfer_leader(request).await;
            reply
                .map(|reply| wire::encode_transfer_reply(&reply))
                .map_err(text)
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
        | Kind::Room => Err("not for a group".to_owned()),
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
