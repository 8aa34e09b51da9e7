//! The config file: TOML with one key for each setting, and carets under what is wrong in it.

use crate::input;
use crate::settings::{Kind, SETTINGS, Setting, Settings};
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use anyhow::Context;
use hearth_model::PROBLEMS_MAX;
use hearth_model::text::suggest;
use hearth_model::text::{plain, visible};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Largest config file: a hundred times what all settings take.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A config file as it was read.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    pub(crate) path: PathBuf,
    text: String,
    values: BTreeMap<&'static str, FileValue>,
    /// What is wrong in it, in the order of its lines: the first [`PROBLEMS_MAX`].
    pub(crate) problems: Vec<Problem>,
    /// How many more problems it has.
    pub(crate) omitted: usize,
}

/// A value, as a flag would say it.
#[derive(Debug)]
pub(crate) struct FileValue {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Something that is wrong at a place.
#[derive(Debug)]
pub(crate) struct Problem {
    span: Range<usize>,
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) help: Option<String>,
}

impl ConfigFile {
    /// Reads a file and finds every problem in it.
    ///
    /// # Errors
    /// Where it can't be read, or is no text.
    pub(crate) fn read(path: &Path) -> anyhow::Result<ConfigFile> {
        let operation = || format!("cannot read the config file {}", path.display());
        let bytes = input::read(path, FILE_BYTES_MAX).with_context(operation)?;
        let text = String::from_utf8(bytes).with_context(operation)?;
        let mut file = ConfigFile {
            path: path.to_owned(),
            text,
            values: BTreeMap::new(),
            problems: Vec::new(),
            omitted: 0,
        };
        file.parse();
        Ok(file)
    }

    /// How many settings it has.
    pub(crate) fn count(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn value(&self, key: &str) -> Option<&FileValue> {
        self.values.get(key)
    }

    /// Draws the problems.
    pub(crate) fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let label = self.path.display().to_string();
        let text = visible(&self.text);
        let drawn = self.problems.iter().map(|problem| {
            // Carets stand beneath what is shown.
            let shown = |place: usize| visible(self.text.get(..place).unwrap_or(&self.text)).len();
            let span = shown(problem.span.start)..shown(problem.span.end);
            let snippet = Snippet::source(text.as_ref())
                .path(plain(&label))
                .annotation(AnnotationKind::Primary.span(span));
            let group = Level::ERROR
                .primary_title(plain(&problem.message))
                .element(snippet)
                .elements(problem.help.as_deref().map(|help| Level::HELP.message(plain(help))));
            renderer.render(&[group])
        });
        let mut drawn: Vec<String> = drawn.collect();
        if self.omitted > 0 {
            drawn.push(format!("and {} more problems", self.omitted));
        }
        drawn.join("\n\n")
    }

    fn parse(&mut self) {
        let text = std::mem::take(&mut self.text);
        let (table, errors) = DeTable::parse_recoverable(&text);
        let mut found: Vec<(Range<usize>, String, Option<String>)> = errors
            .iter()
            .map(|error| (error.span().unwrap_or(0..0), error.message().to_owned(), None))
            .collect();
        for (key, value) in table.get_ref() {
            match SETTINGS.iter().find(|setting| setting.key == key.get_ref().as_ref()) {
                None => found.push(unknown(key, value)),
                Some(setting) => match self.written(setting, value) {
                    Ok(written) => {
                        let line = place(&text, value.span().start).0;
                        self.values.insert(setting.key, FileValue { text: written, line });
                    }
                    // A value that is no TOML was told as such already.
                    Err(_) if errors.iter().any(|e| overlaps(e.span(), value.span())) => {}
                    Err((message, help)) => found.push((value.span(), message, help)),
                },
            }
        }
        found.sort_by_key(|(span, ..)| span.start);
        self.omitted = found.len().saturating_sub(PROBLEMS_MAX);
        found.truncate(PROBLEMS_MAX);
        self.problems = found
            .into_iter()
            .map(|(span, message, help)| {
                let (line, column) = place(&text, span.start);
                Problem { span, line, column, message, help }
            })
            .collect();
        self.text = text;
    }

    /// A value as a flag would say it, where it fits.
    fn written(
        &self,
        setting: &Setting,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<String, (String, Option<String>)> {
        let key = setting.key;
        let text = match (setting.kind, value.get_ref()) {
            (Kind::Text | Kind::Choice(_), DeValue::String(text)) => text.to_string(),
            (Kind::Path, DeValue::String(text)) if text.is_empty() => String::new(),
            (Kind::Path, DeValue::String(text)) => {
                let base = self.path.parent().unwrap_or(Path::new(""));
                base.join(text.as_ref()).display().to_string()
            }
            (Kind::Number, DeValue::Integer(number)) => {
                let digits = i128::from_str_radix(number.as_str(), number.radix());
                digits.map_or_else(|_| number.as_str().to_owned(), |digits| digits.to_string())
            }
            (Kind::Switch, DeValue::Boolean(on)) => on.to_string(),
            (kind, other) => {
                let (noun, example) = match kind {
                    Kind::Number => ("a whole number", "1".to_owned()),
                    Kind::Switch => ("true or false", "true".to_owned()),
                    Kind::Choice(words) => ("a word in quotes", format!("{:?}", words[0])),
                    Kind::Text | Kind::Path => ("a text in quotes", "\"…\"".to_owned()),
                };
                let message = format!("`{key}` takes {noun}, and this is {}", a(other.type_str()));
                return Err((message, Some(format!("write {key} = {example}"))));
            }
        };
        match setting.take(&mut Settings::new(), &text) {
            Ok(()) => Ok(text),
            Err(message) => {
                let help = match setting.kind {
                    Kind::Choice(words) => suggest(&text, words),
                    _ => None,
                };
                let help = help.map(|word| format!("did you mean {word:?}?"));
                Err((format!("`{key}`: {message}"), help))
            }
        }
    }
}

fn a(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

fn unknown(
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
) -> (Range<usize>, String, Option<String>) {
    let keys: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    let name = key.get_ref();
    let help = match suggest(name, &keys) {
        Some(key) => format!("did you mean `{key}`?"),
        None if value.get_ref().is_table() => {
            "settings have no sections: write them at the top".to_owned()
        }
        None => format!("the settings are {}", keys.join(", ")),
    };
    (key.span(), format!("there is no setting `{name}`"), Some(help))
}

fn overlaps(left: Option<Range<usize>>, right: Range<usize>) -> bool {
    left.is_some_and(|left| left.start <= right.end && right.start <= left.end)
}

/// Line and column of a place, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
}
