//! The time that each hot piece of code takes by itself. `fanout` measures whole processes.
//!
//! `cargo bench --bench micro [-- FILTER]`

#![allow(clippy::expect_used, reason = "a bench that cannot measure says why and ends")]
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use md5::{Digest, Md5};
use ringwave::testing::apps::App;
use ringwave::testing::bus;
use ringwave::testing::channels::{
    CacheBounds, ChannelKey, Event, Found, Homes, Join, KeyHash, Local, Outbox, ToHome,
};
use ringwave::testing::config::{Environment, Flags, load};
use ringwave::testing::counters::FullCounters;
use ringwave::testing::frame::Frame;
use ringwave::testing::id::{AppIndex, ConnKey, ShardId, SocketId};
use ringwave::testing::protocol::auth::{Authorised, authorise};
use ringwave::testing::protocol::names::ChannelName;
use ringwave::testing::protocol::signing::{SignedRequest, verify};
use ringwave::testing::protocol::{message, outbound};
use ringwave::testing::time::Millis;
use ringwave::testing::websocket::{ReadLimits, Reader};

const SUBSCRIBE: &str = r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"orders.1"}}"#;

fn app() -> Arc<App> {
    let flags = Flags { dev: true, ..Flags::default() };
    let config = load(&flags, &Environment::new(), Path::new("/nonexistent"));
    let config = config.expect("the development app needs no configuration");
    Arc::clone(config.apps.by_id("100001").expect("the development app"))
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 200, true).expect("a valid name")
}

fn keys(count: usize) -> Vec<ChannelKey> {
    let hash = KeyHash::random();
    (0..count).map(|n| hash.channel(AppIndex(0), channel(&format!("orders.{n}")))).collect()
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for size in [100, 1000, 10_000] {
        let data = "x".repeat(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("encode an event of {size} B"), |bench| {
            bench.iter(|| outbound::event("App\\Events\\OrderShipped", black_box(&data), "orders"));
        });
        let mut received = Frame::text(size, |buffer| buffer.extend(data.bytes())).bytes().to_vec();
        mask(&mut received);
        let limits = ReadLimits { max_message: 100_000, max_fragments: 16 };
        group.bench_function(format!("parse and unmask {size} B"), |bench| {
            bench.iter_batched_ref(
                || received.clone(),
                |bytes| {
                    let mut reader = Reader::default();
                    let read = reader.read(bytes, &limits, |message| {
                        black_box(message);
                        ControlFlow::Continue(())
                    });
                    read.expect("a whole message");
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Turns a server's frame into a client's.
fn mask(frame: &mut Vec<u8>) {
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let key = [0x12, 0x34, 0x56, 0x78];
    frame[1] |= 0x80;
    frame[header..].iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    frame.splice(header..header, key);
}

fn signatures(criterion: &mut Criterion) {
    let app = app();
    let socket_id = SocketId { high: 1234, low: 1234 };
    let name = channel("private-orders.1");
    let auth = format!("app-key:{}", app.rules.secret.sign(&[b"1234.1234:private-orders.1"]));
    criterion.bench_function("signature of a private subscribe", |bench| {
        bench.iter(|| {
            authorise(&app.rules, socket_id, name.clone(), Some(black_box(&auth)), None, None)
        });
    });
    let body = format!(r#"{{"name":"e","channel":"c","data":"{}"}}"#, "x".repeat(200));
    let query = format!(
        "auth_key=app-key&auth_timestamp=1700000000&auth_version=1.0&body_md5={}",
        hex::encode(Md5::digest(body.as_bytes()))
    );
    let text = format!("POST\n/apps/100001/events\n{query}");
    let query = format!("{query}&auth_signature={}", app.rules.secret.sign(&[text.as_bytes()]));
    let request = SignedRequest {
        method: "POST",
        path: "/apps/100001/events",
        prefix: "",
        query: &query,
        body: body.as_bytes(),
    };
    verify(&app.rules, &request, 1_700_000_000).expect("a right signature");
    criterion.bench_function("signature of an API request, body digest included", |bench| {
        bench.iter(|| verify(&app.rules, black_box(&request), 1_700_000_000));
    });
}

fn json(criterion: &mut Criterion) {
    criterion.bench_function("JSON of a subscribe", |bench| {
        bench.iter(|| message::parse(black_box(SUBSCRIBE)));
    });
    let whisper = r#"{"event":"client-typing","data":{"name":"Ann","at":[1,2,3]},"channel":"c"}"#;
    criterion.bench_function("JSON of a client event", |bench| {
        bench.iter(|| message::parse(black_box(whisper)));
    });
    let body = format!(
        r#"{{"name":"App\\Events\\OrderShipped","channels":["a","b"],"data":"{}"}}"#,
        r#"{\"id\":1,\"name\":\"Ann\"}"#.repeat(20)
    );
    criterion.bench_function("JSON of a publish (simd-json tape)", |bench| {
        bench.iter_batched_ref(
            || body.clone().into_bytes(),
            |bytes| simd_json::to_tape(bytes).map(|tape| tape.0.len()),
            BatchSize::SmallInput,
        );
    });
}

fn channels(criterion: &mut Criterion) {
    let keys = keys(1);
    let key = &keys[0];
    let proof = proof(key);
    let mut local = Local::default();
    let mut slot = 0;
    for _ in 0..10_000 {
        join(&mut local, slot, key, &proof);
        slot += 1;
    }
    criterion.bench_function("subscriber joins and leaves among 10,000", |bench| {
        bench.iter(|| {
            join(&mut local, slot, key, &proof);
            local.unsubscribe(slot, key, &mut |_| {})
        });
    });
    let frame = outbound::event("e", &"x".repeat(70), "orders.0");
    criterion.bench_function("deliver and batch 20 messages for 10,000", |bench| {
        bench.iter(|| {
            for _ in 0..20 {
                local.deliver(key, frame.clone(), None);
            }
            let mut bytes = 0;
            local.flush(|of| bytes += of.batch.frames().map(Frame::len).sum::<usize>());
            bytes
        });
    });
}

fn join(local: &mut Local, slot: u32, key: &ChannelKey, proof: &Authorised) {
    if let Found::Vacant(vacant) = local.find(slot, key) {
        let ticket = vacant.insert(proof);
        local.joined(slot, key, ticket);
    }
}

/// The right to join a channel that needs no signature.
fn proof(key: &ChannelKey) -> Authorised {
    let socket_id = SocketId { high: 1234, low: 1234 };
    authorise(&app().rules, socket_id, key.name().clone(), None, None, None)
        .expect("a public channel")
}

fn homes(criterion: &mut Criterion) {
    let keys = keys(1000);
    let mut homes = Homes::new(CacheBounds { events: 1000, bytes: 1 << 20 });
    let conn = ConnKey { slot: 0, generation: 0 };
    let mut out = Outbox::default();
    for key in &keys {
        for shard in [ShardId(0), ShardId(1)] {
            let (key, authorised) = (key.clone(), proof(key));
            let join = Join { key, authorised, conn, ticket: 0, max_members: None };
            homes.handle(shard, ToHome::Join(Box::new(join)), Millis(0), &mut out);
            out.messages().for_each(drop);
        }
    }
    let frame = outbound::event("e", &"x".repeat(70), "orders.0");
    let mut turn = keys.iter().cycle();
    criterion.bench_function("publish at home, two interested shards", |bench| {
        bench.iter(|| {
            let key = turn.next().expect("a cycle").clone();
            let event = Event { key, frame: frame.clone(), except: None, retain: None };
            homes.handle(ShardId(0), ToHome::Publish(event), Millis(0), &mut out);
            out.messages().for_each(|message| drop(black_box(message)));
        });
    });
}

fn mailbox(criterion: &mut Criterion) {
    let mut ports = bus::connect::<[u64; 12]>(2, 1024).expect("two eventfds");
    let (mut receiver, mut sender) = (ports.pop().expect("two"), ports.pop().expect("one"));
    criterion.bench_function("a message through a mailbox", |bench| {
        bench.iter(|| {
            sender.send(ShardId(1), black_box([7; 12]));
            receiver.receive()
        });
    });
}

fn counters(criterion: &mut Criterion) {
    let mut counters = FullCounters::new();
    criterion.bench_function("copy of a shard's counters for a scrape", |bench| {
        bench.iter(|| black_box(&counters).clone());
    });
    criterion.bench_function("count of a client's message", |bench| {
        bench.iter(|| counters.message(black_box(AppIndex(3)), black_box(100)));
    });
}

fn config() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
}

criterion_group! {
    name = micro;
    config = config();
    targets = frames, signatures, json, channels, homes, mailbox, counters
}
criterion_main!(micro);
