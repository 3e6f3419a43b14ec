//! Bodies of answers, which go out piece by piece: a long one is never held whole.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Bytes, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// One piece of the white space that makes a body long.
static SPACES: [u8; 4096] = [b' '; 4096];

/// A text and then spaces, which are white space to JSON and to XML.
///
/// It is made only as fast as the client reads, and dropped when the client goes away.
pub struct Body {
    text: Bytes,
    /// How many spaces follow the text; None is no end of them.
    spaces: Option<u64>,
    /// Without a Content-Length, as a body without end always is.
    chunked: bool,
    trickle: Option<Trickle>,
}

struct Trickle {
    /// In bytes
    piece: usize,
    pause: Duration,
    next: Pin<Box<Sleep>>,
}

impl Body {
    /// No text, and spaces up to this length or without end.
    pub fn spaces(length: Option<u64>) -> Self {
        Self { spaces: length, ..Self::from(String::new()) }
    }

    /// The same with spaces up to this length; a longer text stays as it is.
    pub fn padded(self, length: u64, chunked: bool) -> Self {
        let spaces = length.saturating_sub(self.text.len() as u64);
        Self { spaces: Some(spaces), chunked, ..self }
    }

    /// The same at this pace, at most `piece` bytes after each pause. To be called in a runtime.
    pub fn trickling(self, piece: usize, pause: Duration) -> Self {
        Self { trickle: Some(Trickle { piece, pause, next: Box::pin(sleep(pause)) }), ..self }
    }

    fn piece(&mut self) -> Option<Bytes> {
        let most = self.trickle.as_ref().map_or(usize::MAX, |trickle| trickle.piece.max(1));
        if !self.text.is_empty() {
            return Some(self.text.split_to(most.min(self.text.len())));
        }
        let most = most.min(SPACES.len());
        let length = self.spaces.map_or(most, |left| left.min(most as u64) as usize);
        self.spaces = self.spaces.map(|left| left - length as u64);
        (length > 0).then(|| Bytes::from_static(&SPACES[..length]))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self { text: text.into(), spaces: Some(0), chunked: false, trickle: None }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(trickle) = &mut self.trickle {
            ready!(trickle.next.as_mut().poll(context));
            trickle.next.as_mut().reset(Instant::now() + trickle.pause);
        }
        Poll::Ready(self.piece().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_empty() && self.spaces == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        match self.spaces {
            Some(spaces) if !self.chunked => SizeHint::with_exact(self.text.len() as u64 + spaces),
            _ => SizeHint::default(),
        }
    }
}
