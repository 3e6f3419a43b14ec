//! A server for tests that answers as AWS KMS and AWS STS do, over real HTTP on 127.0.0.1.
//!
//! | file | job |
//! |---|---|
//! | `server` | starts and stops it: [`Server`] |
//! | `http` | connections and routing |
//! | `call` | one API call from arrival to answer: logged, perhaps faulted, then performed |
//! | `body` | bodies of answers, which may be long, slow or without end |
//! | `auth` | who calls, from the `Authorization` header |
//! | `kms` | the KMS operations |
//! | `sts` | AssumeRole and GetCallerIdentity |
//! | `store` | keys, roles and sessions, in memory |
//! | `fault` | scripted faults |
//! | `log` | the request log and its counters |
//! | `control` | the JSON interface under `/_control/` |
//!
//! It does not verify signatures: any well-formed `Authorization` header is believed, and its
//! access key id and Region are what counts. Nothing is stored on disk.

mod auth;
mod body;
mod call;
mod control;
mod error;
mod fault;
mod http;
mod kms;
mod log;
mod server;
mod store;
mod sts;

pub use server::Server;
