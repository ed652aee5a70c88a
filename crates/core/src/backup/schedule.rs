//! When a backup is due. The clock comes in, and may have been changed: one that jumps back is followed by one backup, not by none until it
//! has come round again, and not by many.

use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{BackupSettings, DrillRecord};
use crate::defaults::BACKUP_AGAIN;
use crate::event::{Condition, Event};

const DAY: Duration = Duration::from_hours(24);

/// The newest backup that was tried, by its place in the records and not by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// So many in a row have failed up to it; none: it was verified.
    pub failures: u32,
}

/// Whether one is due now. One that was missed is made up for at once; one that failed is tried again after a pause, which doubles with each that
/// fails: what it costs to try may be a dump of everything.
pub fn is_due(settings: &BackupSettings, last: Option<Attempt>, now: Timestamp) -> bool {
    match last {
        None => true,
        // The clock has jumped back since.
        Some(last) if last.at > now => true,
        Some(last) if last.failures > 0 => after(last.at, pause(settings.every, last.failures)) <= now,
        Some(last) => next(settings, last.at) <= now,
    }
}

/// Whether the newest backup is to be put back for a trial now. One that failed is tried again after a day: what was wrong with it is told meanwhile.
pub fn is_drill_due(every: Duration, last: Option<&DrillRecord>, now: Timestamp) -> bool {
    match last {
        None => true,
        // The clock has jumped back since.
        Some(last) if last.started > now => true,
        Some(last) if last.is_good() => after(last.started, every) <= now,
        Some(last) => after(last.started, every.min(DAY)) <= now,
    }
}

/// Whether the newest verified one is older than twice the time from one to the next, or there is none; one of the future tells nothing: the clock has
/// jumped back since.
pub fn is_stale(every: Duration, verified: Option<Timestamp>, now: Timestamp) -> bool {
    verified.is_none_or(|at| at > now || after(at, every.saturating_mul(2)) < now)
}

/// How backups (or drills) of which there should be one `every` so long are: by when the newest that counts began, when the newest that was tried began and
/// why it has failed, where it has, and what was told of them last. The first since they are wanted has as long as from one to the next, a day at most,
/// until it is missed; nothing from before is told meanwhile.
pub fn condition(
    every: Duration,
    good: Option<Timestamp>,
    failure: Option<(Timestamp, &str)>,
    told: Option<&Event>,
    now: Timestamp,
) -> Condition {
    // Since when the first is awaited.
    let since = match told.map(|told| (&told.condition, told.at)) {
        None | Some((Condition::Unwanted, _)) => Some(now),
        // Where the clock was set back since, it was long enough.
        Some((Condition::Awaited, at)) if at <= now && after(at, every.min(DAY)) >= now => Some(at),
        Some(_) => None,
    };
    let failure = failure.filter(|(at, _)| since.is_none_or(|since| *at >= since));
    let is_old = is_stale(every, good, now);
    match (good, failure) {
        (Some(newest), _) if is_old && since.is_none() => Condition::Old { newest },
        (_, Some((_, why))) => Condition::Failed { why: why.to_owned() },
        (Some(newest), None) if !is_old => Condition::Good { newest },
        _ if since.is_some() => Condition::Awaited,
        _ => Condition::Absent,
    }
}

fn pause(every: Duration, failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    BACKUP_AGAIN.saturating_mul(doubled).min(every)
}

fn next(settings: &BackupSettings, last: Timestamp) -> Timestamp {
    match settings.at {
        None => after(last, settings.every),
        Some(at) => first(at, after(last, settings.every.saturating_sub(DAY))),
    }
}

/// The first moment after `moment` with this time of day.
fn first(at: Time, moment: Timestamp) -> Timestamp {
    let zoned = moment.to_zoned(TimeZone::UTC);
    let today = zoned.date().to_datetime(at).to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    match today {
        Ok(today) if today > moment => today,
        Ok(today) => after(today, DAY),
        Err(_) => after(moment, DAY),
    }
}

fn after(moment: Timestamp, time: Duration) -> Timestamp {
    SignedDuration::try_from(time)
        .ok()
        .and_then(|time| moment.checked_add(time).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{DrillOutcome, Keep};
    use super::*;

    fn settings(every: Duration, at: Option<&str>) -> BackupSettings {
        BackupSettings {
            to: "/srv/backups".parse().unwrap(),
            password: "${BACKUP_PASSWORD}".parse().unwrap(),
            access: None,
            every,
            at: at.map(|at| at.parse().unwrap()),
            keep: Keep::default(),
            drill: None,
            volumes: std::collections::BTreeMap::new(),
        }
    }

    fn moment(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn good(text: &str) -> Attempt {
        Attempt { at: moment(text), failures: 0 }
    }

    #[test]
    fn given_none_then_one_is_due_at_once() {
        assert!(is_due(&settings(DAY, Some("03:00")), None, moment("2026-11-26T14:00:00Z")));
    }

    #[test]
    fn given_a_time_of_day_then_the_next_is_due_when_it_comes_and_one_that_was_missed_at_once() {
        let daily = settings(DAY, Some("03:00"));
        let last = good("2026-11-25T03:00:07Z");
        assert!(!is_due(&daily, Some(last), moment("2026-11-26T02:59:59Z")));
        assert!(is_due(&daily, Some(last), moment("2026-11-26T03:00:00Z")));
        // The host was down at 03:00; the one that makes up for it moves nothing.
        assert!(is_due(&daily, Some(last), moment("2026-11-26T09:12:00Z")));
        let made_up = good("2026-11-26T09:12:00Z");
        assert!(!is_due(&daily, Some(made_up), moment("2026-11-27T02:59:00Z")));
        assert!(is_due(&daily, Some(made_up), moment("2026-11-27T03:00:00Z")));
    }

    #[test]
    fn given_a_week_then_the_time_of_day_counts_on_the_seventh_day() {
        let weekly = settings(DAY * 7, Some("03:00"));
        let last = good("2026-11-20T03:00:00Z");
        assert!(!is_due(&weekly, Some(last), moment("2026-11-26T23:00:00Z")));
        assert!(is_due(&weekly, Some(last), moment("2026-11-27T03:00:00Z")));
    }

    #[test]
    fn given_no_time_of_day_then_the_next_is_due_after_that_time() {
        let hourly = settings(Duration::from_hours(1), None);
        let last = good("2026-11-26T14:00:00Z");
        assert!(!is_due(&hourly, Some(last), moment("2026-11-26T14:59:59Z")));
        assert!(is_due(&hourly, Some(last), moment("2026-11-26T15:00:00Z")));
    }

    #[test]
    fn given_a_clock_that_jumps_back_then_one_is_made_and_not_a_thousand() {
        let daily = settings(DAY, Some("03:00"));
        let mut last = Some(good("2027-11-26T03:00:00Z"));
        let mut made = 0;
        let mut now = moment("2026-11-26T14:00:00Z");
        for _ in 0..1_000 {
            if is_due(&daily, last, now) {
                made += 1;
                last = Some(Attempt { at: now, failures: 0 });
            }
            now = after(now, Duration::from_secs(5));
        }
        assert_eq!(made, 1);
    }

    #[test]
    fn given_one_that_failed_then_it_is_tried_again_after_a_pause() {
        let daily = settings(DAY, Some("03:00"));
        let at = moment("2026-11-26T03:00:00Z");
        let last = |failures| Some(Attempt { at, failures });
        assert!(!is_due(&daily, last(1), moment("2026-11-26T03:00:05Z")));
        assert!(is_due(&daily, last(1), after(at, BACKUP_AGAIN)));
        // With each that fails the pause doubles, and is never longer than from one to the next.
        assert!(!is_due(&daily, last(3), after(at, BACKUP_AGAIN * 3)));
        assert!(is_due(&daily, last(3), after(at, BACKUP_AGAIN * 4)));
        assert!(!is_due(&daily, last(99), after(at, DAY / 2)));
        assert!(is_due(&daily, last(99), after(at, DAY)));
    }

    #[test]
    fn a_drill_is_due_after_its_time_and_one_that_failed_a_day_later() {
        let at = moment("2026-11-20T03:00:00Z");
        let record = |outcome| DrillRecord { by: "schedule".to_owned(), started: at, finished: at, outcome };
        let good = record(DrillOutcome::Good { id: "1a2b3c4d".to_owned(), lines: Vec::new() });
        let failed = record(DrillOutcome::Failed { why: "no room".to_owned() });
        assert!(is_drill_due(DAY * 7, None, at));
        assert!(!is_drill_due(DAY * 7, Some(&good), after(at, DAY * 6)));
        assert!(is_drill_due(DAY * 7, Some(&good), after(at, DAY * 7)));
        assert!(!is_drill_due(DAY * 7, Some(&failed), after(at, DAY / 2)));
        assert!(is_drill_due(DAY * 7, Some(&failed), after(at, DAY)));
    }

    #[test]
    fn what_is_to_be_told_follows_from_the_newest_and_from_how_long_the_first_is_awaited() {
        let now = moment("2026-11-26T14:00:00Z");
        let told = |condition, at: &str| Event {
            version: crate::event::EVENT_VERSION,
            at: moment(at),
            app: "shop/production".parse().unwrap(),
            about: crate::event::Subject::Backup,
            condition,
        };
        let (fresh, old) = (moment("2026-11-26T03:00:00Z"), moment("2026-11-24T03:00:00Z"));
        let failed = Condition::Failed { why: "no room".to_owned() };
        let (was_good, no_room) =
            (told(Condition::Good { newest: old }, "2026-11-24T03:05:00Z"), (now, "no room"));
        let was_good = Some(&was_good);
        assert_eq!(condition(DAY, Some(fresh), None, None, now), Condition::Good { newest: fresh });
        assert_eq!(condition(DAY, Some(fresh), Some(no_room), was_good, now), failed);
        assert_eq!(condition(DAY, None, Some(no_room), was_good, now), failed);
        assert_eq!(condition(DAY, Some(old), Some(no_room), was_good, now), Condition::Old { newest: old });

        // They were not wanted for a while: what is from before is no news.
        for unwanted in [None, Some(told(Condition::Unwanted, "2026-11-25T14:00:00Z"))] {
            let before = Some((old, "no room"));
            assert_eq!(condition(DAY, Some(old), before, unwanted.as_ref(), now), Condition::Awaited);
        }
        let wanted = told(Condition::Awaited, "2026-11-26T13:59:00Z");
        assert_eq!(condition(DAY, Some(old), Some((old, "no room")), Some(&wanted), now), Condition::Awaited);
        assert_eq!(condition(DAY, Some(old), Some(no_room), Some(&wanted), now), failed);

        assert_eq!(condition(DAY, None, None, None, now), Condition::Awaited);
        let awaited = told(Condition::Awaited, "2026-11-25T14:00:00Z");
        assert_eq!(condition(DAY, None, None, Some(&awaited), now), Condition::Awaited);
        assert_eq!(condition(DAY * 7, None, None, Some(&awaited), after(now, DAY)), Condition::Absent);
        let absent = told(Condition::Absent, "2026-11-26T13:59:00Z");
        assert_eq!(condition(DAY, None, None, Some(&absent), now), Condition::Absent);
    }

    #[test]
    fn one_is_stale_after_twice_its_time_and_none_is_at_once() {
        let now = moment("2026-11-26T14:00:00Z");
        assert!(is_stale(DAY, None, now));
        assert!(!is_stale(DAY, Some(moment("2026-11-24T14:00:00Z")), now));
        assert!(is_stale(DAY, Some(moment("2026-11-24T13:59:59Z")), now));
        assert!(
            is_stale(DAY, Some(moment("2035-11-26T14:00:00Z")), now),
            "the clock was wrong when it was made"
        );
    }
}
