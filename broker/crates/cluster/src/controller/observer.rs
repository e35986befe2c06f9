//! The image follows the metadata group's log.

use std::sync::Arc;

use takhin_protocol::record::{Batch, Records};
use takhin_runtime::Published;

use crate::metadata::{Image, MetadataRecord, Origin, RecordError};
use crate::raft::Observer;

/// A committed record that means nothing here.
#[derive(Debug, thiserror::Error)]
#[error("offset {offset} of the metadata log: {error}")]
struct Unreadable {
    offset: i64,
    error: RecordError,
}

/// The next image for every committed record.
///
/// Invariant: what is published never goes back while the process runs. A group that is built anew after a failure hands
/// over its log from the first entry on; what the image has of it already is passed over, since a committed entry stays
/// what it was. An image that went back would have brokers delete replicas that were moved to them since.
pub(crate) struct MetadataObserver {
    image: Published<Arc<Image>>,
    origin: Origin,
}

impl MetadataObserver {
    pub(crate) fn new(origin: Origin) -> (Arc<Self>, Published<Arc<Image>>) {
        let image = Published::new(Arc::new(Image::first(&origin)));
        let observer = Self {
            image: image.clone(),
            origin,
        };
        (Arc::new(observer), image)
    }
}

impl Observer for MetadataObserver {
    fn committed(&self, batch: &Batch) -> std::io::Result<()> {
        if batch.header.next_offset() <= self.image.get().end_offset {
            return Ok(());
        }
        let mut records = Vec::new();
        for record in Records::new(&batch.body, batch.header.records_count) {
            let record = record.map_err(std::io::Error::other)?;
            let offset = batch.header.base_offset + i64::from(record.offset_delta);
            let decoded = MetadataRecord::decode(record.value.unwrap_or_default());
            records.push(
                decoded
                    .map_err(|error| Unreadable { offset, error })
                    .map_err(std::io::Error::other)?,
            );
        }
        self.image.update(|image| {
            // Copies only what somebody still reads.
            let image = Arc::make_mut(image);
            for record in &records {
                image.replay(record, &self.origin);
            }
            image.end_offset = batch.header.next_offset();
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use takhin_config::live::Settings;
    use takhin_protocol::record::{BatchBuilder, Compression, NewRecord};
    use uuid::Uuid;

    use super::*;

    const TOPIC: Uuid = Uuid::from_u128(7);

    /// A group of metadata that is built anew hands over all that it has again.
    #[test]
    fn a_log_that_is_handed_over_again_changes_nothing() {
        let settings = Arc::new(Settings::default());
        let (observer, image) = MetadataObserver::new(Origin { broker: 1, settings });
        let log = [
            batch(0, &created(vec![1, 2])),
            batch(1, &moved(vec![3, 2])),
            batch(
                2,
                &MetadataRecord::DrainBroker {
                    broker: 2,
                    draining: true,
                },
            ),
        ];
        let replicas = || image.get().partition(TOPIC, 0).unwrap().replicas.clone();
        for batch in &log {
            observer.committed(batch).unwrap();
        }
        for batch in &log {
            observer.committed(batch).unwrap();
            assert_eq!(
                (replicas(), image.get().end_offset, image.get().version),
                (vec![3, 2], 3, 3)
            );
        }
        observer.committed(&batch(3, &moved(vec![1, 3]))).unwrap();
        assert_eq!(
            (replicas(), image.get().end_offset, image.get().version),
            (vec![1, 3], 4, 4)
        );
    }

    fn created(replicas: Vec<i32>) -> MetadataRecord {
        MetadataRecord::CreateTopic {
            name: "t".to_owned(),
            id: TOPIC,
            partitions: vec![replicas],
            overrides: std::collections::BTreeMap::new(),
        }
    }

    fn moved(replicas: Vec<i32>) -> MetadataRecord {
        MetadataRecord::ReassignPartition {
            id: TOPIC,
            index: 0,
            replicas,
            added: Vec::new(),
            reassignment: None,
            automatic: false,
        }
    }

    fn batch(base_offset: i64, record: &MetadataRecord) -> Batch {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(NewRecord {
            timestamp: 0,
            key: None,
            value: Some(&record.encode()),
            headers: &[],
        });
        let mut batch = builder.build().unwrap();
        batch.header.base_offset = base_offset;
        batch
    }
}
