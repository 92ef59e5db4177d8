//! One promise: what was measured, where the limit lies, what follows.

use serde_json::{Value, json};

use super::super::figures::number;
use super::super::parts::Part;

/// A promise and what came of it.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Promise {
    what: String,
    pub(super) measured: Option<f64>,
    limit: Limit,
    unit: &'static str,
    /// The parts that measure it.
    parts: &'static [Part],
    /// Why there is nothing to be measured, if that is so.
    excuse: Option<&'static str>,
}

/// On which side of the number the promise is kept.
#[derive(Clone, Copy, Debug)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing is promised; it stands beside what is.
    None,
}

impl Promise {
    pub(super) fn at_most(
        what: impl Into<String>,
        measured: Option<f64>,
        limit: f64,
        unit: &'static str,
    ) -> Self {
        Self::new(what, measured, Limit::AtMost(limit), unit)
    }

    pub(super) fn at_least(
        what: impl Into<String>,
        measured: Option<f64>,
        limit: f64,
        unit: &'static str,
    ) -> Self {
        Self::new(what, measured, Limit::AtLeast(limit), unit)
    }

    pub(super) fn shown(what: impl Into<String>, measured: Option<f64>, unit: &'static str) -> Self {
        Self::new(what, measured, Limit::None, unit)
    }

    fn new(what: impl Into<String>, measured: Option<f64>, limit: Limit, unit: &'static str) -> Self {
        Self { what: what.into(), measured, limit, unit, parts: &[], excuse: None }
    }

    /// Measured by these parts.
    pub(super) fn by(mut self, parts: &'static [Part]) -> Self {
        self.parts = parts;
        self
    }

    /// With a reason not to be measured, where `holds` is true.
    pub(super) fn unless(mut self, holds: bool, excuse: &'static str) -> Self {
        self.excuse = holds.then_some(excuse);
        self
    }

    /// What it speaks of.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// None if it was not measured, or nothing is promised.
    pub(super) fn is_kept(&self) -> Option<bool> {
        let measured = self.measured?;
        match self.limit {
            Limit::AtMost(limit) => Some(measured <= limit),
            Limit::AtLeast(limit) => Some(measured >= limit),
            Limit::None => None,
        }
    }

    /// Whether the parts that measure it have run and it has no figure all the same, without a reason.
    pub(super) fn is_missing(&self, ran: impl Fn(Part) -> bool) -> bool {
        let is_due = !self.parts.is_empty() && self.parts.iter().all(|part| ran(*part));
        is_due && self.measured.is_none() && self.excuse.is_none()
    }

    pub(super) fn verdict(&self) -> String {
        match (self.is_kept(), self.measured, self.excuse) {
            (Some(true), ..) => "kept".to_owned(),
            (Some(false), ..) => "NOT KEPT".to_owned(),
            (None, Some(_), _) => "nothing promised".to_owned(),
            (None, None, Some(excuse)) => format!("not measured: {excuse}"),
            (None, None, None) => "not measured".to_owned(),
        }
    }

    /// Its row of the table.
    pub(super) fn cells(&self) -> [String; 4] {
        let measured = self.measured.map_or_else(|| "–".to_owned(), |value| number(value) + self.unit);
        [self.what.clone(), measured, self.limit_in_words(), self.verdict()]
    }

    /// The same for programs.
    pub(super) fn as_json(&self) -> Value {
        let limit = match self.limit {
            Limit::AtMost(limit) | Limit::AtLeast(limit) => Some(limit),
            Limit::None => None,
        };
        json!({
            "promise": self.what, "measured": self.measured, "limit": limit, "unit": self.unit.trim(),
            "verdict": self.verdict(),
        })
    }

    fn limit_in_words(&self) -> String {
        match self.limit {
            Limit::AtMost(limit) => format!("at most {}{}", number(limit), self.unit),
            Limit::AtLeast(limit) => format!("at least {}{}", number(limit), self.unit),
            Limit::None => "–".to_owned(),
        }
    }
}
