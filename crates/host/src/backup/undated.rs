//! `PostgreSQL`'s archives name in their head the second in which they were made. In a repository that would have the beginning of a dump, a
//! megabyte or more, stored anew each time, where nothing else of it changed; when it was made a backup says by itself.

const MAGIC: &[u8] = b"PGDMP";
/// Bytes of each number, besides its sign: on all machines that there are.
const NUMBER: u8 = 4;
/// The formats whose head is known: those of `PostgreSQL` 12 to 18.
const MAJOR: u8 = 1;
const MINOR: std::ops::RangeInclusive<u8> = 14..=16;
/// From this on the way of packing is a byte, not a number.
const MINOR_OF_A_BYTE: u8 = 15;
/// Second, minute, hour, day, month from 0, year from 1900, daylight saving: the first day of 2000.
const DATE: [u8; 7] = [0, 0, 0, 1, 0, 100, 0];

/// Replaces the date in an archive's beginning; what is no archive, or one of a form that is not known, stays as it is.
pub(super) fn undate(beginning: &mut [u8]) {
    let Some((MAGIC, [major, minor, _revision, number, _offset, _format, packing @ ..])) =
        beginning.split_at_mut_checked(MAGIC.len()).map(|(magic, rest)| (&*magic, rest))
    else {
        return;
    };
    if *major != MAJOR || !MINOR.contains(minor) || *number != NUMBER {
        return;
    }
    let numbers = usize::from(NUMBER) + 1;
    let date = if *minor < MINOR_OF_A_BYTE { numbers } else { 1 };
    let Some(date) = packing.get_mut(date..date + DATE.len() * numbers) else { return };
    for (place, number) in date.chunks_exact_mut(numbers).zip(DATE) {
        place.fill(0);
        place[1] = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(minor: u8, second: u8) -> Vec<u8> {
        let packing: &[u8] = if minor < 15 { &[0; 5] } else { &[0] };
        let date = [second, 53, 18, 7, 27, 10, 126].map(|number| [0, number, 0, 0, 0]).concat();
        [b"PGDMP".as_slice(), &[1, minor, 0, 4, 8, 1], packing, &date, b"\0\x08\0\0\0postgres"].concat()
    }

    #[test]
    fn two_archives_of_the_same_content_become_the_same() {
        for minor in [14, 15, 16] {
            let (mut one, mut other) = (archive(minor, 1), archive(minor, 59));
            assert_ne!(one, other);
            undate(&mut one);
            undate(&mut other);
            assert_eq!(one, other);
            assert!(one.len() <= 64 && one.ends_with(b"\0\x08\0\0\0postgres"));
        }
    }

    #[test]
    fn what_is_not_known_stays_as_it_is() {
        let of_another_machine = [b"PGDMP\x01\x0e\0\x08\x08\x01".as_slice(), &[7; 60]].concat();
        for found in [
            archive(13, 1),
            archive(17, 1),
            of_another_machine,
            b"PGDMP\x01\x0e\0\x04".to_vec(),
            b"-- MariaDB".to_vec(),
        ] {
            let mut after = found.clone();
            undate(&mut after);
            assert_eq!(after, found);
        }
    }
}
