//! Keeps a client that retries without end from filling the server log: of what says the same, the
//! first few in a while are logged, and how many were not.

/// How long what says the same is counted together, in nanoseconds: a minute.
pub const WHILE: u64 = 60_000_000_000;

/// How many different ones are kept apart. Of more, the one that began first makes room.
const MOST: usize = 64;

/// What is logged, and how often lately.
#[derive(Debug, Default)]
pub struct Limiter {
    seen: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    subject: String,
    since: u64,
    times: u64,
    left_out: u64,
}

/// What was left out of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// What all of them said.
    pub subject: String,
    /// How many.
    pub times: u64,
}

impl Limiter {
    /// None so far.
    pub const fn new() -> Self {
        Self { seen: Vec::new() }
    }

    /// Whether to log something about `subject`, `most` times in a [`WHILE`] at most. Adds what was
    /// left out before, if that is over.
    pub fn admits(
        &mut self,
        subject: &str,
        most: u64,
        now: u64,
        over: &mut impl FnMut(LeftOut),
    ) -> bool {
        if !self.seen.iter().any(|seen| seen.subject == subject) {
            if self.seen.len() >= MOST {
                self.seen.remove(0).end(over);
            }
            self.seen.push(Seen { subject: subject.to_owned(), since: now, times: 0, left_out: 0 });
        }
        let Some(seen) = self.seen.iter_mut().find(|seen| seen.subject == subject) else {
            return true;
        };
        if now.saturating_sub(seen.since) >= WHILE {
            let ended = Seen { subject: subject.to_owned(), ..*seen };
            ended.end(over);
            (seen.since, seen.times, seen.left_out) = (now, 0, 0);
        }
        seen.times += 1;
        let admits = seen.times <= most;
        seen.left_out += u64::from(!admits);
        admits
    }

    /// What was left out of whiles that are over by `now`; of all with `u64::MAX`.
    pub fn ended(&mut self, now: u64, over: &mut impl FnMut(LeftOut)) {
        let is_over = |seen: &mut Seen| now.saturating_sub(seen.since) >= WHILE;
        self.seen.extract_if(.., is_over).for_each(|seen| seen.end(over));
    }

    /// Whether anything was left out that nobody was told of.
    pub fn owes(&self) -> bool {
        self.seen.iter().any(|seen| seen.left_out > 0)
    }
}

impl Seen {
    fn end(self, over: &mut impl FnMut(LeftOut)) {
        if self.left_out > 0 {
            over(LeftOut { subject: self.subject, times: self.left_out });
        }
    }
}

/// What errors with the same `reason` and `tenant` have in common: the beginning of their DETAIL,
/// `reason=NAME tenant=NAME`. `None` if it is no such DETAIL.
pub fn subject_of(detail: &str) -> Option<&str> {
    let rest = detail.strip_prefix("reason=")?;
    let name = rest.find(' ').unwrap_or(rest.len());
    let Some(tenant) = rest[name..].strip_prefix(" tenant=") else {
        return Some(&detail[..detail.len() - rest.len() + name]);
    };
    let before = detail.len() - tenant.len();
    let len = match tenant.strip_prefix('"') {
        None => tenant.find(' ').unwrap_or(tenant.len()),
        Some(quoted) => {
            let mut escaped = false;
            let end = quoted.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(tenant.len(), |end| end + 2)
        }
    };
    Some(&detail[..before + len])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_are_logged_and_the_others_counted() {
        let mut limiter = Limiter::new();
        let mut told = Vec::new();
        let mut ask = |limiter: &mut Limiter, subject, now| {
            limiter.admits(subject, 2, now, &mut |left_out| told.push(left_out))
        };
        let answers: Vec<_> = (0..5).map(|now| ask(&mut limiter, "a", now)).collect();
        assert_eq!(answers, [true, true, false, false, false]);
        assert!(ask(&mut limiter, "b", 5));
        assert!(limiter.owes());
        assert!(ask(&mut limiter, "a", WHILE));
        assert_eq!(told, [LeftOut { subject: "a".into(), times: 3 }]);
        assert!(!limiter.owes());
    }

    #[test]
    fn what_was_left_out_is_told_when_it_is_over() {
        let mut limiter = Limiter::new();
        let mut told = Vec::new();
        for now in 0..3 {
            limiter.admits("a", 1, now, &mut |_| panic!("not over"));
        }
        limiter.ended(WHILE - 1, &mut |left_out| told.push(left_out));
        assert!(told.is_empty());
        limiter.ended(u64::MAX, &mut |left_out| told.push(left_out));
        assert_eq!(told, [LeftOut { subject: "a".into(), times: 2 }]);
        assert!(!limiter.owes());
    }

    #[test]
    fn it_stays_small() {
        let mut limiter = Limiter::new();
        let mut told = 0;
        for number in 0..1000 {
            let subject = number.to_string();
            limiter.admits(&subject, 0, 0, &mut |left_out| told += left_out.times);
        }
        assert_eq!((limiter.seen.len(), told), (MOST, 1000 - MOST as u64));
    }

    #[test]
    fn a_subject_is_reason_and_tenant() {
        for (detail, subject) in [
            ("reason=read_only", "reason=read_only"),
            ("reason=key_uri option=x", "reason=key_uri"),
            ("reason=no_grant tenant=acme", "reason=no_grant tenant=acme"),
            ("reason=no_grant tenant=acme a=b", "reason=no_grant tenant=acme"),
            (r#"reason=x tenant="a b" c=d"#, r#"reason=x tenant="a b""#),
            (r#"reason=x tenant="a\" b\\" c=d"#, r#"reason=x tenant="a\" b\\""#),
            (r#"reason=x tenant="a"#, r#"reason=x tenant="a"#),
        ] {
            assert_eq!(subject_of(detail), Some(subject));
        }
        assert_eq!(subject_of("Key (a)=(1) already exists."), None);
    }
}
