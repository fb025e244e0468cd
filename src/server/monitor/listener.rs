//! The listener itself: connections, requests and answers.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::config::AdminSettings;

use super::access::{self, Denied};
use super::sources::Sources;

/// Connections that are served at a time. Each is a scraper, a load balancer or an operator, so a
/// few are enough. `CONTROL_DESCRIPTORS` of `limits` counts them.
const CONNECTIONS_MAX: usize = 8;

/// The time for one request and its answer, which has to be longer than shards may take to answer.
/// Each connection serves one request: a scrape comes every some seconds, and would keep a
/// connection for nothing.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for the head of a request, so that connections without one do not keep others out for
/// long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest head of a request in bytes, the least that hyper allows.
const HEAD_BYTES_MAX: usize = 8192;

/// The pause after an accept that failed, for example because no descriptor is left.
const RETRY: Duration = Duration::from_millis(100);

/// The media type of the metrics (OpenMetrics 1.0).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// The listener for operators cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for operators (admin.listen)")]
pub(in super::super) struct MonitorError {
    address: SocketAddr,
    source: io::Error,
}

/// The listener for operators, bound to its address.
#[derive(Debug)]
pub(in super::super) struct MonitorListener {
    settings: AdminSettings,
    listener: TcpListener,
}

impl MonitorListener {
    /// Binds the address.
    ///
    /// # Errors
    /// The address is not free, or not one of this host.
    pub(in super::super) fn bind(settings: &AdminSettings) -> Result<Self, MonitorError> {
        let address = settings.listen;
        let listener = StdListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        let listener = listener.map_err(|source| MonitorError { address, source })?;
        Ok(Self { settings: settings.clone(), listener })
    }

    /// Serves for as long as the process lives.
    pub(in super::super) async fn serve(self, sources: Sources) {
        let Self { settings, listener } = self;
        let monitor = Arc::new(Monitor { settings, sources });
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                sleep(RETRY).await;
                continue;
            };
            let monitor = Arc::clone(&monitor);
            tokio::spawn(async move {
                let _late = timeout(CONNECTION_TIMEOUT, monitor.converse(stream)).await;
                drop(permit);
            });
        }
    }
}

/// The listener's settings, and the sources of its answers.
struct Monitor {
    settings: AdminSettings,
    sources: Sources,
}

type Answer = Response<Full<Bytes>>;

impl Monitor {
    /// Serves a request of a connection. A client that fails has itself to blame.
    async fn converse(&self, stream: TcpStream) {
        let service =
            service_fn(|request| async move { Ok::<_, Infallible>(self.answer(&request).await) });
        let mut http = http1::Builder::new();
        http.keep_alive(false).max_buf_size(HEAD_BYTES_MAX);
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let _failed = http.serve_connection(TokioIo::new(stream), service).await;
    }

    /// The answer to a request, whose body is not read.
    async fn answer<B>(&self, request: &Request<B>) -> Answer {
        match access::check(request.headers(), self.settings.token.as_ref()) {
            Ok(()) => {}
            Err(Denied::Token) => {
                let text = "show the token of admin.token: `Authorization: Bearer TOKEN`\n";
                let bearer = (WWW_AUTHENTICATE, "Bearer");
                return with(plain(StatusCode::UNAUTHORIZED, text.to_owned()), bearer);
            }
            Err(Denied::HostName) => {
                let text = "ask by address, or set admin.token: without a token, no host name is \
                            answered to\n";
                return plain(StatusCode::FORBIDDEN, text.to_owned());
            }
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            return with(answer, (ALLOW, "GET, HEAD"));
        }
        match request.uri().path() {
            "/up" => plain(StatusCode::OK, "up\n".to_owned()),
            "/ready" => match self.sources.unready() {
                None => plain(StatusCode::OK, "ready\n".to_owned()),
                Some(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            "/metrics" => match self.sources.scrape().await {
                Ok(text) => respond(StatusCode::OK, OPEN_METRICS, text),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            _ => plain(StatusCode::NOT_FOUND, "there are /metrics, /ready and /up\n".to_owned()),
        }
    }
}

fn plain(status: StatusCode, text: String) -> Answer {
    respond(status, PLAIN, text)
}

fn respond(status: StatusCode, media_type: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    with(with(answer, (CONTENT_TYPE, media_type)), (CACHE_CONTROL, "no-store"))
}

fn with(mut answer: Answer, (name, value): (HeaderName, &'static str)) -> Answer {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}
