//! Runs the server as a separate process, and sends requests to it.

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Timeout, longer than any server here takes to start or to end.
const LIMIT: Duration = Duration::from_secs(60);

pub const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/jinabert-mini-en");

pub fn fixture(name: &str) -> String {
    format!("{}/../../tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Server that is killed at the end of the test.
pub struct Server {
    pub child: Child,
    pub address: String,
    agent: ureq::Agent,
}

/// Response.
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// Asserts status 200; returns the JSON body.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }
}

impl Server {
    /// Starts a server with these arguments on a free port, on the CPU.
    pub fn start(args: &[&str]) -> Self {
        Self::start_on("cpu", args)
    }

    /// Starts a server on the given device.
    pub fn start_on(device: &str, args: &[&str]) -> Self {
        Self::start_with(device, args, &[])
    }

    /// Starts a server on the given device, with environment variables.
    pub fn start_with(device: &str, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jinabert"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("JINABERT_")) {
            command.env_remove(name);
        }
        command.args(["serve", "--port", "0", "--device", device]).args(args);
        command.env("JINABERT_CACHE", "").envs(variables.iter().copied());
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a program");
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let mut all = String::new();
            while said.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                if let Some((_, address)) = line.split_once("listening on http://") {
                    let address = address.trim().trim_end_matches(['"', '}']).to_owned();
                    let _ = sender.send(Ok(address));
                    // Reads the rest, so that the pipe does not fill up.
                    let _ = said.read_to_string(&mut all);
                    return;
                }
                all.push_str(&line);
                line.clear();
            }
            let _ = sender.send(Err(all));
        });
        let address = match receiver.recv_timeout(LIMIT) {
            Ok(Ok(address)) => address,
            Ok(Err(said)) => panic!("no server: {said}"),
            Err(_) => panic!("no server after {LIMIT:?}"),
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(LIMIT));
        Self { child, address, agent: config.build().into() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Posts JSON.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// Posts any body.
    pub fn send(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = self.agent.post(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body))
    }

    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.get(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.call())
    }

    /// Value of a metric in `/metrics`.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics", &[]).text;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no `{name}` in {text}")).parse().expect("a number")
    }

    /// Sends the process a signal, for example `-TERM`.
    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Waits for the end of the process; returns its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        for _ in 0..LIMIT.as_millis() / 20 {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the server does not end");
    }
}

fn answer(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut answer = answer.expect("an answer");
    let status = answer.status().as_u16();
    let headers = answer.headers().clone();
    let text = answer.body_mut().with_config().limit(1 << 30).read_to_string();
    Answer { status, headers, text: text.expect("UTF-8") }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may already have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Model opened in this process, with the server's options.
pub fn embedder(dir: &str) -> jinabert::Embedder {
    let options = jinabert::Options { device: jinabert::Device::Cpu, ..Default::default() };
    jinabert::Embedder::open_with(Path::new(dir), options).expect("a model")
}
