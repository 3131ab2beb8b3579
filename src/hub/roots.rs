//! Certificate authorities (CAs) that are trusted to sign a hub's certificate.

use crate::error::Error;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

/// Environment variables that name files or directories with more CAs: those of OpenSSL, Python's
/// clients and curl.
pub(super) const VARIABLES: [&str; 4] =
    ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// CAs of Mozilla, of the system, and of the files and directories that variables name.
///
/// # Errors
/// [`Error::Option`] for a path that cannot be read or holds no certificate.
pub(super) fn roots(named: &[(&'static str, PathBuf)]) -> Result<RootCerts, Error> {
    let mut more = Vec::new();
    for (variable, path) in named {
        let found = read(path).map_err(|e| refused(variable, path, &e.to_string()))?;
        if found.is_empty() {
            let what = "expected a certificate in PEM, found none";
            return Err(refused(variable, path, what));
        }
        more.extend(found);
    }
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!("authorities of the system: {error}");
    }
    more.extend(system.certs.iter().map(|one| Certificate::from_der(one).to_owned()));
    if more.is_empty() {
        return Ok(RootCerts::WebPki);
    }
    let own = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    more.extend(own.map(|one| Certificate::from_der(one).to_owned()));
    Ok(RootCerts::Specific(Arc::new(more)))
}

fn refused(variable: &str, path: &Path, what: &str) -> Error {
    Error::Option(format!("{variable} `{}`: {what}", path.display()))
}

/// Reads the certificates of a file, or of all files of a directory.
fn read(path: &Path) -> io::Result<Vec<Certificate<'static>>> {
    if !path.is_dir() {
        return Ok(certificates(&fs::read(path)?));
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        // A directory of certificates may contain dangling links.
        if path.is_file() {
            all.extend(certificates(&fs::read(path)?));
        }
    }
    Ok(all)
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let items = parse_pem(pem).filter_map(Result::ok);
    let found = items.filter_map(|item| match item {
        PemItem::Certificate(one) => Some(one),
        _ => None,
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "# Office\n-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n";

    #[test]
    fn files_and_directories_of_certificates_are_added() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("ca.pem");
        let dir = place.path().join("certs");
        fs::create_dir(&dir).expect("writable");
        fs::write(&file, [PEM, PEM].concat()).expect("writable");
        let RootCerts::Specific(found) = roots(&[("SSL_CERT_FILE", file.clone())]).expect("two")
        else {
            panic!("two more than none");
        };
        let own = webpki_root_certs::TLS_SERVER_ROOT_CERTS.len();
        assert!(found.len() >= own + 2);
        assert_eq!((found[0].der(), found[1].der()), (&[0, 1, 2][..], &[0, 1, 2][..]));
        for (path, says) in [
            (place.path().join("none.pem"), "(os error"),
            (dir.clone(), "expected a certificate in PEM, found none"),
        ] {
            let error = roots(&[("SSL_CERT_DIR", path.clone())]).expect_err(says);
            assert_eq!(error.exit_code(), 2);
            let line = error.to_string();
            let named = format!("SSL_CERT_DIR `{}`: ", path.display());
            assert!(line.starts_with(&named) && line.contains(says), "{line}");
        }
        fs::write(dir.join("0a1b2c3d.0"), PEM).expect("writable");
        fs::write(dir.join("README"), "no certificate").expect("writable");
        assert!(roots(&[("SSL_CERT_DIR", dir)]).is_ok());
    }
}
