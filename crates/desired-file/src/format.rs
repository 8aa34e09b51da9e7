//! The formats of a desired-state file: how each is known by its name, and what its form is.

use crate::diagnostic::{Problem, Problems};
use crate::node::{Kind, Node, Span};
use crate::{duplicates, elixir, json, toml, yaml};
use hearth_model::fields::DECLARATION_FIELDS;
use std::fmt;
use std::path::Path;

/// A format of desired-state files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Elixir's data literals, `.exs`.
    Elixir,
    /// TOML 1.1, `.toml`.
    Toml,
    /// YAML 1.2, `.yaml` or `.yml`.
    Yaml,
    /// JSON (RFC 8259), `.json`.
    Json,
}

/// A file name without a known extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFormat {
    label: String,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 4] = [Format::Elixir, Format::Toml, Format::Yaml, Format::Json];

    /// The format of a file by the extension of its name, in upper or lower case.
    ///
    /// # Errors
    /// [`UnknownFormat`] if it is none of the four.
    pub fn of(label: &str) -> Result<Format, UnknownFormat> {
        let extension = Path::new(label).extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("exs") => Ok(Format::Elixir),
            Some("toml") => Ok(Format::Toml),
            Some("yaml" | "yml") => Ok(Format::Yaml),
            Some("json") => Ok(Format::Json),
            _ => Err(UnknownFormat { label: label.to_owned() }),
        }
    }

    /// The extension of its files.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Format::Elixir => "exs",
            Format::Toml => "toml",
            Format::Yaml => "yaml",
            Format::Json => "json",
        }
    }

    /// Reads a text as far as its tree. It is `None` where there was no way to read on; where there
    /// are problems and a tree, what is in question is [`Kind::Invalid`] or left out whole.
    pub(crate) fn read(self, text: &str) -> (Option<Node>, Problems) {
        let (mut tree, mut problems) = match self {
            Format::Elixir => elixir::read(text),
            Format::Toml => toml::read(text),
            Format::Yaml => yaml::read(text),
            Format::Json => json::read(text),
        };
        if let Some(tree) = &mut tree {
            duplicates::remove(tree, self, &mut problems);
        }
        (tree, problems)
    }

    /// Whether a tree has this format's form, whatever its entries are.
    pub(crate) fn fits(self, tree: &Node) -> bool {
        match &tree.kind {
            Kind::List(_) => self != Format::Toml,
            Kind::Map(_) => self == Format::Toml,
            _ => false,
        }
    }

    /// Whether a tree of this format surely is a desired-state file's: it has the right form, and
    /// its first entry does.
    pub(crate) fn holds_jobs(self, tree: &Node) -> bool {
        let has_key = |node: &Node, names: &[&str]| match &node.kind {
            Kind::Map(entries) => {
                entries.iter().any(|entry| entry.key.text().is_some_and(|key| names.contains(&key)))
            }
            _ => false,
        };
        match (&tree.kind, self) {
            (Kind::List(entries), Format::Elixir) => {
                entries.first().is_some_and(|entry| matches!(entry.kind, Kind::Tuple(_)))
            }
            (Kind::List(entries), _) => {
                entries.first().is_some_and(|entry| has_key(entry, DECLARATION_FIELDS))
            }
            _ => self == Format::Toml && has_key(tree, &[toml::ENTRIES]),
        }
    }

    /// What a file of this format looks like, as a help.
    pub(crate) fn form(self) -> &'static str {
        match self {
            Format::Elixir => "the file is a list of entries: `[{\"vm_id\", \"tenant\", %{…}}, …]`",
            Format::Toml => "an entry is a table `[[vm]]` with job_id, tenant and `[vm.spec]`",
            Format::Yaml => "the file is a list: each entry begins `- job_id: …`",
            Format::Json => {
                "the file is a list: `[{\"job_id\": …, \"tenant\": …, \"spec\": {…}}, …]`"
            }
        }
    }

    /// What one entry looks like, as a help.
    pub(crate) fn entry_form(self) -> &'static str {
        match self {
            Format::Elixir => "an entry is `{vm_id, tenant, spec}` or `{vm_id, spec}`",
            Format::Toml => "an entry is a table `[[vm]]` with job_id, tenant and spec",
            Format::Yaml | Format::Json => "an entry is a map with job_id, tenant and spec",
        }
    }

    /// The kind of a value as a user of this format would name it.
    pub(crate) fn describe(self, node: &Node) -> &'static str {
        match node.kind {
            Kind::Nil if self != Format::Elixir => "null",
            _ => node.describe(),
        }
    }

    /// The problem of a file without a value.
    pub(crate) fn empty(self) -> Problem {
        let nothing = if self == Format::Toml { "vm = []" } else { "[]" };
        Problem::new(Span::at(0), "the file is empty")
            .help(format!("write `{nothing}` to declare that nothing is to run"))
    }
}

/// As a user would name it.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Elixir => "Elixir",
            Format::Toml => "TOML",
            Format::Yaml => "YAML",
            Format::Json => "JSON",
        })
    }
}

impl UnknownFormat {
    /// What to do about it.
    pub const HELP: &'static str =
        "a desired-state file ends in .exs, .toml, .yaml (or .yml) or .json";
}

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot tell the format of {} by its name", self.label)
    }
}

impl std::error::Error for UnknownFormat {}
