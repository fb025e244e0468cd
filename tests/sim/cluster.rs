//! Simulation of clusters: several processes with real shards and the real node, a model of the
//! scripts in the place of Redis, and everything between them that can be lost, late or repeated.

mod judge;
mod plan;
mod process;
mod rest;
mod world;

use plan::ClusterPlan;
use world::{Cluster, Totals};

use crate::{Replay, from_env, log_if_asked};

fn simulate(test: &'static str, nodes: usize, runs: u64) {
    log_if_asked();
    let (seed, given) = (from_env("RINGWAVE_SIM_SEED"), from_env("RINGWAVE_SIM_RUNS"));
    let runs = given.unwrap_or_else(|| if seed.is_some() { 1 } else { runs });
    let first = seed.unwrap_or(1);
    let mut sum = Totals::default();
    for seed in first..first + runs {
        let _replay = Replay { test, seed };
        sum += Cluster::new(ClusterPlan::new(nodes, seed), seed).run().1;
    }
    println!("{test}: {runs} runs, {sum:?}");
}

#[test]
fn three_nodes_are_one_server() {
    simulate("three_nodes", 3, 20);
}

#[test]
#[ignore = "takes minutes; scripts/soak runs it"]
fn a_hundred_nodes_are_one_server() {
    simulate("a_hundred_nodes", 100, 1);
}

#[test]
fn two_clusters_of_one_seed_do_the_same() {
    let run = || Cluster::new(ClusterPlan::new(3, 7), 7).run().0;
    assert_eq!(run(), run());
}
