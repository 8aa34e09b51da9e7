//! The HTTP API of a real daemon over a simulated host.

use crate::support::{Answer, Home, Sim, body, sim};
use expect_test::{Expect, expect};
use serde_json::Value;

fn check(answer: &Answer, expected: Expect) {
    expected.assert_eq(&answer.shown());
}

const WARM: &str = r#","warm_pool":{"min":2,"max":5}"#;

#[test]
fn a_post_without_a_warm_instance_is_accepted_and_runs() {
    let daemon = sim();
    let answer = daemon.post("/vms", &body("web", "service", ""));
    assert_eq!(answer.header("location"), Some("/vms/web"));
    check(
        &answer,
        expect![[r#"
            202 application/json
            {
              "job_id": "web",
              "vm_id": null,
              "tenant": "web",
              "status": "pending",
              "reason": "about to start",
              "since": "2026-01-01T00:00:00.000Z",
              "generation": 1,
              "exit_code": null,
              "exit": null,
              "spec": {
                "rootfs": "r.ext4",
                "kernel": "vmlinux",
                "cmd": [
                  "/app"
                ],
                "resources": {
                  "vcpu": 1,
                  "mem_mb": 128
                },
                "lifecycle": "service"
              }
            }
        "#]],
    );
    check(
        &Answer { body: daemon.until_job("web", "running").to_string(), ..daemon.get("/vms/web") },
        expect![[r#"
            200 application/json
            {
              "job_id": "web",
              "vm_id": "vm-xxxxxxxxxx",
              "tenant": "web",
              "status": "running",
              "reason": null,
              "since": "2026-01-01T00:00:00.000Z",
              "generation": 1,
              "exit_code": null,
              "exit": null,
              "spec": {
                "rootfs": "r.ext4",
                "kernel": "vmlinux",
                "cmd": [
                  "/app"
                ],
                "resources": {
                  "vcpu": 1,
                  "mem_mb": 128
                },
                "lifecycle": "service"
              }
            }
        "#]],
    );
}

#[test]
fn a_job_without_a_name_gets_one() {
    let daemon = sim();
    let nameless = body("x", "service", "").replace(r#""job_id":"x","#, "");
    let job = daemon.post("/vms", &nameless).json();
    let id = job["job_id"].as_str().expect("an id");
    assert!(id.starts_with("job-"), "{id}");
    assert_eq!(job["tenant"], id);
}

#[test]
fn vm_id_is_another_name_for_job_id() {
    let daemon = sim();
    let aliased = body("x", "service", "").replace("job_id", "vm_id");
    assert_eq!(daemon.post("/vms", &aliased).json()["job_id"], "x");
}

#[test]
fn a_warm_instance_is_claimed_within_the_request() {
    let daemon = sim();
    assert_eq!(daemon.post("/vms", &body("one", "service", WARM)).status, 202);
    daemon.until_warm(2);
    let answer = daemon.post("/vms", &body("two", "service", WARM));
    assert_eq!(answer.status, 201);
    assert!(answer.json()["vm_id"].as_str().is_some_and(|vm| vm.starts_with("vm-")));
    daemon.until_job("two", "running");
    daemon.until_warm(2);
}

#[test]
fn a_post_replaces_the_spec_and_says_how_much_there_is_to_do() {
    let daemon = sim();
    daemon.post("/vms", &body("web", "service", ""));
    let first = daemon.until_job("web", "running");
    let same = daemon.post("/vms", &body("web", "service", ""));
    assert_eq!((same.status, &same.json()["vm_id"]), (200, &first["vm_id"]));
    let policy = daemon.post("/vms", &body("web", "service", r#","stop_signal":"int""#));
    assert_eq!(policy.json()["vm_id"], first["vm_id"], "a policy replaces no instance");
    assert_eq!(policy.json()["spec"]["stop_signal"], "SIGINT");
    let other = daemon.post("/vms", &body("web", "service", r#","env":{"A":"b"}"#));
    assert_eq!((other.status, other.json()["spec"].get("stop_signal")), (202, None));
    let before = &first["vm_id"];
    daemon.until("the new instance serves", || {
        let job = daemon.get("/vms/web").json();
        job["status"] == "running" && &job["vm_id"] != before
    });
}

#[test]
fn job_ends_with_its_exit_code_and_reruns_when_posted_again() {
    let daemon = sim();
    daemon.post("/vms", &body("once", "job", ""));
    let ended = daemon.until_job("once", "completed");
    assert_eq!((&ended["exit_code"], &ended["generation"]), (&Value::from(0), &Value::from(1)));
    assert_eq!(ended["exit"].to_string(), r#"{"kind":"exited","code":0,"signal":null}"#);
    let events = daemon.get("/vms/once/events").json()["items"].clone();
    let exited = events.as_array().expect("events").iter().find(|event| event["kind"] == "exited");
    assert_eq!(exited.expect("an exit")["exit"], ended["exit"]);
    let again = daemon.post("/vms", &body("once", "job", ""));
    assert_eq!((again.status, &again.json()["generation"]), (202, &Value::from(2)));
    daemon.until_job("once", "completed");
}

#[test]
fn every_bad_field_is_named_at_once_and_nothing_changes() {
    let daemon = sim();
    let bad = r#"{"job_id":"a","vm_id":"b","tenants":1,"rootfs":"x","spec":{"rootfs":"/x",
        "cmd":[],"resources":{"vcpu":99},"lifecycle":"sevice","envv":{}}}"#;
    check(
        &daemon.post("/vms", bad),
        expect![[r#"
            422 application/problem+json
            {
              "type": "urn:hearth:problem:invalid-body",
              "title": "Invalid body",
              "status": 422,
              "detail": "the body has 10 problems; nothing was changed",
              "errors": [
                {
                  "pointer": "/vm_id",
                  "detail": "`vm_id` is another name for `job_id`, which is \"a\" here",
                  "help": "leave it out"
                },
                {
                  "pointer": "/tenants",
                  "detail": "unknown field `tenants`",
                  "help": "did you mean `tenant`?"
                },
                {
                  "pointer": "/rootfs",
                  "detail": "unknown field `rootfs`",
                  "help": "`rootfs` belongs in `spec`"
                },
                {
                  "pointer": "/spec/kernel",
                  "detail": "missing field `kernel`"
                },
                {
                  "pointer": "/spec/rootfs",
                  "detail": "\"/x\" is a path; images are named by their file name in the images directory"
                },
                {
                  "pointer": "/spec/cmd",
                  "detail": "has 0 elements; 1 to 256 are allowed"
                },
                {
                  "pointer": "/spec/resources/mem_mb",
                  "detail": "missing field `mem_mb`"
                },
                {
                  "pointer": "/spec/resources/vcpu",
                  "detail": "99 is out of range: 1 to 32"
                },
                {
                  "pointer": "/spec/lifecycle",
                  "detail": "\"sevice\" is not one of service, daemon, job",
                  "help": "did you mean \"service\"?"
                },
                {
                  "pointer": "/spec/envv",
                  "detail": "unknown field `envv`",
                  "help": "did you mean `env`?"
                }
              ]
            }
        "#]],
    );
    assert_eq!(daemon.get("/vms").json()["items"], serde_json::json!([]));
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    let daemon = sim();
    check(
        &daemon.post("/vms", "[]"),
        expect![[r#"
            422 application/problem+json
            {
              "type": "urn:hearth:problem:invalid-body",
              "title": "Invalid body",
              "status": 422,
              "detail": "the body has a problem; nothing was changed",
              "errors": [
                {
                  "pointer": "",
                  "detail": "expected an object, found a list"
                }
              ]
            }
        "#]],
    );
    check(
        &daemon.get("/vms"),
        expect![[r#"
            200 application/json
            {
              "items": [],
              "next": null
            }
        "#]],
    );
}

#[test]
fn what_is_not_json_is_refused() {
    let daemon = sim();
    check(
        &daemon.post("/vms", "{"),
        expect![[r#"
            400 application/problem+json
            {
              "type": "urn:hearth:problem:not-json",
              "title": "Not JSON",
              "status": 400,
              "detail": "the body is not JSON: expected `}` to close the map, found the end of the text at line 1 column 2",
              "help": "nothing was changed"
            }
        "#]],
    );
    check(
        &daemon.request("POST", "/vms", &["Content-Type: text/plain"], "{}"),
        expect![[r#"
            415 application/problem+json
            {
              "type": "urn:hearth:problem:not-json",
              "title": "Unsupported media type",
              "status": 415,
              "detail": "the body's type is text/plain, not JSON",
              "help": "send Content-Type: application/json"
            }
        "#]],
    );
}

#[test]
fn compressed_bodies_are_refused_with_the_remedy() {
    let daemon = sim();
    let headers = ["Content-Type: application/json", "Content-Encoding: gzip"];
    for path in ["/vms", "/plan", "/apply"] {
        let answer = daemon.request("POST", path, &headers, "{}");
        assert_eq!(answer.status, 415, "{path}");
        assert_eq!(answer.json()["help"], "send it uncompressed, without Content-Encoding");
    }
}

#[test]
fn duplicate_keys_are_refused_in_every_body() {
    let daemon = sim();
    let twice = body("twice", "service", r#","env":{"A":"1","A":"2"}"#);
    let pointers = |answer: &Answer| -> Vec<String> {
        let problem = answer.json();
        let errors = problem["errors"].as_array().expect("errors");
        errors
            .iter()
            .map(|error| error["pointer"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let answer = daemon.post("/vms", &twice);
    assert_eq!((answer.status, pointers(&answer)), (422, vec!["/spec/env/A".to_owned()]));
    let list = format!(r#"{{"allow_delete":true,"entries":[{twice}],"allow_delete":false}}"#);
    for path in ["/plan", "/apply"] {
        let answer = daemon.post(path, &list);
        let expected = vec!["/entries/0/spec/env/A".to_owned(), "/allow_delete".to_owned()];
        assert_eq!((answer.status, pointers(&answer)), (422, expected), "{path}");
    }
    assert_eq!(daemon.get("/vms").json()["items"], serde_json::json!([]));
}

#[test]
fn a_hint_quotes_the_number_that_was_sent() {
    let daemon = sim();
    let env = |value: &str| body("web", "service", &format!(r#","env":{{"V":{value}}}"#));
    for path in ["/vms", "/plan", "/apply"] {
        let send = |value: &str| match path {
            "/vms" => daemon.post(path, &env(value)),
            _ => daemon.post(path, &format!(r#"{{"entries":[{}]}}"#, env(value))),
        };
        for value in ["1.10", "18446744073709551615", "1e400", "-0"] {
            let problem = send(value).json();
            let error = &problem["errors"][0];
            assert_eq!(error["help"], format!("write \"{value}\""), "{path} {problem}");
        }
        let answer = send("0012e45");
        assert_eq!(answer.status, 400, "{path}");
        let help = answer.json()["help"].to_string();
        assert!(help.contains(r#"write \"0012e45\""#), "{path} {help}");
    }
}

#[test]
fn slash_at_the_end_of_a_path_is_named() {
    let daemon = sim();
    for path in
        ["/vms", "/vms/web", "/vms/web/logs", "/vms/web/stop", "/plan", "/stats", "/healthz"]
    {
        let answer = daemon.get(&format!("{path}/?limit=1"));
        assert_eq!(answer.status, 404, "{path}");
        let help = format!("call {path}, without a slash at the end");
        assert_eq!(answer.json()["help"], help.as_str());
    }
    assert!(daemon.get("//").json()["help"].as_str().is_some_and(|help| help.contains("/vms")));
}

#[test]
fn a_body_over_the_bound_is_refused() {
    let daemon = sim();
    check(
        &daemon.post("/vms", &" ".repeat(64 * 1024 + 1)),
        expect![[r#"
            413 application/problem+json
            {
              "type": "urn:hearth:problem:large-body",
              "title": "Body too large",
              "status": 413,
              "detail": "the body has more than 65536 bytes",
              "help": "move large configuration into the root filesystem"
            }
        "#]],
    );
}

#[test]
fn missing_objects_are_problems_with_their_names() {
    let daemon = sim();
    check(
        &daemon.get("/vms/nope"),
        expect![[r#"
            404 application/problem+json
            {
              "type": "urn:hearth:problem:not-found",
              "title": "No such job",
              "status": 404,
              "detail": "there is no job nope"
            }
        "#]],
    );
    check(
        &daemon.get("/vms/%2e%2e%2fetc"),
        expect![[r#"
            404 application/problem+json
            {
              "type": "urn:hearth:problem:not-found",
              "title": "No such job",
              "status": 404,
              "detail": "there is no job: a job id must begin with a letter or a digit"
            }
        "#]],
    );
    check(
        &daemon.get("/nope"),
        expect![[r#"
            404 application/problem+json
            {
              "type": "urn:hearth:problem:no-such-page",
              "title": "No such route",
              "status": 404,
              "detail": "no such route: /nope",
              "help": "the routes are /vms, /plan, /apply, /events, /images, /stats, /healthz, /readyz and /openapi.json"
            }
        "#]],
    );
    let answer = daemon.request("PUT", "/vms", &[], "");
    assert_eq!(answer.header("allow"), Some("GET,HEAD,POST"));
    check(
        &answer,
        expect![[r#"
            405 application/problem+json
            {
              "type": "urn:hearth:problem:no-such-method",
              "title": "Method not allowed",
              "status": 405,
              "detail": "PUT does nothing on /vms"
            }
        "#]],
    );
    check(
        &daemon.get("/vms?limitt=1"),
        expect![[r#"
            400 application/problem+json
            {
              "type": "urn:hearth:problem:bad-query",
              "title": "Bad query",
              "status": 400,
              "detail": "the query is wrong: limitt: unknown field `limitt`, expected one of `limit`, `after`, `status`, `tenant`, `lifecycle`, `label`"
            }
        "#]],
    );
}

#[test]
fn another_tenants_job_is_a_conflict() {
    let daemon = sim();
    let of = |tenant: &str| {
        body("web", "service", "").replacen('{', &format!(r#"{{"tenant":"{tenant}","#), 1)
    };
    assert_eq!(daemon.post("/vms", &of("acme")).json()["tenant"], "acme");
    assert_eq!(daemon.post("/vms", &body("web", "service", "")).json()["tenant"], "acme");
    check(
        &daemon.post("/vms", &of("other")),
        expect![[r#"
            409 application/problem+json
            {
              "type": "urn:hearth:problem:other-tenant",
              "title": "Job of another tenant",
              "status": 409,
              "detail": "job web belongs to another tenant; use another job_id"
            }
        "#]],
    );
}

#[test]
fn a_deleted_job_is_gone_and_stays_known() {
    let daemon = sim();
    daemon.post("/vms", &body("web", "service", ""));
    daemon.until_job("web", "running");
    let answer = daemon.delete("/vms/web");
    assert!(matches!(answer.status, 202 | 204), "{answer:?}");
    daemon.until("it is gone", || daemon.get("/vms/web").status == 404);
    assert_eq!(daemon.delete("/vms/web").status, 204);
    assert_eq!(daemon.delete("/vms/never").status, 404);
}

#[test]
fn a_job_can_be_stopped_and_started_again() {
    let daemon = sim();
    daemon.post("/vms", &body("web", "service", ""));
    daemon.until_job("web", "running");
    assert!(matches!(daemon.post("/vms/web/stop", "").status, 200 | 202));
    assert_eq!(daemon.until_job("web", "stopped")["vm_id"], Value::Null);
    assert_eq!(daemon.post("/vms/web/start", "").status, 202);
    daemon.until_job("web", "running");
}

#[test]
fn a_restart_replaces_the_microvm_as_a_new_generation() {
    let daemon = sim();
    daemon.post("/vms", &body("web", "service", ""));
    let before = daemon.until_job("web", "running");
    let answer = daemon.post("/vms/web/restart", "");
    assert_eq!((answer.status, &answer.json()["generation"]), (202, &Value::from(2)));
    assert_eq!(answer.header("location"), Some("/vms/web"));
    daemon.until("the new instance serves", || {
        let job = daemon.get("/vms/web").json();
        job["status"] == "running" && job["vm_id"] != before["vm_id"]
    });
    assert_eq!(daemon.post("/vms/nope/restart", "").status, 404);
}

#[test]
fn a_list_is_filtered_and_comes_in_pages() {
    let daemon = sim();
    for job in ["a", "b", "c"] {
        daemon.post("/vms", &body(job, "job", ""));
        daemon.until_job(job, "completed");
    }
    daemon.post("/vms", &body("d", "service", ""));
    daemon.until_job("d", "running");
    let ids = |query: &str| {
        let page = daemon.get(&format!("/vms?{query}")).json();
        let items = page["items"].as_array().expect("items").clone();
        let ids: Vec<_> = items.iter().map(|job| job["job_id"].as_str().expect("an id")).collect();
        (ids.join(" "), page["next"].as_str().map(str::to_owned))
    };
    assert_eq!(ids("status=completed,failed&limit=2"), ("a b".to_owned(), Some("b".to_owned())));
    assert_eq!(ids("status=completed,failed&limit=2&after=b"), ("c".to_owned(), None));
    assert_eq!(ids("lifecycle=service"), ("d".to_owned(), None));
    assert_eq!(ids("tenant=a"), ("a".to_owned(), None));
    assert_eq!(ids("tenant=unused"), (String::new(), None));
    let labels = |labels: &str| body("d", "service", &format!(r#","labels":{labels}"#));
    let before = daemon.get("/vms/d").json();
    daemon.post("/vms", &labels(r#"{"app":"web","example.com/tier":"1"}"#));
    let after = daemon.get("/vms/d").json();
    assert_eq!(after["vm_id"], before["vm_id"], "labels are policy");
    assert_eq!(after["spec"]["labels"]["app"], "web");
    assert_eq!(ids("label=app%3Dweb&label=example.com/tier"), ("d".to_owned(), None));
    assert_eq!(ids("label=app&label=app%3Dapi"), (String::new(), None));
    for (query, detail) in [
        ("status=up", "status: \"up\" is not one of pending, starting, running"),
        ("label=-a", "label: \"-a\" is not the key of a label: the name must have up to 63"),
        ("label=a=b=c", "label: \"b=c\" is not the value of a label: it must be empty or have"),
        ("limit=1&limit=2", "limit: duplicate field `limit`"),
        ("limit=x", "limit: expected a number"),
        ("lifecycle=pod", "lifecycle: \"pod\" is not one of service, daemon, job"),
        ("tenant=.", "tenant: a tenant must begin with a letter or a digit"),
        ("after=%2F", "after: a job id must begin with a letter or a digit"),
        ("limit=0", "limit: 0 is out of range: 1 to 1000"),
        ("limit=1001", "limit: 1001 is out of range: 1 to 1000"),
    ] {
        let answer = daemon.get(&format!("/vms?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        let said = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(said.starts_with(&format!("the query is wrong: {detail}")), "{said}");
    }
}

/// An answer of `/stats` without some fields, of which other tests speak.
fn without(mut stats: Answer, fields: &[&str]) -> Answer {
    let mut body = stats.json();
    for field in fields {
        body.as_object_mut().and_then(|body| body.shift_remove(*field)).expect("the field");
    }
    stats.body = body.to_string();
    stats
}

#[test]
fn repeat_with_same_key_changes_nothing_even_after_a_kill() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let nameless = body("x", "service", "").replace(r#""job_id":"x","#, "");
    let post = |daemon: &crate::support::Daemon, key: &str, body: &str| {
        let headers = ["Content-Type: application/json", &format!("Idempotency-Key: {key}")];
        daemon.request("POST", "/vms", &headers, body)
    };
    let made = post(&daemon, "k", &nameless);
    assert_eq!((made.status, made.header("idempotency-repeated")), (202, None));
    let id = made.json()["job_id"].clone();
    daemon.until_job(id.as_str().expect("an id"), "running");
    let again = post(&daemon, "k", &nameless);
    assert_eq!((again.status, again.header("idempotency-repeated")), (202, Some("true")));
    assert_eq!((&again.json()["job_id"], &again.json()["status"]), (&id, &"running".into()));
    daemon.kill();
    let daemon = home.start(&[]);
    assert_eq!(post(&daemon, "k", &nameless).json()["job_id"], id);
    assert_eq!(daemon.get("/vms").json()["items"].as_array().map(Vec::len), Some(1));
    let other = post(&daemon, "k", &body("other", "service", ""));
    let answer = Answer { body: other.body.replace(id.as_str().expect("an id"), "ID"), ..other };
    check(
        &answer,
        expect![[r#"
            422 application/problem+json
            {
              "type": "urn:hearth:problem:key-reused",
              "title": "Key of another request",
              "status": 422,
              "detail": "the key \"k\" was used for another request, which concerned job ID; nothing was changed, use another key"
            }
        "#]],
    );
    assert_eq!(post(&daemon, "", &nameless).status, 400);
    assert_eq!(post(&daemon, "two words", &nameless).status, 400);
    assert_eq!(post(&daemon, &"k".repeat(256), &nameless).status, 400);
}

#[test]
fn a_change_can_hang_on_the_generation_of_its_job() {
    let daemon = sim();
    let made = daemon.post("/vms", &body("web", "service", ""));
    assert_eq!(made.header("etag"), Some("\"1\""));
    daemon.until_job("web", "running");
    assert_eq!(daemon.get("/vms/web").header("etag"), Some("\"1\""));
    let json = "Content-Type: application/json";
    let stale = ["If-Match: \"7\"", json];
    let replace = body("web", "service", r#","env":{"A":"b"}"#);
    check(
        &daemon.request("POST", "/vms", &stale, &replace),
        expect![[r#"
            412 application/problem+json
            {
              "type": "urn:hearth:problem:other-generation",
              "title": "Other generation",
              "status": 412,
              "detail": "job web is at generation 1, which is not the one that the change is for; nothing was changed, look at the job again",
              "generation": 1
            }
        "#]],
    );
    for (method, path) in [
        ("POST", "/vms/web/stop"),
        ("POST", "/vms/web/start"),
        ("POST", "/vms/web/restart"),
        ("DELETE", "/vms/web"),
    ] {
        assert_eq!(daemon.request(method, path, &stale, "").status, 412, "{method} {path}");
        let bad = daemon.request(method, path, &["If-Match: W/\"1\""], "");
        assert_eq!(bad.status, 400, "{method} {path}");
    }
    assert_eq!(daemon.request("POST", "/vms", &["If-Match: 1", json], &replace).status, 202);
    let nameless = replace.replace(r#""job_id":"web","#, "");
    assert_eq!(daemon.request("POST", "/vms", &["If-Match: 1", json], &nameless).status, 412);
    let any = daemon.request("POST", "/vms/web/stop", &["If-Match: *"], "");
    assert!(matches!(any.status, 200 | 202), "{any:?}");
}

/// A daemon with a service and its pool, both of one microVM.
fn sim_with_pool() -> Sim {
    let daemon = sim();
    daemon.post("/vms", &body("web", "service", r#","warm_pool":{"min":1}"#));
    daemon.until_job("web", "running");
    daemon.until_warm(1);
    daemon
}

#[test]
fn pools_have_the_documented_shape() {
    let mut stats = sim_with_pool().get("/stats");
    stats.body = stats.json()["pools"].to_string();
    check(
        &stats,
        expect![[r#"
            200 application/json
            [
              {
                "tenant": null,
                "spec_hash": "86A80B8C30045837",
                "rootfs": "r.ext4",
                "jobs": 1,
                "target": 1,
                "warm": 1,
                "starting": 0,
                "hits": 0,
                "misses": 1
              }
            ]
        "#]],
    );
}

#[test]
fn stats_have_the_documented_shape() {
    let daemon = sim_with_pool();
    check(
        &without(daemon.get("/stats"), &["desired_file", "pools"]),
        expect![[r#"
            200 application/json
            {
              "summary": {
                "total_jobs": 1,
                "total_warm": 1
              },
              "jobs": [
                {
                  "job_id": "web",
                  "vm_id": "vm-xxxxxxxxxx",
                  "tenant": "web",
                  "status": "running",
                  "reason": null,
                  "since": "2026-01-01T00:00:00.000Z",
                  "generation": 1,
                  "exit_code": null,
                  "exit": null,
                  "spec": {
                    "rootfs": "r.ext4",
                    "kernel": "vmlinux",
                    "cmd": [
                      "/app"
                    ],
                    "resources": {
                      "vcpu": 1,
                      "mem_mb": 128
                    },
                    "lifecycle": "service",
                    "warm_pool": {
                      "min": 1,
                      "max": 1
                    }
                  }
                }
              ],
              "warm_pool": [
                {
                  "spec_hash": "86A80B8C30045837",
                  "vm_id": "warm-xxxxxxxxxx",
                  "tenant": null,
                  "status": "warm",
                  "reason": null,
                  "spec": {
                    "rootfs": "r.ext4",
                    "kernel": "vmlinux",
                    "cmd": [
                      "/app"
                    ],
                    "resources": {
                      "vcpu": 1,
                      "mem_mb": 128
                    },
                    "lifecycle": "service",
                    "warm_pool": {
                      "min": 1,
                      "max": 1
                    }
                  }
                }
              ],
              "unidentified": []
            }
        "#]],
    );
}

#[test]
fn logs_are_text_or_json_lines() {
    let daemon = sim();
    daemon.post("/vms", &body("once", "job", ""));
    daemon.until_job("once", "completed");
    check(
        &daemon.get("/vms/once/logs"),
        expect![[r#"
            200 text/plain; charset=utf-8
            simulated: /app

        "#]],
    );
    check(
        &daemon.get("/vms/once/logs?tail=0"),
        expect![[r#"
            200 text/plain; charset=utf-8

        "#]],
    );
    let accept = ["Accept: application/x-ndjson"];
    check(
        &daemon.request("GET", "/vms/once/logs", &accept, ""),
        expect![[r#"
            200 application/x-ndjson
            {
              "at": "2026-01-01T00:00:00.000Z",
              "vm_id": "vm-xxxxxxxxxx",
              "stream": "stdout",
              "text": "simulated: /app",
              "partial": false,
              "cursor": 1
            }
        "#]],
    );
    assert_eq!(daemon.get("/vms/nope/logs").status, 404);
}

#[test]
fn a_log_is_read_from_a_time_or_a_place_on() {
    let daemon = sim();
    daemon.post("/vms", &body("once", "job", ""));
    let first = daemon.until_job("once", "completed");
    let vm_id = |job: &str| {
        let accept = ["Accept: application/x-ndjson"];
        let log = daemon.request("GET", &format!("/vms/{job}/logs?tail=1"), &accept, "");
        log.json()["vm_id"].as_str().expect("an id").to_owned()
    };
    let old = vm_id("once");
    daemon.post("/vms/once/restart", "");
    daemon.until("it ran again", || {
        let job = daemon.get("/vms/once").json();
        job["status"] == "completed" && job["generation"] != first["generation"]
    });
    let new = vm_id("once");
    let lines = |query: &str| {
        daemon.get(&format!("/vms/once/logs?{query}")).body.matches("simulated").count()
    };
    assert_eq!(lines(""), 2);
    assert_eq!(lines(&format!("after={old}:1")), 1);
    assert_eq!(lines(&format!("after={old}:0")), 2);
    assert_eq!(lines(&format!("after={new}:0")), 1, "what is older counts as read");
    assert_eq!(lines(&format!("after={old}:1,{new}:1")), 0);
    assert_eq!(lines(&format!("after={new}:1&follow=true")), 0);
    assert_eq!(lines("after=vm-0000000000:7"), 2, "a forgotten place");
    assert_eq!(lines("since=1970-01-01T00:00:00Z"), 2);
    assert_eq!(lines("since=2h"), 2);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(lines("since=1s"), 0);
    assert_eq!(lines("since=2100-01-01T00:00:00Z"), 0);
    assert_eq!(lines("tail=1000000"), 2);
    let wrong = [
        "since=yesterday",
        "since=-1h",
        "after=vm-x",
        "after=1",
        "tail=-1",
        "tail=1000001",
        "follow=1",
    ];
    for query in wrong {
        assert_eq!(daemon.get(&format!("/vms/once/logs?{query}")).status, 400, "{query}");
    }
}

#[test]
fn a_jobs_events_outlive_it() {
    let daemon = sim();
    daemon.post("/vms", &body("web", "service", ""));
    daemon.until_job("web", "running");
    daemon.delete("/vms/web");
    daemon.until("it is gone", || daemon.get("/vms/web").status == 404);
    let events = daemon.get("/vms/web/events").json();
    let items = events["items"].as_array().expect("a list");
    assert_eq!(items[0]["kind"], "accepted");
    assert_eq!(items.last().expect("an event")["kind"], "deleted");
    assert_eq!(daemon.get("/events?limit=1").json()["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_list_comes_in_pages() {
    let daemon = sim();
    for job in ["a", "b", "c"] {
        daemon.post("/vms", &body(job, "service", ""));
    }
    let page = daemon.get("/vms?limit=2").json();
    assert_eq!((page["items"].as_array().map(Vec::len), &page["next"]), (Some(2), &"b".into()));
    let rest = daemon.get("/vms?limit=2&after=b").json();
    assert_eq!((&rest["items"][0]["job_id"], &rest["next"]), (&"c".into(), &Value::Null));
}

#[test]
fn no_web_page_reaches_the_api() {
    let daemon = sim();
    check(
        &daemon.request("GET", "/vms", &["Host: evil.example"], ""),
        expect![[r#"
            403 application/problem+json
            {
              "type": "urn:hearth:problem:foreign-host",
              "title": "Not this host",
              "status": 403,
              "detail": "the request is for \"evil.example\", which is not this daemon",
              "help": "call it by localhost, 127.0.0.1 or [::1]"
            }
        "#]],
    );
    check(
        &daemon.request("GET", "/vms", &["Origin: http://evil.example"], ""),
        expect![[r#"
            403 application/problem+json
            {
              "type": "urn:hearth:problem:foreign-origin",
              "title": "Another origin",
              "status": 403,
              "detail": "the request comes from a page of \"http://evil.example\"",
              "help": "only pages of this daemon may use it"
            }
        "#]],
    );
    assert_eq!(daemon.request("GET", "/vms", &["Host: localhost:1"], "").status, 200);
}

#[test]
fn a_port_needs_an_upgrade_and_a_microvm() {
    let daemon = sim();
    daemon.post("/vms", &body("once", "job", ""));
    daemon.until_job("once", "completed");
    assert_eq!(daemon.get("/vms/once/ports/80").status, 426);
    let upgrade = ["Upgrade: tcp", "Connection: Upgrade"];
    check(
        &daemon.request("GET", "/vms/once/ports/80", &upgrade, ""),
        expect![[r#"
            409 application/problem+json
            {
              "type": "urn:hearth:problem:no-vm",
              "title": "No microVM",
              "status": 409,
              "detail": "job once has no microVM: it is completed"
            }
        "#]],
    );
    assert_eq!(daemon.get("/vms/once/ports/0").status, 404);
}

#[test]
fn health_and_readiness_are_told() {
    let daemon = sim();
    check(
        &daemon.get("/healthz"),
        expect![[r#"
            200 application/json
            {
              "status": "ok",
              "version": "0.1.0"
            }
        "#]],
    );
    check(
        &daemon.get("/readyz"),
        expect![[r#"
            200 application/json
            {
              "status": "ready",
              "host": "simulated host",
              "warnings": [
                "this host is simulated: no microVM really runs"
              ],
              "desired_file": null
            }
        "#]],
    );
}

/// What a schema of the document requires, and what it knows.
fn schema(document: &Value, name: &str) -> (Vec<String>, Vec<String>) {
    let schema = &document["components"]["schemas"][name];
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let known = schema["properties"].as_object().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    (required.iter().map(text).collect(), known.keys().cloned().collect())
}

fn check_fields(document: &Value, name: &str, value: &Value) {
    let (required, known) = schema(document, name);
    let fields: Vec<&String> = value.as_object().expect("an object").keys().collect();
    for field in required {
        assert!(fields.contains(&&field), "{name} lacks {field}: {value}");
    }
    for field in fields {
        assert!(known.contains(field), "{name} does not document {field}");
    }
}

#[test]
fn the_daemon_answers_as_its_document_says() {
    let daemon = sim();
    let document = daemon.get("/openapi.json").json();
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 17);
    for (path, operations) in paths {
        // The path before may have stopped or deleted it.
        daemon.post("/vms", &body("web", "service", ""));
        daemon.until_job("web", "running");
        for (method, operation) in operations.as_object().expect("operations") {
            if method == "parameters" {
                continue;
            }
            for job in ["nope", "web"] {
                let path = path.replace("{job_id}", job).replace("{port}", "80");
                let answer = daemon.request(&method.to_uppercase(), &path, &[], "");
                let known = &operation["responses"][answer.status.to_string()];
                assert!(known.is_object(), "{method} {path}: {answer:?}");
                assert!(!answer.body.contains("no-such-page"), "{method} {path}");
            }
        }
    }
}

#[test]
fn objects_have_the_fields_of_their_document() {
    let daemon = sim();
    let document = daemon.get("/openapi.json").json();
    daemon.post("/vms", &body("web", "service", r#","warm_pool":{"min":1}"#));
    let job = daemon.until_job("web", "running");
    daemon.until_warm(1);
    check_fields(&document, "Job", &job);
    check_fields(&document, "Spec", &job["spec"]);
    check_fields(&document, "Page_Job", &daemon.get("/vms").json());
    let stats = daemon.get("/stats").json();
    check_fields(&document, "Stats", &stats);
    check_fields(&document, "Pool", &stats["pools"][0]);
    check_fields(&document, "WarmVm", &stats["warm_pool"][0]);
    check_fields(&document, "DesiredFile", &stats["desired_file"]);
    let kinds = document["components"]["schemas"]["EventKind"]["enum"].as_array().expect("kinds");
    let events = daemon.get("/events").json();
    check_fields(&document, "Page_Event", &events);
    check_fields(&document, "Event", &events["items"][0]);
    for event in events["items"].as_array().expect("events") {
        check_fields(&document, "Event", event);
        assert!(kinds.contains(&event["kind"]), "the document lacks the kind of {event}");
    }
    assert!(kinds.len() == hearth_api::EventKind::ALL.len());
    check_fields(&document, "Health", &daemon.get("/healthz").json());
    check_fields(&document, "Readiness", &daemon.get("/readyz").json());
    check_fields(&document, "Problem", &daemon.post("/vms", "{}").json());
    let other = body("web", "service", r#","env":{"A":"1"}"#);
    let declared = format!(r#"{{"entries":[{other}]}}"#);
    let plan = daemon.post("/plan", &declared).json();
    check_fields(&document, "Plan", &plan);
    check_fields(&document, "ChangedJob", &plan["replace"][0]);
    check_fields(&document, "SpecChange", &plan["replace"][0]["changes"][0]);
    check_fields(&document, "DrainedPool", &plan["pools"][0]);
    let accept = ["Accept: application/x-ndjson"];
    let line = daemon.request("GET", "/vms/web/logs", &accept, "");
    check_fields(&document, "LogLine", &line.json());
    let spec = |fields: &Value| fields.as_object().map(|fields| fields.len());
    assert_eq!(spec(&document["components"]["schemas"]["Spec"]["properties"]), Some(16));
}
