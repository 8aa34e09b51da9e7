//! Spans of time, as people write them.

use std::time::Duration;

/// Reads `90`, `90s`, `1m30s`, `2 hours`: a plain number is seconds.
///
/// # Errors
/// Where it is no length of time, or a negative one. A sentence with the form that is taken.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(u64::from(seconds)));
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|span| Duration::try_from(span).ok())
        .ok_or_else(|| format!("{text:?} is not a length of time; write 30, 30s, 10m or 1h30m"))
}

/// Reads a length of time that a spec can hold: whole seconds.
///
/// # Errors
/// As [`span`], and where it has a fraction of a second.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let span = span(text)?;
    match span.subsec_nanos() {
        0 => Ok(span.as_secs()),
        _ => Err(format!("{text:?} has a fraction of a second; write whole seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::{seconds, span};
    use std::time::Duration;

    #[test]
    fn a_span_is_a_number_of_seconds_or_has_units() {
        for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("1m30s", 90), ("2 hours", 7200)]
        {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(span("1500ms"), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn what_is_no_span_is_refused_with_the_form_that_is() {
        for text in ["", "soon", "-1", "-3s", "3 s ago", "1y", "99999999999"] {
            let error = span(text).expect_err(text);
            assert!(error.ends_with("write 30, 30s, 10m or 1h30m"), "{error}");
        }
        assert!(seconds("1500ms").is_err_and(|error| error.contains("whole seconds")));
        assert_eq!(seconds("2m"), Ok(120));
    }
}
