//! The rules and the dashboard: they name metrics that exist, and Prometheus takes the rules.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::left_out::left_out;
use crate::{root, tuning};

/// The metrics that the manual lists, which are those that the server serves: a test compares them.
/// Histograms are listed without the suffixes of their series.
fn served() -> BTreeSet<String> {
    let chapter = fs::read_to_string(root().join("src/manual/watch.md")).unwrap();
    let rows = chapter.lines().filter_map(|line| line.strip_prefix("| `ringwave_"));
    let names = rows.map(|row| {
        let (name, rest) = row.split_once("` | ").unwrap();
        let series = if rest.starts_with("histogram") { "_bucket" } else { "" };
        format!("ringwave_{name}{series}")
    });
    names.collect()
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !in_name(c));
    words.filter(|word| word.starts_with("ringwave_")).map(str::to_owned).collect()
}

#[test]
fn rules_and_dashboard_name_metrics_that_the_server_serves() {
    let served = served();
    assert!(served.len() > 40, "{served:?}");
    for (file, at_least) in [("alerts.yml", 10), ("grafana.json", 30)] {
        let named = named(&tuning(file));
        let unknown: Vec<_> = named.difference(&served).collect();
        assert!(unknown.is_empty(), "{file} names metrics that are not served: {unknown:?}");
        assert!(named.len() >= at_least, "{file} names {named:?}");
    }
}

#[test]
fn each_panel_of_the_dashboard_has_a_place_and_queries_of_its_own() {
    let dashboard: Value = serde_json::from_str(&tuning("grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut places = BTreeSet::new();
    for panel in panels {
        let place = ["x", "y"].map(|axis| panel["gridPos"][axis].as_u64().unwrap());
        assert!(places.insert(place), "two panels at {place:?}");
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        let ids: BTreeSet<_> = targets.iter().map(|of| of["refId"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), targets.len(), "{}", panel["title"]);
        for target in targets {
            let expr = target["expr"].as_str().unwrap();
            assert!(expr.contains(r#"{instance=~"$instance""#), "{expr}");
            for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
                assert_eq!(expr.matches(open).count(), expr.matches(close).count(), "{expr}");
            }
        }
    }
}

#[test]
fn prometheus_takes_the_rules() {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "rules"]).arg(root().join("tuning/alerts.yml"));
    let Ok(output) = promtool.output() else { return left_out("promtool is not installed") };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("SUCCESS"), "{text}");
}
