//! What is tried: each fault, at each moment, of a deploy of each kind.

use std::fmt;

use super::{Fault, Moment};

/// What a deploy brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Other pages: blue beside green.
    Pages,
    /// A migration of the database, with which the release before can live: requests wait meanwhile.
    Schema,
}

impl Change {
    pub const ALL: [Self; 2] = [Self::Pages, Self::Schema];
}

/// One case: what happens, when, to which deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub fault: Fault,
    pub moment: Moment,
    pub change: Change,
}

impl Case {
    /// Each of these faults at every moment of a deploy of each kind; those that whoever looks into something chose. `CUTOVER_CASE="at
    /// bake"` takes those whose name has it, `CUTOVER_PART=2/5` every fifth from the second on.
    pub fn chosen(faults: &[Fault]) -> Vec<Self> {
        let all = Change::ALL.into_iter().flat_map(|change| {
            let of = move |fault: &Fault| {
                let fault = *fault;
                Moment::all().map(move |moment| Self { fault, moment, change })
            };
            faults.iter().flat_map(of)
        });
        let part_of_name = std::env::var("CUTOVER_CASE").unwrap_or_default();
        let named = all.filter(|case| case.to_string().contains(&part_of_name));
        let (first, every) = part(&std::env::var("CUTOVER_PART").unwrap_or_default());
        named.skip(first).step_by(every).collect()
    }
}

/// `2/5`: skip one, then every fifth. All, where nothing is said.
fn part(text: &str) -> (usize, usize) {
    let parts = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    let (part, of): (usize, usize) = parts.unwrap_or((1, 1));
    (part.saturating_sub(1), of.max(1))
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, moment, change } = self;
        let migrating = if *change == Change::Schema { ", migrating" } else { "" };
        write!(formatter, "{fault} at {moment}{migrating}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_no_choice_then_every_case_is_there_once_and_parts_have_them_all() {
        let all = Case::chosen(&Fault::ALL);
        assert_eq!(all.len(), Fault::ALL.len() * Moment::all().count() * Change::ALL.len());
        assert_eq!(part("2/5"), (1, 5));
        assert_eq!(part(""), (0, 1));
        assert_eq!(all[0].to_string(), "client killed at planned");
        assert_eq!(all[all.len() - 1].to_string(), "hung at record, migrating");
    }
}
