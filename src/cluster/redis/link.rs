//! Requests and answers over one socket.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, Value};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::call_error::CallError;
use super::socket::Socket;

/// The time in which a request has to be answered. A Redis that stands still for four seconds loses
/// no connection, and a peer that takes bytes and answers nothing is noticed within five.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A socket with the protocol of Redis on it (RESP2, which says all that is asked for here).
///
/// One request is under way at a time. After an error that is no answer of the server the link is
/// of no use any more. Dropping it closes the socket, even if a request is under way.
#[derive(Debug)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    _driver: Driver,
}

impl Link {
    /// Speaks over the socket. Asks nothing yet.
    ///
    /// # Errors
    /// Returns those of the library, which has none for a socket without a login.
    pub(super) async fn over(socket: Socket) -> Result<Self, CallError> {
        // The login and the timeouts are ours: the library would hide the answer to a wrong
        // password, and its own timeout is too short.
        let plain = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&plain, socket, config).await?;
        let driver = Driver(tokio::spawn(driver).abort_handle());
        Ok(Self { connection, _driver: driver })
    }

    /// Sends a request, and waits for its answer.
    ///
    /// # Errors
    /// There is no answer, or it is an error.
    pub(super) async fn request(&mut self, request: &Cmd) -> Result<Value, CallError> {
        let answer = timeout(RESPONSE_TIMEOUT, self.connection.send_packed_command(request));
        match answer.await.map_err(|_elapsed| CallError::Silent)?? {
            Value::ServerError(error) => Err(CallError::of_reply(error.code(), error.details())),
            value => Ok(value),
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
