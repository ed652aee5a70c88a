//! Which of the two engines, and of which version: what servers, client programs and dumps say of themselves.

use std::fmt;

use crate::ports::DatabaseError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) mariadb: bool,
    pub(super) major: u32,
    pub(super) minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = if self.mariadb { "MariaDB" } else { "MySQL" };
        write!(formatter, "{engine} {}.{}", self.major, self.minor)
    }
}

impl Version {
    /// `10.11.6-MariaDB-1:10.11.6+maria~ubu2204`, `8.4.2`; before it may stand `5.5.5-`, for clients that know no greater number.
    pub(super) fn of_server(text: &str) -> Option<Self> {
        let mariadb = text.contains("MariaDB");
        let number = if mariadb { text.strip_prefix("5.5.5-").unwrap_or(text) } else { text };
        Self::numbered(mariadb, number)
    }

    /// `mysqldump  Ver 8.0.32 for Linux on x86_64`, `mariadb-dump  Ver 10.19 Distrib 10.11.6-MariaDB, for …`,
    /// `mariadb-dump from 11.4.2-MariaDB, client 10.19 for …`.
    pub(super) fn of_program(text: &str) -> Option<Self> {
        let mariadb = text.contains("MariaDB");
        let marks: &[&str] = if mariadb { &["Distrib ", " from "] } else { &["Ver "] };
        let number = marks.iter().find_map(|mark| Some(text.split_once(mark)?.1))?;
        Self::numbered(mariadb, number)
    }

    fn numbered(mariadb: bool, text: &str) -> Option<Self> {
        let mut numbers = text.trim().split(|letter: char| !letter.is_ascii_digit());
        let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        Some(Self { mariadb, major, minor })
    }

    /// Whether a program of this version dumps such a server.
    pub(super) fn reads(&self, server: &Self) -> bool {
        self.mariadb == server.mariadb && (self.major, self.minor) >= (server.major, server.minor)
    }

    /// Whether all is there that is asked of a server.
    ///
    /// # Errors
    /// It is too old.
    pub(super) fn new_enough(&self) -> Result<(), DatabaseError> {
        let oldest = if self.mariadb { (10, 5) } else { (8, 0) };
        if (self.major, self.minor) >= oldest {
            return Ok(());
        }
        Err(DatabaseError::plain(format!(
            "the server is {self}; snapshots are taken from version {}.{} on",
            oldest.0, oldest.1
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_programs_say_their_versions() {
        let told = |version: Option<Version>| version.map(|version| version.to_string());
        let server = |text| told(Version::of_server(text));
        assert_eq!(server("10.11.18-MariaDB-0+deb12u1").as_deref(), Some("MariaDB 10.11"));
        assert_eq!(server("5.5.5-10.6.5-MariaDB-log").as_deref(), Some("MariaDB 10.6"));
        assert_eq!(server("8.4.2").as_deref(), Some("MySQL 8.4"));
        assert_eq!(server("nonsense"), None);
        let program = |text| told(Version::of_program(text));
        let debian = "mysqldump  Ver 10.19 Distrib 10.11.18-MariaDB, for debian-linux-gnu (x86_64)";
        assert_eq!(program(debian).as_deref(), Some("MariaDB 10.11"));
        assert_eq!(
            program("mariadb-dump from 11.4.2-MariaDB, client 10.19 for Linux").as_deref(),
            Some("MariaDB 11.4")
        );
        assert_eq!(program("mysqldump  Ver 8.0.32 for Linux on x86_64").as_deref(), Some("MySQL 8.0"));
    }

    #[test]
    fn a_program_reads_its_own_engine_of_its_own_version_or_an_older_one() {
        let (maria, mysql) = (
            |major, minor| Version { mariadb: true, major, minor },
            |major, minor| Version { mariadb: false, major, minor },
        );
        assert!(maria(11, 4).reads(&maria(10, 11)) && maria(10, 11).reads(&maria(10, 11)));
        assert!(!maria(10, 11).reads(&maria(11, 4)) && !maria(10, 11).reads(&mysql(8, 0)));
        assert!(maria(10, 4).new_enough().is_err() && mysql(5, 7).new_enough().is_err());
        assert!(maria(11, 0).new_enough().is_ok() && mysql(9, 1).new_enough().is_ok());
    }
}
