//! Properties of the reader over made-up input.

use crate::made::{TOKENS, bare, printed, trees};
use hearth_desired_file::{parse, parse_tree};
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../../../../config/desired_vms.exs");

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_printed_tree_reads_back_as_itself(tree in trees(), style in any::<u64>()) {
        let text = printed(&tree, style);
        let read = parse_tree("made.exs", &text);
        let read = read.map_err(|problems| TestCaseError::fail(problems.to_string()))?;
        prop_assert_eq!(bare(&read), tree, "{}", text);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(problems) = parse("made.exs", &bytes) {
            prop_assert!(!problems.to_string().is_empty());
        }
    }

    #[test]
    fn random_tokens_never_panic(picks in prop::collection::vec(0..TOKENS.len(), 0..60)) {
        let text: String = picks.iter().map(|at| TOKENS[*at]).collect();
        if let Err(problems) = parse("made.exs", &text) {
            check_places(&text, &problems)?;
        }
    }

    #[test]
    fn a_damaged_example_is_read_whole_or_refused(
        at in 0..EXAMPLE.len(), len in 0..20usize, token in 0..TOKENS.len(),
    ) {
        let end = (at + len).min(EXAMPLE.len());
        let text = format!("{}{}{}", &EXAMPLE[..at], TOKENS[token], &EXAMPLE[end..]);
        match parse("made.exs", &text) {
            Ok(file) => prop_assert!(file.jobs.len() <= 3),
            Err(problems) => check_places(&text, &problems)?,
        }
    }
}

fn check_places(
    text: &str,
    problems: &hearth_desired_file::Diagnostics,
) -> Result<(), TestCaseError> {
    prop_assert!(problems.count() > 0);
    prop_assert!(!problems.to_string().is_empty());
    for problem in problems {
        let shown = text.get(problem.span.start..problem.span.end);
        prop_assert!(shown.is_some_and(|shown| !shown.contains('\n')), "{problem:?}");
        prop_assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
        prop_assert!(problem.line >= 1 && problem.column >= 1);
    }
    Ok(())
}

#[test]
fn the_example_cut_at_any_byte_never_reads_as_a_shorter_list() {
    let whole = parse("example.exs", EXAMPLE).unwrap();
    let closed = EXAMPLE.rfind(']').unwrap() + 1;
    for cut in 0..=EXAMPLE.len() {
        match parse("example.exs", &EXAMPLE.as_bytes()[..cut]) {
            Ok(file) => {
                assert!(cut >= closed, "cut at {cut} reads as a list");
                assert_eq!(file, whole);
            }
            Err(problems) => {
                assert!(cut < closed, "cut at {cut}: {problems}");
                assert_eq!(problems.count(), 1, "cut at {cut}: {problems}");
            }
        }
    }
}
