//! Events as they would be sent.

use std::sync::Arc;

use takhin_config::CdcConfig;

use super::error::SinkError;
use super::round::{Recorder, Room};
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
        let mut room = Room::default();
        let Some(made) = self.0.sized(source, event, &mut room)? else {
            return Ok(None);
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // As it would be sent: not read and written again.
        let (topic, key) = (
            serde_json::Value::from(&**self.0.topic_of(event)),
            serde_json::Value::from(text(made.key)),
        );
        let value = text(made.value);
        Ok(Some(format!(
            "{{\"topic\":{topic},\"key\":{key},\"value\":{value}}}"
        )))
    }
}
