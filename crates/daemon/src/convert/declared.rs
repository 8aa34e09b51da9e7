//! Declared jobs: the body of a plan or an apply, and the answer to it.

use super::unfit;
use crate::executor;
use crate::source::source_of;
use hearth_api::{ChangedJob, DrainedPool, Plan, Problem, RefusedEntry, SpecChange};
use hearth_desired_file::DeclaredBody;
use hearth_engine::{EntryDigest, FileEntry, LoadPlan, PlannedChange, Why};
use hearth_host::Host;
use hearth_model::{JobId, Path, Segment, Spec, Tenant};
use hearth_store::json;
use serde_json::{Map, Value as Json};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

/// What is declared, and by which file.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) source: Option<PathBuf>,
    pub(crate) jobs: Vec<DeclaredJob>,
    pub(crate) allow_delete: bool,
}

/// A job with a name.
#[derive(Debug)]
pub(crate) struct DeclaredJob {
    pub(crate) job: JobId,
    pub(crate) tenant: Option<Tenant>,
    pub(crate) spec: Arc<Spec>,
    pub(crate) digest: EntryDigest,
}

/// Looks the images of all jobs up, side by side, and returns what the engine loads.
pub(crate) async fn resolved(host: &dyn Host, jobs: Vec<DeclaredJob>) -> Vec<FileEntry> {
    let specs = jobs.iter().map(|declared| &*declared.spec);
    let resolutions = executor::resolve_all(host, specs).await;
    let entry = |(DeclaredJob { job, tenant, spec, digest }, resolution)| FileEntry {
        job,
        tenant,
        spec,
        digest,
        resolution,
    };
    jobs.into_iter().zip(resolutions).map(entry).collect()
}

/// Reads the body of `POST /plan` and `POST /apply`. It takes time that grows with the body, and stops when
/// its client has `gone`.
pub(crate) fn declared(body: &[u8], gone: &dyn Fn() -> bool) -> Result<Declared, Box<Problem>> {
    let DeclaredBody { source, jobs, allow_delete } =
        hearth_desired_file::read_declared(body, gone).map_err(unfit)?;
    let job = |declared: hearth_desired_file::Declared| {
        let hearth_desired_file::Declared { job_id: job, tenant, spec, .. } = declared;
        let spec = Arc::new(spec);
        let digest = EntryDigest::of(tenant.as_ref(), &spec);
        DeclaredJob { job, tenant, spec, digest }
    };
    Ok(Declared {
        source: source.map(|source| source_of(FilePath::new(&source))),
        jobs: jobs.into_iter().map(job).collect(),
        allow_delete,
    })
}

/// What a load does, as it travels.
pub(crate) fn plan(plan: &LoadPlan) -> Plan {
    let names = |jobs: &[JobId]| jobs.iter().map(ToString::to_string).collect();
    Plan {
        create: names(&plan.create),
        replace: plan.replace.iter().map(changed).collect(),
        update: plan.update.iter().map(changed).collect(),
        delete: names(&plan.deleted),
        held: names(&plan.held),
        kept: names(&plan.kept),
        refused: refused(plan),
        unchanged: plan.unchanged,
        pools: plan
            .drained
            .iter()
            .map(|pool| DrainedPool { spec_hash: pool.hash.to_string(), drained: pool.instances })
            .collect(),
    }
}

/// The refused entries of a load, as they travel.
pub(crate) fn refused(plan: &LoadPlan) -> Vec<RefusedEntry> {
    let entry = |(job, reason): &(JobId, String)| RefusedEntry {
        job_id: job.to_string(),
        reason: reason.clone(),
    };
    plan.refused.iter().map(entry).collect()
}

fn changed(change: &PlannedChange) -> ChangedJob {
    let reason = match change.why {
        Why::Spec => None,
        Why::Images => Some("its images have changed"),
        Why::Stopped => Some("it was stopped"),
        Why::BeingDeleted => Some("it was being deleted"),
        Why::Finished => Some("it had finished"),
    };
    let mut changes = Vec::new();
    let (before, after) = (json::spec_to_json(&change.before), json::spec_to_json(&change.after));
    compare(&Path::default(), Some(&before), Some(&after), &mut changes);
    ChangedJob { job_id: change.job.to_string(), reason: reason.map(str::to_owned), changes }
}

/// Every value that is another, objects gone through by their fields. A list is one value: what
/// moved within it can't be told from what was exchanged.
fn compare(
    path: &Path,
    before: Option<&Json>,
    after: Option<&Json>,
    changes: &mut Vec<SpecChange>,
) {
    if before == after {
        return;
    }
    let fields = |value: Option<&'_ Json>| value.and_then(Json::as_object).cloned();
    match (fields(before), fields(after)) {
        (None, None) => changes.push(SpecChange {
            path: path.pointer(),
            from: before.cloned().unwrap_or_default(),
            to: after.cloned().unwrap_or_default(),
        }),
        (before, after) => compare_fields(path, before, after, changes),
    }
}

fn compare_fields(
    path: &Path,
    before: Option<Map<String, Json>>,
    after: Option<Map<String, Json>>,
    changes: &mut Vec<SpecChange>,
) {
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    let added = after.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(added) {
        let mut below = path.clone();
        below.0.push(Segment::Key(key.clone()));
        compare(&below, before.get(key), after.get(key), changes);
    }
}

#[cfg(test)]
mod tests {
    use super::{Declared, compare, declared};
    use expect_test::{Expect, expect};
    use hearth_api::Problem;
    use hearth_model::Path;
    use serde_json::{Value, json};
    use std::cell::Cell;

    fn read(body: &Value) -> Result<Declared, Box<Problem>> {
        declared(body.to_string().as_bytes(), &|| false)
    }

    fn check_body(body: &Value, expected: Expect) {
        let problem = read(body).expect_err("it has problems");
        let lines = problem.errors.iter().map(|error| {
            let help = error.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{}: {}{help}\n", error.pointer, error.detail)
        });
        expected.assert_eq(&lines.collect::<String>());
    }

    fn check_changes(before: &Value, after: &Value, expected: Expect) {
        let mut changes = Vec::new();
        compare(&Path::default(), Some(before), Some(after), &mut changes);
        let lines = changes.iter().map(|c| format!("{}: {} -> {}\n", c.path, c.from, c.to));
        expected.assert_eq(&lines.collect::<String>());
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place() {
        let spec = json!({
            "rootfs": "r", "kernel": "k", "cmd": ["/a"], "lifecycle": "service",
            "resources": {"vcpu": 1, "mem_mb": 128}
        });
        let mut no_cmd = spec.clone();
        no_cmd["cmd"] = json!(7);
        check_body(
            &json!({
                "source": "vms.exs", "allow_delet": true, "allow_delete": "yes",
                "entries": [
                    {"job_id": "a", "spec": spec}, {"spec": spec}, {"job_id": "a", "spec": spec},
                    {"job_id": "b", "spec": no_cmd}, {"vm_id": "a", "spec": spec}, 5
                ]
            }),
            expect![[r#"
                /source: "vms.exs" is not an absolute path (leave it out if no file declares the jobs)
                /allow_delet: unknown field `allow_delet` (did you mean `allow_delete`?)
                /allow_delete: expected a boolean, found a string
                /entries/1/job_id: missing field `job_id` (an entry is a map with job_id, tenant and spec)
                /entries/2/job_id: /entries/0 declares job "a" already (a job id names one job; rename or remove one of the two)
                /entries/3/spec/cmd: expected a list of strings, found an integer
                /entries/4/vm_id: /entries/0 declares job "a" already (a job id names one job; rename or remove one of the two)
                /entries/5: expected an entry, found an integer (an entry is a map with job_id, tenant and spec)
            "#]],
        );
        check_body(
            &json!([]),
            expect![[r#"
            : expected an object, found a list
        "#]],
        );
        check_body(
            &json!({"source": 5}),
            expect![[r#"
                /entries: missing field `entries`
                /source: expected a string, found an integer
            "#]],
        );
        check_body(
            &json!({"entries": {}}),
            expect![[r#"
            /entries: expected a list, found a map
        "#]],
        );
    }

    #[test]
    fn problems_beyond_the_bound_are_counted() {
        let problem = read(&json!({ "entries": vec![json!({}); 100_000] })).expect_err("problems");
        assert_eq!((problem.errors.len(), problem.errors_omitted), (100, 199_900));
        let said =
            "the body has 200000 problems, of which the first 100 are listed; nothing was changed";
        assert_eq!(problem.detail, said);
        assert_eq!(problem.errors[99].pointer, "/entries/49/spec");
        let keys: serde_json::Map<_, _> =
            (0..5000).map(|at| (format!("k{at}"), json!(1))).collect();
        let problem = read(&json!({ "entries": [keys.clone(), 5] })).expect_err("problems");
        assert_eq!((problem.errors.len(), problem.errors_omitted), (100, 4903));
        let problem = read(&Value::Object(keys)).expect_err("problems");
        assert_eq!((problem.errors.len(), problem.errors_omitted), (100, 4901));
    }

    #[test]
    fn problems_quote_a_bounded_part_of_the_body() {
        let long = "\u{7f}".repeat(100_000);
        let mut spec = json!({ "lifecycle": long, "env": {}, "kernel": long, "boot": long });
        spec["env"][&long] = json!(5);
        spec[&long] = json!(5);
        let entry = json!({ "job_id": long, "tenant": long, "spec": spec });
        let body = json!({ "source": long, "entries": [entry], "x": 1 });
        let problem = read(&body).expect_err("problems");
        let bytes = serde_json::to_vec(&problem).expect("JSON").len();
        assert!(problem.errors.len() > 8 && bytes < 64 * 1024, "{bytes} bytes: {problem}");
    }

    #[test]
    fn a_body_whose_client_has_gone_is_not_read_on() {
        let body = json!({ "entries": vec![json!({}); 1000] }).to_string();
        let asked = Cell::new(0);
        let gone = || asked.replace(asked.get() + 1) == 10;
        let problem = declared(body.as_bytes(), &gone).expect_err("problems");
        assert_eq!(problem.errors.len(), 20);
    }

    #[test]
    fn a_source_is_one_however_it_is_written() {
        let body = json!({"source": "/etc/./hearth/../vms.exs", "entries": []});
        let source = read(&body).expect("it is right").source;
        assert_eq!(source.as_deref(), Some(std::path::Path::new("/etc/vms.exs")));
    }

    #[test]
    fn changes_are_told_by_field() {
        check_changes(
            &json!({"cmd": ["/a"], "env": {"A": "1", "a/b": "2"}, "warm_pool": {"min": 1}}),
            &json!({"cmd": ["/a", "-x"], "env": {"A": "2"}, "retries": 3, "warm_pool": {"min": 1}}),
            expect![[r#"
                /cmd: ["/a"] -> ["/a","-x"]
                /env/A: "1" -> "2"
                /env/a~1b: "2" -> null
                /retries: null -> 3
            "#]],
        );
        check_changes(&json!({"a": {"b": 1}}), &json!({"a": {"b": 1}}), expect![[""]]);
    }
}
