//! Certificates for a cluster on this machine: an authority of its own, and one certificate for all of its nodes.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::{Error, Result};

/// Where the files of a cluster are.
pub struct Certificates {
    /// The authority's certificate: what clients need.
    pub ca: PathBuf,
    /// The nodes' certificate.
    pub cert: PathBuf,
    /// Its key; only its owner may read it.
    pub key: PathBuf,
}

impl Certificates {
    /// Those of the cluster in a folder, if it uses TLS.
    #[must_use]
    pub fn of(dir: &Path) -> Option<Certificates> {
        let dir = dir.join("tls");
        let found = dir.is_dir();
        found.then(|| Certificates { ca: dir.join("ca.pem"), cert: dir.join("cert.pem"), key: dir.join("key.pem") })
    }

    /// Makes them. The authority's key is forgotten: nothing else can be signed with it.
    ///
    /// # Errors
    /// If they cannot be made or stored.
    pub fn make(dir: &Path) -> Result<()> {
        let failed = |e: rcgen::Error| Error::Invalid(format!("certificates cannot be made: {e}"));
        let mut authority = CertificateParams::new(vec![]).map_err(failed)?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "Stoa, a cluster on one machine");
        let authority_key = KeyPair::generate().map_err(failed)?;
        let ca = authority.self_signed(&authority_key).map_err(failed)?;
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().map_err(failed)?;
        let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let cert = CertificateParams::new(hosts).and_then(|params| params.signed_by(&key, &issuer)).map_err(failed)?;
        let folder = dir.join("tls");
        fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        store(&folder.join("ca.pem"), &ca.pem())?;
        store(&folder.join("cert.pem"), &cert.pem())?;
        store(&folder.join("key.pem"), &key.serialize_pem())
    }
}

fn store(path: &Path, text: &str) -> Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(Error::file(path))?;
    file.write_all(text.as_bytes()).map_err(Error::file(path))
}
