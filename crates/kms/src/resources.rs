//! What this process lacks, by the codes of the operating system.

use cmk_error::{Cause, Error, Reason};
use std::io;

/// Which of its limits a process has reached, if that is what the code says (errno(3)).
pub fn lacking(code: i32) -> Option<Cause> {
    match code {
        libc::EMFILE | libc::ENFILE => Some(Cause::Fd),
        libc::ENOMEM | libc::EAGAIN | libc::ENOBUFS => Some(Cause::Runtime),
        _ => None,
    }
}

/// `kms_unreachable`: nothing can be asked without it.
pub fn missing(cause: Cause) -> Error {
    Error::new(Reason::KmsUnreachable).with_info(format!("cause={}", cause.name()))
}

/// The operating system refused what a call takes.
pub fn refused(error: &io::Error) -> Error {
    missing(error.raw_os_error().and_then(lacking).unwrap_or(Cause::Runtime))
}
