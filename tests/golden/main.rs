//! Golden files: what one release has sealed opens in every later one.
//!
//! `tests/vectors/` was written once by an independent implementation (`tests/crosscheck/`) and never
//! changes. A failure here is a break of the format.

mod case;
mod envelope;
mod local_key;
