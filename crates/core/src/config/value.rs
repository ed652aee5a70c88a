//! Values as people write them: durations, sizes, processors, ports, status codes, commands. Each reader says what it expected.

use std::time::Duration;

/// Reads `30s`, `5m`, `1h30m`, `500ms`, `0`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "us" => 0.000_001,
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "" => return Err(format!("{}: its unit is missing", wrong())),
            _ => return Err(format!("{}: `{unit}` is no unit", wrong())),
        };
        let number = number.parse::<f64>().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// The text that [`duration`] reads back.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// Reads `1024`, `512k`, `64m`, `1g`, `64mb`, `1.5g`; units are powers of 1,024, as Compose has them.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        other => return Err(format!("{}: `{other}` is no unit", wrong())),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(wrong);
    }
    let (whole, part) = number.split_once('.').ok_or_else(wrong)?;
    let whole = whole.parse::<u64>().map_err(|_| wrong())?.checked_mul(factor).ok_or_else(wrong)?;
    let places = u32::try_from(part.len()).ok().filter(|p| *p <= 6).ok_or_else(wrong)?;
    let part = part.parse::<u64>().map_err(|_| wrong())?.checked_mul(factor).ok_or_else(wrong)?;
    whole.checked_add(part / 10_u64.pow(places)).ok_or_else(wrong)
}

/// Reads a number of processors (`0.5`, `2`) as thousandths.
pub(crate) fn cpus(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a number of processors");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let places = u32::try_from(part.len()).ok().filter(|p| (1..=3).contains(p)).ok_or_else(wrong)?;
    let whole = whole.parse::<u64>().map_err(|_| wrong())?.checked_mul(1_000).ok_or_else(wrong)?;
    let part = part.parse::<u64>().map_err(|_| wrong())? * 10_u64.pow(3 - places);
    whole.checked_add(part).filter(|millis| *millis > 0).ok_or_else(wrong)
}

/// Reads a port, 1 to 65535.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    match text.parse::<u32>() {
        Ok(0) => Err("port 0 means any port, and nobody could find it".to_owned()),
        Ok(number) => u16::try_from(number).map_err(|_| format!("{number} is not a port")),
        Err(_) => Err(format!("`{text}` is not a port")),
    }
}

/// Reads `8443`, `8443/tcp` or `51820/udp`: a port, and whether it is one of UDP.
pub(crate) fn opening(text: &str) -> Result<(u16, bool), String> {
    match text.split_once('/') {
        None => Ok((port(text)?, false)),
        Some((number, "tcp")) => Ok((port(number)?, false)),
        Some((number, "udp")) => Ok((port(number)?, true)),
        Some((_, other)) => Err(format!("`{other}` is neither `tcp` nor `udp`")),
    }
}

/// Reads `200` or `200-399`.
pub(crate) fn status(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("`{text}` is not a status code");
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| text.trim().parse::<u16>().ok().filter(|code| (100..600).contains(code));
    let (from, to) = (code(from).ok_or_else(wrong)?, code(to).ok_or_else(wrong)?);
    if from > to { Err(wrong()) } else { Ok((from, to)) }
}

/// Splits a command as a shell splits words: spaces, quotes, backslashes; nothing else of a shell is there.
pub(crate) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' => loop {
                let word = word.get_or_insert_default();
                match characters.next() {
                    Some('\'') => break,
                    Some(inner) => word.push(inner),
                    None => return Err("a single quote is not closed".to_owned()),
                }
            },
            '"' => double_quoted(&mut characters, word.get_or_insert_default())?,
            '\\' => {
                word.get_or_insert_default().push(characters.next().ok_or("it ends with a lone backslash")?);
            }
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

fn double_quoted(characters: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    while let Some(inner) = characters.next() {
        match inner {
            '"' => return Ok(()),
            '\\' => match characters.next() {
                Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                Some('\n') => {}
                Some(other) => word.extend(['\\', other]),
                None => break,
            },
            plain => word.push(plain),
        }
    }
    Err("a double quote is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written() {
        for (text, millis) in
            [("0", 0), ("30s", 30_000), ("1h30m", 5_400_000), ("500ms", 500), ("1.5s", 1_500)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        assert!(duration("30").unwrap_err().contains("unit is missing"));
        for text in ["", "s", "-1s", "1 s", "1w", "..s", "99999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_and_processors_are_exact() {
        assert_eq!(bytes("64m"), Ok(64 << 20));
        assert_eq!(bytes("1.5g"), Ok(3 << 29));
        assert_eq!(bytes("100"), Ok(100));
        assert!(bytes("1x").is_err() && bytes("").is_err() && bytes("99999999999t").is_err());
        assert_eq!(cpus("0.5"), Ok(500));
        assert_eq!(cpus("2"), Ok(2_000));
        assert!(cpus("0").is_err() && cpus("0.0001").is_err());
    }

    #[test]
    fn a_command_is_split_as_a_shell_splits_words() {
        assert_eq!(
            words(r#"sh -c "echo \"a b\"" 'c d'e \ f"#).unwrap(),
            ["sh", "-c", "echo \"a b\"", "c de", " f"]
        );
        assert_eq!(words("''").unwrap(), [""]);
        assert!(words("'open").is_err() && words("\"open").is_err() && words("end\\").is_err());
    }

    #[test]
    fn ports_and_statuses_have_bounds() {
        assert_eq!(port("8000"), Ok(8000));
        assert!(port("0").unwrap_err().contains("port 0"));
        assert!(port("65536").is_err() && port("x").is_err());
        assert_eq!((opening("8443"), opening("8443/tcp")), (Ok((8443, false)), Ok((8443, false))));
        assert_eq!(opening("51820/udp"), Ok((51820, true)));
        assert!(opening("51820/sctp").is_err() && opening("/udp").is_err() && opening("0/udp").is_err());
        assert_eq!(status("200-399"), Ok((200, 399)));
        assert_eq!(status("204"), Ok((204, 204)));
        assert!(status("399-200").is_err() && status("42").is_err());
    }
}
