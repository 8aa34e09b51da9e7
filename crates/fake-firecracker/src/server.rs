//! HTTP over the API's socket: up to ten connections, calls in order.

use crate::api::{self, Answer, Request};
use crate::script::{Does, Effect};
use crate::shared::{Shared, before, lock};
use crate::vm::Vm;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const CONNECTIONS_MAX: usize = 10;
/// Longest line of a head, in bytes.
const LINE_BYTES_MAX: u64 = 1024;

const TOO_MANY: &[u8] = b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\n\
    Content-Length: 40\r\n\r\n{ \"error\": \"Too many open connections\" }";

/// One of the open connections.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a connection gets.
enum Told {
    Answer(Answer),
    Bytes(String),
    Nothing,
}

/// Serves until the listener fails. The microVM is locked over a call: calls are served in order.
pub(crate) fn serve(
    vm: &Arc<Mutex<Vm>>,
    shared: &Arc<Shared>,
    listener: &UnixListener,
    body_bytes_max: usize,
) -> io::Error {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => return error,
        };
        open.fetch_add(1, Ordering::AcqRel);
        let place = Place(Arc::clone(&open));
        if open.load(Ordering::Acquire) > CONNECTIONS_MAX {
            let _ = stream.write_all(TOO_MANY);
            continue;
        }
        let (vm, shared) = (Arc::clone(vm), Arc::clone(shared));
        std::thread::spawn(move || {
            // A connection that breaks is its client's affair.
            let _ = converse(&vm, &shared, &stream, &place, body_bytes_max);
        });
    }
}

fn converse(
    vm: &Arc<Mutex<Vm>>,
    shared: &Arc<Shared>,
    stream: &UnixStream,
    place: &Place,
    body_bytes_max: usize,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let told = match read(&mut reader, body_bytes_max)? {
            None => return Ok(()),
            Some(Err(answer)) => {
                // Firecracker takes what is left of such a request for the next one; nothing that is
                // worth an imitation comes of it.
                write(stream, &answer)?;
                return Ok(());
            }
            Some(Ok(request)) => answer(vm, shared, &request, place.0.load(Ordering::Acquire)),
        };
        match told {
            Told::Answer(answer) => write(stream, &answer)?,
            Told::Bytes(bytes) => return (&*stream).write_all(bytes.as_bytes()),
            Told::Nothing => return Ok(()),
        }
        lock(vm).let_run();
    }
}

/// One request. `None` at the end of the connection; an answer if it is not a request.
fn read(
    reader: &mut BufReader<&UnixStream>,
    body_bytes_max: usize,
) -> io::Result<Option<Result<Request, Answer>>> {
    let Some(first) = line(reader)? else { return Ok(None) };
    let mut words = first.split(' ');
    let (Some(method), Some(path), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Ok(Some(Err(Answer::error("Invalid request."))));
    };
    if !version.starts_with("HTTP/1.") {
        return Ok(Some(Err(Answer::error("Invalid request."))));
    }
    if !["GET", "PUT", "PATCH"].contains(&method) {
        let text = "Invalid HTTP Method: Unsupported HTTP method.";
        return Ok(Some(Err(Answer::error(text))));
    }
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut bytes = 0;
    loop {
        let Some(header) = line(reader)? else { return Ok(None) };
        if header.is_empty() {
            break;
        }
        let Some((name, value)) = header.split_once(':') else {
            return Ok(Some(Err(Answer::error("Invalid request."))));
        };
        if name.eq_ignore_ascii_case("content-length") {
            let Ok(length) = value.trim().parse::<usize>() else {
                let text = format!(
                    "Invalid header. Reason: Invalid value. Key:{name}; Value: {}",
                    value.trim()
                );
                return Ok(Some(Err(Answer::error(&text))));
            };
            bytes = length;
        }
    }
    if bytes > body_bytes_max {
        io::copy(&mut reader.take(bytes as u64), &mut io::sink())?;
        let text = format!(
            "Request payload with size {bytes} is larger than the limit of {body_bytes_max} allowed \
             by server."
        );
        return Ok(Some(Err(Answer::error(&text))));
    }
    let mut body = vec![0; bytes];
    reader.read_exact(&mut body)?;
    Ok(Some(Ok(Request { method, path, body })))
}

/// A line of a head without its end. `None` where the connection ends before it.
fn line(reader: &mut BufReader<&UnixStream>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(Some(String::from_utf8_lossy(line).into_owned())),
        None => Ok(None),
    }
}

/// Does what is asked for, or what the script says. Locks the microVM until then.
fn answer(vm: &Mutex<Vm>, shared: &Arc<Shared>, request: &Request, open: usize) -> Told {
    let mut vm = lock(vm);
    let fault = lock(&shared.script).at_call(&request.name(), open);
    let Some((effect, does)) = fault else {
        return Told::Answer(api::handle(shared, &mut vm, request));
    };
    let done = (effect == Effect::Done).then(|| api::handle(shared, &mut vm, request));
    vm.let_run();
    before(shared, &does);
    match does {
        Does::Answer { status, message } => Told::Answer(Answer::fault(status, &message)),
        Does::Garbage(bytes) => Told::Bytes(bytes),
        Does::Close => Told::Nothing,
        Does::Nothing => Told::Answer(done.unwrap_or(Answer { status: 204, body: None })),
        _ => Told::Answer(done.unwrap_or_else(|| api::handle(shared, &mut vm, request))),
    }
}

fn write(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut text = format!(
        "HTTP/1.1 {} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n",
        answer.status
    );
    if let Some(body) = &answer.body {
        text += &format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    } else {
        text += "\r\n";
    }
    stream.write_all(text.as_bytes())
}
