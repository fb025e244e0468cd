//! Floor 9. Access for simulations, fuzz targets and benches: the items of the library that they
//! use, under their paths inside the crate.
//!
//! The gateway is a binary: its library has no users but [`cli`](crate::cli)'s `main`. Therefore
//! everything else is `pub(crate)`, and the compiler reports in an ordinary build what the gateway
//! does not use. `tests`, `benches` and `tests/fuzz` are crates of their own, which see `pub` items
//! only, so what they use is `pub` and named here.
//!
//! This module is behind the feature `testing`, which the package's dependency on itself switches
//! on for `cargo test`, `cargo bench` and `cargo clippy --all-targets`, and nothing else does. If
//! it were always compiled, a function that only a test calls would count as used for ever, and
//! would ship. With the feature, `unreachable_pub` finds items that are `pub` and not named here;
//! without it, dead code is found. `scripts/test` checks both.

pub mod apps {
    pub use crate::apps::{Admission, App, AppCounters, Apps};
    pub mod webhook {
        pub use crate::apps::webhook::{EventKind, Url, Webhook, Webhooks};
    }
}
pub mod bus {
    pub use crate::bus::{Outside, Port, connect, connect_beside};
}
pub mod channels {
    pub use crate::channels::{
        CacheBounds, CachedEvent, ChannelEvent, ChannelKey, ChannelState, ClusterJoined, Enter,
        EnterOutcome, Event, Found, FromCluster, Homes, Join, KeyHash, Local, Notice, Outbox,
        PartitionId, Publication, Registered, Retain, ToCluster, ToHome, Topology,
    };
}
pub mod cluster {
    pub use crate::cluster::testing::{Losses, SimNode, SimNodeParts, SimRedis, SimSettings};
    pub mod scripts {
        pub use crate::cluster::scripts::{CALL, ENTER};
    }
}
pub mod config {
    pub use crate::config::{Config, Environment, Flags, Predecessor, import, load};
    pub mod fuzzing {
        pub use crate::config::fuzzing::{dotenv, keys, toml};
    }
}
pub mod counters {
    pub use crate::counters::FullCounters;
}
pub mod frame {
    pub use crate::frame::Frame;
}
pub mod front {
    pub use crate::front::{CurrentSettings, Gateway, GatewayCommand, Listeners, Settings};
    pub mod address {
        pub use crate::front::address::{Trusted, TrustedProxies};
    }
    pub mod fuzzing {
        pub use crate::front::fuzzing::{Beginning, client, proxy_header};
    }
    pub mod gateway {
        pub use crate::front::gateway::{
            GatewayCommand, InFlight, Newcomers, Publication, PublishedStates, Reservation,
            Unserved, Upgraded,
        };
    }
    pub use crate::front::stand::{Afterwards, serve};
}
pub mod id {
    pub use crate::id::{AppIndex, ConnKey, ShardId, SocketId};
}
pub mod memory {
    pub use crate::memory::Headroom;
}
pub mod plane {
    pub use crate::plane::{BacklogLimits, Counters};
}
pub mod protocol {
    pub mod auth {
        pub use crate::protocol::auth::{Authorised, Member, authorise};
    }
    pub mod close {
        pub use crate::protocol::close::ProtocolError;
    }
    pub mod message {
        pub use crate::protocol::message::parse;
    }
    pub mod names {
        pub use crate::protocol::names::{ChannelName, valid_event_name};
    }
    pub mod origin {
        pub use crate::protocol::origin::Origins;
    }
    pub mod outbound {
        pub use crate::protocol::outbound::event;
    }
    pub mod rules {
        pub use crate::protocol::rules::{AppRules, ClientEvents, Limits, RateLimit, Standing};
    }
    pub mod secret {
        pub use crate::protocol::secret::Secret;
    }
    pub mod session {
        pub use crate::protocol::session::{Action, Session};
    }
    pub mod signing {
        pub use crate::protocol::signing::{SignatureError, SignedRequest, query_pairs, verify};
    }
}
pub mod server {
    pub mod limits {
        pub use crate::server::limits::{ResourceLimit, raise_nofile, slots_max};
    }
}
pub mod shard {
    pub use crate::shard::{Drain, InForce, Served, Shard, ShardMessage, ShardParts, SocketIds};
}
pub mod time {
    pub use crate::time::{Clock, Millis};
}
pub mod webhooks {
    pub use crate::webhooks::{NoticeReceiver, NoticeSender, notice_queue};
    pub mod fuzzing {
        pub use crate::webhooks::fuzzing::Process;
    }
}
pub mod websocket {
    pub use crate::websocket::{Message, ReadLimits, Reader};
}
