//! The contract between projector and query-api: documents, collections, indexes
