//! Golden files: what one release has sealed opens in every later one.
//!
//! `tests/vectors/` was written once by an independent implementation (`tests/crosscheck/`) and never
//! changes. A failure here is a break of the format.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod case;
mod envelope;
mod local_key;
