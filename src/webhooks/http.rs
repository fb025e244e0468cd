//! One request: name, connection, TLS, signature, answer. Connections are kept for the next one.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use hyper::rt::{Read, Write};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::apps::webhook::{Url, Webhook};

use super::dispatch::Delivery;

/// The most bytes of an answer that are read to be able to keep its connection.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How long a connection is kept without use: receivers and what stands before them end theirs
/// after a minute or more, and a request that meets that end has to be repeated.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// The connection to one endpoint, kept between requests.
#[derive(Debug)]
pub(super) struct Line {
    kept: Option<(SendRequest<Full<Bytes>>, Instant)>,
    tls: Tls,
}

/// Makes TLS of connections. Reads the host's certificates when the first one needs them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls(Arc<std::sync::OnceLock<Arc<ClientConfig>>>);

impl Line {
    pub(super) const fn new(tls: Tls) -> Self {
        Self { kept: None, tls }
    }

    /// Sends a batch. An answer with 2xx is success, and nothing else is.
    pub(super) async fn post(&mut self, delivery: &Delivery) -> Result<(), Failure> {
        let kept = self.kept.take().filter(|(_, since)| since.elapsed() < IDLE_MAX);
        if let Some((connection, _)) = kept {
            match self.exchange(connection, delivery).await {
                // Ended by the receiver meanwhile.
                Err(Failure::Http(_)) => {}
                answered => return answered,
            }
        }
        let webhook = &delivery.webhook;
        let connecting = timeout(webhook.connect_timeout, self.connect(webhook));
        let connection = connecting.await.map_err(|_| Failure::ConnectTimeout)??;
        self.exchange(connection, delivery).await
    }

    async fn exchange(
        &mut self,
        mut connection: SendRequest<Full<Bytes>>,
        delivery: &Delivery,
    ) -> Result<(), Failure> {
        let request = request(delivery)?;
        let answer = async {
            connection.ready().await?;
            let mut response = connection.send_request(request).await?;
            let drained = drain(&mut response).await?;
            Ok::<_, hyper::Error>((response, drained))
        };
        let answer = timeout(delivery.webhook.timeout, answer).await;
        let (response, drained) = answer.map_err(|_| Failure::Timeout)?.map_err(Failure::Http)?;
        if drained {
            self.kept = Some((connection, Instant::now()));
        }
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let location = response.headers().get(LOCATION).filter(|_| status.is_redirection());
        let location = location.and_then(|location| location.to_str().ok());
        Err(Failure::Status(status, location.map(Into::into)))
    }

    async fn connect(&self, webhook: &Webhook) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let url = &webhook.url;
        let stream = dial(url).await?;
        // A receiver that takes nothing for so long has failed its request. The kernel drops the
        // bytes that it still holds for it with the connection.
        SockRef::from(&stream)
            .set_tcp_user_timeout(Some(webhook.timeout))
            .map_err(Failure::Connect)?;
        // Small requests, one after another: waiting for more to send would only delay them.
        stream.set_nodelay(true).map_err(Failure::Connect)?;
        if !url.tls() {
            return open(TokioIo::new(stream)).await;
        }
        let name = ServerName::try_from(url.host().to_owned());
        let name = name.map_err(|error| Failure::Tls(io::Error::other(error)))?;
        let config = self.tls.config().map_err(Failure::Tls)?;
        let stream =
            TlsConnector::from(config).connect(name, stream).await.map_err(Failure::Tls)?;
        open(TokioIo::new(stream)).await
    }
}

impl Tls {
    /// The configuration of TLS.
    ///
    /// # Errors
    /// The host has no root certificates, so that no receiver could be trusted.
    pub(super) fn config(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(config) = self.0.get() {
            return Ok(Arc::clone(config));
        }
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (taken, _unusable) = roots.add_parsable_certificates(found.certs);
        if taken == 0 {
            let cause =
                found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
            return Err(io::Error::other(format!(
                "this host has no root certificates{cause}: install the package ca-certificates, \
                 or set SSL_CERT_FILE to a file of certificates in PEM"
            )));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::clone(self.0.get_or_init(|| Arc::new(config))))
    }
}

/// Tries the addresses of the host one after another.
async fn dial(url: &Url) -> Result<TcpStream, Failure> {
    let addresses = lookup_host((url.host(), url.port())).await.map_err(Failure::Resolve)?;
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(Failure::Connect(last))
}

async fn open(
    stream: impl Read + Write + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let (sender, connection) = handshake(stream).await.map_err(Failure::Http)?;
    // Ends with the sender or with the receiver's end; its error is the request's, too.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn request(delivery: &Delivery) -> Result<Request<Full<Bytes>>, Failure> {
    let Delivery { app, webhook, body, .. } = delivery;
    let signature = app.rules.secret.sign(&[body]);
    let mut request = Request::post(webhook.url.target())
        .header(HOST, webhook.url.authority())
        .header(CONTENT_TYPE, "application/json")
        .header("X-Pusher-Key", &app.rules.key)
        .header("X-Pusher-Signature", signature);
    if !webhook.headers.iter().any(|header| header.name == USER_AGENT) {
        request = request.header(USER_AGENT, concat!("ringwave/", env!("CARGO_PKG_VERSION")));
    }
    for header in &webhook.headers {
        request = request.header(&header.name, &header.value);
    }
    request.body(Full::new(body.clone())).map_err(Failure::Request)
}

/// Reads the answer to its end. `false`: it is longer than anyone needs, the connection is of no
/// more use.
async fn drain(response: &mut Response<hyper::body::Incoming>) -> Result<bool, hyper::Error> {
    let mut read = 0;
    while let Some(frame) = response.body_mut().frame().await {
        read += frame?.data_ref().map_or(0, Bytes::len);
        if read > ANSWER_BYTES_MAX {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Why a batch has not arrived.
#[derive(Debug)]
pub(super) enum Failure {
    /// The host's name has no address.
    Resolve(io::Error),
    /// None of its addresses took a connection.
    Connect(io::Error),
    /// Name, connection and TLS together took too long.
    ConnectTimeout,
    /// The receiver's certificate, or TLS itself.
    Tls(io::Error),
    /// The key cannot stand in a header.
    Request(hyper::http::Error),
    /// The connection ended before the answer, or the answer was not HTTP.
    Http(hyper::Error),
    /// No answer in time.
    Timeout,
    /// Another answer than 2xx; of a redirect, where to.
    Status(StatusCode, Option<Box<str>>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) => write!(f, "its host was not found: {error}"),
            Self::Connect(error) => write!(f, "no connection: {error}"),
            Self::ConnectTimeout => f.write_str("no connection in time"),
            Self::Tls(error) => write!(f, "no TLS: {error}"),
            Self::Request(error) => write!(f, "no request can be made of it: {error}"),
            Self::Http(error) => {
                write!(f, "no answer: {error}")?;
                error.source().map_or(Ok(()), |source| write!(f, ": {source}"))
            }
            Self::Timeout => f.write_str("no answer in time"),
            Self::Status(status, Some(location)) => {
                write!(f, "it answered {status} to {location:?}, which is not followed")
            }
            Self::Status(status, None) => write!(f, "it answered {status}"),
        }
    }
}

#[cfg(test)]
mod tests;
