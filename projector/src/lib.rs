//! Builds the MongoDB views from the event log
