//! What was measured: figures by name, each with a value for every round; medians and ratios of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

/// Figures by name, such as `idle/64/criu/downtime_ms`; the unit is the end of the name.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures(BTreeMap<String, Vec<f64>>);

impl Figures {
    /// Adds what one round has found.
    pub(super) fn add(&mut self, name: impl Into<String>, value: f64) {
        self.0.entry(name.into()).or_default().push(value);
    }

    /// The median of what the rounds have found, if there was any; the middle of the two in the middle if rounds are even.
    pub(super) fn median(&self, name: &str) -> Option<f64> {
        let values = self.sorted(name);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(f64::midpoint(lower, upper))
    }

    /// `first` divided by `second`, medians both.
    pub(super) fn ratio(&self, first: &str, second: &str) -> Option<f64> {
        let (first, second) = (self.median(first)?, self.median(second)?);
        (second > 0.0).then(|| first / second)
    }

    /// By how much the rounds differ: most less least.
    pub(super) fn spread(&self, name: &str) -> Option<f64> {
        let values = self.sorted(name);
        Some(values.last()? - values.first()?)
    }

    /// The median and what lies around it: `2.9 (2.8 to 3.1)`; a dash if nothing was measured.
    pub(super) fn cell(&self, name: &str) -> String {
        let values = self.sorted(name);
        match (values.first(), self.median(name), values.last()) {
            (Some(least), Some(median), Some(most)) if values.len() > 1 => {
                format!("{} ({} to {})", number(median), number(*least), number(*most))
            }
            (_, Some(median), _) => number(median),
            _ => "–".to_owned(),
        }
    }

    /// The ratio of two medians: `3.1x`; a dash if one was not measured.
    pub(super) fn ratio_cell(&self, first: &str, second: &str) -> String {
        self.ratio(first, second).map_or_else(|| "–".to_owned(), |ratio| format!("{}x", number(ratio)))
    }

    /// All values of all rounds.
    pub(super) fn as_json(&self) -> Value {
        let figures = self
            .0
            .iter()
            .map(|(name, values)| (name.clone(), json!({ "median": self.median(name), "rounds": values })));
        figures.collect::<serde_json::Map<_, _>>().into()
    }

    fn sorted(&self, name: &str) -> Vec<f64> {
        let mut values = self.0.get(name).cloned().unwrap_or_default();
        values.sort_by(f64::total_cmp);
        values
    }
}

/// Three digits that matter, and no fraction where there are more before the point.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..0.1 => format!("{value:.3}"),
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Milliseconds.
pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(values: &[(&str, &[f64])]) -> Figures {
        let mut figures = Figures::default();
        for (name, values) in values {
            values.iter().for_each(|value| figures.add(*name, *value));
        }
        figures
    }

    #[test]
    fn the_median_is_the_middle_and_the_cell_its_neighbourhood() {
        let figures = figures(&[("a", &[5.0, 1.0, 900.0]), ("b", &[0.25]), ("even", &[4.0, 1.0, 2.0, 9.0])]);
        assert_eq!(figures.median("a"), Some(5.0));
        assert_eq!(figures.median("even"), Some(3.0));
        assert_eq!(figures.cell("a"), "5.00 (1.00 to 900)");
        assert_eq!(figures.cell("b"), "0.25");
        assert_eq!(figures.spread("a"), Some(899.0));
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let figures = figures(&[("a", &[6.0]), ("b", &[3.0]), ("zero", &[0.0])]);
        assert_eq!((figures.ratio("a", "b"), figures.ratio_cell("a", "b")), (Some(2.0), "2.00x".to_owned()));
        assert_eq!((figures.ratio("a", "c"), figures.ratio("a", "zero")), (None, None));
        assert_eq!((figures.cell("c"), figures.ratio_cell("c", "a")), ("–".to_owned(), "–".to_owned()));
    }

    #[test]
    fn numbers_have_three_digits() {
        let written = [0.0, 0.012_34, 2.345, 12.34, 1234.5].map(number);
        assert_eq!(written, ["0", "0.012", "2.35", "12.3", "1234"].map(str::to_owned));
    }
}
