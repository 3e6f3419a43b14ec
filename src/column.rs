//! Protected columns: the types `cmk_text`, `cmk_bytea` and `cmk_jsonb`, whose values are envelopes
//! wherever they are stored. `docs/columns.md` says what a user sees of them.
//!
//! A value comes in as plaintext ([`input`]), is sealed by a trigger before it is stored
//! ([`seal`]), and is proven to be sealed by a CHECK constraint that takes no key ([`check`]). The
//! constraint is also what says for which tenant a column's values are sealed: there is no other
//! registry of protected columns that a restore could lose. A cast opens a value ([`cast`]). Sent
//! to a client it is ciphertext unless the session asked for plaintext ([`output`]). Clients can be
//! told the type that is protected, not ours ([`wire`]). Whatever compares values compares
//! plaintexts ([`compare`], [`sort`]).
//!
//! A searchable column's values carry tokens ([`token`]), by which an index is ordered
//! ([`token_order`]). The planner is told how to use one ([`plan`]): it is searched for probes
//! ([`search`]), for the tenants whose values are meant ([`reach`]).

pub mod already_sealed;
mod analyze;
mod cast;
mod catalog;
mod check;
mod compare;
pub mod data_key_scan;
mod equal;
mod input;
mod kind;
mod modifier;
mod newest;
mod open;
mod options;
pub mod output;
mod plaintext;
pub mod plan;
mod reach;
mod recent;
mod reencrypt;
mod remembered;
mod seal;
pub mod seal_batch;
mod seal_value;
mod search;
mod sort;
mod sought;
pub mod stats;
mod stored;
mod tags;
mod tenants;
pub mod token;
mod token_order;
pub mod token_scan;
pub mod wire;
