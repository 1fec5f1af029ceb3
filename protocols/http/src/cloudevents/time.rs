//! Instants as text (RFC 3339).

/// Whether a text is an instant.
pub(super) fn is_timestamp(text: &str) -> bool {
    read(text).is_some()
}

fn read(text: &str) -> Option<()> {
    let mut rest = text.as_bytes();
    let year = digits(&mut rest, 4)?;
    literal(&mut rest, b"-")?;
    let month = digits(&mut rest, 2)?;
    literal(&mut rest, b"-")?;
    let day = digits(&mut rest, 2)?;
    literal(&mut rest, b"Tt ")?;
    let hour = digits(&mut rest, 2)?;
    literal(&mut rest, b":")?;
    let minute = digits(&mut rest, 2)?;
    literal(&mut rest, b":")?;
    let second = digits(&mut rest, 2)?;
    if literal(&mut rest, b".").is_some() {
        digits(&mut rest, 1)?;
        while digits(&mut rest, 1).is_some() {}
    }
    if literal(&mut rest, b"Zz").is_none() {
        literal(&mut rest, b"+-")?;
        let hours = digits(&mut rest, 2)?;
        literal(&mut rest, b":")?;
        let minutes = digits(&mut rest, 2)?;
        (hours < 24 && minutes < 60).then_some(())?;
    }
    let month_fits = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
    // A leap second is an instant, too.
    (rest.is_empty() && month_fits && hour < 24 && minute < 60 && second <= 60).then_some(())
}

fn digits(rest: &mut &[u8], count: usize) -> Option<u32> {
    let (digits, after) = rest.split_at_checked(count)?;
    let mut number = 0;
    for &digit in digits {
        number = number * 10 + char::from(digit).to_digit(10)?;
    }
    *rest = after;
    Some(number)
}

fn literal(rest: &mut &[u8], one_of: &[u8]) -> Option<()> {
    let (first, after) = rest.split_first()?;
    one_of.contains(first).then(|| *rest = after)
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// An instant in milliseconds since 1970, as UTC; none beyond the year 9999, which RFC 3339 cannot write.
pub(super) fn write(ms: u64) -> Option<String> {
    let days = ms / 86_400_000;
    let (mut year, mut left) = (1970_u32, u32::try_from(days).ok().filter(|days| *days < 2_932_897)?);
    // Four hundred years at a time, then one at a time.
    year += left / 146_097 * 400;
    left %= 146_097;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if left < length {
            break;
        }
        left -= length;
        year += 1;
    }
    let mut month = 1;
    while left >= days_of(year, month) {
        left -= days_of(year, month);
        month += 1;
    }
    let (day, time) = (left + 1, ms % 86_400_000);
    let (hour, minute, second, ms) = (time / 3_600_000, time / 60_000 % 60, time / 1000 % 60, time % 1000);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_in_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (13_574_563_200_000, "2400-02-29T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(write(ms).as_deref(), Some(text));
            assert!(is_timestamp(text));
        }
        assert_eq!(write(253_402_300_800_000), None);
        assert_eq!(write(u64::MAX), None);
    }

    #[test]
    fn instants_are_told_from_what_looks_like_them() {
        for text in [
            "2018-04-05T17:31:00Z",
            "2018-04-05t17:31:00.123456789+02:00",
            "2024-02-29T00:00:00-23:59",
            "2016-12-31T23:59:60Z",
        ] {
            assert!(is_timestamp(text), "{text}");
        }
        for text in [
            "",
            "2018-04-05",
            "2018-04-05T17:31:00",
            "2018-04-05T17:31Z",
            "2018-13-05T17:31:00Z",
            "2023-02-29T00:00:00Z",
            "2018-04-05T24:00:00Z",
            "2018-04-05T17:31:00.Z",
            "2018-04-05T17:31:00+2:00",
            "2018-04-05T17:31:00Z ",
            "+018-04-05T17:31:00Z",
        ] {
            assert!(!is_timestamp(text), "{text}");
        }
    }
}
