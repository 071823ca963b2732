//! What connections are guarded with: the secret of the cluster, and TLS.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{Failure, FailureKind, Result};

/// What proves that a node or a client belongs to the cluster, and what keeps others from listening.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// The cluster's secret; empty where none is set.
    pub secret: Vec<u8>,
    /// Encryption; by default none.
    pub tls: Tls,
}

impl Security {
    /// A secret, without TLS.
    #[must_use]
    pub fn new(secret: impl Into<Vec<u8>>) -> Security {
        Security { secret: secret.into(), tls: Tls::default() }
    }

    /// The same secret, with TLS.
    #[must_use]
    pub fn with(self, tls: Tls) -> Security {
        Security { tls, ..self }
    }

    /// Whether another secret is the same; how long it takes tells nothing of where they differ.
    #[must_use]
    pub fn is(&self, other: &[u8]) -> bool {
        let differ = self.secret.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b));
        self.secret.len() == other.len() && differ == 0
    }

    /// What a port that others can reach would lack; `None` if nothing.
    pub(crate) fn lacks(&self) -> Option<&'static str> {
        match (self.secret.is_empty(), self.tls.accept.is_none()) {
            (true, true) => Some("a cluster secret and TLS"),
            (true, false) => Some("a cluster secret"),
            (false, true) => Some("TLS"),
            (false, false) => None,
        }
    }
}

/// Encryption of connections.
#[derive(Clone, Default)]
pub struct Tls {
    accept: Option<Arc<ServerConfig>>,
    connect: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("accept", &self.accept.is_some()).field("connect", &self.connect.is_some()).finish()
    }
}

/// Where certificates and keys are, in PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The certificate that a node shows, and those between it and the authority.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// The authorities whose certificates are trusted.
    pub ca: Option<PathBuf>,
}

/// Bytes of a connection, encrypted or not.
pub(crate) trait Bytes: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> Bytes for T {}

impl Tls {
    /// Reads certificates and keys: with a certificate and its key a node takes encrypted connections and no others, with authorities it
    /// makes encrypted connections and no others.
    ///
    /// # Errors
    /// If a file cannot be read or does not hold what it should, or a certificate comes without its key.
    pub fn load(files: &TlsFiles) -> Result<Tls> {
        let accept = match (&files.cert, &files.key) {
            (Some(cert), Some(key)) => Some(server(cert, key)?),
            (None, None) => None,
            _ => return Err(user("a certificate and its key belong together: --tls-cert and --tls-key")),
        };
        Ok(Tls { accept, connect: files.ca.as_deref().map(client).transpose()? })
    }

    /// The connection as a client sees it.
    pub(crate) async fn to_server(&self, stream: TcpStream, address: &str) -> Result<Pin<Box<dyn Bytes>>> {
        let Some(config) = &self.connect else { return Ok(Box::pin(stream)) };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|e| user(format!("{address}: {e}")))?;
        let connected = TlsConnector::from(config.clone()).connect(name, stream).await;
        let hint = "does the node use TLS, with a certificate of the authority in --tls-ca and for this host?";
        let stream = connected.map_err(|e| Failure::new(FailureKind::Denied, format!("no TLS with {address}: {e}; {hint}")))?;
        Ok(Box::pin(stream))
    }

    /// The connection as a node sees it; `None` if the other side does not speak TLS where it must.
    pub(crate) async fn to_client(&self, stream: TcpStream) -> Option<Pin<Box<dyn Bytes>>> {
        let Some(config) = &self.accept else { return Some(Box::pin(stream)) };
        match TlsAcceptor::from(config.clone()).accept(stream).await {
            Ok(stream) => Some(Box::pin(stream)),
            Err(error) => {
                tracing::warn!(%error, "a connection was turned away: it does not speak TLS as it should");
                None
            }
        }
    }

    /// What a caller may have forgotten whose connection was closed at once.
    pub(crate) fn hint(&self) -> &'static str {
        if self.connect.is_none() { " (a node that uses TLS closes connections without it: --tls-ca FILE)" } else { "" }
    }
}

fn server(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let certs = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).map_err(|e| file(cert, &e))?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| file(key, &e))?;
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.map_err(user)?.with_no_client_auth().with_single_cert(certs, key_der);
    Ok(Arc::new(config.map_err(|e| file(cert, &e))?))
}

fn client(ca: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(ca).map_err(|e| file(ca, &e))? {
        roots.add(cert.map_err(|e| file(ca, &e))?).map_err(|e| file(ca, &e))?;
    }
    if roots.is_empty() {
        return Err(file(ca, &"it holds no certificate"));
    }
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    Ok(Arc::new(config.map_err(user)?.with_root_certificates(roots).with_no_client_auth()))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn user(message: impl fmt::Display) -> Failure {
    Failure::new(FailureKind::User, message.to_string())
}

fn file(path: &Path, error: &dyn fmt::Display) -> Failure {
    user(format!("{}: {error}", path.display()))
}
