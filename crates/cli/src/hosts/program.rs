//! The `cutover-host` that is put on servers: this release's own, for the server's kind of machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::variables;
use sha2::{Digest, Sha256};

const NAME: &str = "cutover-host";
/// Digits of its sum that tell builds apart.
const SHORT: usize = 12;
/// What lies beside the programs of a release: a sum and a name in each line.
const SUMS: &str = "SHA256SUMS";

/// A program that is ready to be sent.
pub(super) struct Program {
    /// Where it belongs on a server: version and beginning of the sum.
    pub(super) folder: String,
    pub(super) bytes: Vec<u8>,
    /// SHA-256, in hexadecimal digits.
    pub(super) sum: String,
}

impl Program {
    /// The named one, else the one beside this program.
    pub(super) fn for_machine(machine: &str) -> Result<Self, Failure> {
        let own = std::env::current_exe().ok();
        let beside = own.as_deref().and_then(Path::parent);
        let named =
            std::env::var_os(variables::HOST_BINARY).filter(|value| !value.is_empty()).map(PathBuf::from);
        let candidates = candidates(named, beside, machine);
        let none = || {
            let failure =
                Failure::new(Exit::Failed, format!("there is no cutover-host for a server of {machine}"));
            let looked = candidates.iter().map(|path| format!("not at {}", path.display()));
            looked
                .fold(failure, Failure::because)
                .next(format!("put cutover-host-{machine}-linux of the same release beside cutover, or name it in CUTOVER_HOST_BINARY"))
        };
        let path = candidates.iter().find(|path| path.is_file()).ok_or_else(none)?;
        let bytes =
            std::fs::read(path).map_err(|error| none().because(format!("{}: {error}", path.display())))?;
        match machine_of(&bytes) {
            Some(found) if found == machine => {}
            found => {
                let found = found.unwrap_or("another kind of machine");
                return Err(none().because(format!("{} is for {found}", path.display())));
            }
        }
        let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        refuse_other_sum(path, &sum)?;
        let folder = format!("{}-{}", env!("CARGO_PKG_VERSION"), sum.get(..SHORT).unwrap_or(&sum));
        Ok(Self { folder, bytes, sum })
    }
}

/// A program that the sums beside it say something else of is cut off, or of another release: no server gets it. Where nothing is said of it, it
/// is a developer's own build.
fn refuse_other_sum(path: &Path, sum: &str) -> Result<(), Failure> {
    let sums = path.with_file_name(SUMS);
    let said = std::fs::read_to_string(&sums).unwrap_or_default();
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    match announced(&said, name) {
        Some(announced) if !announced.eq_ignore_ascii_case(sum) => Err(Failure::new(
            Exit::Failed,
            format!("{} is not the program that it should be", path.display()),
        )
        .because(format!("its SHA-256 is {sum}, {} says {announced}", sums.display()))
        .next("fetch it anew, with the SHA256SUMS of the same release")),
        _ => Ok(()),
    }
}

/// The sum of a file, as `sha256sum` writes it.
fn announced<'a>(sums: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = sums.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(_, named)| named.trim_start_matches([' ', '*']) == name).map(|(sum, _)| sum)
}

/// Where it may lie, best first. A named one is the only one.
fn candidates(named: Option<PathBuf>, beside: Option<&Path>, machine: &str) -> Vec<PathBuf> {
    if let Some(named) = named {
        return vec![named];
    }
    let same = std::env::consts::OS == "linux" && std::env::consts::ARCH == machine;
    let mut names = vec![format!("{NAME}-{machine}-linux")];
    names.extend(same.then(|| NAME.to_owned()));
    beside.into_iter().flat_map(|folder| names.iter().map(|name| folder.join(name))).collect()
}

/// From the head of an ELF file.
fn machine_of(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(..4)? != b"\x7fELF" {
        return None;
    }
    match bytes.get(18..20)? {
        [0x3e, 0] => Some("x86_64"),
        [0xb7, 0] => Some("aarch64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_for_the_machine_comes_before_the_plain_one_and_a_named_one_is_alone() {
        let beside = Path::new("/opt/cutover");
        let other = candidates(None, Some(beside), "riscv64");
        assert_eq!(other, [Path::new("/opt/cutover/cutover-host-riscv64-linux")]);
        let named = candidates(Some("/tmp/host".into()), Some(beside), "x86_64");
        assert_eq!(named, [Path::new("/tmp/host")]);
    }

    #[test]
    fn what_the_sums_beside_it_say_otherwise_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("cutover-host-x86_64-linux");
        refuse_other_sum(&program, "ab").unwrap();
        std::fs::write(folder.path().join(SUMS), "AB  cutover-host-x86_64-linux\ncd *cutover\n").unwrap();
        refuse_other_sum(&program, "ab").unwrap();
        refuse_other_sum(&folder.path().join("my-build"), "ef").unwrap();
        refuse_other_sum(&folder.path().join("cutover"), "cd").unwrap();
        let failure = refuse_other_sum(&program, "cd").unwrap_err();
        assert!(failure.cause[0].contains("is cd, "), "{failure:?}");
    }

    #[test]
    fn a_program_tells_its_kind_of_machine() {
        let mut head = b"\x7fELF".to_vec();
        head.resize(18, 0);
        assert_eq!(machine_of(&[head.clone(), vec![0x3e, 0]].concat()), Some("x86_64"));
        assert_eq!(machine_of(&[head, vec![0xb7, 0]].concat()), Some("aarch64"));
        assert_eq!(machine_of(b"#!/bin/sh"), None);
    }
}
