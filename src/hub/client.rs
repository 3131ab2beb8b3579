//! Requests to the hub: redirects, repetitions, and what an answer means.

use super::{
    names::{Id, Revision},
    settings::{Settings, Token},
};
use crate::error::Error;
use std::{
    io, thread,
    time::{Duration, Instant},
};
use ureq::{
    Agent, Body,
    http::{
        Response, StatusCode, Uri,
        header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION, RANGE, RETRY_AFTER},
    },
};

const CONNECT: Duration = Duration::from_secs(10);
const REDIRECTS: usize = 10;

/// Failures in a row before it is given up; fewer where there is no connection.
const FAILURES: u32 = 5;
const UNREACHED: u32 = 2;

/// The wait after the first failure, which doubles; and the longest that the hub may ask for.
const WAIT: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(120);

/// How often whoever waits is asked whether to go on.
const STEP: Duration = Duration::from_millis(500);

/// Asks about one revision of one model.
pub(super) struct Client<'a> {
    agent: Agent,
    settings: &'a Settings,
    id: &'a Id,
    revision: &'a Revision,
}

/// Why a request gave nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It would give nothing the next time, too.
    Final(Error),
    /// The hub was not reached.
    Unreached(String),
    /// The hub, or the way to it, failed; it may have said how long to wait.
    Passing(String, Option<Duration>),
}

impl<'a> Client<'a> {
    pub(super) fn new(settings: &'a Settings, id: &'a Id, revision: &'a Revision) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Followed here, where the token's way is watched.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("jinabert/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(settings.silence))
            .timeout_per_read(Some(settings.silence));
        Self { agent: config.build().into(), settings, id, revision }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.settings.endpoint
    }

    /// The model and its revision, for people.
    pub(super) fn about(&self) -> String {
        format!("`{}` (revision {})", self.id, self.revision)
    }

    /// The address of the list of files.
    pub(super) fn listing(&self) -> String {
        let (endpoint, revision) = (self.endpoint(), self.revision.escaped());
        format!("{endpoint}/api/models/{}/revision/{revision}?blobs=true", self.id)
    }

    /// The address of a file.
    pub(super) fn file(&self, commit: &str, name: &str) -> String {
        format!("{}/{}/resolve/{commit}/{name}", self.endpoint(), self.id)
    }

    /// Asks for a header at the hub itself, and where that was.
    pub(super) fn head(&self, url: &str) -> Result<(Response<Body>, String), Trouble> {
        let (response, url) =
            self.follow(url, |from, to| from == to, |url| self.agent.head(url))?;
        Ok((response, url))
    }

    /// Asks for a body, from a position on, wherever the hub sends for it.
    pub(super) fn get(&self, url: &str, from: Option<u64>) -> Result<Response<Body>, Trouble> {
        let secure = |from: &Origin, to: &Origin| from.0 != "https" || to.0 == "https";
        let (response, _) = self.follow(url, secure, |url| {
            let request = self.agent.get(url);
            match from {
                Some(from) => request.header(RANGE, format!("bytes={from}-")),
                None => request,
            }
        })?;
        match response.status().is_redirection() {
            true => {
                let what = format!("{} redirects from https to http", self.endpoint());
                Err(Trouble::Final(Error::Network(what)))
            }
            false => Ok(response),
        }
    }

    /// Sends a request, and again to where it is redirected to, if it `may` go there.
    fn follow(
        &self,
        url: &str,
        may: impl Fn(&Origin, &Origin) -> bool,
        request: impl Fn(&str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody>,
    ) -> Result<(Response<Body>, String), Trouble> {
        let home = Origin::of(self.endpoint());
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS {
            let mut request = request(&url).header(ACCEPT_ENCODING, "identity");
            // The secret is for the hub alone, not for those whom it sends us to.
            if let Some(Token { secret, .. }) = self.settings.token.as_ref()
                && home.is_some()
                && Origin::of(&url) == home
            {
                request = request.header(AUTHORIZATION, format!("Bearer {secret}"));
            }
            let response = request.call().map_err(|error| self.trouble(&error))?;
            let status = response.status();
            if !status.is_redirection() {
                return match status.is_success() {
                    true => Ok((response, url)),
                    false => Err(self.refused(&response)),
                };
            }
            let target = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let target = target.and_then(|to| absolute(&url, to));
            let (Some(target), Some(from)) = (target, Origin::of(&url)) else {
                let what = format!("{} redirects to nowhere", self.endpoint());
                return Err(Trouble::Final(Error::Network(what)));
            };
            if !Origin::of(&target).is_some_and(|to| may(&from, &to)) {
                return Ok((response, url));
            }
            url = target;
        }
        let what = format!("{} redirects more than {REDIRECTS} times", self.endpoint());
        Err(Trouble::Final(Error::Network(what)))
    }

    /// What an answer means that is none.
    fn refused(&self, response: &Response<Body>) -> Trouble {
        let (status, endpoint) = (response.status(), self.endpoint());
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
        let (id, about) = (self.id, self.about());
        let hub = |what| Trouble::Final(Error::Hub(what));
        match status {
            StatusCode::NOT_FOUND if code == Some("RevisionNotFound") => {
                hub(format!("`{id}` has no revision {} at {endpoint}", self.revision))
            }
            StatusCode::NOT_FOUND => hub(format!("there is no {about} at {endpoint}")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let status = status.as_u16();
                hub(match &self.settings.token {
                    None => format!(
                        "{about} is gated or private, or there is none: {endpoint} answers {status}; \
                         set HF_TOKEN to a token that has access"
                    ),
                    Some(Token { from, .. }) => format!(
                        "{about}: {endpoint} answers {status}: {from} has no access; ask for it at \
                         {endpoint}/{id}"
                    ),
                })
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => self.busy(response),
            _ if status.is_server_error() => self.busy(response),
            _ => {
                let status = status.as_u16();
                let what = format!("{endpoint} answers {status} when asked for {about}");
                Trouble::Final(Error::Network(what))
            }
        }
    }

    fn busy(&self, response: &Response<Body>) -> Trouble {
        let after = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
        let after = after.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        let status = response.status().as_u16();
        Trouble::Passing(format!("{} answers {status}", self.endpoint()), after)
    }

    /// What went wrong on the way.
    pub(super) fn trouble(&self, error: &ureq::Error) -> Trouble {
        use io::ErrorKind::{
            AddrNotAvailable, ConnectionRefused, HostUnreachable, InvalidData, NetworkDown,
            NetworkUnreachable,
        };
        let what = format!("{}: {error}", self.endpoint());
        match error {
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => Trouble::Unreached(what),
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                Trouble::Unreached(what)
            }
            ureq::Error::Io(error) => match error.kind() {
                ConnectionRefused | HostUnreachable | NetworkUnreachable | NetworkDown
                | AddrNotAvailable => Trouble::Unreached(what),
                // Certificates, and servers that do not speak TLS.
                InvalidData => Trouble::Final(Error::Network(what)),
                _ => Trouble::Passing(what, None),
            },
            ureq::Error::BadUri(_)
            | ureq::Error::Http(_)
            | ureq::Error::Tls(_)
            | ureq::Error::Rustls(_)
            | ureq::Error::InvalidProxyUrl => Trouble::Final(Error::Network(what)),
            _ => Trouble::Passing(what, None),
        }
    }

    /// Asks until there is an answer or no more hope.
    pub(super) fn patiently<T>(
        &self,
        mut ask: impl FnMut() -> Result<T, Trouble>,
    ) -> Result<T, Error> {
        let mut patience = Patience::default();
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(trouble) => patience.bear(trouble, || Ok(()))?,
            }
        }
    }
}

/// How often it went wrong.
#[derive(Default)]
pub(super) struct Patience {
    failures: u32,
}

impl Patience {
    /// Something went well.
    pub(super) fn renew(&mut self) {
        self.failures = 0;
    }

    /// Waits for a better moment, or gives up; `asked` may end it.
    pub(super) fn bear(
        &mut self,
        trouble: Trouble,
        asked: impl Fn() -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.failures += 1;
        let wait = self.wait(trouble)?;
        let end = Instant::now() + wait;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            asked()?;
            thread::sleep(left.min(STEP));
        }
        Ok(())
    }

    fn wait(&self, trouble: Trouble) -> Result<Duration, Error> {
        let failures = self.failures;
        let (what, most, after) = match trouble {
            Trouble::Final(error) => return Err(error),
            Trouble::Unreached(what) => (what, UNREACHED, None),
            Trouble::Passing(what, after) => (what, FAILURES, after),
        };
        if let Some(after) = after.filter(|after| *after > LONGEST) {
            let (after, longest) = (after.as_secs(), LONGEST.as_secs());
            return Err(Error::Network(format!(
                "{what} and asks to wait {after} s, over {longest}; try again then"
            )));
        }
        if failures >= most {
            return Err(Error::Network(format!("{what}, {failures} times in a row")));
        }
        let wait = after.unwrap_or(WAIT * 2_u32.pow(failures - 1));
        tracing::info!("{what}: once more in {:.1} s", wait.as_secs_f64());
        Ok(wait)
    }
}

/// Scheme, host and port.
#[derive(PartialEq, Eq)]
struct Origin(String, String, u16);

impl Origin {
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some(Self(scheme, uri.host()?.to_ascii_lowercase(), port))
    }
}

/// Where a redirect leads that may leave scheme and host out.
fn absolute(from: &str, to: &str) -> Option<String> {
    if to.starts_with("http://") || to.starts_with("https://") {
        return Some(to.to_owned());
    }
    let uri: Uri = from.parse().ok()?;
    let (scheme, host) = (uri.scheme_str()?, uri.authority()?);
    if to.starts_with("//") {
        return Some(format!("{scheme}:{to}"));
    }
    to.starts_with('/').then(|| format!("{scheme}://{host}{to}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved() {
        let from = "https://h:7/a/b?c";
        for (to, expected) in [
            ("/x?y", Some("https://h:7/x?y")),
            ("//i/x", Some("https://i/x")),
            ("http://j/", Some("http://j/")),
            ("x", None),
            ("file:///x", None),
        ] {
            assert_eq!(absolute(from, to).as_deref(), expected, "{to}");
        }
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let same = |a, b| Origin::of(a) == Origin::of(b);
        assert!(same("https://H/a", "https://h:443/b"));
        for other in ["http://h", "https://h:444", "https://h.i", "https://i"] {
            assert!(!same("https://h", other), "{other}");
        }
    }

    #[test]
    fn patience_ends() {
        let passing = |after| Trouble::Passing("busy".into(), after);
        let patience = |failures| Patience { failures };
        let wait = |failures, after: Option<u64>| {
            patience(failures).wait(passing(after.map(Duration::from_secs))).ok()
        };
        assert_eq!(wait(1, None), Some(WAIT));
        assert_eq!(wait(4, None), Some(8 * WAIT));
        assert_eq!(wait(5, None), None);
        assert_eq!(wait(1, Some(7)), Some(Duration::from_secs(7)));
        assert_eq!(wait(1, Some(121)), None);
        assert!(patience(2).wait(Trouble::Unreached(String::new())).is_err());
        assert!(patience(1).wait(Trouble::Final(Error::Hub(String::new()))).is_err());
    }
}
