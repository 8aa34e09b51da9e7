//! Text that others wrote: made fit to be shown (names, sentences, output of guests), and compared with
//! known names.

use std::borrow::Cow;
use std::fmt::Write;

/// Longest word that is compared with known names, in bytes: twice the longest of them.
const SUGGEST_BYTES_MAX: usize = 64;

/// Text in which every character is seen: control characters and [hidden](is_hidden) ones are
/// written as Rust's escapes, `\u{1b}`, `\r`. Tabs and line ends stay.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\t' | '\n'))
}

/// As [`plain`], but with every ASCII control character as it is, for text that something else
/// draws.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.is_ascii_control())
}

/// JSON in which every character is seen, and which means the same: the others are written as JSON's
/// escapes.
#[must_use]
pub fn plain_json(json: &str) -> Cow<'_, str> {
    if let Cow::Borrowed(_) = plain(json) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        // Of the ASCII ones JSON has those alone that it uses as white space.
        if is_hidden(c) || (c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

fn escaped(text: &str, keeps: impl Fn(char) -> bool) -> Cow<'_, str> {
    let stays = |byte: u8| {
        byte == b' ' || byte.is_ascii_graphic() || (byte.is_ascii() && keeps(char::from(byte)))
    };
    if text.bytes().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut before = ' ';
    for c in text.chars() {
        // A variation selector behind a symbol is a part of how that looks.
        let selects = matches!(c, '\u{fe0e}' | '\u{fe0f}') && !before.is_ascii();
        if (c.is_control() && !keeps(c)) || (is_hidden(c) && !selects) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        before = c;
    }
    Cow::Owned(shown)
}

/// Whether a character has no width or reorders its line, so that a text with it reads like another
/// one: the line separators and Unicode's `Default_Ignorable_Code_Point`
/// (DerivedCoreProperties.txt, 17.0), which has the zero-width and bidirectional ones.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text of at most `bytes_max` bytes, with a mark where it is cut.
pub(crate) fn cut(text: &str, bytes_max: usize) -> Cow<'_, str> {
    match text.len() <= bytes_max {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(bytes_max)])),
    }
}

/// The nearest of the known names, where one is near enough to be meant.
#[must_use]
pub fn suggest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // A longer word is near to none of them, and comparing takes its length.
    if word.len() > SUGGEST_BYTES_MAX {
        return None;
    }
    known
        .iter()
        .map(|name| (edit_distance(&word.to_lowercase(), &name.to_lowercase()), *name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{plain, plain_json, visible};

    #[test]
    fn control_characters_are_shown_as_escapes() {
        assert_eq!(plain("\u{1b}[2Jred\r\u{9b}x\tok\n"), "\\u{1b}[2Jred\\r\\u{9b}x\tok\n");
        assert_eq!(visible("\u{1b}[1m\r\u{9b}"), "\u{1b}[1m\r\\u{9b}");
    }

    #[test]
    fn characters_without_width_are_shown_as_escapes() {
        assert_eq!(plain("a\u{202e}b\u{2066}"), "a\\u{202e}b\\u{2066}");
        for c in ['\u{200b}', '\u{200d}', '\u{feff}', '\u{2060}', '\u{ad}', '\u{e0041}', '\u{3164}']
        {
            assert_eq!(plain(&format!("we{c}b")), format!("we{}b", c.escape_unicode()));
            assert_eq!(visible(&c.to_string()), c.escape_unicode().to_string());
        }
    }

    #[test]
    fn json_means_the_same_with_its_escapes() {
        let json = "{\"a\": \"\u{9b}31m\u{200b}\u{e0041}é\"}\n";
        let shown = "{\"a\": \"\\u009b31m\\u200b\\udb40\\udc41é\"}\n";
        assert_eq!(plain_json(json), shown);
    }

    #[test]
    fn letters_and_symbols_of_any_script_stay() {
        for text in ["héllo", "e\u{301}", "日本語", "\u{26a0}\u{fe0f} careful", "שלום"] {
            assert_eq!(plain(text), text);
        }
        assert_eq!(plain("web\u{fe0f}"), "web\\u{fe0f}");
    }
}
