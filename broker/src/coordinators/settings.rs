//! The settings of coordinators: those of the node, and those of single groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::Image;
use takhin_config::ByteSize;
use takhin_config::group::GroupSettings;
use takhin_config::live::{Settings, Values};
use takhin_coordinator::{GroupConfig, GroupOverrides};

/// What was set for single groups, within the bounds that the node sets.
#[derive(Debug)]
struct Overrides {
    settings: Arc<Settings>,
    groups: Arc<BTreeMap<String, Values>>,
}

impl Overrides {
    fn of(&self, group: &str) -> Option<GroupSettings> {
        let own = self.groups.get(group)?;
        Some(GroupSettings::of(&self.settings.node.kafka.groups, own))
    }
}

impl GroupOverrides for Overrides {
    fn session_timeout(&self, group: &str) -> Option<Duration> {
        Some(self.of(group)?.consumer_session_timeout)
    }

    fn heartbeat_interval(&self, group: &str) -> Option<Duration> {
        Some(self.of(group)?.consumer_heartbeat_interval)
    }
}

/// Whether the settings of coordinators may differ between two images.
pub(super) fn differ(before: &Image, after: &Image) -> bool {
    !Arc::ptr_eq(&before.settings, &after.settings)
        || !Arc::ptr_eq(&before.group_configs, &after.group_configs)
}

/// The settings of coordinators at this image.
pub(super) fn group_config(image: &Image) -> GroupConfig {
    let groups = &image.settings.node.kafka.groups;
    let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
    GroupConfig {
        min_session_timeout: groups.min_session_timeout,
        max_session_timeout: groups.max_session_timeout,
        initial_rebalance_delay: groups.initial_rebalance_delay,
        max_group_size: groups.max_size as usize,
        consumer_max_size: groups.max_size as usize,
        consumer_session_timeout: groups.consumer_session_timeout,
        consumer_heartbeat_interval: groups.consumer_heartbeat_interval,
        max_group_bytes: bytes(groups.max_group_memory),
        max_groups: groups.max_groups as usize,
        offset_metadata_max_bytes: bytes(groups.offset_metadata_max),
        offsets_retention: groups.offsets_retention,
        offsets_retention_check_interval: groups.offsets_retention_check_interval,
        of_groups: Arc::new(Overrides {
            settings: Arc::clone(&image.settings),
            groups: Arc::clone(&image.group_configs),
        }),
        ..GroupConfig::default()
    }
}
