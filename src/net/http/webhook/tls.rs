//! TLS to receivers: the authorities that browsers trust, which are in the binary so that no file of the system is needed,
//! and those of a file that the operator names.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::render::describe;

/// What all webhooks share of TLS; made when the first one needs it.
pub(super) struct Tls {
    ca_file: Option<PathBuf>,
    connector: OnceLock<TlsConnector>,
}

impl Tls {
    /// With the authorities of a file besides the public ones.
    pub(super) fn new(ca_file: Option<PathBuf>) -> Self {
        Self { ca_file, connector: OnceLock::new() }
    }

    /// Makes it ready.
    ///
    /// # Errors
    /// A sentence: the file cannot be read, or holds no certificate.
    pub(super) fn ready(&self) -> Result<&TlsConnector, String> {
        if let Some(connector) = self.connector.get() {
            return Ok(connector);
        }
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(path) = &self.ca_file {
            let named = |why: &dyn std::fmt::Display| format!("webhooks.ca_file {}: {why}", path.display());
            let before = roots.len();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| named(&error))? {
                let certificate = certificate.map_err(|error| named(&error))?;
                roots.add(certificate).map_err(|error| named(&error))?;
            }
            if roots.len() == before {
                return Err(named(&"there is no certificate in it"));
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be used: {error}"))?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(self.connector.get_or_init(|| TlsConnector::from(Arc::new(config))))
    }

    /// Speaks TLS over a connection, with a peer that proves to be `host`.
    ///
    /// # Errors
    /// A sentence.
    pub(super) async fn connect(
        &self,
        host: &str,
        socket: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host} is no name for TLS"))?;
        let failed = |error: io::Error| format!("TLS with {host} failed: {}", describe(&error));
        self.ready()?.connect(name, socket).await.map_err(failed)
    }
}
