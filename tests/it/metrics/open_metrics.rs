//! A strict reader of the text format of OpenMetrics 1.0, as far as the gateway uses it.

use std::collections::BTreeMap;

/// Metrics as they were served.
pub struct Metrics {
    /// The families in their order: name, type and help.
    pub families: Vec<Family>,
    /// The values by name and labels, as in the text but with sorted labels.
    values: BTreeMap<(String, Labels), f64>,
}

pub struct Family {
    pub name: String,
    pub kind: String,
    pub help: String,
}

type Labels = BTreeMap<String, String>;

impl Metrics {
    /// Reads a text, which has to be complete and without contradictions.
    #[track_caller]
    pub fn read(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
        let mut metrics = Self { families: Vec::new(), values: BTreeMap::new() };
        let mut help = None;
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                help = Some(rest.split_once(' ').unwrap());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                let (of, help) = help.take().expect("a type without a help");
                assert_eq!(of, name, "{line}");
                assert!(metrics.families.iter().all(|family| family.name != name), "{line}: twice");
                let (name, kind, help) = (name.to_owned(), kind.to_owned(), help.to_owned());
                metrics.families.push(Family { name, kind, help });
            } else {
                metrics.take(line);
            }
        }
        metrics.check_histograms();
        metrics
    }

    /// Takes a line with a sample of the last family.
    fn take(&mut self, line: &str) {
        let family = self.families.last().expect("a sample before all types");
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, labels(rest.strip_suffix('}').unwrap())),
            None => (series, Labels::new()),
        };
        let suffix = name.strip_prefix(family.name.as_str()).unwrap_or_else(|| panic!("{line:?}"));
        let suffixes: &[&str] = match family.kind.as_str() {
            "gauge" => &[""],
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => panic!("{other}: {line:?}"),
        };
        assert!(suffixes.contains(&suffix), "{line:?} is no sample of a {}", family.kind);
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
        assert!(value >= 0.0, "{line:?}");
        let before = self.values.insert((name.to_owned(), labels), value);
        assert_eq!(before, None, "{line:?} is there twice");
    }

    /// The buckets of a histogram never shrink, and the last one is the count.
    fn check_histograms(&self) {
        for family in self.families.iter().filter(|family| family.kind == "histogram") {
            let buckets = format!("{}_bucket", family.name);
            let of_family = |(name, _): &&(String, Labels)| *name == buckets;
            for key in self.values.keys().filter(of_family) {
                let mut others = key.1.clone();
                let bound: f64 = others.remove("le").unwrap().replace('+', "").parse().unwrap();
                let same = self.values.iter().filter(|(key, _)| of_family(key));
                let lower = same.filter(|((_, labels), _)| {
                    let mut labels = labels.clone();
                    let le: f64 = labels.remove("le").unwrap().replace('+', "").parse().unwrap();
                    labels == others && le <= bound
                });
                assert!(lower.map(|(_, value)| value).all(|value| *value <= self.values[key]));
                if bound.is_infinite() {
                    let count = (format!("{}_count", family.name), others);
                    assert_eq!(self.values[key], self.values[&count]);
                }
            }
        }
    }

    /// The sum of the values of this name whose labels include these.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |of: &Labels| {
            labels.iter().all(|(label, value)| of.get(*label).is_some_and(|it| it == value))
        };
        let values = self.values.iter().filter(|((of, labels), _)| of == name && has(labels));
        values.map(|(_, value)| value).sum()
    }

    /// The names and values of all labels.
    pub fn labels(&self) -> impl Iterator<Item = (&String, &String)> {
        self.values.keys().flat_map(|(_, labels)| labels)
    }
}

/// The labels between the braces.
fn labels(mut text: &str) -> Labels {
    let mut labels = Labels::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap_or_else(|| panic!("{text:?}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name:?}");
        let (value, rest) = quoted(rest);
        assert_eq!(labels.insert(name.to_owned(), value), None, "{name} twice");
        assert!(rest.is_empty() || rest.starts_with(','), "{rest:?}");
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels
}

/// A value up to its quote, and the rest behind it.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next().unwrap().1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                other => panic!("\\{other} in {text:?}"),
            }),
            char => value.push(char),
        }
    }
    panic!("no end of {text:?}");
}
