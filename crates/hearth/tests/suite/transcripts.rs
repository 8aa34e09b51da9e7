//! What every command prints, word for word: the files in `cmd` against a real daemon over a
//! simulated host. `TRYCMD=overwrite cargo test -p hearth --test transcripts` writes them again.

use crate::support::{DEADLINE, Daemon, Home, body, sim};

/// Plays a transcript. `[..]` in it stands for what differs from run to run.
fn play(name: &str, daemon: &Daemon) {
    let cases = trycmd::TestCases::new();
    cases
        .env("HEARTH_URL", &daemon.url)
        .env("HEARTH_CONFIG", "/dev/null")
        .env("COLUMNS", "100")
        .env("NO_COLOR", "")
        .env("CLICOLOR_FORCE", "")
        .timeout(DEADLINE)
        .case(format!("tests/cmd/{name}.trycmd"));
    cases.insert_var("[URL]", daemon.url.clone()).expect("a variable");
    cases.run();
}

#[test]
fn every_command_explains_itself() {
    play("help", &sim());
}

#[test]
fn jobs_are_run_waited_for_shown_and_removed() {
    play("jobs", &sim());
}

#[test]
fn programs_get_json_and_yaml_and_colours_come_when_asked_for() {
    let sim = sim();
    sim.post("/vms", &body("web", "service", r#","warm_pool":{"min":1}"#));
    sim.until_job("web", "running");
    sim.until_warm(1);
    play("formats", &sim);
}

#[test]
fn errors_name_the_cause_and_the_remedy() {
    play("errors", &sim());
}

#[test]
fn settings_from_flags_variables_and_file_are_checked_at_once() {
    play("config", &sim());
}

const FILE: &str = r#"[
  {"web", "acme", %{rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/app"],
    resources: %{vcpu: 1, mem_mb: 128}, lifecycle: "service", warm_pool: %{min: 2}}}
]
"#;

#[test]
fn the_status_is_one_screen() {
    play("status-empty", &sim());
    let home = Home::new();
    home.write("desired.exs", FILE);
    let daemon = home.start(&["--desired", "desired.exs"]);
    daemon.post("/vms", &body("once", "job", ""));
    daemon.post("/vms", &body("late", "service", "").replace("128", "1048576"));
    daemon.until_job("once", "completed");
    daemon.until_job("web", "running");
    daemon.until_warm(2);
    play("status", &daemon);
}

#[test]
fn a_file_is_planned_applied_and_planned_again() {
    play("apply", &sim());
}

#[test]
fn the_status_tells_what_is_wrong_with_the_file() {
    let home = Home::new();
    home.write("desired.exs", "[\n  {\"web\", oops}\n]\n");
    let daemon = home.start(&["--desired", "desired.exs"]);
    daemon.until("the file was looked at", || {
        daemon.get("/stats").json()["desired_file"]["status"] == "failed"
    });
    play("status-failed", &daemon);
}
