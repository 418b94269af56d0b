//! Command side: REST commands decided against the event log
