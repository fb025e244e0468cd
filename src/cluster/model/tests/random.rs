//! The same random calls on the model and on a Redis.

use std::cell::RefCell;

use proptest::prelude::*;

use super::server::Server;
use super::world::{World, channel, enter, join, keep, leave, part, publish, user};
use crate::cluster::wire::{CallKind, Command, NodeId};

/// An event. A node is an index, below the number of nodes.
#[derive(Clone, Debug)]
enum Event {
    /// A node enters, and forgets so many of the batches that it could repeat.
    Enter(usize, u64),
    /// A node makes a batch, so far from the number that is due.
    Batch(usize, i64, Vec<Command>),
    Register(usize, Vec<Command>),
    Tend(usize),
    Read(usize),
    Pass(u64),
    /// Seconds pass, in which one node tends.
    PassTended(usize, u64),
    Bury(usize, usize),
    Quit(usize),
    EvictInbox(usize),
    Restart,
    Empty,
}

const NODES: usize = 3;

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["presence-room", "presence-cache-hall", "cache-news"])
}

fn letters() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "p", "pct", "ct", "t", "t", "c", "pcta"])
}

fn user_id() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["7", "öl b"])
}

fn command() -> impl Strategy<Value = Command> {
    let channels = prop_oneof![
        4 => (name(), 1..4_u32, letters()).prop_map(|(name, n, letters)| join(name, n, letters)),
        2 => (name(), letters()).prop_map(|(name, letters)| leave(name, letters)),
        1 => (name(), 1..4_u32).prop_map(|(name, n)| Command::Count(channel(name), n)),
        4 => (name(), user_id(), 0..4_u32, letters())
            .prop_map(|(name, id, max, letters)| enter(name, id, max, letters)),
        3 => (name(), user_id(), letters()).prop_map(|(name, id, l)| part(name, id, l)),
        4 => (name(), "[ -~]{0,40}").prop_map(|(name, text)| publish(name, &text)),
        1 => "[ -~]{0,40}".prop_map(|text| keep("cache-news", &text)),
    ];
    let users = user_id().prop_flat_map(|id| {
        let id = user(id);
        prop::sample::select(vec![
            Command::Online(id.clone()),
            Command::Offline(id.clone()),
            Command::Watch(id.clone()),
            Command::Unwatch(id),
        ])
    });
    let app = || Box::<str>::from("app");
    let nodes = prop_oneof![
        (name(), any::<u32>(), "[a-z]{0,9}").prop_map(|(name, request, payload)| Command::State {
            channel: channel(name),
            request,
            payload: payload.into(),
        }),
        (name(), any::<u32>()).prop_map(|(name, request)| Command::Users(channel(name), request)),
        (any::<u32>(), "[a-z]{0,9}").prop_map(|(n, payload)| Command::Ask(n, payload.into())),
        (1..6_u128, any::<u32>()).prop_map(|(id, n)| Command::Answer(NodeId(id), n, "a".into())),
        Just(Command::Ready),
        (1..9_u32, 1..20_u32).prop_map(move |(wanted, total)| Command::Permits {
            app: app(),
            wanted,
            total
        }),
        (0..9_u32).prop_map(move |count| Command::Return { app: app(), count }),
    ];
    prop_oneof![6 => channels, 2 => users, 3 => nodes]
}

fn event() -> impl Strategy<Value = Event> {
    let node = || 0..NODES;
    let commands = || prop::collection::vec(command(), 0..8);
    let skew = prop::sample::select(vec![0, 0, 0, 0, 0, 0, 0, -1, 1]);
    prop_oneof![
        2 => (node(), 0..2_u64).prop_map(|(node, lost)| Event::Enter(node, lost)),
        12 => (node(), skew, commands()).prop_map(|(node, skew, c)| Event::Batch(node, skew, c)),
        2 => (node(), commands()).prop_map(|(node, commands)| Event::Register(node, commands)),
        4 => node().prop_map(Event::Tend),
        3 => node().prop_map(Event::Read),
        3 => prop::sample::select(vec![1, 999, 2500, 6000]).prop_map(Event::Pass),
        2 => (node(), prop::sample::select(vec![1, 4, 6, 8, 64]))
            .prop_map(|(node, seconds)| Event::PassTended(node, seconds)),
        3 => (node(), node()).prop_map(|(by, node)| Event::Bury(by, node)),
        1 => node().prop_map(Event::Quit),
        1 => node().prop_map(Event::EvictInbox),
        1 => prop_oneof![Just(Event::Restart), Just(Event::Empty)],
    ]
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Enter(node, lost) => {
            let base = world.nodes[*node].next.saturating_sub(1 + lost);
            world.enter_with(*node, base);
        }
        Event::Batch(node, 0, commands) => _ = world.call(*node, commands),
        Event::Batch(node, skew, commands) => {
            let number = world.nodes[*node].next.saturating_add_signed(*skew);
            world.call_as(*node, CallKind::Batch, number, commands);
        }
        Event::Register(node, commands) => _ = world.register(*node, commands),
        Event::Tend(node) => _ = world.tend(*node),
        Event::Read(node) => _ = world.read(*node),
        Event::Pass(ms) => world.pass(*ms),
        Event::PassTended(node, seconds) => world.pass_tended(*seconds, &[*node]),
        Event::Bury(by, node) => {
            let node = world.id(*node);
            world.call(*by, &[Command::Bury(node)]);
        }
        Event::Quit(node) => _ = world.call(*node, &[Command::Quit]),
        Event::EvictInbox(node) => world.evict_inbox(*node),
        Event::Restart => world.restart(),
        Event::Empty => world.empty(),
    }
}

#[test]
fn the_model_and_redis_agree_on_everything() {
    let Some(server) = Server::start() else { return };
    let server = RefCell::new(Some(server));
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() };
    let events = prop::collection::vec(event(), 1..100);
    let bounds = prop::sample::select(vec![700, 3000, 64 << 20]);
    let world = RefCell::new(World::on(server.borrow_mut().take(), 3));
    let outcome = proptest::test_runner::TestRunner::new(config).run(
        &(events, bounds),
        |(events, inbox_bytes)| {
            let server = world.borrow_mut().server.take();
            *world.borrow_mut() = World::on(server, 3);
            let mut world = world.borrow_mut();
            world.inbox_bytes = inbox_bytes;
            (0..NODES).for_each(|node| _ = world.enter(node));
            events.iter().for_each(|event| happen(&mut world, event));
            Ok(())
        },
    );
    outcome.unwrap();
}
