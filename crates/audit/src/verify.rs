//! Whether a chain is what was written down: nothing changed, left out or put in between.

use crate::event::{Event, Hash, Link};

/// What is wrong with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The hash of an event is not that of its columns: it was changed.
    Changed,
    /// Events are missing before this one.
    Gap,
    /// The event does not follow the one before it: one of the two was replaced.
    Forked,
    /// Events at the end are missing, or the head is.
    Truncated,
}

impl Problem {
    /// As SQL shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Gap => "gap",
            Self::Forked => "forked",
            Self::Truncated => "truncated",
        }
    }
}

/// A chain that is being read, one event after the other, in the order of their numbers.
#[derive(Debug, Default)]
pub struct Chain {
    /// How many there are.
    pub events: i64,
    /// Place and time of the first event.
    pub first: Option<(i64, i64)>,
    /// Place, time and hash of the last event.
    pub last: Option<(i64, i64, Hash)>,
    /// The first thing that is wrong, and the number of the event where that shows.
    pub problem: Option<(Problem, i64)>,
    /// What the first event follows.
    begins_after: Option<Link>,
}

impl Chain {
    /// The next event.
    pub fn add(&mut self, event: &Event, link: &Link, hash: &Hash) {
        let number = link.number;
        match self.last {
            None => {
                self.first = Some((number, event.at));
                self.begins_after = Some(*link);
            }
            Some((last, ..)) if number != last + 1 => self.found(Problem::Gap, number),
            Some((.., before)) if link.previous != before => self.found(Problem::Forked, number),
            Some(_) => {}
        }
        if event.hash(link) != *hash {
            self.found(Problem::Changed, number);
        }
        self.events += 1;
        self.last = Some((number, event.at, *hash));
    }

    /// After the last event. `head` is what the table of heads says; `is_known`, whether another
    /// chain of the tenant has an event of this hash.
    pub fn end(&mut self, head: Option<(i64, Hash)>, is_known: impl FnOnce(&Hash) -> bool) {
        if let Some(Link { number, previous }) = self.begins_after {
            let is_whole = number == 1 && (previous == Link::START || is_known(&previous));
            if !is_whole {
                // What is missing comes first.
                self.problem = Some((Problem::Gap, number));
            }
        }
        let last = self.last.map(|(number, _, hash)| (number, hash));
        if self.problem.is_none() && (last.is_none() || last != head) {
            let number = last.map_or(0, |(number, _)| number);
            self.found(Problem::Truncated, number.max(head.map_or(0, |(number, _)| number)));
        }
    }

    fn found(&mut self, problem: Problem, number: i64) {
        self.problem.get_or_insert((problem, number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(act: &str) -> Event {
        Event {
            tenant: "acme".into(),
            origin: "1/2".into(),
            at: 7,
            session_role: "alice".into(),
            acting_role: "dba".into(),
            client_address: None,
            application_name: None,
            database: "app".into(),
            transaction: 9,
            act: act.into(),
            data_key: None,
            before: None,
            after: None,
            kms_request_ids: Vec::new(),
        }
    }

    type Row = (Event, Link, Hash);

    fn five() -> Vec<Row> {
        let mut previous = Link::START;
        let chained = ["a", "b", "c", "d", "e"].into_iter().zip(1..).map(|(act, number)| {
            let (event, link) = (event(act), Link { number, previous });
            previous = event.hash(&link);
            (event, link, previous)
        });
        chained.collect()
    }

    fn head(rows: &[Row]) -> Option<(i64, Hash)> {
        rows.last().map(|(_, link, hash)| (link.number, *hash))
    }

    fn verify(rows: &[Row], head: Option<(i64, Hash)>) -> Option<(Problem, i64)> {
        let mut chain = Chain::default();
        for (event, link, hash) in rows {
            chain.add(event, link, hash);
        }
        chain.end(head, |hash| hash == &[9; 32]);
        chain.problem
    }

    #[test]
    fn a_whole_chain_is_whole() {
        assert_eq!(verify(&five(), head(&five())), None);
    }

    #[test]
    fn what_was_changed_shows_where() {
        for change in [
            |row: &mut Row| row.0.session_role.push('x'),
            |row: &mut Row| row.2[0] ^= 1,
            |row: &mut Row| row.0.after = Some("{}".into()),
        ] {
            let mut rows = five();
            change(&mut rows[2]);
            assert_eq!(verify(&rows, head(&five())), Some((Problem::Changed, 3)));
        }
    }

    #[test]
    fn what_was_changed_and_hashed_anew_shows_at_the_next() {
        let mut rows = five();
        rows[2].0.session_role.push('x');
        rows[2].2 = rows[2].0.hash(&rows[2].1);
        assert_eq!(verify(&rows, head(&five())), Some((Problem::Forked, 4)));
        // The last one shows by the head.
        let mut rows = five();
        rows[4].0.session_role.push('x');
        rows[4].2 = rows[4].0.hash(&rows[4].1);
        assert_eq!(verify(&rows, head(&five())), Some((Problem::Truncated, 5)));
    }

    #[test]
    fn what_was_left_out_shows() {
        let whole = five();
        assert_eq!(verify(&whole[1..], head(&whole)), Some((Problem::Gap, 2)));
        let middle = [&whole[..2], &whole[3..]].concat();
        assert_eq!(verify(&middle, head(&whole)), Some((Problem::Gap, 4)));
        assert_eq!(verify(&whole[..4], head(&whole)), Some((Problem::Truncated, 5)));
        assert_eq!(verify(&[], head(&whole)), Some((Problem::Truncated, 5)));
        assert_eq!(verify(&whole, None), Some((Problem::Truncated, 5)));
    }

    #[test]
    fn what_was_put_in_shows() {
        let mut rows = five();
        rows.insert(2, rows[2].clone());
        assert_eq!(verify(&rows, head(&five())), Some((Problem::Gap, 3)));
    }

    #[test]
    fn a_chain_may_begin_where_another_ended() {
        for (previous, problem) in [([9; 32], None), ([8; 32], Some((Problem::Gap, 1)))] {
            let (event, link) = (event("a"), Link { number: 1, previous });
            let rows = vec![(event.clone(), link, event.hash(&link))];
            assert_eq!(verify(&rows, head(&rows)), problem);
        }
    }
}
