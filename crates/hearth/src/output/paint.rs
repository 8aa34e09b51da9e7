//! How words and tables look on a terminal: colours, widths, and nothing that drives it.

use anstyle::{AnsiColor, Style};
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use hearth_api::{EventKind, JobStatus};
use hearth_model::text::plain;
use std::fmt::{self, Display};

/// What a word tells of how things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing.
    Plain,
    /// As wanted.
    Good,
    /// On its way.
    Busy,
    /// Not as wanted.
    Bad,
    /// A heading.
    Strong,
}

impl Tone {
    pub(crate) fn of_status(status: JobStatus) -> Tone {
        match status {
            JobStatus::Running | JobStatus::Completed => Tone::Good,
            JobStatus::Pending | JobStatus::Starting | JobStatus::Stopping => Tone::Busy,
            JobStatus::Failed => Tone::Bad,
            JobStatus::Stopped => Tone::Plain,
        }
    }

    pub(crate) fn of_warm(status: &str) -> Tone {
        if status == "warm" { Tone::Good } else { Tone::Busy }
    }

    pub(crate) fn of_event(kind: EventKind) -> Tone {
        if kind == EventKind::Error { Tone::Bad } else { Tone::Plain }
    }

    fn style(self) -> Style {
        match self {
            Tone::Plain => Style::new(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Busy => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
            Tone::Strong => Style::new().bold(),
        }
    }
}

/// A line, or several, in the making. Whatever is put in is made fit for a terminal, so that only tones
/// drive it.
#[derive(Debug)]
pub(crate) struct Line {
    shown: String,
    colour: bool,
}

impl Line {
    pub(crate) fn new(colour: bool) -> Line {
        Line { shown: String::new(), colour }
    }

    pub(crate) fn text(mut self, text: impl Display) -> Line {
        self.shown += &plain(&text.to_string());
        self
    }

    /// A text in its tone.
    pub(crate) fn toned(mut self, text: impl Display, tone: Tone) -> Line {
        if !self.colour || tone == Tone::Plain {
            return self.text(text);
        }
        let style = tone.style();
        self.shown += &format!("{style}{}{style:#}", plain(&text.to_string()));
        self
    }

    /// What another line says.
    pub(crate) fn line(mut self, line: &Line) -> Line {
        self.shown += &line.shown;
        self
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A text for a table, and its tone.
pub(crate) struct Word {
    text: String,
    tone: Tone,
}

impl Word {
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Word {
        Word { text: text.into(), tone }
    }

    fn cell(self) -> Cell {
        let cell = Cell::new(plain(&self.text));
        match self.tone {
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::DarkGreen),
            Tone::Busy => cell.fg(Color::DarkYellow),
            Tone::Bad => cell.fg(Color::DarkRed).add_attribute(Attribute::Bold),
            Tone::Strong => cell.add_attribute(Attribute::Bold),
        }
    }
}

impl From<String> for Word {
    fn from(text: String) -> Word {
        Word::toned(text, Tone::Plain)
    }
}

impl From<&str> for Word {
    fn from(text: &str) -> Word {
        Word::toned(text, Tone::Plain)
    }
}

/// The lines of a table.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl Iterator<Item = [Word; N]>,
    colour: bool,
) -> Vec<String> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.map(|name| Word::toned(name, Tone::Strong).cell()));
    for row in rows {
        table.add_row(row.map(Word::cell));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// The longest reason in a table, in characters; `get` shows all of it.
const REASON_CHARS_MAX: usize = 60;

pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// How long ago a time was, in its largest unit; the time itself where it can't be read.
pub(crate) fn age(since: &str, now: jiff::Timestamp) -> String {
    let Ok(since) = since.parse::<jiff::Timestamp>() else {
        return since.to_owned();
    };
    // Another machine's clock may be ahead of this one's.
    span(now.duration_since(since).as_secs().max(0).unsigned_abs())
}

/// So many seconds, in the largest unit that fits.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, Tone, age, shortened, table};

    #[test]
    fn a_guest_cannot_drive_the_terminal() {
        let line = Line::new(true).text("\u{1b}[2J").toned("a\u{202e}", Tone::Good);
        assert_eq!(line.to_string(), "\\u{1b}[2J\u{1b}[32ma\\u{202e}\u{1b}[0m");
        let lines = table(["A"], [["\u{1b}[2J".into()]].into_iter(), false);
        assert_eq!(lines, ["A", "\\u{1b}[2J"]);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
    }

    #[test]
    fn an_age_has_one_unit() {
        let now = "2026-01-02T00:00:00Z".parse().expect("a time");
        for (since, expected) in [
            ("2026-01-01T23:59:01Z", "59s"),
            ("2026-01-01T23:00:01Z", "59m"),
            ("2026-01-01T00:00:01Z", "23h"),
            ("2025-12-31T00:00:00Z", "2d"),
            ("2026-01-02T00:00:09Z", "0s"),
            ("no time", "no time"),
        ] {
            assert_eq!(age(since, now), expected);
        }
    }

    #[test]
    fn colours_are_there_only_when_asked_for() {
        assert_eq!(Line::new(false).toned("x", Tone::Bad).to_string(), "x");
        assert_eq!(Line::new(true).toned("x", Tone::Good).to_string(), "\u{1b}[32mx\u{1b}[0m");
        let lines = table(["A"], [["x".into()]].into_iter(), true);
        assert!(lines[0].contains("\u{1b}[1m"), "{lines:?}");
    }
}
