//! The PostgreSQL side: everything that knows a backend. The only `unsafe` outside `crypto::locked` and
//! `runtime` is here, in the files that talk to C.

pub mod backend;
pub mod catalog;
pub mod cpu;
pub mod datum;
pub mod interrupt;
pub mod invalidation;
pub mod registry;
pub mod report;
pub mod settings;
pub mod write;
