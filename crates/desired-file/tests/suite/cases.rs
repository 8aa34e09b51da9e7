//! Cases that are files below `tests/data`; `UPDATE_EXPECT=1` rewrites what is expected of them.
//!
//! | directory | a case | what is expected |
//! | --- | --- | --- |
//! | `files` | `NAME.FORMAT` | beside it in `….expected`: the jobs, or the problems as they are drawn |
//! | `trees` | `NAME.exs` | likewise, but the tree instead of jobs |
//! | `lines` | in `NAME.FORMAT.txt`, each line that begins with `"`: a text as Rust quotes it | below it, indented: the tree of an Elixir text or how many jobs, or a line a problem |

use crate::golden::{draw, outcome, outcome_of_tree};
use expect_test::expect_file;
use hearth_desired_file::{parse, parse_tree};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Compares what is seen of each case of a directory with its file, and names those that differ.
/// `expected` is the end of the names of these files.
fn check_directory(directory: &str, expected: &str, seen: impl Fn(&Path) -> String) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(directory);
    let entries = std::fs::read_dir(&directory).expect("a directory of cases");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    let is_expected = |path: &PathBuf| path.to_string_lossy().ends_with(".expected");
    let (expectations, cases): (Vec<_>, Vec<_>) = paths.into_iter().partition(is_expected);
    assert!(!cases.is_empty(), "{} has no cases", directory.display());
    let beside = |case: &PathBuf| PathBuf::from(format!("{}{expected}", case.display()));
    let differs = |case: &&PathBuf| {
        let seen = seen(case);
        catch_unwind(AssertUnwindSafe(|| expect_file![beside(case)].assert_eq(&seen))).is_err()
    };
    let failed: Vec<&PathBuf> = cases.iter().filter(differs).collect();
    assert!(failed.is_empty(), "these cases fail: {failed:#?}");
    if !expected.is_empty() && std::env::var_os("UPDATE_EXPECT").is_none() {
        assert_eq!(expectations, cases.iter().map(beside).collect::<Vec<_>>());
    }
}

/// The name of a file as the reader is told it, which says the format.
fn label(path: &Path) -> String {
    let format = path.extension().expect("a format").to_string_lossy();
    format!("vms.{format}")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a case")
}

#[test]
fn files_declare_jobs_or_have_problems() {
    check_directory("files", ".expected", |path| outcome(&label(path), &read(path)));
}

#[test]
fn trees_are_read_or_have_problems() {
    check_directory("trees", ".expected", |path| outcome_of_tree(&read(path)));
}

#[test]
fn lines_are_read_or_have_problems() {
    check_directory("lines", "", |path| {
        let label = label(&path.with_extension(""));
        let mut seen = String::new();
        for quoted in read(path).lines().filter(|line| line.starts_with('"')) {
            let text = unquoted(quoted);
            let said = if label == "vms.exs" {
                parse_tree(&label, &text).map(|tree| draw(&tree))
            } else {
                parse(&label, &text).map(|file| format!("{} jobs", file.jobs.len()))
            };
            let said = said.unwrap_or_else(|problems| {
                problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
            });
            let _ = writeln!(seen, "{text:?}\n  {said}");
        }
        seen
    });
}

/// The text that Rust quotes like this.
fn unquoted(quoted: &str) -> String {
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let mut chars = inner.unwrap_or_else(|| panic!("{quoted} is not quoted")).chars();
    let mut text = String::new();
    while let Some(c) = chars.next() {
        let escape = if c == '\\' { chars.next() } else { None };
        text.push(match escape {
            None => c,
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('0') => '\0',
            Some('u') => {
                let digits: String = chars.by_ref().take_while(|c| *c != '}').skip(1).collect();
                let code = u32::from_str_radix(&digits, 16).expect(quoted);
                char::from_u32(code).expect(quoted)
            }
            Some(other) => other,
        });
    }
    text
}
