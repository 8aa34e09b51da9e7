//! Who may use a daemon, by the name of the host that a request is for.

mod support;

use std::os::unix::fs::PermissionsExt;
use support::{Daemon, Home};

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
