//! The permissions and the keys, on a real server.
//!
//! A denied request looks like a timeout to whoever sent it, and so does a broken one. What must
//! be denied is therefore only proven by the violation the server reports.

mod allowed;
mod denied;
mod support;
mod trust;
