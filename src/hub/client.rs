//! Requests to the hub: redirects, retries, and errors.

use super::{
    names::{Id, Revision},
    roots,
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
        header::{ACCEPT_ENCODING, AUTHORIZATION, AsHeaderName, LOCATION, RANGE, RETRY_AFTER},
    },
    tls::TlsConfig,
};

const CONNECT: Duration = Duration::from_secs(10);
const REDIRECTS: usize = 10;

/// Maximum number of consecutive failures, and of consecutive failures to connect.
const FAILURES: u32 = 5;
const UNREACHED: u32 = 2;

/// First wait, which doubles with each failure; and the longest wait that the hub may request.
const WAIT: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(120);

/// Interval at which a wait checks for cancellation.
const STEP: Duration = Duration::from_millis(500);

/// Client for one revision of one model.
pub(super) struct Client<'a> {
    agent: Agent,
    settings: &'a Settings,
    id: &'a Id,
    revision: &'a Revision,
}

/// Reason why a request failed.
#[derive(Debug)]
pub(super) enum RequestError {
    /// Permanent error: a retry would fail, too.
    Final(Error),
    /// The hub could not be reached.
    Unreached(String),
    /// Temporary failure of the hub or the network, with the wait that the hub requested, if any.
    Passing(String, Option<Duration>),
}

impl<'a> Client<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        id: &'a Id,
        revision: &'a Revision,
    ) -> Result<Self, Error> {
        let tls = TlsConfig::builder().root_certs(roots::roots(&settings.authorities)?);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed here, to control where the token is sent.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("jinabert/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(settings.silence))
            .timeout_per_read(Some(settings.silence))
            .tls_config(tls.build());
        Ok(Self { agent: config.build().into(), settings, id, revision })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.settings.endpoint
    }

    /// Model and revision, for messages.
    pub(super) fn about(&self) -> String {
        format!("`{}` (revision {})", self.id, self.revision)
    }

    /// URL of the list of files.
    pub(super) fn listing(&self) -> String {
        let endpoint = self.endpoint();
        let revision = self.revision.escaped();
        format!("{endpoint}/api/models/{}/revision/{revision}?blobs=true", self.id)
    }

    /// URL of a file.
    pub(super) fn file(&self, commit: &str, name: &str) -> String {
        format!("{}/{}/resolve/{commit}/{name}", self.endpoint(), self.id)
    }

    /// Requests the headers from the hub itself; returns also the URL they came from.
    pub(super) fn head(&self, url: &str) -> Result<(Response<Body>, String), RequestError> {
        let (response, url) =
            self.follow(url, |from, to| from == to, |url| self.agent.head(url))?;
        Ok((response, url))
    }

    /// Requests a body, from a position on; follows redirects to other hosts.
    pub(super) fn get(&self, url: &str, from: Option<u64>) -> Result<Response<Body>, RequestError> {
        let (response, _) = self.follow(url, Origin::keeps_encryption, |url| {
            let request = self.agent.get(url);
            match from {
                Some(from) => request.header(RANGE, format!("bytes={from}-")),
                None => request,
            }
        })?;
        if response.status().is_redirection() {
            let what = format!("{} redirects from https to http", self.endpoint());
            Err(RequestError::Final(Error::Network(what)))
        } else {
            Ok(response)
        }
    }

    /// Sends a request and follows redirects that `may` allows.
    fn follow(
        &self,
        url: &str,
        may: impl Fn(&Origin, &Origin) -> bool,
        begin: impl Fn(&str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody>,
    ) -> Result<(Response<Body>, String), RequestError> {
        let home = Origin::of(self.endpoint());
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS {
            let mut request = begin(&url).header(ACCEPT_ENCODING, "identity");
            // The token is for the hub alone, not for the hosts that it redirects to.
            if let Some(Token { secret, .. }) = self.settings.token.as_ref()
                && home.is_some()
                && Origin::of(&url) == home
            {
                request = request.header(AUTHORIZATION, format!("Bearer {secret}"));
            }
            let response = request.call().map_err(|error| self.trouble(&error))?;
            let status = response.status();
            if !status.is_redirection() {
                return if status.is_success() {
                    Ok((response, url))
                } else {
                    Err(self.refused(&response))
                };
            }
            let target = field(&response, LOCATION).and_then(|to| absolute(&url, to));
            let (Some(target), Some(from)) = (target, Origin::of(&url)) else {
                let what = format!("{} redirects to nowhere", self.endpoint());
                return Err(RequestError::Final(Error::Network(what)));
            };
            if !Origin::of(&target).is_some_and(|to| may(&from, &to)) {
                return Ok((response, url));
            }
            url = target;
        }
        let what = format!("{} redirects more than {REDIRECTS} times", self.endpoint());
        Err(RequestError::Final(Error::Network(what)))
    }

    /// Converts an error response.
    fn refused(&self, response: &Response<Body>) -> RequestError {
        let status = response.status();
        let code = status.as_u16();
        let endpoint = self.endpoint();
        let about = self.about();
        RequestError::Final(match status {
            StatusCode::NOT_FOUND
                if field(response, "x-error-code") == Some("RevisionNotFound") =>
            {
                let Self { id, revision, .. } = self;
                Error::Hub(format!("`{id}` has no revision {revision} at {endpoint}"))
            }
            StatusCode::NOT_FOUND => Error::Hub(format!("there is no {about} at {endpoint}")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Hub(self.no_access(code)),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                return self.busy(response);
            }
            _ if status.is_server_error() => return self.busy(response),
            _ => Error::Network(format!("{endpoint} answered {code} to the request for {about}")),
        })
    }

    /// Error message for a model that the token, or no token, has no access to.
    fn no_access(&self, code: u16) -> String {
        let endpoint = self.endpoint();
        let about = self.about();
        match &self.settings.token {
            None => format!(
                "{about} is gated or private, or there is none: {endpoint} answers {code}; \
                 set HF_TOKEN to a token that has access"
            ),
            Some(Token { from, .. }) => format!(
                "{about}: {endpoint} answers {code}: {from} has no access; ask for it at \
                 {endpoint}/{}",
                self.id
            ),
        }
    }

    /// Error message about a file in a response.
    pub(super) fn wrong_file(&self, name: &str, what: &str) -> Error {
        Error::Network(format!("{}: `{name}` of {}: {what}", self.endpoint(), self.about()))
    }

    fn busy(&self, response: &Response<Body>) -> RequestError {
        let seconds = field(response, RETRY_AFTER).and_then(|after| after.trim().parse().ok());
        let after = seconds.map(Duration::from_secs);
        let status = response.status().as_u16();
        RequestError::Passing(format!("{} answers {status}", self.endpoint()), after)
    }

    /// Converts a transport error.
    pub(super) fn trouble(&self, error: &ureq::Error) -> RequestError {
        use io::ErrorKind::{
            AddrNotAvailable, ConnectionRefused, HostUnreachable, InvalidData, NetworkDown,
            NetworkUnreachable,
        };
        let mut what = format!("{}: {error}", self.endpoint());
        if what.contains("UnknownIssuer") {
            what.push_str("; SSL_CERT_FILE may name the certificate of a company's own authority");
        }
        match error {
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
                RequestError::Unreached(what)
            }
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                RequestError::Unreached(what)
            }
            ureq::Error::Io(error) => match error.kind() {
                ConnectionRefused | HostUnreachable | NetworkUnreachable | NetworkDown
                | AddrNotAvailable => RequestError::Unreached(what),
                // Certificate errors, and servers that do not speak TLS.
                InvalidData => RequestError::Final(Error::Network(what)),
                _ => RequestError::Passing(what, None),
            },
            ureq::Error::BadUri(_)
            | ureq::Error::Http(_)
            | ureq::Error::Tls(_)
            | ureq::Error::Rustls(_)
            | ureq::Error::InvalidProxyUrl => RequestError::Final(Error::Network(what)),
            _ => RequestError::Passing(what, None),
        }
    }

    /// Retries until there is a response or a permanent error.
    pub(super) fn patiently<T>(
        &self,
        mut ask: impl FnMut() -> Result<T, RequestError>,
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

/// Retry state: number of consecutive failures.
#[derive(Default)]
pub(super) struct Patience {
    failures: u32,
}

impl Patience {
    /// Resets the count after progress.
    pub(super) fn renew(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt, or gives up; `asked` may cancel the wait.
    pub(super) fn bear(
        &mut self,
        trouble: RequestError,
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

    fn wait(&self, trouble: RequestError) -> Result<Duration, Error> {
        let failures = self.failures;
        let (what, most, after) = match trouble {
            RequestError::Final(error) => return Err(error),
            RequestError::Unreached(what) => (what, UNREACHED, None),
            RequestError::Passing(what, after) => (what, FAILURES, after),
        };
        if let Some(after) = after.filter(|after| *after > LONGEST) {
            let after = after.as_secs();
            let longest = LONGEST.as_secs();
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

    /// True if a redirect to another origin does not lose encryption.
    fn keeps_encryption(&self, to: &Self) -> bool {
        self.0 != "https" || to.0 == "https"
    }
}

/// Text of a header field of a response.
pub(super) fn field(response: &Response<Body>, name: impl AsHeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// Absolute URL of a redirect, which may leave out scheme and host.
fn absolute(from: &str, to: &str) -> Option<String> {
    if to.starts_with("http://") || to.starts_with("https://") {
        return Some(to.to_owned());
    }
    let uri: Uri = from.parse().ok()?;
    let scheme = uri.scheme_str()?;
    let host = uri.authority()?;
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
        let passing = |after| RequestError::Passing("busy".into(), after);
        let patience = |failures| Patience { failures };
        let wait = |failures, after: Option<u64>| {
            patience(failures).wait(passing(after.map(Duration::from_secs))).ok()
        };
        assert_eq!(wait(1, None), Some(WAIT));
        assert_eq!(wait(4, None), Some(8 * WAIT));
        assert_eq!(wait(5, None), None);
        assert_eq!(wait(1, Some(7)), Some(Duration::from_secs(7)));
        assert_eq!(wait(1, Some(121)), None);
        assert!(patience(2).wait(RequestError::Unreached(String::new())).is_err());
        assert!(patience(1).wait(RequestError::Final(Error::Hub(String::new()))).is_err());
    }
}
