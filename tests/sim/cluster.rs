//! Simulation of clusters: several processes with real shards and the real node, a model of the
//! scripts in the place of Redis, and everything between them that can be lost, late or repeated.

mod faults;
mod judge;
mod plan;
mod process;
mod rest;
mod world;

use plan::ClusterPlan;
use world::{Cluster, Totals};

use crate::{Replay, from_env, log_if_asked};

/// The seeds of three nodes for each seed of many, which takes as long.
const MANY_NODES_COST: u64 = 1000;

fn simulate(test: &'static str, nodes: usize, runs: u64) {
    log_if_asked();
    let first = from_env("RINGWAVE_SIM_SEED").unwrap_or(1);
    let mut sum = Totals::default();
    for seed in first..first + runs {
        let _replay = Replay { test, seed };
        sum += Cluster::new(ClusterPlan::new(nodes, seed), seed).run().1;
    }
    println!("{test}: {runs} runs, {sum:?}");
}

/// The number of runs that was asked for, or one if a seed was.
fn runs_asked_for() -> Option<u64> {
    from_env("RINGWAVE_SIM_RUNS").or_else(|| from_env("RINGWAVE_SIM_SEED").map(|_| 1))
}

#[test]
fn three_nodes_are_one_server() {
    simulate("three_nodes", 3, runs_asked_for().unwrap_or(20));
}

/// A hundred nodes if runs or a seed are given, and fewer in an ordinary run of the tests.
#[test]
fn many_nodes_are_one_server() {
    match runs_asked_for() {
        Some(runs) => simulate("many_nodes", 100, runs.div_ceil(MANY_NODES_COST)),
        None => simulate("many_nodes", 20, 1),
    }
}

#[test]
fn two_clusters_of_one_seed_do_the_same() {
    let run = || Cluster::new(ClusterPlan::new(3, 7), 7).run().0;
    assert_eq!(run(), run());
}
