//! TLS of connections to endpoints.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// The settings of TLS that all connections share. The host's root certificates are read when the
/// first connection needs them.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsSetup(Arc<OnceLock<Arc<ClientConfig>>>);

impl TlsSetup {
    /// Makes a TLS connection to the host of this name.
    ///
    /// # Errors
    /// Returns the reason for which the receiver cannot be trusted, or does not speak TLS.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TlsError> {
        let name = ServerName::try_from(host.to_owned())?;
        let connector = TlsConnector::from(self.config()?);
        connector.connect(name, stream).await.map_err(TlsError::Handshake)
    }

    /// Checks that receivers can be verified at all.
    ///
    /// # Errors
    /// The host has no root certificates.
    pub(super) fn check(&self) -> Result<(), TlsError> {
        self.config().map(drop)
    }

    fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        if let Some(config) = self.0.get() {
            return Ok(Arc::clone(config));
        }
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (taken, _unusable) = roots.add_parsable_certificates(found.certs);
        if taken == 0 {
            return Err(TlsError::NoRoots(found.errors.first().map(ToString::to_string)));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::clone(self.0.get_or_init(|| Arc::new(config))))
    }
}

/// The reason for which there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// The text of the first error, if there was any: it has its cause in it.
    #[error(
        "this host has no root certificates{}: install the package ca-certificates, or set \
         SSL_CERT_FILE to a file of certificates in PEM",
        .0.as_ref().map(|error| format!(" ({error})")).unwrap_or_default()
    )]
    NoRoots(Option<String>),
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
    #[error("its host is no name that a certificate can have")]
    Name(#[from] InvalidDnsNameError),
    /// The certificate of the receiver is not valid, or it does not speak TLS.
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::WithCauses;

    #[test]
    fn missing_root_certificates_are_explained_with_their_cause_once() {
        let error = TlsError::NoRoots(Some("no such file: /x".to_owned()));
        let text = WithCauses(&error).to_string();
        assert_eq!(text.matches("no such file").count(), 1, "{text}");
        assert!(text.starts_with("this host has no root certificates (no such file: /x): install"));
    }
}
