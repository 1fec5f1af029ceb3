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
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
