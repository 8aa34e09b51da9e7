//! The ledger: what `cargo xtask soak` has run so far. docs/ledger.tsv has a row for each run;
//! docs/reliability.md has a table of their sums, which is generated.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::places::Places;
use crate::program;
use crate::terminal::say;

const HEADER: &str = "date\tcommit\twhat\tnumber\tfailures";
const BEGIN: &str = "<!-- generated from ledger.tsv -->\n";
const END: &str = "<!-- end of what is generated -->\n";

/// One run of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    date: String,
    commit: String,
    what: String,
    number: u64,
    /// `0`, or what failed, as a sentence.
    failures: String,
}

/// The data file and the document that is made from it.
#[derive(Debug)]
pub(crate) struct Ledger {
    data: PathBuf,
    document: PathBuf,
}

impl Ledger {
    pub(crate) fn of(repo: &Path) -> Ledger {
        Ledger { data: repo.join("docs/ledger.tsv"), document: repo.join("docs/reliability.md") }
    }

    /// How many tries there were of a part, over all runs.
    pub(crate) fn sum(&self, what: &str) -> Result<u64> {
        let rows = self.rows()?;
        Ok(rows.iter().filter(|row| row.what == what).map(|row| row.number).sum())
    }

    /// Adds a row for the checked-out commit, and generates the document's table again.
    pub(crate) fn enter(
        &self,
        places: &Places,
        what: &str,
        number: u64,
        failures: &[String],
    ) -> Result<()> {
        let git = |args: &[&str]| {
            program::output(program::command("git").args(args).current_dir(&places.repo))
                .map(|said| said.trim().to_owned())
        };
        let row = Row {
            date: git(&["log", "-1", "--date=format:%Y-%m-%d", "--format=%cd"])?,
            commit: git(&["rev-parse", "--short", "HEAD"])?,
            what: what.to_owned(),
            number,
            failures: match failures {
                [] => "0".to_owned(),
                failures => failures.join(", ").replace(['\t', '\n'], " "),
            },
        };
        say(format_args!("soak: {}", row.line().replace('\t', " | ")));
        let mut rows = self.rows()?;
        rows.push(row);
        let lines: Vec<String> = rows.iter().map(Row::line).collect();
        write(&self.data, &format!("{HEADER}\n{}\n", lines.join("\n")))?;
        write(&self.document, &self.generated()?)
    }

    /// The document with the table that follows from the data.
    fn generated(&self) -> Result<String> {
        let text = read(&self.document)?;
        let (before, rest) = text.split_once(BEGIN).context("the document has no place for it")?;
        let (_, after) = rest.split_once(END).context("the document's table has no end")?;
        Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", table(&self.rows()?)))
    }

    fn rows(&self) -> Result<Vec<Row>> {
        let text = read(&self.data)?;
        let mut lines = text.lines();
        ensure!(lines.next() == Some(HEADER), "{} has another header", self.data.display());
        lines
            .enumerate()
            .map(|(number, line)| Row::of(line).with_context(|| format!("row {number}")))
            .collect()
    }
}

impl Row {
    fn of(line: &str) -> Result<Row> {
        let cells: Vec<&str> = line.split('\t').collect();
        let [date, commit, what, number, failures] = cells[..] else {
            anyhow::bail!("a row has five columns: {line}");
        };
        Ok(Row {
            date: date.to_owned(),
            commit: commit.to_owned(),
            what: what.to_owned(),
            number: number.parse().with_context(|| format!("not a number: {number}"))?,
            failures: failures.to_owned(),
        })
    }

    fn line(&self) -> String {
        let Row { date, commit, what, number, failures } = self;
        format!("{date}\t{commit}\t{what}\t{number}\t{failures}")
    }
}

/// A line for each part, in the order of their first runs.
fn table(rows: &[Row]) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for row in rows {
        if !parts.contains(&row.what.as_str()) {
            parts.push(&row.what);
        }
    }
    let mut text =
        "| what | runs | sum | last run | runs with a failure | failures of the last run |\n\
                    | --- | --- | --- | --- | --- | --- |\n"
            .to_owned();
    for part in parts {
        let runs: Vec<&Row> = rows.iter().filter(|row| row.what == part).collect();
        let sum: u64 = runs.iter().map(|row| row.number).sum();
        let failed = runs.iter().filter(|row| !row.failures.starts_with('0')).count();
        if let [.., last] = runs[..] {
            let Row { date, commit, failures, .. } = last;
            text += &format!(
                "| {part} | {} | {sum} | {date}, {commit} | {failed} | {failures} |\n",
                runs.len()
            );
        }
    }
    text
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_has_the_table_that_follows_from_the_data() {
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let ledger = Ledger::of(repo);
        let made = ledger.generated().unwrap();
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            write(&ledger.document, &made).unwrap();
        }
        assert!(read(&ledger.document).unwrap() == made, "UPDATE_EXPECT=1 generates it again");
        assert!(ledger.sum("schedules").unwrap() > 1_000_000);
    }

    #[test]
    fn sums_and_failures_are_per_part() {
        let row = |what: &str, number, failures: &str| Row {
            date: "2026-01-02".to_owned(),
            commit: "abc".to_owned(),
            what: what.to_owned(),
            number,
            failures: failures.to_owned(),
        };
        let rows = [row("kills", 500, "0"), row("fuzz names", 3, "x"), row("kills", 20, "seed 7")];
        let made = table(&rows);
        assert!(made.contains("| kills | 2 | 520 | 2026-01-02, abc | 1 | seed 7 |\n"), "{made}");
        assert!(made.contains("| fuzz names | 1 | 3 | 2026-01-02, abc | 1 | x |\n"), "{made}");
        assert_eq!(Row::of(&rows[0].line()).unwrap(), rows[0]);
        assert!(Row::of("a\tb").is_err());
    }
}
