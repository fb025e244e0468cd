//! Floor 4. Accept, HTTP/1.1, the HTTP API and the WebSocket upgrade of one shard.

pub mod gateway;
pub mod stream;
