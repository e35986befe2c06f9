//! THE table: every Kafka API that this broker serves, once.
//!
//! From it follow the ApiVersions answer, the version gate, the metric labels and `docs/reference/kafka-apis.md`.
//! Advertised means implemented, for every version in the range.

mod alter_configs;
mod alter_partition_reassignments;
pub(crate) mod api_versions;
mod change;
mod config_resource;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod coordinate;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod elect_leaders;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod operations;
mod produce;
mod sync_group;
mod unregister_broker;

use crate::dispatch::Entry;

macro_rules! table {
    ($($form:ident $module:ident::$api:ident,)*) => {
        /// Sorted by key.
        pub(crate) static TABLE: &[Entry] = &[$(Entry::$form::<$module::$api>(stringify!($api))),*];
        const _: () = {
            let entries: &[Entry] = &[$(Entry::$form::<$module::$api>(stringify!($api))),*];
            let mut i = 1;
            while i < entries.len() {
                assert!(entries[i - 1].key < entries[i].key, "api::TABLE: sort by key, no key twice");
                i += 1;
            }
        };
    };
}

table! {
    staged produce::Produce,
    staged fetch::Fetch,
    plain list_offsets::ListOffsets,
    plain metadata::Metadata,
    plain offset_commit::OffsetCommit,
    plain offset_fetch::OffsetFetch,
    plain find_coordinator::FindCoordinator,
    plain join_group::JoinGroup,
    plain heartbeat::Heartbeat,
    plain leave_group::LeaveGroup,
    plain sync_group::SyncGroup,
    plain describe_groups::DescribeGroups,
    plain list_groups::ListGroups,
    plain api_versions::ApiVersions,
    plain create_topics::CreateTopics,
    plain delete_topics::DeleteTopics,
    plain delete_records::DeleteRecords,
    plain init_producer_id::InitProducerId,
    plain offset_for_leader_epoch::OffsetForLeaderEpoch,
    plain describe_configs::DescribeConfigs,
    plain alter_configs::AlterConfigs,
    plain describe_log_dirs::DescribeLogDirs,
    plain create_partitions::CreatePartitions,
    plain delete_groups::DeleteGroups,
    plain elect_leaders::ElectLeaders,
    plain incremental_alter_configs::IncrementalAlterConfigs,
    plain alter_partition_reassignments::AlterPartitionReassignments,
    plain list_partition_reassignments::ListPartitionReassignments,
    plain offset_delete::OffsetDelete,
    plain describe_quorum::DescribeQuorum,
    plain describe_cluster::DescribeCluster,
    plain describe_producers::DescribeProducers,
    plain unregister_broker::UnregisterBroker,
    plain consumer_group_heartbeat::ConsumerGroupHeartbeat,
    plain consumer_group_describe::ConsumerGroupDescribe,
    plain list_config_resources::ListConfigResources,
    plain describe_topic_partitions::DescribeTopicPartitions,
}
