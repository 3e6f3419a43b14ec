//! The options of a protected column, the fourth argument of its CHECK constraint:
//! `search[,lower|digits|alnum][,bits=N]`, or null.

use cmk_envelope::column::{BITS_MAX, Normalization, Token, TokenRule};
use cmk_error::{Reason, Result};
use std::cell::RefCell;

/// The fewest bits of a token: fewer find half the table.
const BITS_MIN: u8 = 8;

/// How the tokens of a searchable column are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Search {
    pub rule: TokenRule,
    bits: Option<u8>,
}

impl Search {
    /// `None` of a column that isn't searchable.
    ///
    /// # Errors
    /// `column_options`.
    pub fn parse(options: Option<&[u8]>) -> Result<Option<Self>> {
        let Some(options) = options else { return Ok(None) };
        LAST.with_borrow_mut(|last| match last {
            Some((of, search)) if **of == *options => Ok(Some(*search)),
            _ => {
                let search = parse(options).ok_or(Reason::ColumnOptions)?;
                *last = Some((options.into(), search));
                Ok(Some(search))
            }
        })
    }

    /// The token as the column has it.
    pub fn fit(&self, token: Token) -> Token {
        self.bits.map_or(token, |bits| token.shortened(bits))
    }
}

thread_local! {
    /// One statement's rows are of one column.
    static LAST: RefCell<Option<(Box<[u8]>, Search)>> = const { RefCell::new(None) };
}

fn parse(options: &[u8]) -> Option<Search> {
    let mut words = std::str::from_utf8(options).ok()?.split(',').peekable();
    if words.next() != Some("search") {
        return None;
    }
    let normalization = words.peek().and_then(|word| Normalization::from_name(word));
    if normalization.is_some() {
        words.next();
    }
    let bits = match words.next() {
        None => None,
        Some(word) => {
            let bits = word.strip_prefix("bits=")?.parse().ok()?;
            (BITS_MIN..=BITS_MAX).contains(&bits).then_some(Some(bits))?
        }
    };
    let normalization = normalization.unwrap_or_default();
    let rule = TokenRule { normalization, is_shortened: bits.is_some() };
    words.next().is_none().then_some(Search { rule, bits })
}
