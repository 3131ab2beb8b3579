//! Hub whose certificate is signed by a private certificate authority.

use super::{ID, Server, arg, expected, offline, place, program, run, tiny};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

/// CA certificate in PEM, and the TLS configuration of a server for `localhost` signed by it.
fn authority() -> (String, Arc<ServerConfig>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let chain = vec![params.signed_by(&key, &issuer).expect("a certificate").der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(chain, key);
    (pem, Arc::new(config.expect("a pair")))
}

/// Puts a TLS proxy before a hub and before the second port that it redirects to.
fn behind_tls(mut server: Server, config: Arc<ServerConfig>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let hub = server.endpoint.trim_start_matches("http://").to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            let hub = hub.clone();
            thread::spawn(move || {
                let connection = ServerConnection::new(config).expect("a configuration");
                // A client that does not trust the certificate disconnects.
                let _ = pass(StreamOwned::new(connection, stream), &hub, port);
            });
        }
    });
    server.endpoint = format!("https://localhost:{port}");
    server
}

/// Forwards one request, and its response.
fn pass(
    mut client: StreamOwned<ServerConnection, TcpStream>,
    hub: &str,
    port: u16,
) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(&mut client);
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    // The address that the hub redirected to is part of the path.
    let other = head.split_once(" /via/").and_then(|(_, rest)| rest.split_once('/'));
    let other = other.map(|(address, _)| address.to_owned());
    if let Some(address) = &other {
        head = head.replace(&format!("/via/{address}"), "");
    }
    let mut server = TcpStream::connect(other.as_deref().unwrap_or(hub))?;
    server.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 302") {
        let text = String::from_utf8(answer).expect("a redirect");
        let via = format!("Location: https://localhost:{port}/via/");
        answer = text.replace("Location: http://", &via).into_bytes();
    }
    client.write_all(&answer)?;
    client.conn.send_close_notify();
    client.flush()
}

#[test]
fn the_environment_selects_certificate_authorities() {
    let (pem, config) = authority();
    let server = behind_tls(Server::start(&tiny()), config);
    let place = place();
    let file = place.path().join("ca.pem");
    let dir = place.path().join("certs");
    fs::create_dir(&dir).expect("writable");
    for path in [&file, &dir.join("0a1b2c3d.0")] {
        fs::write(path, format!("# Office\n{pem}")).expect("writable");
    }
    let pull = |home: &str, variables: &[(&str, &str)]| {
        let mut command = program(&server, &place.path().join(home), &["pull", ID]);
        run(command.envs(variables.iter().copied()), b"")
    };
    let unknown = pull("none", &[]);
    unknown.refused("nobody knows it", 69, &[&server.endpoint, "UnknownIssuer", "SSL_CERT_FILE"]);
    assert!(!unknown.stderr.contains("in a row"), "{}", unknown.stderr);
    for (name, path) in [
        ("SSL_CERT_FILE", &file),
        ("SSL_CERT_DIR", &dir),
        ("REQUESTS_CA_BUNDLE", &file),
        ("REQUESTS_CA_BUNDLE", &dir),
        ("CURL_CA_BUNDLE", &file),
    ] {
        let home = format!("{name}-{}", path.is_dir());
        pull(&home, &[(name, arg(path))]).output(name);
        assert!(offline(&server, &place.path().join(home), &[]).output(name) == expected(&tiny()));
    }
    let missing = place.path().join("missing.pem");
    let empty = place.path().join("empty.pem");
    fs::write(&empty, "no certificate").expect("writable");
    for path in [&missing, &empty] {
        let refused = pull("none", &[("SSL_CERT_FILE", arg(path))]);
        refused.refused("no certificate", 2, &["SSL_CERT_FILE", arg(path)]);
    }
}
