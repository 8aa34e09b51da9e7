//! Numbers, booleans and null where a text is due, beside each other in all four formats.
#![allow(clippy::too_many_lines, reason = "an expectation is as long as what is said")]

use expect_test::{Expect, expect};
use hearth_desired_file::{Format, parse_as};
use std::fmt::Write;

/// A file whose one job has this variable, written as it stands.
fn with_env(format: Format, value: &str) -> String {
    with(format, "128", &format!("V{}{value}", if format == Format::Toml { " = " } else { ": " }))
}

fn with(format: Format, mem_mb: &str, env: &str) -> String {
    match format {
        Format::Elixir => format!(
            "[{{\"a\", %{{rootfs: \"r\", kernel: \"k\", cmd: [\"/a\"], lifecycle: :service,\n\
             resources: %{{vcpu: 1, mem_mb: {mem_mb}}},\nenv: %{{{env}}}}}}}]\n"
        ),
        Format::Toml => format!(
            "[[vm]]\njob_id = \"a\"\n[vm.spec]\nrootfs = \"r\"\nkernel = \"k\"\ncmd = [\"/a\"]\n\
             lifecycle = \"service\"\nresources = {{ vcpu = 1, mem_mb = {mem_mb} }}\n\
             [vm.spec.env]\n{env}\n"
        ),
        Format::Yaml => format!(
            "- job_id: a\n  spec:\n    rootfs: r\n    kernel: k\n    cmd: [/a]\n    lifecycle: service\n\
             \x20   resources: {{vcpu: 1, mem_mb: {mem_mb}}}\n    env:\n      {env}\n"
        ),
        Format::Json => format!(
            "[{{\"job_id\": \"a\", \"spec\": {{\"rootfs\": \"r\", \"kernel\": \"k\", \"cmd\": [\"/a\"], \
             \"lifecycle\": \"service\",\n\"resources\": {{\"vcpu\": 1, \"mem_mb\": {mem_mb}}},\n\
             \"env\": {{{}}}}}}}]\n",
            env.replacen('V', "\"V\"", 1)
        ),
    }
}

/// What is said of one file, or which variables it has.
fn said(format: Format, text: &str) -> String {
    match parse_as(format, "f", text) {
        Ok(file) => format!("{:?}", file.jobs[0].spec.env),
        Err(problems) => {
            let said = problems.iter().map(|problem| {
                let help = problem.help.as_ref().map(|help| format!("; {help}"));
                format!("{}{}", problem.message, help.unwrap_or_default())
            });
            said.collect::<Vec<_>>().join(" | ")
        }
    }
}

fn check_env(values: &[&str], expected: Expect) {
    let mut seen = String::new();
    for value in values {
        let _ = writeln!(seen, "{value}");
        for format in Format::ALL {
            let said = said(format, &with_env(format, value));
            let _ = writeln!(seen, "  {}: {said}", format.extension());
        }
    }
    expected.assert_eq(&seen);
}

fn check_mem(values: &[&str], expected: Expect) {
    let mut seen = String::new();
    for value in values {
        let _ = writeln!(seen, "{value}");
        for format in Format::ALL {
            let env = if format == Format::Toml { "V = \"1\"" } else { "V: \"1\"" };
            let said = said(format, &with(format, value, env));
            let _ = writeln!(seen, "  {}: {said}", format.extension());
        }
    }
    expected.assert_eq(&seen);
}

#[test]
fn hints_quote_what_was_written() {
    check_env(
        &[
            "1.10",
            "01234",
            "0012e45",
            "1_000",
            "0x1F",
            "0b101",
            "18446744073709551615",
            "1e3",
            "1.0e400",
            "-0",
            "+5",
            "true",
            "True",
            "yes",
            "~",
            "null",
            "nil",
            "nan",
            "inf",
            ".inf",
            "2026-01-01",
            "12:30",
            "1.2.3",
            "12abc",
            ":name",
        ],
        expect![[r#"
            1.10
              exs: job `a`: `env.V`: expected a string, found 1.10; write "1.10"
              toml: job `a`: `env.V`: expected a string, found 1.10; write "1.10"
              yaml: job `a`: `env.V`: expected a string, found 1.10; write "1.10"
              json: job `a`: `env.V`: expected a string, found 1.10; write "1.10"
            01234
              exs: job `a`: `env.V`: expected a string, found 01234; write "01234"
              toml: unexpected leading zero, expected nothing; write "01234" if a string is meant
              yaml: job `a`: `env.V`: expected a string, found 01234; write "01234"
              json: `01234` is not a JSON number; write "01234" if a string is meant; a JSON number has decimal digits, without zeros in front
            0012e45
              exs: `e45` cannot follow the number 0012; write "0012e45" if a string is meant; or 0012: a unit is part of a field's name, as in `mem_mb`
              toml: unexpected leading zero, expected nothing; write "0012e45" if a string is meant
              yaml: job `a`: `env.V`: expected a string, found 0012e45; write "0012e45"
              json: `0012e45` is not a JSON number; write "0012e45" if a string is meant; a JSON number has decimal digits, without zeros in front
            1_000
              exs: job `a`: `env.V`: expected a string, found 1_000; write "1_000"
              toml: job `a`: `env.V`: expected a string, found 1_000; write "1_000"
              yaml: {"V": "1_000"}
              json: `1_000` is not a JSON number; write "1_000" if a string is meant; a JSON number has decimal digits, without zeros in front
            0x1F
              exs: job `a`: `env.V`: expected a string, found 0x1F; write "0x1F"
              toml: job `a`: `env.V`: expected a string, found 0x1F; write "0x1F"
              yaml: job `a`: `env.V`: expected a string, found 0x1F; write "0x1F"
              json: `0x1F` is not a JSON number; write "0x1F" if a string is meant; a JSON number has decimal digits, without zeros in front
            0b101
              exs: job `a`: `env.V`: expected a string, found 0b101; write "0b101"
              toml: job `a`: `env.V`: expected a string, found 0b101; write "0b101"
              yaml: {"V": "0b101"}
              json: `0b101` is not a JSON number; write "0b101" if a string is meant; a JSON number has decimal digits, without zeros in front
            18446744073709551615
              exs: job `a`: `env.V`: expected a string, found 18446744073709551615; write "18446744073709551615"
              toml: job `a`: `env.V`: expected a string, found 18446744073709551615; write "18446744073709551615"
              yaml: job `a`: `env.V`: expected a string, found 18446744073709551615; write "18446744073709551615"
              json: job `a`: `env.V`: expected a string, found 18446744073709551615; write "18446744073709551615"
            1e3
              exs: `e3` cannot follow the number 1; write "1e3" if a string is meant; or 1: a unit is part of a field's name, as in `mem_mb`
              toml: job `a`: `env.V`: expected a string, found 1e3; write "1e3"
              yaml: job `a`: `env.V`: expected a string, found 1e3; write "1e3"
              json: job `a`: `env.V`: expected a string, found 1e3; write "1e3"
            1.0e400
              exs: the number is too large; write "1.0e400" if a string is meant
              toml: job `a`: `env.V`: expected a string, found 1.0e400; write "1.0e400"
              yaml: job `a`: `env.V`: expected a string, found 1.0e400; write "1.0e400"
              json: job `a`: `env.V`: expected a string, found 1.0e400; write "1.0e400"
            -0
              exs: job `a`: `env.V`: expected a string, found -0; write "-0"
              toml: job `a`: `env.V`: expected a string, found -0; write "-0"
              yaml: job `a`: `env.V`: expected a string, found -0; write "-0"
              json: job `a`: `env.V`: expected a string, found -0; write "-0"
            +5
              exs: job `a`: `env.V`: expected a string, found +5; write "+5"
              toml: job `a`: `env.V`: expected a string, found +5; write "+5"
              yaml: job `a`: `env.V`: expected a string, found +5; write "+5"
              json: `+5` is not a JSON number; write "+5" if a string is meant; a JSON number has decimal digits, without zeros in front
            true
              exs: job `a`: `env.V`: expected a string, found true; write "true"
              toml: job `a`: `env.V`: expected a string, found true; write "true"
              yaml: job `a`: `env.V`: expected a string, found true; write "true"
              json: job `a`: `env.V`: expected a string, found true; write "true"
            True
              exs: cannot take the module name `True`: the file is read as data, nothing in it is evaluated; write `true`
              toml: invalid boolean, expected `true`; write "True" if a string is meant
              yaml: job `a`: `env.V`: expected a string, found True; write "True"
              json: `True` is not a JSON value; write `true`, or "True" if a string is meant
            yes
              exs: cannot take the variable `yes`: the file is read as data, nothing in it is evaluated; write "yes" if a string is meant, or else the value itself
              toml: string values must be quoted, expected literal string; write "yes" if a string is meant
              yaml: {"V": "yes"}
              json: `yes` is not a JSON value; write `true`, or "yes" if a string is meant
            ~
              exs: expected a value, found `~`
              toml: string values must be quoted, expected literal string; write "~" if a string is meant
              yaml: job `a`: `env.V`: expected a string, found ~; write "~", or "" for an empty text
              json: expected a value, found `~`
            null
              exs: cannot take the variable `null`: the file is read as data, nothing in it is evaluated; write `nil`
              toml: invalid float, expected `nan`; write "null" if a string is meant
              yaml: job `a`: `env.V`: expected a string, found null; write "null", or "" for an empty text
              json: job `a`: `env.V`: expected a string, found null; write "null", or "" for an empty text
            nil
              exs: job `a`: `env.V`: expected a string, found nil; write "nil", or "" for an empty text
              toml: invalid float, expected `nan`; write "nil" if a string is meant
              yaml: {"V": "nil"}
              json: `nil` is not a JSON value; write `null`
            nan
              exs: cannot take the variable `nan`: the file is read as data, nothing in it is evaluated; write "nan" if a string is meant, or else the value itself
              toml: job `a`: `env.V`: expected a string, found nan; write "nan"
              yaml: {"V": "nan"}
              json: `nan` is not a JSON value; write "nan" if a string is meant
            inf
              exs: cannot take the variable `inf`: the file is read as data, nothing in it is evaluated; write "inf" if a string is meant, or else the value itself
              toml: job `a`: `env.V`: expected a string, found inf; write "inf"
              yaml: {"V": "inf"}
              json: `inf` is not a JSON value; write "inf" if a string is meant
            .inf
              exs: cannot take the operator `.`: the file is read as data, nothing in it is evaluated; write the value that the call would give
              toml: invalid mantissa, expected digits; write ".inf" if a string is meant
              yaml: {"V": ".inf"}
              json: `.inf` is not a JSON value; write ".inf" if a string is meant
            2026-01-01
              exs: cannot take the operator `-`: the file is read as data, nothing in it is evaluated; write "2026-01-01" if a string is meant
              toml: a date has no place in the file; write "2026-01-01" if a string is meant
              yaml: {"V": "2026-01-01"}
              json: `2026-01-01` is not a JSON number; write "2026-01-01" if a string is meant; a JSON number has decimal digits, without zeros in front
            12:30
              exs: expected `,` or `}`, found `:30` | expected a name right after `:`; a name that is not made of ASCII letters, digits and `_` is quoted: `:"…"`
              toml: a date has no place in the file; write "12:30" if a string is meant
              yaml: {"V": "12:30"}
              json: expected `,` or `}`, found `:`
            1.2.3
              exs: cannot take the operator `.`: the file is read as data, nothing in it is evaluated; write "1.2.3" if a string is meant
              toml: invalid float, expected nothing; write "1.2.3" if a string is meant
              yaml: {"V": "1.2.3"}
              json: `1.2.3` is not a JSON number; write "1.2.3" if a string is meant; a JSON number has decimal digits, without zeros in front
            12abc
              exs: `abc` cannot follow the number 12; write "12abc" if a string is meant; or 12: a unit is part of a field's name, as in `mem_mb`
              toml: string values must be quoted, expected literal string; write "12abc" if a string is meant
              yaml: {"V": "12abc"}
              json: `12abc` is not a JSON number; write "12abc" if a string is meant; a JSON number has decimal digits, without zeros in front
            :name
              exs: {"V": "name"}
              toml: string values must be quoted, expected literal string; write ":name" if a string is meant
              yaml: {"V": ":name"}
              json: expected a value, found `:`
        "#]],
    );
}

#[test]
fn a_scalar_that_is_very_long_is_cut() {
    let long = "1".repeat(1000);
    let cut = format!("found {}…; put it in quotes", &long[..64]);
    for format in Format::ALL {
        let said = said(format, &with_env(format, &long));
        assert!(said.ends_with(&cut), "{format}: {said}");
    }
}

#[test]
fn an_alias_of_yaml_is_quoted_as_what_it_names() {
    let text = with_env(Format::Yaml, "&v 1.10\n      W: *v");
    expect![[r#"job `a`: `env.V`: expected a string, found 1.10; write "1.10" | job `a`: `env.W`: expected a string, found 1.10; write "1.10""#]].assert_eq(&said(Format::Yaml, &text));
}

#[test]
fn integers_out_of_range_are_called_that() {
    check_mem(
        &[
            "18446744073709551616",
            "-9223372036854775809",
            "1e3",
            "1.0e3",
            "512.0",
            "0.5",
            "-0",
            "0x80",
            "1e999",
        ],
        expect![[r#"
            18446744073709551616
              exs: job `a`: `resources.mem_mb`: 18446744073709551616 is out of range: 1 to 1048576
              toml: job `a`: `resources.mem_mb`: 18446744073709551616 is out of range: 1 to 1048576
              yaml: job `a`: `resources.mem_mb`: 18446744073709551616 is out of range: 1 to 1048576
              json: job `a`: `resources.mem_mb`: 18446744073709551616 is out of range: 1 to 1048576
            -9223372036854775809
              exs: job `a`: `resources.mem_mb`: -9223372036854775809 is out of range: 1 to 1048576
              toml: job `a`: `resources.mem_mb`: -9223372036854775809 is out of range: 1 to 1048576
              yaml: job `a`: `resources.mem_mb`: -9223372036854775809 is out of range: 1 to 1048576
              json: job `a`: `resources.mem_mb`: -9223372036854775809 is out of range: 1 to 1048576
            1e3
              exs: `e3` cannot follow the number 1; write "1e3" if a string is meant; or 1: a unit is part of a field's name, as in `mem_mb`
              toml: job `a`: `resources.mem_mb`: expected an integer, found 1e3; write 1000
              yaml: job `a`: `resources.mem_mb`: expected an integer, found 1e3; write 1000
              json: job `a`: `resources.mem_mb`: expected an integer, found 1e3; write 1000
            1.0e3
              exs: job `a`: `resources.mem_mb`: expected an integer, found 1.0e3; write 1000
              toml: job `a`: `resources.mem_mb`: expected an integer, found 1.0e3; write 1000
              yaml: job `a`: `resources.mem_mb`: expected an integer, found 1.0e3; write 1000
              json: job `a`: `resources.mem_mb`: expected an integer, found 1.0e3; write 1000
            512.0
              exs: job `a`: `resources.mem_mb`: expected an integer, found 512.0; write 512
              toml: job `a`: `resources.mem_mb`: expected an integer, found 512.0; write 512
              yaml: job `a`: `resources.mem_mb`: expected an integer, found 512.0; write 512
              json: job `a`: `resources.mem_mb`: expected an integer, found 512.0; write 512
            0.5
              exs: job `a`: `resources.mem_mb`: expected an integer, found 0.5
              toml: job `a`: `resources.mem_mb`: expected an integer, found 0.5
              yaml: job `a`: `resources.mem_mb`: expected an integer, found 0.5
              json: job `a`: `resources.mem_mb`: expected an integer, found 0.5
            -0
              exs: job `a`: `resources.mem_mb`: -0 is out of range: 1 to 1048576
              toml: job `a`: `resources.mem_mb`: -0 is out of range: 1 to 1048576
              yaml: job `a`: `resources.mem_mb`: -0 is out of range: 1 to 1048576
              json: job `a`: `resources.mem_mb`: -0 is out of range: 1 to 1048576
            0x80
              exs: {"V": "1"}
              toml: {"V": "1"}
              yaml: {"V": "1"}
              json: `0x80` is not a JSON number; write "0x80" if a string is meant; a JSON number has decimal digits, without zeros in front
            1e999
              exs: `e999` cannot follow the number 1; write "1e999" if a string is meant; or 1: a unit is part of a field's name, as in `mem_mb`
              toml: job `a`: `resources.mem_mb`: expected an integer, found 1e999
              yaml: job `a`: `resources.mem_mb`: expected an integer, found 1e999
              json: job `a`: `resources.mem_mb`: expected an integer, found 1e999
        "#]],
    );
}

#[test]
fn names_of_variables_hold_nothing_that_does_not_show() {
    let name = |format: Format, name: &str| {
        let quoted = match format {
            Format::Json | Format::Yaml => format!("\"{name}\": \"1\""),
            Format::Toml => format!("\"{name}\" = \"1\""),
            Format::Elixir => format!("\"{name}\" => \"1\""),
        };
        said(format, &with(format, "128", &quoted))
    };
    // Escapes that all four share.
    for (escape, fault) in [
        ("", "it is empty"),
        ("A=B", "it holds `=`"),
        ("A\\u0001B", "it holds a control character"),
        ("A\\nB", "it holds a control character"),
        ("\\tA", "it holds a control character"),
        ("A\\u001b[31m", "it holds a control character"),
        ("A\\u0085", "it holds a control character"),
        ("A\\u0000", "it holds a control character"),
        ("\\uFEFFA", "it holds the invisible character U+FEFF"),
        ("A\\u200BB", "it holds the invisible character U+200B"),
        ("\\u202EA", "it holds the invisible character U+202E"),
    ] {
        for format in Format::ALL {
            let said = name(format, escape);
            assert!(
                said.ends_with(&format!("can't name an environment variable: {fault}")),
                "{said}"
            );
        }
    }
    for taken in ["A B", "a.b-c", "\\u00C9", "1"] {
        for format in Format::ALL {
            assert!(name(format, taken).starts_with('{'), "{format} {taken}");
        }
    }
}
