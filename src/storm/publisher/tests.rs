use std::io::Read;
use std::net::TcpListener;
use std::thread;

use super::*;
use crate::target::TargetServer;

/// A server that takes connections, reads what comes and answers nothing.
fn silent_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    // It ends with the process.
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {});
        }
    });
    url
}

#[test]
fn a_request_without_a_response_is_given_up_and_its_messages_are_owed_to_nobody() {
    let target = TargetServer::new(&[silent_server()], "1", "key", "secret").unwrap();
    let plan = StormPlan { target, batch: 5, rate: 50.0, ..crate::plan::tests::plan() };
    let shared = SharedState::new(&plan, 1, now_ns());
    shared.run_from_ns.store(now_ns(), Ordering::Release);
    shared.run_until_ns.store(now_ns() + NS_PER_S / 20, Ordering::Release);
    shared.set_stage(StormStage::Run);
    let mut publisher = Publisher::new(&plan, &shared).unwrap();
    publisher.response_ns = NS_PER_S / 4;
    let began = now_ns();
    let mut was_open = false;
    while publisher.tally.of(Counter::Unknown) == 0 {
        publisher.turn();
        was_open |= shared.open_from[0].load(Ordering::SeqCst) == 0;
        assert!(now_ns() - began < 20 * NS_PER_S, "the publisher waits for ever");
    }
    assert!(was_open && now_ns() - began >= NS_PER_S / 4);
    assert_eq!(publisher.tally.of(Counter::Unknown), 5);
    assert_eq!(publisher.tally.of(Counter::Published), 0);
    assert!(shared.open_from.iter().all(|from| from.load(Ordering::SeqCst) == u32::MAX));
    assert!(shared.exempt.contains(0, 0));
    let problems: Vec<_> = shared.problems().into_keys().collect();
    assert!(problems[0].contains("before the response: there was none within"), "{problems:?}");
    assert_eq!(publisher.unfinished(), 0, "the storm may end");
}
