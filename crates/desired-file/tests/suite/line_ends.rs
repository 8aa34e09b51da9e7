//! A document means the same whatever ends its lines, and in every format.

use hearth_desired_file::{Format, parse_as};
use std::collections::BTreeMap;

/// Files that each declare the same two variables of several lines.
const FILES: [(Format, &str); 4] = [
    (
        Format::Elixir,
        "[{\"a\", %{rootfs: \"r\", kernel: \"k\", cmd: [\"/a\"], lifecycle: :service,
  resources: %{vcpu: 1, mem_mb: 128},
  env: %{
    HEREDOC: \"\"\"
    one
      two \\\\ \\r\\n\\
    three
    \"\"\",
    RAW: ~S'''
    x\\
    y
    ''',
    QUOTED: \"one
two\\tx
\",
    SIGIL: ~s(one
two)
  }}}]
",
    ),
    (
        Format::Toml,
        "[[vm]]
job_id = \"a\"
[vm.spec]
rootfs = \"r\"
kernel = \"k\"
cmd = [\"/a\"]
lifecycle = \"service\"
resources = { vcpu = 1, mem_mb = 128 }
[vm.spec.env]
HEREDOC = \"\"\"
one
  two \\\\ \\r\\nthree
\"\"\"
RAW = '''
x\\
y
'''
QUOTED = \"\"\"one
two\\tx
\"\"\"
SIGIL = \"\"\"
one
tw\\
  o\"\"\"
",
    ),
    (
        Format::Yaml,
        "- job_id: a
  spec:
    rootfs: r
    kernel: k
    cmd: [/a]
    lifecycle: service
    resources: {vcpu: 1, mem_mb: 128}
    env:
      HEREDOC: \"one\\n\\
        \\  two \\\\ \\r\\nthree\\n\"
      RAW: |
        x\\
        y
      QUOTED: \"one

        two\\tx

        \"
      SIGIL: |-
        one
        two
",
    ),
    (
        Format::Json,
        "[{\"job_id\": \"a\", \"spec\": {\"rootfs\": \"r\", \"kernel\": \"k\", \"cmd\": [\"/a\"],
  \"lifecycle\": \"service\", \"resources\": {\"vcpu\": 1, \"mem_mb\": 128},
  \"env\": {
    \"HEREDOC\": \"one\\n  two \\\\ \\r\\nthree\\n\",
    \"RAW\": \"x\\\\\\ny\\n\",
    \"QUOTED\": \"one\\ntwo\\tx\\n\",
    \"SIGIL\": \"one\\ntwo\"
  }}}]
",
    ),
];

fn env(format: Format, text: &str) -> BTreeMap<String, String> {
    let file =
        parse_as(format, "f", text).unwrap_or_else(|problems| panic!("{format}: {problems}"));
    file.jobs[0].spec.env.clone()
}

#[test]
fn windows_line_ends_change_no_text_in_any_format() {
    let expected = [
        ("HEREDOC", "one\n  two \\ \r\nthree\n"),
        ("RAW", "x\\\ny\n"),
        ("QUOTED", "one\ntwo\tx\n"),
        ("SIGIL", "one\ntwo"),
    ];
    let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    for (format, text) in FILES {
        assert_eq!(env(format, text), expected, "{format}, LF");
        assert_eq!(env(format, &text.replace('\n', "\r\n")), expected, "{format}, CRLF");
        let marked = format!("\u{FEFF}{}", text.replace('\n', "\r\n"));
        assert_eq!(env(format, &marked), expected, "{format}, CRLF behind a byte order mark");
    }
}

#[test]
fn line_ends_of_both_kinds_in_one_file_change_no_text() {
    for (format, text) in FILES {
        let mut lines = 0;
        let mixed: String = text
            .split_inclusive('\n')
            .map(|line| {
                lines += 1;
                if lines % 2 == 0 { line.replace('\n', "\r\n") } else { line.to_owned() }
            })
            .collect();
        assert_eq!(env(format, &mixed), env(format, text), "{format}");
    }
}

/// YAML 1.2 takes it for a line break, which it is outside of texts there, too.
#[test]
fn carriage_return_alone_is_never_a_part_of_a_text() {
    for (format, text) in FILES {
        let (old, new) = match format {
            Format::Json => ("\"one\\ntwo\"", "\"one\rtwo\""),
            _ => ("one\n", "one\r"),
        };
        let text = text.replacen(old, new, 1);
        match parse_as(format, "f", &text) {
            Ok(file) => {
                assert_eq!(format, Format::Yaml);
                assert!(
                    file.jobs[0]
                        .spec
                        .env
                        .values()
                        .all(|text| !text.replace("\r\n", "").contains('\r'))
                );
            }
            Err(problems) => assert!(!problems.to_string().is_empty(), "{format}"),
        }
    }
    let problems = parse_as(Format::Elixir, "f", "[{\"a\", %{rootfs: \"r\rs\"}}]").unwrap_err();
    let found = problems.iter().map(ToString::to_string).find(|said| said.contains("carriage"));
    assert_eq!(
        found.as_deref(),
        Some(
            "1:20: a carriage return alone stands in the text; write `\\r`, or end the line with a line feed"
        )
    );
}
