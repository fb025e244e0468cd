//! TLS of connections to Redis.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, InvalidMessage, RootCertStore};

use crate::cluster::TlsFiles;
use crate::text::WithCauses;

/// The material of all TLS connections, read once.
#[derive(Clone, Debug)]
pub(super) struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// Reads the files. Blocks while it does.
    ///
    /// # Errors
    /// A file cannot be read or is not what its setting says, or the host has no root certificates.
    pub(super) fn new(files: &TlsFiles) -> Result<Self, TlsFilesError> {
        let roots = match &files.authorities {
            Some(path) => own_roots(path)?,
            None => roots_of_host()?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsFilesError::Setup)?
            .with_root_certificates(roots);
        let config = match (&files.certificate, &files.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let (chain, key) = (certificates(CERTIFICATE, certificate)?, private_key(key)?);
                builder.with_client_auth_cert(chain, key).map_err(TlsFilesError::Pair)?
            }
            (Some(_), None) => return Err(TlsFilesError::Half(KEY, CERTIFICATE)),
            (None, Some(_)) => return Err(TlsFilesError::Half(CERTIFICATE, KEY)),
        };
        Ok(Self(Arc::new(config)))
    }

    /// Makes a TLS connection to the host of this name or address.
    ///
    /// # Errors
    /// Returns the reason for which one of both sides does not trust the other.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TlsFailure> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsFailure::Name)?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        connector.connect(name, stream).await.map_err(|error| TlsFailure::of(&error))
    }
}

const AUTHORITIES: &str = "cluster.tls_ca";
const CERTIFICATE: &str = "cluster.tls_certificate";
const KEY: &str = "cluster.tls_key";

fn own_roots(path: &Path) -> Result<RootCertStore, TlsFilesError> {
    let mut roots = RootCertStore::empty();
    let (taken, _unusable) = roots.add_parsable_certificates(certificates(AUTHORITIES, path)?);
    if taken == 0 {
        return Err(TlsFilesError::NoCertificate(AUTHORITIES, path.to_owned()));
    }
    Ok(roots)
}

fn roots_of_host() -> Result<RootCertStore, TlsFilesError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _unusable) = roots.add_parsable_certificates(found.certs);
    if taken == 0 { Err(TlsFilesError::NoRoots) } else { Ok(roots) }
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsFilesError> {
    let pem = read(setting, path)?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsFilesError::NoCertificate(setting, path.to_owned())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFilesError> {
    let pem = read(KEY, path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsFilesError::NoKey(path.to_owned()))
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsFilesError> {
    fs::read(path).map_err(|cause| TlsFilesError::Unreadable(setting, path.to_owned(), cause))
}

/// The reason for which the files of TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFilesError {
    #[error(
        "cannot read {path} ({cause}): correct {0}, or let this user read the file",
        path = .1.display(),
        cause = WithCauses(.2)
    )]
    Unreadable(&'static str, PathBuf, io::Error),
    #[error("{path} holds no certificate: {0} has to name a file in PEM", path = .1.display())]
    NoCertificate(&'static str, PathBuf),
    #[error(
        "{path} holds no private key: {KEY} has to name a file in PEM, without a passphrase",
        path = .0.display()
    )]
    NoKey(PathBuf),
    /// The setting that is missing, and the one that is there.
    #[error("{0} is missing: it belongs to {1}, set both or none")]
    Half(&'static str, &'static str),
    #[error("{KEY} does not belong to {CERTIFICATE} ({0}): name the files of one pair")]
    Pair(rustls::Error),
    #[error(
        "this host has no root certificates: install the package ca-certificates, or name the \
         authority of Redis' certificate with {AUTHORITIES}"
    )]
    NoRoots,
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// The reason for which a server and this node do not trust each other. The texts go on behind the
/// name of the server and a colon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TlsFailure {
    #[error(
        "no known authority has signed its certificate: name the certificate of its authority with \
         {AUTHORITIES}"
    )]
    UnknownAuthority,
    #[error(
        "its certificate is for another name: connect by a name that the certificate has, or add \
         this name to the certificate"
    )]
    WrongName,
    #[error("its certificate is out of date: renew it, or correct the clock of this host")]
    OutOfDate,
    #[error("its host is no name that a certificate can have: use a host name or an address")]
    Name,
    #[error("it does not speak TLS: use its TLS port, or redis:// (REDIS_SCHEME=tcp)")]
    NotTls,
    #[error(
        "it does not accept the certificate of this node ({0}): name one that it trusts with \
         {CERTIFICATE} and {KEY}"
    )]
    ClientCertificate(Box<str>),
    #[error("it does not shake hands within 5 s: it stands still, or does not speak TLS")]
    Silent,
    #[error("the handshake failed ({0}): see the log of Redis")]
    Other(Box<str>),
}

impl TlsFailure {
    /// Whether it remains until somebody changes the settings or a certificate. A date does not,
    /// because the clock of a host that has just started may be off.
    pub(super) const fn is_permanent(&self) -> bool {
        match self {
            Self::UnknownAuthority
            | Self::WrongName
            | Self::Name
            | Self::NotTls
            | Self::ClientCertificate(_) => true,
            Self::OutOfDate | Self::Silent | Self::Other(_) => false,
        }
    }

    fn of(error: &io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        let Some(cause) = cause else {
            return Self::Other(WithCauses(error).to_string().into());
        };
        match cause {
            rustls::Error::InvalidCertificate(certificate) => Self::of_certificate(certificate),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            rustls::Error::AlertReceived(_) => Self::of_alert(&cause.to_string()),
            _ => Self::Other(cause.to_string().into()),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            // An authority that was made anew has the name of the old one, and another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::UnknownAuthority
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::OutOfDate,
            other => Self::Other(other.to_string().into()),
        }
    }

    /// The failure that a server tells by an alert. In TLS 1.3 a server judges the certificate of
    /// its client behind the handshake, so that the alert comes in place of the first answer.
    pub(super) fn of_alert(text: &str) -> Self {
        // `CertificateRequired`, `BadCertificate`, `UnknownCA` and the like.
        if text.contains("Certificate") || text.contains("UnknownCA") {
            Self::ClientCertificate(text.into())
        } else {
            Self::Other(text.into())
        }
    }
}
