//! That the measurements that read what the daemon writes still can. What they measure is not of interest.

use std::path::Path;
use std::process::Command;

#[test]
fn claims_are_compared_with_the_rows_they_write() {
    let bench = Path::new(env!("CARGO_BIN_EXE_hearth-bench"));
    let hearth = bench.with_file_name("hearth");
    assert!(hearth.is_file(), "{} is built with the workspace", hearth.display());
    let dir = tempfile::tempdir().expect("a directory");
    let output = Command::new(bench)
        .args(["claims", "--samples", "3", "--rounds", "1"])
        .arg("--hearth")
        .arg(&hearth)
        .arg("--baseline")
        .arg(&hearth)
        .arg("--dir")
        .arg(dir.path())
        .output()
        .expect("it is run");
    let (said, error) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{error}");
    let said = String::from_utf8(said).expect("UTF-8");
    for figure in ["201 against a bare commit, p50", "201 against a bare commit, p99"] {
        let line = said.lines().find(|line| line.contains(figure)).expect("its line");
        assert!(line.contains(" of the baseline") && !line.contains("NaN"), "{line}");
    }
}
