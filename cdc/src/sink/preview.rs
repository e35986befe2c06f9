//! Events as they would be sent.

use std::sync::Arc;

use takhin_config::CdcConfig;

use super::error::SinkError;
use super::round::Recorder;
use super::topics::Topics;
use crate::event::{Encoder, Event, Source};

/// Makes lines of events.
pub struct Preview(Recorder);

impl Preview {
    /// By the rules of a configuration.
    pub fn new(config: &CdcConfig, encoder: Arc<dyn Encoder>) -> Self {
        Self(Recorder::new(config, Topics::named(config), encoder))
    }

    /// The topic, key and value of an event's record as JSON in one line; none if a filter, or its size, leaves it out.
    ///
    /// # Errors
    ///
    /// [`SinkError::Oversize`].
    pub fn line(&self, source: &Source, event: &Event) -> Result<Option<String>, SinkError> {
        if self.0.filter.refuses(event).is_some() {
            return Ok(None);
        }
        let Some((topic, record, _)) = self.0.sized(source, event)? else {
            return Ok(None);
        };
        let text =
            |bytes: Option<bytes::Bytes>| String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        // As it would be sent: not read and written again.
        let (topic, key) = (
            serde_json::Value::from(&*topic),
            serde_json::Value::from(text(record.key)),
        );
        let value = text(record.value);
        Ok(Some(format!(
            "{{\"topic\":{topic},\"key\":{key},\"value\":{value}}}"
        )))
    }
}
