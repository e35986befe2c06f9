//! ListGroups (key 16), versions 0-5.
//!
//! Lists the groups that this broker coordinates.
//!
//! - v3: flexible encoding. v4: filter by state (KIP-518). v5: filter by type (KIP-848).
//!
//! While a part of them is being loaded the answer has an error beside those that are known.

use std::ops::RangeInclusive;
use std::sync::Arc;

use takhin_coordinator::{Context, Reply, Shard};
use takhin_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use crate::context::RequestContext;
use crate::coordinators::{Coordinators, Job};
use crate::dispatch::Api;

pub(crate) struct ListGroups;

impl Api for ListGroups {
    type Request = ListGroupsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;

    async fn handle(cx: &RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
        let request = Arc::new(request);
        let job = || -> Job {
            let request = Arc::clone(&request);
            Box::new(move |shard: &mut Shard, cx: &Context<'_>| vec![shard.list_groups(cx, &request)])
        };
        let mut response = ListGroupsResponse::default();
        for replied in Coordinators::call_all(cx, job).await {
            match replied {
                Ok(Reply::ListGroups(part)) => response.groups.extend(part.groups),
                Ok(_) => {}
                Err(code) => response.error_code = cx.code(code),
            }
        }
        response
    }
}
