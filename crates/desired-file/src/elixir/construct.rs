//! The constructs of Elixir that are not data: their names, and what to write instead.

use super::scan::shown;

/// Something that Elixir would evaluate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Construct<'a> {
    /// `foo(…)`, `Foo.bar(…)`, `foo "…"`.
    Call(&'a str),
    /// `foo`.
    Variable(&'a str),
    /// `Foo`, `Foo.Bar`.
    Module(&'a str),
    /// `if`, `case` and the like.
    Branch(&'a str),
    /// `defmodule`, `import` and the like.
    Definition(&'a str),
    /// `fn`.
    Function,
    /// `&`.
    Capture,
    /// `@name`.
    Attribute,
    /// `%Foo{…}`.
    Struct,
    /// `%{map | …}`.
    MapUpdate,
    /// `<<…>>`.
    Binary,
    /// `(…)`.
    Parentheses,
    /// `'…'`.
    Charlist(&'a str),
    /// `?a`.
    Character(Option<char>),
    /// `#{…}`.
    Interpolation,
    /// `~r`, `~D` and the like.
    Sigil(char),
    /// An operator between two values, or before one.
    Operator(&'a str),
}

impl Construct<'_> {
    /// With its article, as the object of a sentence.
    pub(super) fn name(&self) -> String {
        match self {
            Construct::Call(_) => "a function call".to_owned(),
            Construct::Variable(name) => format!("the variable `{}`", shown(name)),
            Construct::Module(name) => format!("the module name `{}`", shown(name)),
            Construct::Branch(word) | Construct::Definition(word) => format!("`{word}`"),
            Construct::Function => "an anonymous function".to_owned(),
            Construct::Capture => "a function capture".to_owned(),
            Construct::Attribute => "a module attribute".to_owned(),
            Construct::Struct => "a struct".to_owned(),
            Construct::MapUpdate => "a map update".to_owned(),
            Construct::Binary => "a binary `<<…>>`".to_owned(),
            Construct::Parentheses => "parentheses".to_owned(),
            Construct::Charlist(_) => "a charlist".to_owned(),
            Construct::Character(_) => "a character literal".to_owned(),
            Construct::Interpolation => "an interpolation".to_owned(),
            Construct::Sigil(letter) => format!("the sigil `~{letter}`"),
            Construct::Operator("=") => "a match `=`".to_owned(),
            Construct::Operator(".." | "..//") => "a range".to_owned(),
            Construct::Operator(op) => format!("the operator `{op}`"),
        }
    }

    /// A few words to stand under it.
    pub(super) fn label(&self) -> String {
        match self {
            Construct::Call(_) => "would be called".to_owned(),
            Construct::Variable(_) | Construct::Attribute => "has no value here".to_owned(),
            Construct::Charlist(_) => "single quotes make a list of numbers in Elixir".to_owned(),
            Construct::Character(_) => "stands for a number in Elixir".to_owned(),
            Construct::Interpolation => "would be evaluated".to_owned(),
            _ => "not data".to_owned(),
        }
    }

    /// What to write instead.
    pub(super) fn instead(&self) -> String {
        match self {
            Construct::Call(call) if reads_environment(call) => {
                "write the value itself: the file sees no environment variables".to_owned()
            }
            Construct::Call(_) => "write the value that the call would give".to_owned(),
            Construct::Variable("null" | "none" | "undefined" | "NULL") => "write `nil`".to_owned(),
            Construct::Variable(name) => {
                format!("write \"{}\" if a string is meant, or else the value itself", shown(name))
            }
            Construct::Module("True") => "write `true`".to_owned(),
            Construct::Module("False") => "write `false`".to_owned(),
            Construct::Module("Nil" | "None" | "Null") => "write `nil`".to_owned(),
            Construct::Module(name) => {
                format!("write \"{}\" if a string is meant", shown(name))
            }
            Construct::Branch(_) => {
                "write the value of the branch that is meant; two machines can have two files"
                    .to_owned()
            }
            Construct::Definition(_) => "write the list of entries and nothing else".to_owned(),
            Construct::Function | Construct::Capture => {
                "write the value that the function would give".to_owned()
            }
            Construct::Attribute => "write the value itself".to_owned(),
            Construct::Struct => "write a map without a name: `%{…}`".to_owned(),
            Construct::MapUpdate => "write every field of the map".to_owned(),
            Construct::Binary => "write a string; `\\xHH` gives a byte by its number".to_owned(),
            Construct::Parentheses => "write the value without them".to_owned(),
            Construct::Charlist(text) => format!("use double quotes: \"{}\"", shown(text)),
            Construct::Character(Some(c)) => {
                format!("write \"{c}\" for the text or {} for the number", u32::from(*c))
            }
            Construct::Character(None) => "write the text in quotes, or the number".to_owned(),
            Construct::Interpolation => {
                "write the text itself; `\\#{` gives the two characters".to_owned()
            }
            Construct::Sigil(_) => {
                "write a string or a list; of the sigils ~s, ~S, ~w and ~W are read".to_owned()
            }
            Construct::Operator(op) => instead_of_operator(op).to_owned(),
        }
    }
}

fn reads_environment(call: &str) -> bool {
    ["get_env", "fetch_env", "env!"].iter().any(|name| call.contains(name))
}

fn instead_of_operator(op: &str) -> &'static str {
    match op {
        "<>" => "write the joined text as one string",
        "++" | "--" | "|" => "write one list with every element in it",
        "=" => "a field is written `name: value` or `\"name\" => value`",
        ".." | "..//" => "write the numbers in a list",
        "|>" | "." | "&" => "write the value that the call would give",
        "->" | "<-" | "do" | "when" | "::" | "\\\\" => "write the value itself",
        _ => "write the result",
    }
}

/// What a bare word is that is neither a value nor a key.
pub(super) fn of_word(word: &str) -> Option<Construct<'_>> {
    match word {
        "if" | "unless" | "case" | "cond" | "for" | "with" | "try" | "receive" | "quote"
        | "unquote" | "raise" | "throw" => Some(Construct::Branch(word)),
        "def" | "defp" | "defmodule" | "defmacro" | "defmacrop" | "defstruct" | "import"
        | "use" | "alias" | "require" | "config" | "import_config" => {
            Some(Construct::Definition(word))
        }
        "fn" => Some(Construct::Function),
        "not" | "and" | "or" | "in" | "when" | "do" | "end" | "else" | "after" | "rescue"
        | "catch" => Some(Construct::Operator(word)),
        _ => None,
    }
}

/// Operators that join two values, longest first among those with a common beginning.
pub(super) const OPERATORS: &[&str] = &[
    "===", "!==", "&&&", "|||", "^^^", "<<<", ">>>", "<<~", "~>>", "<~>", "<|>", "+++", "---",
    "..//", "<>", "++", "--", "|>", "..", "==", "!=", "<=", ">=", "=~", "&&", "||", "->", "<-",
    "\\\\", "::", "//", "**", "<~", "~>", "+", "-", "*", "/", "=", "<", ">", "|", "!", "^", ".",
    "&",
];
