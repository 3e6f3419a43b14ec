//! Points in time as people write them.

/// Microseconds since the Unix epoch as ISO 8601 in UTC: `2026-01-31T12:00:00.000000Z`.
pub fn iso_8601(micros: i64) -> String {
    const DAY: i64 = 86_400;
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// The date of a day, counted from 1970-01-01 in the Gregorian calendar: years are counted from
/// March, in eras of 400, so that the leap day is the last of its year.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, of_month)
}

/// The inverse for what CloudTrail writes, `2026-01-31T12:00:00Z`, and for [`iso_8601`].
pub fn parse(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let numbers = |text: &str, by| -> Option<Vec<i64>> {
        text.split(by).map(|part| part.parse().ok().filter(|it| *it >= 0)).collect()
    };
    let [year, month, day] = numbers(date, '-')?.try_into().ok()?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':')?.try_into().ok()?;
    let fraction: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // As above, the other way round.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100;
    let days = days + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (1_700_000_000_123_456, "2023-11-14T22:13:20.123456Z"),
            (4_107_542_399_000_000, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(iso_8601(micros), text);
            assert_eq!(parse(text), Some(micros));
        }
        assert_eq!(parse("2023-11-14T22:13:20Z"), Some(1_700_000_000_000_000));
        assert_eq!(parse("2023-11-14T22:13:20.5Z"), Some(1_700_000_000_500_000));
    }

    #[test]
    fn every_day_comes_back() {
        for day in (-800_000_i64..800_000).step_by(13) {
            let micros = day * 86_400_000_000;
            let (year, ..) = date(day);
            assert!(!(1..=9999).contains(&year) || parse(&iso_8601(micros)) == Some(micros));
        }
    }

    #[test]
    fn other_text_is_no_time() {
        for text in [
            "",
            "Z",
            "2023-11-14",
            "2023-13-14T00:00:00Z",
            "2023-11-14T24:00:00Z",
            "x-1-1T0:0:0Z",
            "2023-11-14T00:00:00.éZ",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
