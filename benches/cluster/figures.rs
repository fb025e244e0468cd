//! The results of the rounds: minimum and median of each figure, and goals.

use serde_json::{Value, json};

/// The figures of one kind of work.
pub(crate) struct Figures {
    title: String,
    figures: Vec<Figure>,
    goals: Vec<Goal>,
}

/// A figure, round by round.
struct Figure {
    name: String,
    unit: &'static str,
    values: Vec<f64>,
}

/// A value that is to be at most `limit`.
struct Goal {
    name: String,
    value: f64,
    limit: f64,
}

impl Figures {
    pub(crate) fn new(title: String) -> Self {
        Self { title, figures: Vec::new(), goals: Vec::new() }
    }

    /// Adds the value of a round.
    pub(crate) fn add(&mut self, name: impl Into<String>, unit: &'static str, value: f64) {
        let name = name.into();
        match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.values.push(value),
            None => self.figures.push(Figure { name, unit, values: vec![value] }),
        }
    }

    /// The median of the rounds; NaN if there is no such figure.
    pub(crate) fn median(&self, name: &str) -> f64 {
        self.figures.iter().find(|figure| figure.name == name).map_or(f64::NAN, Figure::median)
    }

    /// Compares a value with the most that it should be.
    pub(crate) fn goal(&mut self, name: impl Into<String>, value: f64, limit: f64) {
        self.goals.push(Goal { name: name.into(), value, limit });
    }

    pub(crate) fn print(&self) {
        println!("\n{}\n  {:<44} {:>10} {:>10}", self.title, "", "min", "median");
        for figure in &self.figures {
            let (min, median) = (figure.min(), figure.median());
            println!("  {:<44} {min:>10.2} {median:>10.2} {}", figure.name, figure.unit);
        }
        for Goal { name, value, limit } in &self.goals {
            let verdict = if value <= limit { "met" } else { "MISSED" };
            println!("  {name:<44} {:>10} {value:>10.2} of {limit} at most: {verdict}", "");
        }
    }

    /// All values of all rounds.
    pub(crate) fn json(&self) -> Value {
        let figure = |figure: &Figure| {
            json!({ "figure": figure.name, "unit": figure.unit, "values": figure.values,
                    "min": figure.min(), "median": figure.median() })
        };
        let goal = |goal: &Goal| {
            json!({ "goal": goal.name, "value": goal.value, "at_most": goal.limit,
                    "met": goal.value <= goal.limit })
        };
        json!({
            "work": self.title,
            "figures": self.figures.iter().map(figure).collect::<Vec<_>>(),
            "goals": self.goals.iter().map(goal).collect::<Vec<_>>(),
        })
    }
}

impl Figure {
    fn min(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn median(&self) -> f64 {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => f64::NAN,
            len if len % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        }
    }
}
