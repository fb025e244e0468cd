//! Requests and answers over one socket.

use std::pin::pin;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisResult, Value};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::call_error::CallError;
use super::progress::{Progress, Watched};
use super::socket::Socket;

/// The silence behind a request after which its server counts as away. A Redis that stands still
/// for four seconds loses no connection, and a peer that takes bytes and answers nothing is noticed
/// within five. An answer that is on its way may take longer, because an inbox over a slow line
/// does.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A socket with the protocol of Redis on it (RESP2, which says all that is asked for here).
///
/// One request is under way at a time. After an error that is no answer of the server the link is
/// of no use any more. Dropping it closes the socket, even if a request is under way.
#[derive(Debug)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    progress: Progress,
    _driver: Driver,
}

impl Link {
    /// Speaks over the socket. Asks nothing yet.
    ///
    /// # Errors
    /// Returns those of the library, which has none for a socket without a login.
    pub(super) async fn over(socket: Socket) -> Result<Self, CallError> {
        // The login and the deadlines are ours: the library would hide the answer to a wrong
        // password, and its own deadline is too short.
        let plain = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (socket, progress) = Watched::new(socket);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&plain, socket, config).await?;
        let driver = Driver(tokio::spawn(driver).abort_handle());
        Ok(Self { connection, progress, _driver: driver })
    }

    /// Sends a request, and waits for its answer.
    ///
    /// # Errors
    /// There is no answer, or it is an error.
    pub(super) async fn request(&mut self, request: &Cmd) -> Result<Value, CallError> {
        // Silence before the request is nobody's fault.
        self.progress.note();
        let answer = self.connection.send_packed_command(request);
        match unless_silent(&self.progress, answer).await?? {
            Value::ServerError(error) => Err(CallError::of_reply(error.code(), error.details())),
            value => Ok(value),
        }
    }
}

/// Waits for an answer as long as bytes move.
async fn unless_silent(
    progress: &Progress,
    answer: impl Future<Output = RedisResult<Value>>,
) -> Result<RedisResult<Value>, CallError> {
    let mut answer = pin!(answer);
    loop {
        match timeout_at(progress.last() + SILENCE_MAX, answer.as_mut()).await {
            Ok(answer) => return Ok(answer),
            Err(_elapsed) if progress.last() + SILENCE_MAX > Instant::now() => {}
            Err(_elapsed) => return Err(CallError::Silent),
        }
    }
}

/// The task that moves bytes between the socket and requests. It ends with its link.
#[derive(Debug)]
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use ::redis::cmd;
    use tokio::net::UnixStream;
    use tokio::time::sleep;

    use super::*;

    /// Answers the first request with these parts, each four seconds behind the one before.
    async fn answer_in_parts(peer: UnixStream, parts: &[&str]) -> UnixStream {
        peer.readable().await.unwrap();
        for part in parts {
            sleep(Duration::from_secs(4)).await;
            assert_eq!(peer.try_write(part.as_bytes()).unwrap(), part.len());
        }
        peer
    }

    async fn asked(parts: &[&str]) -> (Result<Value, CallError>, Duration) {
        let (socket, peer) = UnixStream::pair().unwrap();
        let mut link = Link::over(Box::new(socket)).await.unwrap();
        // Being idle for long is no silence.
        sleep(Duration::from_mins(1)).await;
        let begin = Instant::now();
        let asking = async { (link.request(&cmd("PING")).await, begin.elapsed()) };
        tokio::join!(asking, answer_in_parts(peer, parts)).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_waited_for_while_its_bytes_arrive() {
        let (answer, took) = asked(&["$6\r\nan", "sw", "er\r\n"]).await;
        assert_eq!(answer, Ok(Value::BulkString(b"answer".into())));
        assert_eq!(took, Duration::from_secs(12));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_stops_arriving_is_given_up() {
        let (answer, took) = asked(&["$6\r\nan", "sw"]).await;
        assert_eq!(answer, Err(CallError::Silent));
        assert_eq!(took, Duration::from_secs(8) + SILENCE_MAX);
    }
}
