//! A golden envelope after a few edits: opens only if the edits undo each other.

#![no_main]

use arbitrary::Arbitrary;
use cmk_envelope::Envelope;
use golden::GOLDEN;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Edit {
    Flip {
        at: u16,
        mask: u8,
    },
    Swap {
        a: u16,
        b: u16,
    },
    Truncate {
        by: u8,
    },
    Extend {
        with: Vec<u8>,
    },
    /// Replaces the bytes from `at` on by those of another golden envelope.
    Splice {
        other: u8,
        at: u16,
    },
}

impl Edit {
    fn apply(self, bytes: &mut Vec<u8>) {
        let within = |at: u16, len: usize| usize::from(at) % len.max(1);
        match self {
            Self::Flip { at, mask } => {
                let at = within(at, bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
            }
            Self::Swap { a, b } if !bytes.is_empty() => {
                let (a, b) = (within(a, bytes.len()), within(b, bytes.len()));
                bytes.swap(a, b);
            }
            Self::Swap { .. } => {}
            Self::Truncate { by } => bytes.truncate(bytes.len().saturating_sub(by.into())),
            Self::Extend { with } => bytes.extend(with),
            Self::Splice { other, at } => {
                let other = &GOLDEN[usize::from(other) % GOLDEN.len()].envelope;
                let at = within(at, bytes.len().min(other.len()));
                bytes.truncate(at);
                bytes.extend(&other[at..]);
            }
        }
    }
}

fuzz_target!(|input: (u8, Vec<Edit>)| {
    let (choice, edits) = input;
    let golden = &GOLDEN[usize::from(choice) % GOLDEN.len()];
    let mut bytes = golden.envelope.clone();
    edits.into_iter().for_each(|edit| edit.apply(&mut bytes));
    if let Ok(envelope) = Envelope::parse(&bytes) {
        golden.judge(&bytes, &envelope);
    }
});
