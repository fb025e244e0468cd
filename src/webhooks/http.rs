//! One request to an endpoint: name lookup, connection, TLS, signature, answer. The connection is
//! kept for the next request.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use hyper::rt::{Read, Write};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::apps::webhook::{Url, Webhook};

use super::dispatch::Delivery;
use super::resolver::Resolver;
use super::tls::{TlsError, TlsSetup};

/// The most bytes of an answer that are read so that its connection can be kept.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The time for which an idle connection is kept. Receivers and their proxies close idle ones after
/// a minute or more, and a request that meets such a close has to be repeated.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// The connection to one endpoint, kept between requests.
#[derive(Debug)]
pub(super) struct HttpConnection {
    /// The open connection, and the time since which it is idle.
    kept: Option<(SendRequest<Full<Bytes>>, Instant)>,
    tls: TlsSetup,
    resolver: Resolver,
}

impl HttpConnection {
    pub(super) const fn new(tls: TlsSetup, resolver: Resolver) -> Self {
        Self { kept: None, tls, resolver }
    }

    /// Sends a batch. Only an answer with 2xx is success.
    ///
    /// # Errors
    /// Returns the reason for which the batch has not arrived, or may not have.
    pub(super) async fn post(&mut self, delivery: &Delivery) -> Result<(), DeliveryError> {
        let kept = self.kept.take().filter(|(_, since)| since.elapsed() < IDLE_MAX);
        if let Some((connection, _)) = kept {
            match self.exchange(connection, delivery).await {
                // The receiver has closed it meanwhile.
                Err(DeliveryError::Http(_)) => {}
                answered => return answered,
            }
        }
        let webhook = &delivery.webhook;
        let connecting = timeout(webhook.connect_timeout, self.connect(webhook));
        let connection = connecting.await.map_err(|_| DeliveryError::ConnectTimeout)??;
        self.exchange(connection, delivery).await
    }

    async fn exchange(
        &mut self,
        mut connection: SendRequest<Full<Bytes>>,
        delivery: &Delivery,
    ) -> Result<(), DeliveryError> {
        let request = request(delivery)?;
        let answer = async {
            connection.ready().await?;
            let mut response = connection.send_request(request).await?;
            let drained = drain(&mut response).await?;
            Ok::<_, hyper::Error>((response, drained))
        };
        let answer = timeout(delivery.webhook.timeout, answer).await;
        let (response, drained) =
            answer.map_err(|_| DeliveryError::Timeout)?.map_err(DeliveryError::Http)?;
        if drained {
            self.kept = Some((connection, Instant::now()));
        }
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let location = response.headers().get(LOCATION).filter(|_| status.is_redirection());
        let location = location.and_then(|location| location.to_str().ok());
        Err(match location {
            Some(location) => DeliveryError::Redirect { status, location: location.into() },
            None => DeliveryError::Status(status),
        })
    }

    async fn connect(&self, webhook: &Webhook) -> Result<SendRequest<Full<Bytes>>, DeliveryError> {
        let url = &webhook.url;
        let stream = self.dial(url).await?;
        // A receiver that acknowledges nothing for so long has failed its request. The kernel then
        // drops the connection, and with it the bytes that it holds for the receiver.
        SockRef::from(&stream)
            .set_tcp_user_timeout(Some(webhook.timeout))
            .map_err(DeliveryError::Connect)?;
        // Requests are small and follow each other: waiting for more bytes would only delay them.
        stream.set_nodelay(true).map_err(DeliveryError::Connect)?;
        if !url.tls() {
            return open(TokioIo::new(stream)).await;
        }
        let stream = self.tls.connect(url.host(), stream).await.map_err(DeliveryError::Tls)?;
        open(TokioIo::new(stream)).await
    }

    /// Tries the addresses of the host one after another.
    async fn dial(&self, url: &Url) -> Result<TcpStream, DeliveryError> {
        let addresses = self.resolver.look_up(url.host(), url.port()).await;
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for address in addresses.map_err(DeliveryError::Resolve)? {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(DeliveryError::Connect(last))
    }
}

async fn open(
    stream: impl Read + Write + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, DeliveryError> {
    let (sender, connection) = handshake(stream).await.map_err(DeliveryError::Http)?;
    // It ends with the sender, or when the receiver closes; the request returns the same error.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn request(delivery: &Delivery) -> Result<Request<Full<Bytes>>, DeliveryError> {
    let Delivery { app, webhook, body, .. } = delivery;
    let signature = app.rules.secret.sign(&[body]);
    let mut request = Request::post(webhook.url.target().clone())
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
    request.body(Full::new(body.clone())).map_err(DeliveryError::Request)
}

/// Reads the answer to its end. `false`: it is too long, so its connection cannot be kept.
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

/// The reason for which a batch has not arrived.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    #[error("its host was not found")]
    Resolve(#[source] io::Error),
    #[error("none of its addresses accepted a connection")]
    Connect(#[source] io::Error),
    /// Name, connection and TLS together took too long.
    #[error("no connection in time")]
    ConnectTimeout,
    #[error("no TLS")]
    Tls(#[source] TlsError),
    /// The key of the app cannot stand in a header.
    #[error("no request can be made of it")]
    Request(#[source] hyper::http::Error),
    /// The connection ended before the answer, or the answer was not HTTP.
    #[error("no answer")]
    Http(#[source] hyper::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("it answered {status} with a redirect to {location:?}, which is not followed")]
    Redirect { status: StatusCode, location: Box<str> },
}

#[cfg(test)]
mod tests;
