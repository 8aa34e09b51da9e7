//! Who may use a daemon: by the name of the host that a request is for, and by the user at the other end.

use crate::support::{Answer, Daemon, Home, body};
use std::os::unix::fs::PermissionsExt;

fn unix(home: &Home) -> String {
    format!("unix://{}", home.path("h.sock").display())
}

#[test]
fn a_unix_socket_serves_the_command_line_and_any_host() {
    let home = Home::new();
    let url = unix(&home);
    let daemon = Daemon::spawn(home.serve_at(&url, &[]));
    let ps = home.hearth(["--url", &url, "ps", "-o", "json"]).output().expect("it ran");
    assert_eq!(String::from_utf8_lossy(&ps.stdout).trim(), "[]");
    let mode = std::fs::metadata(home.path("h.sock")).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    for host in ["hearth", "", "localhost:8088", "evil.example"] {
        let answer = daemon.request("GET", "/healthz", &[&format!("Host: {host}")], "");
        assert_eq!(answer.status, 200, "{host}");
    }
    let hosts = ["Host: hearth", "Origin: http://elsewhere"];
    assert_eq!(daemon.request("GET", "/vms", &hosts, "").status, 200);
    assert_eq!(daemon.send("GET http://hearth/vms HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn http_1_0_needs_no_host() {
    let home = Home::new();
    let daemon = home.start(&[]);
    assert_eq!(daemon.send("GET /healthz HTTP/1.0\r\n\r\n").status, 200);
    assert_eq!(daemon.send("GET /vms HTTP/1.0\r\nHost: localhost\r\n\r\n").status, 200);
    assert_eq!(daemon.send("GET /vms HTTP/1.0\r\nHost: evil.example\r\n\r\n").status, 403);
    let unnamed = daemon.send("GET /vms HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_eq!(unnamed.status, 403, "a browser speaks HTTP/1.1, which has a Host");
}

/// As other users, for which these tests have to be root's.
mod system {
    use super::{Answer, Daemon, Home, body, unix};
    use crate::support::{DEADLINE, behind};
    use rustix::process::{Gid, Uid};
    use serde_json::{Value, json};
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    const OVERFLOW: u32 = 65_534;

    /// Does something as another user: the kernel keeps the user of each thread.
    fn as_user<T: Send>(uid: u32, groups: &[u32], act: impl FnOnce() -> T + Send) -> T {
        let numbers: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        thread::scope(|scope| {
            let acting = scope.spawn(|| {
                let (user, group) = (Uid::from_raw(uid), numbers[0]);
                rustix::thread::set_thread_groups(&numbers[1..]).expect("root");
                rustix::thread::set_thread_res_gid(group, group, group).expect("root");
                rustix::thread::set_thread_res_uid(user, user, user).expect("root");
                act()
            });
            acting.join().expect("it did not panic")
        })
    }

    fn status_for(daemon: &Daemon, uid: u32, groups: &[u32]) -> u16 {
        as_user(uid, groups, || daemon.get("/vms").status)
    }

    fn check_refused(answer: &Answer) {
        assert_eq!(answer.status, 403, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
        let problem = answer.json();
        assert_eq!(problem["type"], "urn:hearth:problem:not-admitted");
        assert!(problem["help"].as_str().is_some_and(|help| help.contains("sudo")), "{problem}");
    }

    /// A secret, and everything that could show it or change something, is refused alike.
    fn check_stranger(daemon: &Daemon) {
        for path in ["/vms", "/vms/web", "/stats", "/events", "/readyz", "/openapi.json"] {
            check_refused(&daemon.get(path));
        }
        for path in ["/", "/nope", "/healthz/", "//healthz", "/vms/%ff", "/vms/web/ports/80"] {
            check_refused(&daemon.get(path));
        }
        for method in ["POST", "DELETE", "PUT", "OPTIONS"] {
            check_refused(&daemon.request(method, "/vms/web", &[], ""));
        }
        check_refused(&daemon.post("/vms", &body("other", "service", "")));
        check_refused(&daemon.post("/vms", "{nonsense"));
        check_refused(&daemon.request("GET", "/vms", &["Host: evil.example"], ""));
        check_refused(&daemon.send("BREW /pot\r\n\r\n"));
        check_refused(&daemon.send(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000))));
        // A body that never comes is not waited for.
        let head = "POST /apply HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n";
        check_refused(&daemon.send(head));
        assert_eq!(daemon.get("/healthz").status, 200);
        assert_eq!(daemon.get("/healthz?a=b").status, 200);
    }

    #[test]
    fn strangers_get_403_on_every_route_but_healthz() {
        let home = Home::new();
        open(&home.path(""));
        for listen in ["127.0.0.1:0".to_owned(), "[::1]:0".to_owned(), unix(&home)] {
            let daemon = Daemon::spawn(home.serve_at(&listen, &[]));
            daemon.post("/vms", &body("web", "service", r#","env":{"TOKEN":"secret"}"#));
            // Who is admitted is decided by who connects, not by the mode of the socket.
            if let Some(path) = listen.strip_prefix("unix://") {
                std::fs::set_permissions(path, PermissionsExt::from_mode(0o666)).expect("a mode");
            }
            for uid in [OVERFLOW, 1000, 4_000_000_000] {
                as_user(uid, &[uid], || check_stranger(&daemon));
            }
            assert_eq!(daemon.get("/vms/web").json()["spec"]["env"]["TOKEN"], "secret");
            assert_eq!(daemon.jobs(), ["web"]);
        }
    }

    fn open(directory: &Path) {
        std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).expect("a mode");
    }

    const GROUP: u32 = 54_321;
    const PRIMARY: u32 = 54_001;
    const SUPPLEMENTARY: u32 = 54_002;
    const OTHER: u32 = 54_003;
    const UNLISTED: u32 = 54_004;

    /// The command with a user database of its own.
    fn with_users(home: &Home, command: &Command) -> Command {
        let user = |name: &str, uid: u32, gid: u32| format!("{name}:x:{uid}:{gid}::/:/bin/false\n");
        let users = user("root", 0, 0)
            + &user("primary", PRIMARY, GROUP)
            + &user("extra", SUPPLEMENTARY, 54_000)
            + &user("other", OTHER, 54_000);
        home.write("passwd", &users);
        home.write("group", &format!("root:x:0:\nkeepers:x:{GROUP}:extra\nothers:x:54000:\n"));
        let script =
            "mount --bind passwd /etc/passwd && mount --bind group /etc/group && exec \"$@\"";
        behind(&["unshare", "--mount", "sh", "-ec", script, "sh"], command)
    }

    #[test]
    fn members_of_the_group_are_admitted_over_tcp() {
        let home = Home::new();
        let serve = home.serve(&["--group", "keepers"]);
        let daemon = Daemon::spawn(with_users(&home, &serve));
        for member in [PRIMARY, SUPPLEMENTARY] {
            // Twice: once from the user database, and once as it is remembered.
            assert_eq!(status_for(&daemon, member, &[54_000]), 200);
            assert_eq!(status_for(&daemon, member, &[54_000]), 200);
        }
        for stranger in [OTHER, UNLISTED, OVERFLOW] {
            // A process can be in a group that its user is not in; over TCP that is not known.
            assert_eq!(status_for(&daemon, stranger, &[GROUP, GROUP]), 403, "{stranger}");
        }
        let answer = as_user(OTHER, &[54_000], || daemon.get("/vms"));
        let help = answer.json()["help"].as_str().expect("help").to_owned();
        assert!(help.contains("usermod --append --groups keepers USER"), "{help}");
    }

    #[test]
    fn members_of_the_group_are_admitted_over_a_unix_socket() {
        let home = Home::new();
        open(&home.path(""));
        let url = unix(&home);
        let serve = home.serve_at(&url, &["--group", "keepers"]);
        let daemon = Daemon::spawn(with_users(&home, &serve));
        let socket = home.path("h.sock");
        let metadata = std::fs::metadata(&socket).expect("a socket");
        assert_eq!(std::os::unix::fs::MetadataExt::gid(&metadata), GROUP);
        // By the groups of the process, whatever the database says of the user.
        assert_eq!(status_for(&daemon, OTHER, &[GROUP]), 200);
        let many: Vec<u32> = (60_000..60_200).chain([GROUP]).collect();
        assert_eq!(status_for(&daemon, UNLISTED, &many), 200);
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).expect("a mode");
        assert_eq!(status_for(&daemon, SUPPLEMENTARY, &[54_000]), 403);
        assert_eq!(status_for(&daemon, OVERFLOW, &[OVERFLOW]), 403);
    }

    #[test]
    fn events_name_the_user_of_each_change() {
        for (tcp, known_by) in [(false, "peer_credentials"), (true, "socket_owner")] {
            let home = Home::new();
            open(&home.path(""));
            let url = if tcp { "127.0.0.1:0".to_owned() } else { unix(&home) };
            let serve = home.serve_at(&url, &["--group", "keepers"]);
            let log = home.path("log").display().to_string();
            let wrapper = ["sh", "-c", "exec \"$@\" 2>\"$0\"", &log];
            let daemon = Daemon::spawn(behind(&wrapper, &with_users(&home, &serve)));
            let own = rustix::process::getuid().as_raw();
            let post = body("web", "service", "");
            as_user(PRIMARY, &[GROUP], || assert_eq!(daemon.post("/vms", &post).status, 202));
            daemon.until("it runs", || daemon.get("/vms/web").json()["status"] == "running");
            daemon.request("DELETE", "/vms/web", &[], "");
            daemon.until("it is gone", || daemon.get("/vms/web").status == 404);
            let events = daemon.get("/vms/web/events").json();
            let called: Vec<(&str, &Value)> = events["items"]
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(|event| Some((event["kind"].as_str()?, event.get("caller")?)))
                .collect();
            let user = |uid: u32| json!({"kind": "user", "uid": uid, "known_by": known_by});
            let (primary, own) = (user(PRIMARY), user(own));
            let expected = [("accepted", &primary), ("accepted", &own), ("deleted", &own)];
            assert_eq!(called, expected, "{events}");
            drop(daemon.terminate());
            let said = std::fs::read_to_string(&log).expect("a log");
            let line = |line: &str| {
                line.contains("generation 1 accepted")
                    && line.contains(&format!("uid {PRIMARY} by"))
            };
            assert!(said.lines().any(line), "{said}");
        }
    }

    #[test]
    fn a_group_that_is_empty_or_missing_admits_no_one() {
        for group in ["", "hearth-no-such-group", "root"] {
            let home = Home::new();
            let daemon = home.start(&["--group", group]);
            assert_eq!(status_for(&daemon, OVERFLOW, &[OVERFLOW]), 403, "{group}");
            assert_eq!(daemon.get("/vms").status, 200, "{group}");
        }
    }

    #[test]
    fn a_daemon_admits_its_own_user_and_root() {
        let home = Home::new();
        std::os::unix::fs::chown(home.path(""), Some(OTHER), Some(OTHER)).expect("root");
        // The program may lie where only root can reach it.
        let program = home.path("hearth");
        std::fs::copy(env!("CARGO_BIN_EXE_hearth"), &program).expect("a copy");
        let serve = home.serve(&[]);
        let mut own = Command::new("setpriv");
        own.args(["--reuid=54003", "--regid=54003", "--clear-groups"]).arg(program);
        own.args(serve.get_args());
        crate::support::place_as(&mut own, &serve);
        let daemon = Daemon::spawn(own);
        assert_eq!(status_for(&daemon, OTHER, &[OTHER]), 200);
        assert_eq!(status_for(&daemon, OVERFLOW, &[OVERFLOW]), 403);
    }

    #[test]
    fn users_outside_of_its_user_namespace_are_strangers() {
        let home = Home::new();
        // All that are not mapped have the number 65534 in there, which is also its own.
        let wrapper = ["unshare", "--user", "--map-user=65534"];
        let daemon = Daemon::try_spawn(behind(&wrapper, &home.serve(&[]))).expect("it starts");
        let answer = as_user(1000, &[1000], || daemon.get("/vms"));
        assert_eq!(answer.status, 403);
        assert!(answer.body.contains("not mapped into the user namespace"), "{answer:?}");
        assert_eq!(daemon.get("/healthz").status, 200);
    }

    #[test]
    fn open_loopback_admits_everyone_and_says_so_at_each_start() {
        let home = Home::new();
        let log = home.path("log").display().to_string();
        let wrapper = ["sh", "-c", "exec \"$@\" 2>>\"$0\"", &log];
        for start in 1..=2 {
            let serve = home.serve(&["--open-loopback", "--log", "debug"]);
            let daemon = Daemon::spawn(behind(&wrapper, &serve));
            assert_eq!(status_for(&daemon, OVERFLOW, &[OVERFLOW]), 200);
            drop(daemon.terminate());
            let said = std::fs::read_to_string(&log).expect("a log");
            assert_eq!(said.matches("every local user commands this daemon").count(), start);
            assert!(said.contains("caller=uid 65534 by socket owner"), "{said}");
        }
    }

    #[test]
    fn strangers_take_no_room_from_those_who_are_admitted() {
        let home = Home::new();
        // Half of its descriptors are for connections.
        let few = ["sh", "-c", "ulimit -n 256 && exec \"$@\"", "sh"];
        let daemon = Daemon::spawn(behind(&few, &home.serve(&[])));
        let address = daemon.url.strip_prefix("http://").expect("TCP").to_owned();
        let begin = Instant::now();
        let mut held = Vec::new();
        as_user(OVERFLOW, &[OVERFLOW], || {
            // More than the daemon serves at once, all silent.
            for _ in 0..300 {
                held.push(TcpStream::connect(&address).expect("the system accepts"));
            }
            for stream in &mut held {
                let _ = stream.write_all(b"GET /vms HTTP/1.1\r\n");
            }
        });
        assert_eq!(daemon.get("/vms").status, 200);
        // An admitted client that sends nothing has 10 s: it did not wait for these to be given up.
        assert!(begin.elapsed() < Duration::from_secs(8), "it took {:?}", begin.elapsed());
        // They are gone soon, though none of them closes.
        for mut stream in held {
            stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
        }
        assert!(begin.elapsed() < DEADLINE, "it took {:?}", begin.elapsed());
    }

    /// One way to be gone before anybody looks.
    fn send_and_vanish(address: &str, way: usize, request: &str) {
        let Ok(mut stream) = TcpStream::connect(address) else { return };
        if way == 3 {
            let _ = stream.shutdown(Shutdown::Write);
            return;
        }
        let _ = stream.write_all(request.as_bytes());
        match way {
            // An orderly close, which leaves an orphan.
            0 => {}
            // A reset.
            1 => {
                let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
            }
            // A half-close, and then a close.
            2 => {
                let _ = stream.shutdown(Shutdown::Write);
            }
            // A half-close that waits for the answer.
            _ => {
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
                let _ = stream.read(&mut [0; 16]);
            }
        }
    }

    #[test]
    fn no_client_becomes_root_by_closing_before_it_is_looked_up() {
        const CONNECTIONS: usize = 10_000;
        const THREADS: usize = 8;
        let home = Home::new();
        let daemon = home.start(&[]);
        let address = daemon.url.strip_prefix("http://").expect("TCP").to_owned();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let address = &address;
                scope.spawn(move || {
                    as_user(OVERFLOW, &[OVERFLOW], || {
                        for count in 0..CONNECTIONS / THREADS {
                            let body = body(&format!("race-{thread}-{count}"), "service", "");
                            let request = format!(
                                "POST /vms HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                                 Content-Length: {}\r\n\r\n{body}",
                                body.len()
                            );
                            send_and_vanish(address, count % 5, &request);
                        }
                    });
                });
            }
        });
        assert_eq!(daemon.jobs(), Vec::<String>::new());
        assert_eq!(daemon.post("/vms", &body("root", "service", "")).status, 202);
    }
}
