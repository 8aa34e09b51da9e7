//! Words that the project does not write, and function names that are too long to read.
//!
//! Each has a bound that only falls: what is left is old, and nothing new is added.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::places::Places;
use crate::program;
use crate::terminal::say;

/// The list. Its extension keeps it out of the search.
const LIST: &str = include_str!("words.tsv");
/// Released text stays as it was published.
const EXCLUDED: &str = "CHANGELOG.md";
const EXTENSIONS: [&str; 6] = ["rs", "md", "toml", "trycmd", "exs", "sh"];

/// Lines with a listed word.
const LINES_MAX: usize = 4;
/// Functions, tests above all, whose names are longer than [`NAME_LENGTH_MAX`].
const LONG_NAMES_MAX: usize = 0;
const NAME_LENGTH_MAX: usize = 60;

pub(super) fn check(places: &Places) -> Result<()> {
    let mut list = program::command("git");
    list.current_dir(&places.repo).args(["ls-files", "-z"]);
    let files = program::output(&mut list)?;
    let entries: Vec<_> = entries(LIST).collect();
    let (mut lines, mut long_names) = (0, 0);
    for file in files.split('\0').filter(|file| is_searched(file)) {
        let text = std::fs::read_to_string(places.repo.join(file));
        let text = text.with_context(|| format!("cannot read {file}"))?;
        for (line, number) in text.lines().zip(1..) {
            if let Some((word, remedy)) = listed(line, &entries) {
                say(format_args!("{file}:{number}: {word}: {remedy}"));
                lines += 1;
            }
            if let Some(name) = long_name(line) {
                say(format_args!("{file}:{number}: {name} has {} characters", name.len()));
                long_names += 1;
            }
        }
    }
    say(format_args!(
        "lines with a listed word: {lines} (at most {LINES_MAX}); \
         names over {NAME_LENGTH_MAX} characters: {long_names} (at most {LONG_NAMES_MAX})"
    ));
    if lines > LINES_MAX {
        bail!("{lines} lines have a word of xtask/src/ci/words.tsv, {LINES_MAX} are tolerated");
    }
    if long_names > LONG_NAMES_MAX {
        bail!(
            "{long_names} function names have more than {NAME_LENGTH_MAX} characters, \
             {LONG_NAMES_MAX} are tolerated"
        );
    }
    Ok(())
}

fn is_searched(file: &str) -> bool {
    let path = Path::new(file);
    let extension = path.extension().and_then(|extension| extension.to_str());
    let is_text = extension.is_some_and(|extension| EXTENSIONS.contains(&extension));
    file != EXCLUDED && (is_text || path.ends_with("Makefile"))
}

/// Words and remedies.
fn entries(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('\t'))
}

/// The first entry whose word `line` contains.
fn listed<'a>(line: &str, entries: &[(&'a str, &'a str)]) -> Option<(&'a str, &'a str)> {
    let line = line.replace('_', " ").to_lowercase();
    entries.iter().copied().find(|(word, _)| contains_word(&line, word))
}

fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(char::is_alphanumeric)
            && !line[at + word.len()..].starts_with(char::is_alphanumeric)
    })
}

/// The name of the function that begins on `line`, if it is too long.
fn long_name(line: &str) -> Option<&str> {
    let (before, name) = line.split_once("fn ")?;
    let length = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let is_function = before.is_empty() || before.ends_with(' ');
    (is_function && length > NAME_LENGTH_MAX).then(|| &name[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_words_are_found_as_whole_words_in_any_case() {
        let list = [("thou", "you"), ("art not", "are not")];
        let found = |line| listed(line, &list).map(|(word, _)| word);
        assert_eq!(found("Thou, friend"), Some("thou"));
        assert_eq!(found("fn who_art_not_seen()"), Some("art not"));
        assert_eq!(found("a thousand; smart note"), None);
        assert_eq!(found("art, not craft"), None);
    }

    #[test]
    fn list_has_a_remedy_for_each_word() {
        for line in LIST.lines().filter(|line| !line.starts_with('#')) {
            let (word, remedy) = line.split_once('\t').expect(line);
            assert!(!word.is_empty() && !remedy.is_empty(), "{line}");
            assert_eq!(word, word.to_lowercase(), "{line}: words are compared in lower case");
        }
    }

    #[test]
    fn function_names_over_60_characters_are_found() {
        let (fits, long) = ("x".repeat(60), "x".repeat(61));
        assert_eq!(long_name(&format!("    fn {fits}() {{")), None);
        assert_eq!(long_name(&format!("    async fn {long}<T>() {{")), Some(&*long));
        assert_eq!(long_name("the default is true"), None);
    }

    #[test]
    fn only_text_that_the_project_writes_is_searched() {
        for file in ["README.md", "Makefile", "crates/x/src/lib.rs", "demo/a.exs"] {
            assert!(is_searched(file), "{file}");
        }
        for file in ["CHANGELOG.md", "openapi.json", "xtask/src/ci/words.tsv", "Cargo.lock"] {
            assert!(!is_searched(file), "{file}");
        }
    }
}
