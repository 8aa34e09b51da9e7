//! Bodies of requests: the same reader as for files, with JSON pointers for places.
#![allow(clippy::too_many_lines, reason = "an expectation is as long as what is said")]

use expect_test::{Expect, expect};
use hearth_desired_file::{
    BodyError, Format, PROBLEMS_MAX, parse_as, read_declaration, read_declared,
};
use std::fmt::Write;

const FIELDS: &str = r#""rootfs":"r","kernel":"k","cmd":["/a"],"lifecycle":"service","resources":{"vcpu":1,"mem_mb":128}"#;

/// A body whose job has these fields, too.
fn with(more: &str) -> String {
    format!(r#"{{"job_id":"a","spec":{{{FIELDS}{more}}}}}"#)
}

/// A body whose job has these variables.
fn with_env(env: &str) -> String {
    with(&format!(r#","env":{{{env}}}"#))
}

fn said(error: BodyError) -> String {
    let mut said = String::new();
    match error {
        BodyError::NotJson(at) => {
            let _ = writeln!(said, "not JSON: {at}");
        }
        BodyError::Fields { problems, omitted } => {
            for problem in problems {
                let help = problem.help.map(|help| format!(" ({help})")).unwrap_or_default();
                let _ = writeln!(said, "{}: {}{help}", problem.pointer, problem.detail);
            }
            if omitted > 0 {
                let _ = writeln!(said, "and {omitted} more");
            }
        }
    }
    said
}

fn check_one(bodies: &[&str], expected: Expect) {
    let said = bodies.iter().map(|body| match read_declaration(body.as_bytes()) {
        Ok((declaration, _)) => format!("{:?}\n", declaration.spec.env),
        Err(error) => said(error),
    });
    expected.assert_eq(&said.collect::<String>());
}

fn check_many(bodies: &[&str], expected: Expect) {
    let said = bodies.iter().map(|body| match read_declared(body.as_bytes(), &|| false) {
        Ok(declared) => format!("{} jobs\n", declared.jobs.len()),
        Err(error) => said(error),
    });
    expected.assert_eq(&said.collect::<String>());
}

#[test]
fn duplicate_keys_are_refused_at_every_depth() {
    let twice = r#"{"job_id":"a","job_id":"b","spec":{"rootfs":"r","kernel":"k","cmd":["/a"],"cmd":["/b"],
        "lifecycle":"service","env":{"A":"1","B":"2","A":"3","A":"4","\u0042":"5"},
        "resources":{"vcpu":1,"mem_mb":128,"vcpu":2},
        "ready":{"http":{"port":80,"path":"/","port":81}}}}"#;
    let many = format!(
        r#"{{"source":"/a","source":"/b","entries":[{twice}],"allow_delete":true,"allow_delete":false}}"#
    );
    let twice_entries = format!(r#"{{"entries":[],"entries":[{}]}}"#, with(""));
    check_one(
        &[twice],
        expect![[r#"
        /job_id: duplicate key `job_id` (remove one of the two; most readers of JSON would take the last)
        /spec/cmd: duplicate key `cmd` (remove one of the two; most readers of JSON would take the last)
        /spec/env/A: duplicate key `A` (remove one of the two; most readers of JSON would take the last)
        /spec/env/A: duplicate key `A` (remove one of the two; most readers of JSON would take the last)
        /spec/env/B: duplicate key `B` (remove one of the two; most readers of JSON would take the last)
        /spec/resources/vcpu: duplicate key `vcpu` (remove one of the two; most readers of JSON would take the last)
        /spec/ready/http/port: duplicate key `port` (remove one of the two; most readers of JSON would take the last)
    "#]],
    );
    check_many(
        &[&many, &twice_entries],
        expect![[r#"
        /source: duplicate key `source` (remove one of the two; most readers of JSON would take the last)
        /entries/0/job_id: duplicate key `job_id` (remove one of the two; most readers of JSON would take the last)
        /entries/0/spec/cmd: duplicate key `cmd` (remove one of the two; most readers of JSON would take the last)
        /entries/0/spec/env/A: duplicate key `A` (remove one of the two; most readers of JSON would take the last)
        /entries/0/spec/env/A: duplicate key `A` (remove one of the two; most readers of JSON would take the last)
        /entries/0/spec/env/B: duplicate key `B` (remove one of the two; most readers of JSON would take the last)
        /entries/0/spec/resources/vcpu: duplicate key `vcpu` (remove one of the two; most readers of JSON would take the last)
        /entries/0/spec/ready/http/port: duplicate key `port` (remove one of the two; most readers of JSON would take the last)
        /allow_delete: duplicate key `allow_delete` (remove one of the two; most readers of JSON would take the last)
        /entries: duplicate key `entries` (remove one of the two; most readers of JSON would take the last)
    "#]],
    );
}

#[test]
fn hints_quote_what_was_written() {
    let envs = [
        r#""V":1.10"#,
        r#""V":12345678901234567890123456789"#,
        r#""V":-0"#,
        r#""V":1E3,"W":1e400,"X":-0.0,"Y":true,"Z":null"#,
        r#""V":[1],"W":{"x":1}"#,
    ];
    let bodies = envs.map(with_env);
    let long = with_env(&format!(r#""V":1{}"#, "0".repeat(100_000)));
    let mut bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    bodies.push(&long);
    check_one(
        &bodies,
        expect![[r#"
        /spec/env/V: expected a string, found 1.10 (write "1.10")
        /spec/env/V: expected a string, found 12345678901234567890123456789 (write "12345678901234567890123456789")
        /spec/env/V: expected a string, found -0 (write "-0")
        /spec/env/V: expected a string, found 1E3 (write "1E3")
        /spec/env/W: expected a string, found 1e400 (write "1e400")
        /spec/env/X: expected a string, found -0.0 (write "-0.0")
        /spec/env/Y: expected a string, found true (write "true")
        /spec/env/Z: expected a string, found null (write "null", or "" for an empty text)
        /spec/env/V: expected a string, found a list
        /spec/env/W: expected a string, found a map
        /spec/env/V: expected a string, found 1000000000000000000000000000000000000000000000000000000000000000… (put it in quotes)
    "#]],
    );
    let not_json = [
        r#""V":01234"#,
        r#""V":0012e45"#,
        r#""V":1."#,
        r#""V":0x1F"#,
        r#""V":+5"#,
        r#""V":NaN"#,
        r#""V":1_000"#,
        r#""V":yes"#,
        r#""V":True"#,
        r#""V":.5"#,
        r#""V":2026-01-01"#,
    ];
    let bodies = not_json.map(with_env);
    check_one(
        &bodies.each_ref().map(String::as_str),
        expect![[r#"
        not JSON: 1:131: `01234` is not a JSON number; write "01234" if a string is meant; a JSON number has decimal digits, without zeros in front
        not JSON: 1:131: `0012e45` is not a JSON number; write "0012e45" if a string is meant; a JSON number has decimal digits, without zeros in front
        not JSON: 1:131: `1.` is not a JSON number; write "1." if a string is meant; a JSON number has decimal digits, without zeros in front
        not JSON: 1:131: `0x1F` is not a JSON number; write "0x1F" if a string is meant; a JSON number has decimal digits, without zeros in front
        not JSON: 1:131: `+5` is not a JSON number; write "+5" if a string is meant; a JSON number has decimal digits, without zeros in front
        not JSON: 1:131: `NaN` is not a JSON value; write "NaN" if a string is meant
        not JSON: 1:131: `1_000` is not a JSON number; write "1_000" if a string is meant; a JSON number has decimal digits, without zeros in front
        not JSON: 1:131: `yes` is not a JSON value; write `true`, or "yes" if a string is meant
        not JSON: 1:131: `True` is not a JSON value; write `true`, or "True" if a string is meant
        not JSON: 1:131: `.5` is not a JSON value; write ".5" if a string is meant
        not JSON: 1:131: `2026-01-01` is not a JSON number; write "2026-01-01" if a string is meant; a JSON number has decimal digits, without zeros in front
    "#]],
    );
}

#[test]
fn numbers_that_are_not_integers_in_range_are_named() {
    let bodies = [
        "18446744073709551616",
        "9223372036854775808",
        "1e3",
        "2.0",
        "2e-0",
        "0.5",
        "1e400",
        "-1",
        "-0",
        "\"2\"",
    ]
    .map(|vcpu| with("").replace(r#""vcpu":1"#, &format!(r#""vcpu":{vcpu}"#)));
    check_one(
        &bodies.each_ref().map(String::as_str),
        expect![[r#"
        /spec/resources/vcpu: 18446744073709551616 is out of range: 1 to 32
        /spec/resources/vcpu: 9223372036854775808 is out of range: 1 to 32
        /spec/resources/vcpu: expected an integer, found 1e3
        /spec/resources/vcpu: expected an integer, found 2.0 (write 2)
        /spec/resources/vcpu: expected an integer, found 2e-0 (write 2)
        /spec/resources/vcpu: expected an integer, found 0.5
        /spec/resources/vcpu: expected an integer, found 1e400
        /spec/resources/vcpu: -1 is out of range: 1 to 32
        /spec/resources/vcpu: -0 is out of range: 1 to 32
        /spec/resources/vcpu: expected an integer, found a string
    "#]],
    );
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    let nested = "[".repeat(100_000);
    check_one(
        &[
            "",
            " ",
            "{",
            "[]",
            "null",
            "{\"spec\":",
            "{\"spec\":{},}",
            "{} {}",
            "{\n  // x\n}",
            "{'a':1}",
            "{\"a\":\"\t\"}",
            "{\"a\":\"\\ud800\"}",
            "\u{feff}{}",
            &nested,
        ],
        expect![[r#"
            not JSON: 1:1: it is empty
            not JSON: 1:1: it is empty
            not JSON: 1:2: expected `}` to close the map, found the end of the text
            : expected an object, found a list
            : expected an object, found null
            not JSON: 1:9: expected a value, found the end of the text
            not JSON: 1:11: JSON has no comma behind the last element; remove it
            not JSON: 1:4: there is more than one value
            not JSON: 2:3: JSON has no comments; remove it
            not JSON: 1:2: JSON has double quotes only; write "a"
            not JSON: 1:7: a control character stands in the string; write `\u0009`, or `\t` for a tab
            not JSON: 1:7: no escape of a character; `\u` stands before four hexadecimal digits; a character beyond U+FFFF takes two of them
            /spec: missing field `spec`
            not JSON: 1:65: nested too deeply: 64 levels are the limit
        "#]],
    );
    assert_eq!(
        said(read_declaration(b"{\"a\": \"\xff\"}").unwrap_err()),
        "not JSON: 1:8: byte 0xFF is not UTF-8\n"
    );
}

#[test]
fn fields_around_the_entries_are_checked() {
    let entry = with("");
    let no_cmd = entry.replace(r#"["/a"]"#, "7").replace(r#""a""#, r#""b""#);
    let unnamed = entry.replace(r#""job_id":"a","#, "");
    let vm_id = entry.replace("job_id", "vm_id");
    let body = format!(
        r#"{{"source":"vms.exs","allow_delet":true,"allow_delete":"yes",
            "entries":[{entry},{unnamed},{entry},{no_cmd},{vm_id},5]}}"#
    );
    check_many(
        &[
            &body,
            "[]",
            r#"{"source":5}"#,
            r#"{"entries":{}}"#,
            r#"{"entries":null,"source":null}"#,
            r#"{"entries":[],"source":"/a\u0000"}"#,
        ],
        expect![[r#"
            /source: "vms.exs" is not an absolute path (leave it out if no file declares the jobs)
            /allow_delet: unknown field `allow_delet` (did you mean `allow_delete`?)
            /allow_delete: expected a boolean, found a string
            /entries/1/job_id: missing field `job_id` (an entry is a map with job_id, tenant and spec)
            /entries/2/job_id: /entries/0 declares job "a" already (a job id names one job; rename or remove one of the two)
            /entries/3/spec/cmd: expected a list of strings, found an integer
            /entries/4/vm_id: /entries/0 declares job "a" already (a job id names one job; rename or remove one of the two)
            /entries/5: expected an entry, found an integer (an entry is a map with job_id, tenant and spec)
            : expected an object, found a list
            /entries: missing field `entries`
            /source: expected a string, found an integer
            /entries: expected a list, found a map
            /entries: missing field `entries`
            /source: "/a\0" is not an absolute path (leave it out if no file declares the jobs)
        "#]],
    );
}

#[test]
fn problems_beyond_the_bound_are_counted() {
    let body = |entry: &str, count: usize| format!("{{\"entries\":[{}{{}}]}}", entry.repeat(count));
    let hostile = body("{},", 100_000);
    let Err(BodyError::Fields { problems, omitted }) = read_declared(hostile.as_bytes(), &|| false)
    else {
        panic!("it has problems");
    };
    assert_eq!((problems.len(), omitted), (PROBLEMS_MAX, 2 * 100_001 - PROBLEMS_MAX));
    // Unknown fields of one map, and a pointer that is as long as the body.
    let keys: String = (0..30_000).fold(String::new(), |mut keys, n| {
        let _ = write!(keys, "\"k{n}\":1,");
        keys
    });
    let long = "x".repeat(1_000_000);
    for hostile in [
        format!("{{\"entries\":[{{{keys}\"a\":1}}]}}"),
        format!("{{\"entries\":[{{\"spec\":{{\"env\":{{{keys}\"a\":1}}}}}}]}}"),
        format!("{{\"entries\":[{{\"{long}\":{{\"a\":1,\"a\":2}}}}]}}"),
        format!("{{{keys}\"entries\":[]}}"),
    ] {
        let answer = said(read_declared(hostile.as_bytes(), &|| false).unwrap_err());
        assert!(answer.len() < 100_000, "{} bytes", answer.len());
    }
}

#[test]
fn a_body_and_a_file_take_the_same_entries() {
    for entry in [
        with(""),
        with(r#","env":{"A":"1"}"#),
        with(r#","env":{"A":1}"#),
        with(r#","env":{"A":"1","A":"1"}"#),
        with(r#","retries":1"#),
        with(r#","disk_mb":1e3"#),
        with(r#","disk_mb":-0"#),
        with(r#","disk_mb":01"#),
        with(r#","disk_mb":64,"#),
        with(r#","disk_mb":64,"nothing":1"#),
        with(r#","env":{"A":"\ud83d\ude00"}"#),
        with(r#","env":{"A":"\ud83d"}"#),
    ] {
        let file = format!("[{entry}]");
        let in_file = parse_as(Format::Json, "f.json", &file).map(|file| file.jobs);
        let in_list = read_declared(format!("{{\"entries\":{file}}}").as_bytes(), &|| false);
        let alone = read_declaration(entry.as_bytes());
        match (in_file, in_list, alone) {
            (Ok(file), Ok(list), Ok((declaration, _))) => {
                assert_eq!((&file[0].spec, &list.jobs[0].spec), (&declaration.spec, &file[0].spec));
            }
            (Err(_), Err(_), Err(_)) => {}
            (file, list, alone) => panic!("{entry}\n{file:?}\n{list:?}\n{alone:?}"),
        }
    }
}
