//! Where the schema of the content of an event is served: the attribute `dataschema` of CloudEvents 1.0.
//!
//! It names the schema of `data` alone, as CloudEvents want it, in a document of its own: an absolute URI has no
//! fragment that could name a part of the schema of the whole event.

use super::FeedEvent;

/// Where an installation serves the schemas of its feed.
#[derive(Debug, Clone)]
pub struct DataSchemas {
    base: String,
}

impl DataSchemas {
    /// Below the public URL of an installation; `None` when it is no absolute URL, which nobody could follow.
    #[must_use]
    pub fn served_at(public_url: &str) -> Option<Self> {
        let is_absolute = ["https://", "http://"].iter().any(|scheme| {
            public_url.strip_prefix(scheme).is_some_and(|rest| !rest.trim_matches('/').is_empty())
        });
        let base = format!("{}/schemas/", public_url.trim_end_matches('/'));
        is_absolute.then_some(Self { base })
    }

    /// The schema of `data` of an event type.
    #[must_use]
    pub fn uri(&self, kind: &str) -> String {
        format!("{}{}", self.base, file_name(kind))
    }
}

/// The name of the file with the schema of `data` of an event type.
#[must_use]
pub fn file_name(kind: &str) -> String {
    format!("{kind}.data.json")
}

impl FeedEvent {
    /// Where the installation that published this event serves the schema of another event type; `None` when the
    /// event does not say where its own is.
    #[must_use]
    pub fn data_schema_of(&self, kind: &str) -> Option<String> {
        let own = self.data_schema.as_deref()?;
        let base = own.strip_suffix(&file_name(self.happened.kind()))?;
        Some(format!("{base}{}", file_name(kind)))
    }
}
