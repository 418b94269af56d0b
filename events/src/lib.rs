//! The contract: ids, envelope, event types and subjects of the user event log
