//! The demo's web service: an HTTP server on port 4000 that shows what it was started with (its
//! environment) and whom it works for now (its identity, which changes when a warm instance is
//! claimed). `/health` answers 200.
//!
//! It serves one request a connection, and reads no more of it than the first line needs.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const PORT: u16 = 4000;
const IDENTITY: &str = "/run/hearth/identity.json";
/// More than any browser's headers.
const REQUEST_BYTES_MAX: u64 = 64 << 10;

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    println!("server: listening on port {PORT}");
    for connection in listener.incoming() {
        // A client that is gone before it was served ends nothing.
        let Ok(connection) = connection else { continue };
        thread::spawn(move || {
            if let Err(error) = serve(&connection) {
                println!("server: cannot answer: {error}");
            }
        });
    }
    Ok(())
}

fn serve(connection: &TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    connection.set_write_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(connection.take(REQUEST_BYTES_MAX));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    // The headers are read and dropped, so that closing does not reset the connection.
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let mut words = request.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    println!("server: {method} {target}");
    let (status, body) = match (method, target) {
        ("GET" | "HEAD", "/health") => ("200 OK", "ok\n".to_owned()),
        ("GET" | "HEAD", "/env") => ("200 OK", environment()),
        ("GET" | "HEAD", "/identity") => ("200 OK", identity()),
        ("GET" | "HEAD", "/") => ("200 OK", page()),
        ("GET" | "HEAD", _) => {
            ("404 Not Found", "there is /, /env, /identity, /health\n".to_owned())
        }
        _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
    };
    let shown = if method == "HEAD" { "" } else { body.as_str() };
    let mut connection = connection;
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{shown}",
        body.len()
    )?;
    connection.flush()
}

fn page() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    format!(
        "A microVM kept by Hearth\n\nhost: {}\nkernel: {}\nup: {} s\n\nidentity:\n{}\nenv:\n{}",
        host.trim(),
        kernel.trim(),
        uptime.split(' ').next().unwrap_or_default(),
        identity(),
        environment()
    )
}

fn identity() -> String {
    match fs::read_to_string(IDENTITY) {
        Ok(identity) => format!("{}\n", identity.trim_end()),
        Err(error) => format!("none ({IDENTITY}: {error})\n"),
    }
}

/// The environment, which holds the spec's variables and nothing but the search path beside them.
fn environment() -> String {
    let mut lines: Vec<_> = env::vars_os()
        .map(|(name, value)| format!("{}={}\n", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    lines.sort();
    lines.concat()
}
