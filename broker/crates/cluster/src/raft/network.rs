//! How a group's openraft reaches the replicas on other brokers.
//!
//! Requests to append are sent one after the other without waiting for answers, up to [`PIPELINE`] of them; the link
//! keeps their order, and so does the receiver (see `inbound`).

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{BoxStream, Stream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use takhin_storage::Log;

use super::copy;
use super::hard_state::GroupId;
use super::in_flight::{Held, InFlight};
use super::pace::Pacing;
use super::types::{RaftVote, TypeConfig, Voter};
use super::wire::{self, WireError};
use crate::links::{Class, Kind, LinkError};

/// Requests to append that may be on their way to one replica of a group. Each holds a mebibyte at most, or one batch.
const PIPELINE: usize = 8;

/// A group's way to its replicas; each call of `new_client` makes the way to one of them.
#[derive(Clone)]
pub(crate) struct Network {
    pub(super) pacing: Pacing,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) group: GroupId,
    /// Where copies come from.
    pub(super) log: Arc<Log>,
}

/// The way to one replica.
#[derive(Clone)]
pub(crate) struct Way {
    pacing: Pacing,
    in_flight: Arc<InFlight>,
    group: GroupId,
    log: Arc<Log>,
    /// The broker; `None` for an id that no broker can have.
    target: Option<u32>,
    voter: Voter,
}

/// A request that may be sent now.
struct Paced {
    request: AppendEntriesRequest<TypeConfig>,
    held: Held,
}

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;

impl Way {
    fn send(
        &self,
        class: Class,
        kind: Kind,
        body: Vec<Bytes>,
        option: &RPCOption,
    ) -> BoxFuture<'static, RpcResult<Bytes>> {
        let Some(target) = self.target else {
            let error = openraft::AnyError::error("not the id of a broker");
            return std::future::ready(Err(RPCError::Unreachable(Unreachable::new(&error)))).boxed();
        };
        let lane = lane(self.group);
        let answer = self
            .pacing
            .links
            .call(target, class, lane, kind, body, option.soft_ttl());
        answer.map(|answer| answer.map_err(to_rpc_error)).boxed()
    }

    /// Waits until a request may be sent. Those without entries never wait.
    async fn paced(&self, request: AppendEntriesRequest<TypeConfig>) -> Paced {
        let bytes = request.entries.iter().map(wire::entry_bytes).sum();
        let mut held = self.in_flight.hold(bytes);
        if let Some(target) = self.target {
            self.pacing.wait(target, bytes).await;
            held = held.admitted(target).await;
        }
        Paced { request, held }
    }

    /// Its entries count as held until the answer is there.
    fn append(
        &self,
        Paced { request, held }: Paced,
        option: &RPCOption,
    ) -> BoxFuture<'static, RpcResult<AppendEntriesResponse<TypeConfig>>> {
        match wire::encode_append(self.group, &self.voter, request) {
            Ok(body) => {
                let answer = self.send(Class::Data, Kind::Append, body, option);
                answer
                    .map(move |answer| {
                        drop(held);
                        wire::decode_append_reply(answer?).map_err(to_network_error)
                    })
                    .boxed()
            }
            Err(error) => std::future::ready(Err(to_network_error(error))).boxed(),
        }
    }
}

/// Groups are spread over the streams of a class; one group keeps to one of them.
fn lane(group: GroupId) -> u64 {
    let (high, low) = group.topic_id.as_u64_pair();
    high ^ low ^ u64::from(group.index.unsigned_abs())
}

fn to_rpc_error(error: LinkError) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&error))
}

fn to_network_error(error: WireError) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(&error))
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, node: &Voter) -> Way {
        Way {
            pacing: self.pacing.clone(),
            in_flight: Arc::clone(&self.in_flight),
            group: self.group,
            log: Arc::clone(&self.log),
            target: u32::try_from(target).ok(),
            voter: node.clone(),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Way {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<TypeConfig>> {
        let paced = self.paced(request).await;
        self.append(paced, &option).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<BoxStream<'s, RpcResult<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let way = &*self;
        let answers = input
            .then(move |request| way.paced(request))
            .map(move |paced| {
                let previous = paced.request.prev_log_id;
                let last = paced.request.entries.last();
                let last = last.map(|entry| entry.log_id).or(previous);
                way.append(paced, &option)
                    .map(move |answer| answer.map(|answer| answer.into_stream_result(previous, last)))
            })
            .buffered(PIPELINE);
        std::future::ready(Ok(answers.boxed())).boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        let body = wire::encode_vote(self.group, &self.voter, &request);
        let answer = self.send(Class::Control, Kind::Vote, body, &option).await?;
        wire::decode_vote_reply(answer).map_err(to_network_error)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        let body = wire::encode_vote(self.group, &self.voter, &request);
        let answer = self.send(Class::Control, Kind::PreVote, body, &option).await?;
        wire::decode_vote_reply(answer).map_err(to_network_error)
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, ()>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let unreachable = |reason: &str| {
            let error = openraft::AnyError::error(reason);
            StreamingError::Unreachable(Unreachable::new(&error))
        };
        let target = self.target.ok_or_else(|| unreachable("not the id of a broker"))?;
        let source = copy::Source {
            pacing: self.pacing.clone(),
            log: Arc::clone(&self.log),
            group: self.group,
        };
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = copy::send(&source, target, vote, &snapshot.meta) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(reason) => {
                    tracing::warn!(partition = %self.group, target, reason, "segments not copied; tried again");
                    Err(unreachable(&reason))
                }
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<TypeConfig>> {
        let body = wire::encode_transfer(self.group, &self.voter, &request);
        let answer = self.send(Class::Control, Kind::Transfer, body, &option).await?;
        wire::decode_transfer_reply(answer).map_err(to_network_error)
    }
}
