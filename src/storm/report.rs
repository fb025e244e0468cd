//! The outcome as one HTML page with figures and plots. It has no scripts and loads nothing.

mod plot;

use std::fmt::Write;

use crate::latency::LatencyPoint;
use crate::outcome::{Latency, Sample, StormOutcome};

use plot::{Plot, Scale, Series};

/// The outcome as an HTML page.
#[must_use]
pub fn html(outcome: &StormOutcome) -> String {
    let verdict = if outcome.passed { "passed" } else { "failed" };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>ringwave storm: {0}</title><style>{STYLE}</style></head><body>\
         <h1>ringwave storm: {0} <span class=\"{verdict}\">{verdict}</span></h1>\n",
        outcome.scenario,
    );
    page.push_str(&figures(outcome));
    page.push_str("<div class=\"plots\">\n");
    for plot in plots(outcome) {
        // A plot without lines is empty.
        page.push_str(&plot.svg());
    }
    page.push_str("</div>\n</body></html>\n");
    page
}

/// The run and the lines of the summary, as a table.
fn figures(outcome: &StormOutcome) -> String {
    let run = &outcome.run;
    let mut table = String::from("<table>\n");
    row(&mut table, "date", &run.date);
    row(&mut table, "command", &run.command);
    row(&mut table, "host", &run.host);
    row(&mut table, "version", &format!("ringwave {}", run.version));
    for line in outcome.table().lines() {
        let (name, text) = line.trim_start().split_once("  ").unwrap_or((line, ""));
        row(&mut table, name, text.trim());
    }
    table.push_str("</table>\n");
    table
}

fn row(table: &mut String, name: &str, text: &str) {
    // Writing to memory cannot fail.
    let _written = writeln!(table, "<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(text));
}

fn plots(outcome: &StormOutcome) -> Vec<Plot> {
    let samples = |of: fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        outcome.samples.iter().map(|sample| (sample.at_s, of(sample))).collect()
    };
    let over_time = |title: &'static str, unit: &'static str, series| Plot {
        title,
        x: Scale::Seconds,
        y: Scale::Linear(unit),
        series,
    };
    let mut plots = vec![
        percentiles(outcome),
        latencies("Latency of deliveries", &outcome.delivery_seconds),
        latencies("Time until subscribed", &outcome.handshake_seconds),
        over_time(
            "Rate",
            "/s",
            vec![
                Series::new("deliveries", samples(|s| s.delivered_per_s)),
                Series::new("messages sent", samples(|s| s.sent_per_s)),
                Series::new("handshakes", samples(|s| s.handshakes_per_s)),
            ],
        ),
        over_time(
            "Connections",
            "",
            vec![Series::new("subscribed", samples(|s| s.connections as f64))],
        ),
    ];
    let mut cpu = vec![Series::new("storm", samples(|s| s.storm))];
    if outcome.server.is_some() {
        cpu.insert(0, Series::new("server, user", samples(|s| s.server_user)));
        cpu.insert(1, Series::new("server, kernel", samples(|s| s.server_system)));
        let resident = samples(|s| s.server_resident as f64 / f64::from(1 << 20));
        plots.push(over_time("Server memory", " MiB", vec![Series::new("resident", resident)]));
    }
    plots.push(over_time("CPU", " cores", cpu));
    plots
}

/// Percentiles on a scale that gives each nine (90 %, 99 %, 99.9 %) the same room.
fn percentiles(outcome: &StormOutcome) -> Plot {
    let curve = |latency: &Option<Latency>| {
        let steps = latency.iter().flat_map(|latency| &latency.curve);
        let finite = steps.filter(|(quantile, _)| *quantile < 1.0);
        finite.map(|(quantile, us)| (-(1.0 - quantile).log10(), *us as f64)).collect()
    };
    Plot {
        title: "Latency by percentile",
        x: Scale::Nines,
        y: Scale::Microseconds,
        series: vec![
            Series::new("delivery", curve(&outcome.latency_us)),
            Series::new("publish", curve(&outcome.publish_us)),
            Series::new("handshake", curve(&outcome.handshake_us)),
        ],
    }
}

fn latencies(title: &'static str, points: &[LatencyPoint]) -> Plot {
    let line = |of: fn(&LatencyPoint) -> u64| -> Vec<(f64, f64)> {
        points.iter().map(|point| (point.second as f64, of(point) as f64)).collect()
    };
    Plot {
        title,
        x: Scale::Seconds,
        y: Scale::Microseconds,
        series: vec![
            Series::new("max", line(|p| p.max)),
            Series::new("p99", line(|p| p.p99)),
            Series::new("p50", line(|p| p.p50)),
        ],
    }
}

/// Text escaped for HTML, because the texts of servers are among it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The style sheet. On a phone, which is 360 to 430 pixels wide, each row of the table becomes two
/// lines, and a plot is as wide as the page. Long words, as in a command, break anywhere.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#222;--faint:#ddd;--0:#1668b8;--1:#d1571b;--2:#3a8f3a}\
@media(prefers-color-scheme:dark){:root{--ink:#ddd;--faint:#444;\
--0:#6db3f2;--1:#f0935f;--2:#7fce7f}}\
body{font:14px/1.5 system-ui,sans-serif;color:var(--ink);\
max-width:1240px;margin:2em auto;padding:0 1em}\
h1{font-size:1.4em}h1 span{font-size:.7em;padding:.1em .5em;border-radius:.3em;color:#fff}\
.passed{background:#3a8f3a}.failed{background:#b3261e}\
th{text-align:left;font-weight:600;padding-right:1.5em;vertical-align:top;white-space:nowrap}\
td{font-variant-numeric:tabular-nums;overflow-wrap:anywhere}\
@media(max-width:600px){body{margin:1em auto}table,tbody,tr,th,td{display:block}\
td{margin-bottom:.4em}}\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(360px,100%),1fr));\
gap:1em;margin-top:1.5em}\
svg{width:100%;height:auto}svg text{fill:var(--ink);font-size:11px}\
svg .title{font-weight:600;font-size:13px}\
.grid{stroke:var(--faint)}.line{fill:none;stroke-width:1.5}\
.c0{stroke:var(--0)}.c1{stroke:var(--1)}.c2{stroke:var(--2)}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::RunFigures;

    fn outcome() -> StormOutcome {
        let sample = |at_s| Sample { at_s, connections: 7, server_user: 0.5, ..Sample::default() };
        let point = LatencyPoint { second: 1, count: 2, p50: 30, p99: 400, p999: 500, max: 6000 };
        StormOutcome {
            run: RunFigures {
                date: "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(),
                command: "ringwave storm fanout -n 7".to_owned(),
                host: "gate-1, 2 cores, Linux 6.1.0".to_owned(),
                version: "9.9.9",
            },
            scenario: "fanout",
            samples: vec![sample(0.5), sample(1.0), sample(1.5)],
            delivery_seconds: vec![point, LatencyPoint { second: 2, ..point }],
            problems: [("<script>alert(1)</script>".to_owned(), 3)].into(),
            ..StormOutcome::default()
        }
    }

    #[test]
    fn the_page_is_whole_and_asks_for_nothing_else() {
        let page = html(&outcome());
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        for foreign in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        for title in ["Latency of deliveries", "Connections", "CPU"] {
            assert!(page.contains(title), "{title}");
        }
        assert!(!page.contains("Latency by percentile"), "nothing to show");
    }

    #[test]
    fn the_page_has_the_date_the_host_the_command_and_the_version() {
        let page = html(&outcome());
        for told in ["06 Nov 1994", "ringwave storm fanout -n 7", "gate-1, 2 cores", "9.9.9"] {
            assert!(page.contains(told), "{told}");
        }
    }

    #[test]
    fn texts_of_a_server_are_escaped() {
        let page = html(&outcome());
        assert!(page.contains("3 x &lt;script&gt;") && !page.contains("<script"));
    }

    #[test]
    fn figures_that_are_no_numbers_are_left_out_of_the_plots() {
        let mut outcome = outcome();
        outcome.samples[1].delivered_per_s = f64::NAN;
        outcome.samples[2].delivered_per_s = f64::INFINITY;
        let page = html(&outcome);
        assert!(!page.contains("NaN") && !page.contains("inf,"));
    }
}
