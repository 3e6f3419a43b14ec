//! Scripted faults: which calls go wrong, how, and how many times.

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Answers as usual, `millis` late.
    Delay,
    /// Does not answer until the faults are cleared or the client goes away.
    Hang,
    /// Breaks the connection with a TCP reset.
    Reset,
    /// Answers with the given status and error code.
    Status,
    /// Answers with ThrottlingException.
    Throttle,
    /// Answers 200 with a body that is no JSON.
    Garbage,
    /// Answers with the ARN of another key.
    WrongKeyId,
    /// Answers with a plaintext of 31 bytes.
    ShortKey,
    /// Decrypts whatever the encryption context, to bytes that mean nothing.
    AnyContext,
    /// Answers with a body without end or, if `length` is given, of that many bytes.
    Endless,
    /// Answers as usual, or with an error if `status` is given, and adds spaces up to `bytes`
    /// bytes.
    Padded,
    /// Answers AssumeRole with the text `expiration` as the session's end.
    Expires,
    /// Answers as usual or padded to `bytes` bytes, with one byte or `piece` bytes every `millis`.
    Trickle,
}

impl Kind {
    /// The outcome in the request log of a call that this fault changed.
    pub const fn outcome(self) -> &'static str {
        match self {
            Self::Delay => "fault:delay",
            Self::Hang => "fault:hang",
            Self::Reset => "fault:reset",
            Self::Status => "fault:status",
            Self::Throttle => "fault:throttle",
            Self::Garbage => "fault:garbage",
            Self::WrongKeyId => "fault:wrong_key_id",
            Self::ShortKey => "fault:short_key",
            Self::AnyContext => "fault:any_context",
            Self::Endless => "fault:endless",
            Self::Padded => "fault:padded",
            Self::Expires => "fault:expires",
            Self::Trickle => "fault:trickle",
        }
    }
}

/// A fault as the control API takes it. A None among `arn` and `operation` matches every call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub kind: Kind,
    /// How many calls it befalls; None until cleared.
    times: Option<u64>,
    arn: Option<String>,
    operation: Option<String>,
    #[serde(default)]
    pub millis: u64,
    pub status: Option<u16>,
    pub code: Option<String>,
    pub length: Option<u64>,
    pub bytes: Option<u64>,
    pub piece: Option<usize>,
    /// Pads without telling the length beforehand.
    #[serde(default)]
    pub chunked: bool,
    pub expiration: Option<String>,
}

impl Fault {
    /// What a fault of this kind needs and this one does not have.
    pub fn lacks(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Padded if self.bytes.is_none() => Some("bytes"),
            Kind::Expires if self.expiration.is_none() => Some("expiration"),
            _ => None,
        }
    }

    fn befalls(&self, operation: &str, arns: &[String]) -> bool {
        self.times != Some(0)
            && self.operation.as_ref().is_none_or(|wanted| wanted == operation)
            && self.arn.as_ref().is_none_or(|wanted| arns.contains(wanted))
    }
}

#[derive(Default)]
pub struct Faults {
    queue: Mutex<Vec<Fault>>,
    cleared: watch::Sender<()>,
}

impl Faults {
    /// The id is the fault's place in the order of scripting.
    pub fn add(&self, fault: Fault) -> usize {
        let mut queue = self.queue.lock();
        queue.push(fault);
        queue.len()
    }

    /// The oldest fault that befalls this call, used up by one.
    pub fn take(&self, operation: &str, arns: &[String]) -> Option<Taken> {
        let mut queue = self.queue.lock();
        let fault = queue.iter_mut().find(|fault| fault.befalls(operation, arns))?;
        fault.times = fault.times.map(|times| times - 1);
        // Subscribed under the lock: a clear that comes later is always seen.
        Some(Taken { fault: fault.clone(), cleared: self.cleared.subscribe() })
    }

    /// Forgets every fault and lets hanging calls go on.
    pub fn clear(&self) {
        self.queue.lock().clear();
        self.cleared.send_replace(());
    }
}

/// A fault on its way to one call.
pub struct Taken {
    pub fault: Fault,
    cleared: watch::Receiver<()>,
}

impl Taken {
    pub async fn until_cleared(&mut self) {
        // The sender lives as long as the server; if it is gone, so is the reason to hang.
        let _ = self.cleared.changed().await;
    }
}
