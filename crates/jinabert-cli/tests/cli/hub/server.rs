//! Hub on this machine: it lists files, redirects to a second port, resumes, and fails on demand.

use ring::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, RwLock},
    thread,
    time::Duration,
};

/// Model that is served.
pub const ID: &str = "owner/tiny";
pub const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";

/// Large files are served from the second port.
const LARGE: &str = ".safetensors";

/// Recorded request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Start of the requested range.
    pub from: Option<usize>,
    pub token: Option<String>,
    /// Sent to the second port.
    pub cdn: bool,
}

impl Request {
    /// True for a request for the bytes of a file.
    pub fn fetches(&self, name: &str) -> bool {
        let place = if self.cdn { "/cdn/" } else { "/resolve/" };
        let rest = self.path.split_once(place).map(|(_, rest)| rest);
        let rest =
            if self.cdn { rest } else { rest.and_then(|rest| Some(rest.split_once('/')?.1)) };
        self.method == "GET" && self.cdn == name.ends_with(LARGE) && rest == Some(name)
    }

    pub fn lists(&self) -> bool {
        self.path.starts_with("/api/")
    }
}

/// Faulty response.
#[derive(Clone)]
pub enum Fault {
    /// This status, with header lines.
    Status(u16, &'static str),
    /// Body up to this length, then the connection is closed.
    Cut(usize),
    /// Body up to this length, then a pause.
    Stall(usize, Duration),
    /// Another body, with its own length.
    Body(Vec<u8>),
    /// Whole body, even if a range is requested.
    Whole,
    /// Correct response, delayed.
    Late(Duration),
    /// Correct response, with this header line before all others.
    Header(&'static str),
    /// Redirect to the same path of another model.
    Moved(&'static str, &'static str),
}

type Faults = dyn Fn(&Request, usize) -> Option<Fault> + Send + Sync;

struct State {
    files: RwLock<BTreeMap<String, Vec<u8>>>,
    commit: RwLock<&'static str>,
    /// Token required for the model, if any.
    token: Option<&'static str>,
    /// Fault for a request, given the number of equal requests before it.
    faults: Box<Faults>,
    requests: Mutex<Vec<Request>>,
    cdn: String,
}

pub struct Server {
    pub endpoint: String,
    state: Arc<State>,
}

impl Server {
    /// Serves a fixture, and files that no model needs.
    pub fn start(fixture: &Path) -> Self {
        Self::with(fixture, None, |_, _| None)
    }

    pub fn with(
        fixture: &Path,
        token: Option<&'static str>,
        faults: impl Fn(&Request, usize) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        let mut files = BTreeMap::new();
        for name in super::kit::names(fixture).iter().filter(|name| *name != "cases.json") {
            let path = fixture.join(name);
            if path.is_file() {
                files.insert(name.clone(), fs::read(path).expect("a file"));
                continue;
            }
            for inner in super::kit::names(&path) {
                let bytes = fs::read(path.join(&inner)).expect("a file");
                files.insert(format!("{name}/{inner}"), bytes);
            }
        }
        for name in ["LICENSE", "pytorch_model.bin", "onnx/model.onnx"] {
            files.insert(name.to_owned(), b"not for us".to_vec());
        }
        let card = b"---\nlicense: apache-2.0\n---\n# A model\n";
        files.insert("README.md".to_owned(), card.to_vec());
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = |listener: &TcpListener| listener.local_addr().expect("bound").to_string();
        let hub = listen();
        let cdn = listen();
        let state = Arc::new(State {
            files: RwLock::new(files),
            commit: RwLock::new(COMMIT),
            token,
            faults: Box::new(faults),
            requests: Mutex::default(),
            cdn: at(&cdn),
        });
        let endpoint = format!("http://{}", at(&hub));
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = Arc::clone(&state);
                    thread::spawn(move || state.answer(stream, is_cdn));
                }
            });
        }
        Self { endpoint, state }
    }

    /// Requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.requests.lock().expect("no panic"))
    }

    /// Removes, adds or changes files.
    pub fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) {
        change(&mut self.state.files.write().expect("no panic"));
    }

    /// Makes another commit with these files the newest.
    pub fn commit(&self, commit: &'static str) {
        *self.state.commit.write().expect("no panic") = commit;
    }

    /// Bytes of a file.
    pub fn file(&self, name: &str) -> Vec<u8> {
        self.state.files.read().expect("no panic")[name].clone()
    }
}

/// ETag: the hash by which the hub names a file.
pub fn etag(name: &str, bytes: &[u8]) -> String {
    let digest = if name.ends_with(LARGE) {
        digest::digest(&SHA256, bytes)
    } else {
        let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
        digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob)
    };
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl State {
    fn answer(&self, mut stream: TcpStream, cdn: bool) {
        let Some(request) = read(&stream, cdn) else { return };
        let equal = |other: &&Request| {
            (&other.path, &other.method) == (&request.path, &request.method) && other.cdn == cdn
        };
        let before = {
            let mut requests = self.requests.lock().expect("no panic");
            requests.push(request.clone());
            requests.iter().filter(equal).count() - 1
        };
        let fault = (self.faults)(&request, before);
        // The client may have disconnected.
        let _ = self.respond(&mut stream, &request, fault);
    }

    fn respond(
        &self,
        stream: &mut TcpStream,
        request: &Request,
        fault: Option<Fault>,
    ) -> std::io::Result<()> {
        let status = |code: u16, fields: &str| {
            let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
            format!("HTTP/1.1 {code} X\r\n{fields}Content-Length: 0\r\nConnection: close\r\n\r\n")
        };
        let mut first = "X-Plain: yes";
        match &fault {
            Some(Fault::Status(code, fields)) => {
                return stream.write_all(status(*code, fields).as_bytes());
            }
            Some(Fault::Late(wait)) => thread::sleep(*wait),
            Some(Fault::Header(field)) => first = field,
            Some(Fault::Moved(from, to)) => {
                let location = format!("Location: {}", request.path.replace(from, to));
                return stream.write_all(status(307, &location).as_bytes());
            }
            _ => {}
        }
        let (name, mut body) = match self.find(request) {
            Ok(found) => found,
            Err((code, fields)) => return stream.write_all(status(code, fields).as_bytes()),
        };
        let etag = etag(&name, &body);
        let size = body.len();
        let head = request.method == "HEAD";
        if !request.cdn && name.ends_with(LARGE) {
            let head = format!(
                "HTTP/1.1 302 Found\r\n{first}\r\nLocation: http://{}/cdn/{name}\r\nETag: \"cdn\"\r\n\
                 X-Linked-ETag: \"{etag}\"\r\nX-Linked-Size: {size}\r\nX-Repo-Commit: {}\r\n\
                 Content-Length: 7\r\nConnection: close\r\n\r\n",
                self.cdn,
                self.commit.read().expect("no panic")
            );
            return stream.write_all([head.as_bytes(), b"Found.\n"].concat().as_slice());
        }
        if let Some(Fault::Body(other)) = &fault {
            body.clone_from(other);
        }
        let from = request.from.filter(|_| !matches!(fault, Some(Fault::Whole))).unwrap_or(0);
        let whole = body.len();
        let body = &body[from.min(whole)..];
        let range = format!("Content-Range: bytes {from}-{}/{whole}\r\n", whole.saturating_sub(1));
        let (code, range) = if from > 0 { (206, &*range) } else { (200, "") };
        let answer = format!(
            "HTTP/1.1 {code} X\r\n{first}\r\nContent-Length: {}\r\n{range}ETag: \"{etag}\"\r\n\
             X-Repo-Commit: {}\r\nConnection: close\r\n\r\n",
            body.len(),
            self.commit.read().expect("no panic")
        );
        stream.write_all(answer.as_bytes())?;
        match fault {
            _ if head => Ok(()),
            Some(Fault::Cut(at)) => stream.write_all(&body[..at]),
            Some(Fault::Stall(at, wait)) => {
                stream.write_all(&body[..at])?;
                thread::sleep(wait);
                Ok(())
            }
            _ => stream.write_all(body),
        }
    }

    /// Name and bytes of the requested file, or an error response.
    fn find(&self, request: &Request) -> Result<(String, Vec<u8>), (u16, &'static str)> {
        let files = self.files.read().expect("no panic");
        let commit = *self.commit.read().expect("no panic");
        let path = request.path.as_str();
        if let Some(name) = path.strip_prefix("/cdn/").filter(|_| request.cdn) {
            return Ok((name.to_owned(), files[name].clone()));
        }
        if !path.starts_with(&format!("/{ID}/")) && !path.starts_with(&format!("/api/models/{ID}/"))
        {
            return Err((404, "X-Error-Code: RepoNotFound"));
        }
        let list = path.strip_prefix(&format!("/api/models/{ID}/revision/"));
        if let Some(revision) = list {
            let revision = revision.strip_suffix("?blobs=true").unwrap_or(revision);
            if ![commit, "main", "v1.0", "refs%2Fpr%2F1"].contains(&revision) {
                return Err((404, "X-Error-Code: RevisionNotFound"));
            }
            let sibling = |(name, bytes): (&String, &Vec<u8>)| {
                let lfs = name.ends_with(LARGE).then(|| json!({"sha256": etag(name, bytes)}));
                json!({"rfilename": name, "size": bytes.len(), "lfs": lfs})
            };
            let siblings: Vec<_> = files.iter().map(sibling).collect();
            let list = json!({"id": ID, "sha": commit, "siblings": siblings, "gated": false});
            return Ok(("list".to_owned(), list.to_string().into_bytes()));
        }
        match (self.token, &request.token) {
            (Some(_), None) => return Err((401, "X-Error-Code: GatedRepo")),
            (Some(token), Some(other)) if *other != format!("Bearer {token}") => {
                return Err((403, "X-Error-Code: GatedRepo"));
            }
            _ => {}
        }
        let name = path.strip_prefix(&format!("/{ID}/resolve/{commit}/"));
        let name = name.ok_or((404, "X-Error-Code: RevisionNotFound"))?;
        let bytes = files.get(name).ok_or((404, "X-Error-Code: EntryNotFound"))?;
        Ok((name.to_owned(), bytes.clone()))
    }
}

fn read(stream: &TcpStream, cdn: bool) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let method = words.next()?.to_owned();
    let path = words.next()?.to_owned();
    let mut request = Request { method, path, from: None, token: None, cdn };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let from = value.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
                request.from = Some(from?.parse().ok()?);
            }
            "authorization" => request.token = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(request)
}
