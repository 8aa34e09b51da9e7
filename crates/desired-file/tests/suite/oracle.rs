//! What others make of the Elixir files that we read: Elixir itself (in the module `elixir`, which
//! needs it installed), and tree-sitter's grammar.

use crate::made::{TOKENS, printed, trees};
use hearth_desired_file::{Kind, Node, parse_tree};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

/// How many files of each kind are made.
const FILES: usize = 2000;

/// Files of the data grammar, the same ones each time.
fn made_files() -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let files = (trees(), any::<u64>()).prop_map(|(tree, style)| printed(&tree, style));
    (0..FILES).map(|_| files.new_tree(&mut runner).unwrap().current()).collect()
}

/// The same files with up to three words put in place of a part.
fn damaged_files() -> Vec<String> {
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRunner::deterministic().rng().clone());
    let damage = (any::<prop::sample::Index>(), 0..6usize, 0..TOKENS.len());
    let damages = prop::collection::vec(damage, 1..4);
    let damage_one = |text: String| {
        let damages = damages.new_tree(&mut runner).unwrap().current();
        damages.into_iter().fold(text, |text, (at, len, token)| {
            let chars: Vec<char> = text.chars().collect();
            let at = at.index(chars.len() + 1);
            let end = (at + len).min(chars.len());
            let before = chars[..at].iter();
            before
                .chain(TOKENS[token].chars().collect::<Vec<_>>().iter())
                .chain(&chars[end..])
                .collect()
        })
    };
    made_files().into_iter().map(damage_one).collect()
}

#[test]
fn tree_sitter_finds_no_error_in_what_is_read() {
    let mut parser = tree_sitter::Parser::new();
    parser.set_language(&tree_sitter_elixir::LANGUAGE.into()).unwrap();
    let mut read = 0;
    for text in made_files().into_iter().chain(damaged_files()) {
        // The grammar knows no line that is continued behind a backslash, and no NUL in a text.
        let unknown = text.contains("\\\n") || text.contains('\0');
        if unknown || parse_tree("made.exs", &text).is_err() {
            continue;
        }
        read += 1;
        let tree = parser.parse(&text, None).unwrap();
        assert!(!tree.root_node().has_error(), "{text:?}\n{}", tree.root_node().to_sexp());
    }
    assert!(read > FILES / 4, "only {read} files were read");
}

mod elixir {
    use super::*;
    use std::fs;
    use std::process::Command;

    /// A value in the notation of `oracle.exs`.
    fn show(node: &Node) -> String {
        let hex =
            |bytes: &[u8]| bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02X}"));
        let all = |nodes: &[Node]| nodes.iter().map(show).collect::<Vec<_>>().join(",");
        match &node.kind {
            Kind::Nil => "n".to_owned(),
            Kind::Bool(true) => "t".to_owned(),
            Kind::Bool(false) => "f".to_owned(),
            Kind::Int(number) => format!("i{number}"),
            Kind::BigInt => "I".to_owned(),
            Kind::Float(number) => format!("d{}", hex(&number.to_be_bytes())),
            Kind::String(text) => format!("s{}", hex(text.as_bytes())),
            // Elixir's atoms of these names are the values.
            Kind::Atom(name) if name == "nil" => "n".to_owned(),
            Kind::Atom(name) if name == "true" => "t".to_owned(),
            Kind::Atom(name) if name == "false" => "f".to_owned(),
            Kind::Atom(name) => format!("a{}", hex(name.as_bytes())),
            Kind::List(nodes) => format!("[{}]", all(nodes)),
            Kind::Tuple(nodes) => format!("({})", all(nodes)),
            Kind::Map(entries) => {
                let entry = |entry: &hearth_desired_file::Entry| {
                    format!("{}={}", show(&entry.key), show(&entry.value))
                };
                let mut entries: Vec<String> = entries.iter().map(entry).collect();
                entries.sort();
                format!("{{{}}}", entries.join(","))
            }
            Kind::Invalid => unreachable!("not in what is read"),
        }
    }

    /// What we say where Elixir takes a file: each names something that is valid there and no data
    /// here.
    const OUTSIDE: [&str; 9] = [
        "cannot take ",
        "duplicate key ",
        "the number is too large",
        "nested too deeply",
        "the file holds more than one expression",
        "the file is empty",
        "a carriage return alone stands in the text",
        "expected a name right after `:`",
        "expected a value, found `;`",
    ];

    /// What Elixir makes of each file, by one run of it.
    fn verdicts(files: &[String], data: &[usize]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        for (number, text) in files.iter().enumerate() {
            // Elixir keeps the carriage return of a line break in a text, and no other format does.
            let text = text.replace("\r\n", "\n");
            fs::write(directory.path().join(format!("{number}.exs")), text).unwrap();
        }
        let data: Vec<String> = data.iter().map(ToString::to_string).collect();
        fs::write(directory.path().join("data"), data.join(" ")).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/oracle.exs");
        let output = Command::new("elixir")
            .args(["--erl", "+fnu", script])
            .arg(directory.path())
            .output()
            .expect("elixir runs: apt-get install elixir");
        let said = String::from_utf8(output.stdout).unwrap();
        let verdicts: Vec<String> = said.lines().map(str::to_owned).collect();
        let cause = String::from_utf8_lossy(&output.stderr);
        assert_eq!(verdicts.len(), files.len(), "{}", cause.lines().last().unwrap_or_default());
        verdicts
    }

    #[test]
    fn elixir_reads_the_same_value_and_refuses_what_we_do_not_name() {
        // Elixir refuses a byte order mark.
        let files = made_files().into_iter().chain(damaged_files());
        let files: Vec<String> = files.filter(|text| !text.starts_with('\u{FEFF}')).collect();
        let ours: Vec<_> = files.iter().map(|text| parse_tree("made.exs", text)).collect();
        let data: Vec<usize> = (0..files.len()).filter(|number| ours[*number].is_ok()).collect();
        assert!(data.len() > FILES, "only {} files were read", data.len());
        let (mut refused_by_both, mut named) = (0, 0);
        for ((text, ours), theirs) in files.iter().zip(&ours).zip(verdicts(&files, &data)) {
            match ours {
                Ok(tree) => assert_eq!(show(tree), theirs, "{text:?}"),
                Err(_) if theirs == "refused" => refused_by_both += 1,
                Err(problems) => {
                    let outside = |said: &str| OUTSIDE.iter().any(|word| said.starts_with(word));
                    let names = problems.iter().any(|problem| outside(&problem.message));
                    assert!(names, "{theirs}: {text:?}\n{problems}");
                    named += 1;
                }
            }
        }
        assert!(refused_by_both > 100 && named > 50, "{refused_by_both} refused, {named} named");
    }
}
