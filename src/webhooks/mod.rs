//! Floor 4. Webhooks: signed requests that report to an app's own servers what happens on its
//! channels.
//!
//! Contract:
//! - A shard reports what happened to its [`NoticeSender`], which hands a turn's notices over at
//!   its end and never waits: notices that find no room are counted, and the worker logs the count.
//!   A shard reports nothing of an app without webhooks.
//! - One thread, that of the [`WebhookWorker`], does everything else. A slow or dead receiver
//!   delays its own endpoint only. The queue of an endpoint is bounded in bytes; events that find
//!   it full are counted and logged.
//! - Events of one channel reach an endpoint in the order in which its home had them. The next
//!   request to an endpoint begins when the one before was answered with 2xx or given up. An event
//!   may arrive twice, if an answer was lost.
//! - A failed request is repeated with exponential back-off and full jitter, until the event is
//!   five minutes old. Redirects are not followed, because a body that is signed for one host is
//!   not meant for another.
//! - With a spool, a batch has a file on disk from some milliseconds after its window until it is
//!   delivered or given up, and survives crashes and losses of power. The ring of the thread writes
//!   the files, so a slow disk delays no request.
//!
//! The decisions are a state machine without clock, sockets and randomness (`Dispatch`, made of a
//! `Debounce`, the `CountThrottle` of the floor below and an `EndpointQueue` per endpoint), which
//! `worker` drives.

mod body;
mod debounce;
mod dispatch;
mod endpoint_queue;
mod figures;
#[cfg(feature = "testing")]
pub(crate) mod fuzzing;
mod http;
mod notice_queue;
mod resolver;
mod spool;
mod tls;
mod worker;

pub(crate) use figures::WebhookFigures;
pub use notice_queue::NoticeSender;
pub(crate) use notice_queue::WAITING_BYTES_MAX;
#[cfg(feature = "testing")]
pub use notice_queue::{NoticeReceiver, notice_queue};
pub(crate) use worker::{WebhookWorker, WorkerError, WorkerSettings};
