//! `--env-file`: variables in a file, by the rules of Docker's (docker/cli, `pkg/kvfile`). A line is
//! `KEY=VALUE`; the value is everything behind the `=`, quotes and blanks too. `KEY` alone takes the
//! value that the variable has here, and is left out if it has none.

use crate::input::{self, InputError};
use hearth_model::fields::env_name_fault;
use std::path::Path;

/// Largest file, in bytes: 20 times what the variables of a job may take.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a file is refused; the message names the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvFileError {
    #[error("cannot read the variables in {file}")]
    Read { file: String, source: InputError },
    #[error("cannot take the variables in {file}: line {line}: {fault}")]
    Line { file: String, line: usize, fault: String },
}

/// The variables of a file, in its order. `value_here` gives the value that a variable has in this
/// process.
///
/// # Errors
/// [`EnvFileError`].
pub(crate) fn read(
    path: &Path,
    value_here: impl Fn(&str) -> Result<Option<String>, String>,
) -> Result<Vec<(String, String)>, EnvFileError> {
    let file = path.display().to_string();
    let bytes = match input::read(path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(source) => return Err(EnvFileError::Read { file, source }),
    };
    let bytes = bytes.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(&bytes);
    let mut variables = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        match variable(line, &value_here) {
            Ok(variable) => variables.extend(variable),
            Err(fault) => return Err(EnvFileError::Line { file, line: index + 1, fault }),
        }
    }
    Ok(variables)
}

/// The variable of a line, if it has one, or what is wrong with it.
fn variable(
    line: &[u8],
    value_here: impl Fn(&str) -> Result<Option<String>, String>,
) -> Result<Option<(String, String)>, String> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = std::str::from_utf8(line).map_err(|error| {
        format!("byte {} is not UTF-8; save it as UTF-8", error.valid_up_to() + 1)
    })?;
    let line = line.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = match line.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (line, None),
    };
    check_name(name)?;
    Ok(match value {
        Some(value) => Some((name.to_owned(), value.to_owned())),
        None => value_here(name)?.map(|value| (name.to_owned(), value)),
    })
}

fn check_name(name: &str) -> Result<(), String> {
    // What a user took from a shell script, where it means something.
    if let Some(rest) =
        name.strip_prefix("export").filter(|rest| rest.starts_with(char::is_whitespace))
    {
        let rest = rest.trim();
        return Err(format!("`export` is not part of a variable's name; write {rest}=…"));
    }
    let fault = match env_name_fault(name) {
        _ if name.contains(char::is_whitespace) => "it holds white space".to_owned(),
        Some(fault) => fault,
        None => return Ok(()),
    };
    let remedy = match name.trim_end() {
        "" => "write KEY=VALUE".to_owned(),
        trimmed if env_name_fault(trimmed).is_none() && !trimmed.contains(char::is_whitespace) => {
            format!("write {trimmed}=…, without white space before the `=`")
        }
        _ => "write KEY=VALUE, with a name of letters, digits and `_`".to_owned(),
    };
    Err(format!("{name:?} can't name an environment variable: {fault}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::read;
    use expect_test::{Expect, expect};
    use std::fmt::Write;

    /// What files with this content give.
    fn check(contents: &[&[u8]], expected: Expect) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vars.env");
        let here = |name: &str| match name {
            "SET" => Ok(Some(" here ".to_owned())),
            "BYTES" => Err("its value here is not UTF-8".to_owned()),
            _ => Ok(None),
        };
        let mut said = String::new();
        for content in contents {
            std::fs::write(&path, content).expect("it is written");
            let _ = match read(&path, here) {
                Ok(variables) => writeln!(said, "{variables:?}"),
                Err(error) => {
                    let directory = format!("{}/", directory.path().display());
                    writeln!(said, "{}", error.to_string().replace(&directory, ""))
                }
            };
        }
        expected.assert_eq(&said);
    }

    #[test]
    fn lines_are_read_by_the_rules_of_docker() {
        check(
            &[
                b"A=1\n\n# a comment\n  # another\nB= x \t\nC=\"q\"\nD=a=b\nE=",
                b"\xef\xbb\xbfK=1\r\nL=2\r\n\r\n\t LEAD=x\r\n",
                b"SET\nUNSET\n  SET=\nA.b-c=1\n1=2",
                "A=\u{feff}\u{a0}\n\u{a0}B=\u{e9}".as_bytes(),
                b"A=1\rB=2\n",
                b"",
                b"\xef\xbb\xbf",
            ],
            expect![[r#"
                [("A", "1"), ("B", " x \t"), ("C", "\"q\""), ("D", "a=b"), ("E", "")]
                [("K", "1"), ("L", "2"), ("LEAD", "x")]
                [("SET", " here "), ("SET", ""), ("A.b-c", "1"), ("1", "2")]
                [("A", "\u{feff}\u{a0}"), ("B", "é")]
                [("A", "1\rB=2")]
                []
                []
            "#]],
        );
    }

    #[test]
    fn names_that_cannot_be_meant_are_refused_with_a_remedy() {
        check(
            &[
                b"A=1\nexport EXP=yes\n",
                b"export EXP",
                b"export\tEXP=1",
                b"\n\nSP = x",
                b"SP\t=x",
                b"A B=c",
                b"A B",
                b"=x",
                b"\xef\xbb\xbf\xef\xbb\xbfK=1",
                b"A\x01B=1",
                b"A\x1b[31m=1",
                b"A\x00=1",
                b"A\x7f=1",
                "A\u{85}=1".as_bytes(),
                "A\u{2003}B=1".as_bytes(),
                b"A=1\nB=\xff\n",
                b"A=1\rB C=2",
                b"BYTES",
                &[b'#'; 1024 * 1024 + 1],
            ],
            expect![[r#"
                cannot take the variables in vars.env: line 2: `export` is not part of a variable's name; write EXP=…
                cannot take the variables in vars.env: line 1: `export` is not part of a variable's name; write EXP=…
                cannot take the variables in vars.env: line 1: `export` is not part of a variable's name; write EXP=…
                cannot take the variables in vars.env: line 3: "SP " can't name an environment variable: it holds white space; write SP=…, without white space before the `=`
                cannot take the variables in vars.env: line 1: "SP\t" can't name an environment variable: it holds white space; write SP=…, without white space before the `=`
                cannot take the variables in vars.env: line 1: "A B" can't name an environment variable: it holds white space; write KEY=VALUE, with a name of letters, digits and `_`
                cannot take the variables in vars.env: line 1: "A B" can't name an environment variable: it holds white space; write KEY=VALUE, with a name of letters, digits and `_`
                cannot take the variables in vars.env: line 1: "" can't name an environment variable: it is empty; write KEY=VALUE
                cannot take the variables in vars.env: line 1: "\u{feff}K" can't name an environment variable: it holds the invisible character U+FEFF; write KEY=VALUE, with a name of letters, digits and `_`
                cannot take the variables in vars.env: line 1: "A\u{1}B" can't name an environment variable: it holds a control character; write KEY=VALUE, with a name of letters, digits and `_`
                cannot take the variables in vars.env: line 1: "A\u{1b}[31m" can't name an environment variable: it holds a control character; write KEY=VALUE, with a name of letters, digits and `_`
                cannot take the variables in vars.env: line 1: "A\0" can't name an environment variable: it holds a control character; write KEY=VALUE, with a name of letters, digits and `_`
                cannot take the variables in vars.env: line 1: "A\u{7f}" can't name an environment variable: it holds a control character; write KEY=VALUE, with a name of letters, digits and `_`
                cannot take the variables in vars.env: line 1: "A\u{85}" can't name an environment variable: it holds white space; write A=…, without white space before the `=`
                cannot take the variables in vars.env: line 1: "A\u{2003}B" can't name an environment variable: it holds white space; write KEY=VALUE, with a name of letters, digits and `_`
                cannot take the variables in vars.env: line 2: byte 3 is not UTF-8; save it as UTF-8
                [("A", "1\rB C=2")]
                cannot take the variables in vars.env: line 1: its value here is not UTF-8
                cannot read the variables in vars.env
            "#]],
        );
    }
}
