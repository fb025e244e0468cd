//! Simulation: real shards over simulated rings, on which everything goes wrong that can, and
//! clients that know the messages that they may get. One seed is one run, always the same:
//!
//! - `RINGWAVE_SIM_SEED=n`: only this seed, or the first one when runs are given too.
//! - `RINGWAVE_SIM_RUNS=n`: so many runs for each number of shards.
//! - `RINGWAVE_SIM_LOG=1`: what the shards say to their log.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lint table excepts test functions, this excepts what they call"
)]

mod client;
mod cluster;
mod cuts;
mod evict;
mod facts;
#[path = "../support/frames.rs"]
mod frames;
mod handshakes;
mod ledger;
mod loops;
mod mailboxes;
mod plan;
mod pressure;
mod stream;
mod world;

use plan::Plan;
use world::{Summary, World};

/// Prints how to repeat a failure.
struct Replay {
    test: &'static str,
    seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, seed } = self;
            eprintln!("again: RINGWAVE_SIM_SEED={seed} cargo test --test sim {test}");
        }
    }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn log_if_asked() {
    if from_env("RINGWAVE_SIM_LOG").is_some() {
        let log = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::DEBUG);
        let _set_by_another_test = log.without_time().with_test_writer().try_init();
    }
}

fn simulate(test: &'static str, shards: usize, runs: u64) {
    log_if_asked();
    let (seed, given) = (from_env("RINGWAVE_SIM_SEED"), from_env("RINGWAVE_SIM_RUNS"));
    let runs = match (given, seed) {
        (Some(given), _) => given,
        (None, Some(_)) => 1,
        (None, None) => runs,
    };
    let first = seed.unwrap_or(1);
    let mut sum = Summary::default();
    for seed in first..first + runs {
        let _replay = Replay { test, seed };
        let (_digest, summary) = World::new(Plan::new(shards, seed), seed).run();
        sum += summary;
    }
    println!("{test}: {runs} runs, {sum:?}");
}

#[test]
fn one_shard_keeps_its_promises() {
    simulate("one_shard", 1, 100);
}

#[test]
fn two_shards_keep_their_promises() {
    simulate("two_shards", 2, 100);
}

#[test]
fn five_shards_keep_their_promises() {
    simulate("five_shards", 5, 100);
}

#[test]
fn sixty_five_shards_keep_their_promises() {
    simulate("sixty_five_shards", 65, 10);
}

#[test]
fn the_same_seed_makes_the_same_run() {
    let run = || World::new(Plan::new(2, 7), 7).run().0;
    assert_eq!(run(), run());
}
