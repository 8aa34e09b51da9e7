//! A job's output as text: byte for byte what the app wrote, except on a terminal.

use hearth_api::LogLine;
use hearth_model::text::plain;

/// Turns the records of a log into text.
#[derive(Debug, Default)]
pub(super) struct LogText {
    /// Of stdout and stderr, where its text does not end with a line feed: the microVM it is of. A
    /// terminal that shows both has the first only.
    begun: [Option<String>; 2],
}

impl LogText {
    /// The text of a record; `terminals` says whether stdout and stderr are terminals. What Hearth and
    /// other microVMs say begins on a line of its own. On a terminal control characters are shown as
    /// what they are, since a guest must not drive the user's terminal.
    pub(super) fn next(&mut self, log: &LogLine, terminals: [bool; 2]) -> String {
        let at = usize::from(log.stream != "stdout");
        let begun = &mut self.begun[if terminals == [true; 2] { 0 } else { at }];
        let continues = begun.as_ref() == Some(&log.vm_id) && log.stream != "hearth";
        let mut text = if begun.is_some() && !continues { "\n" } else { "" }.to_owned();
        if terminals[at] {
            let line = if log.partial { None } else { log.text.strip_suffix('\r') };
            text += &plain(line.unwrap_or(&log.text));
        } else {
            text += &log.text;
        }
        if !log.partial {
            text.push('\n');
        }
        *begun = log.partial.then(|| log.vm_id.clone());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What records of `vm stream text` become; a `+` at the end makes one partial.
    fn check(terminals: [bool; 2], expected: [&str; 2]) {
        let mut log = LogText::default();
        let mut shown = [String::new(), String::new()];
        for record in [
            "a stdout Password: +",
            "a stderr warning\r",
            "a stdout secret\r",
            "a stdout 50 %\r+",
            "a hearth 96 bytes of output were lost",
            "a stdout end+",
            "b stderr begun+",
            "b stdout \u{1b}[2J",
        ] {
            let (vm_id, rest) = record.split_once(' ').expect("a microVM");
            let (stream, text) = rest.split_once(' ').expect("a stream");
            let partial = text.ends_with('+');
            let record = LogLine {
                at: String::new(),
                vm_id: vm_id.to_owned(),
                stream: stream.to_owned(),
                text: text.trim_end_matches('+').to_owned(),
                partial,
                cursor: 0,
            };
            shown[usize::from(stream != "stdout")] += &log.next(&record, terminals);
        }
        assert_eq!(shown, expected);
    }

    #[test]
    fn text_is_what_the_app_wrote() {
        let stdout = "Password: secret\r\n50 %\rend\n\u{1b}[2J\n";
        check([false, false], [stdout, "warning\r\n96 bytes of output were lost\nbegun"]);
    }

    #[test]
    fn terminal_shows_control_characters_and_other_lines_apart() {
        let stdout = "Password: secret\n50 %\\rend\\u{1b}[2J\n";
        let stderr = "warning\n\n96 bytes of output were lost\n\nbegun";
        check([true, true], [stdout, stderr]);
    }
}
