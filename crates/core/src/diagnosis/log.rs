//! What the log of an app says about why it does not run. Other programs' prose is read here and nowhere else, and decides nothing: it
//! only explains a failure that is known already. The samples in the tests are as the programs write them.

/// An explanation out of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) cause: String,
    pub(super) next: String,
}

/// Finds one kind of explanation.
type Kind = fn(&[String]) -> Option<Told>;

/// The first explanation that fits, the surest kind first; among lines of one kind the last one, which is nearest to the end.
pub(super) fn explain(log: &[String]) -> Option<Told> {
    let kinds: [Kind; 8] = [
        missing_variable,
        address_in_use,
        wrong_processor,
        missing_module,
        missing_command,
        unreachable_peer,
        permission,
        unwritable,
    ];
    kinds.iter().find_map(|kind| kind(log))
}

/// Whether an answer, or a line of the log, says that the Host header was not liked.
pub(super) fn refuses_host(status: u16, text: &str) -> bool {
    const WORDS: [&str; 9] = [
        "invalid host",
        "invalid http_host",
        "disallowedhost",
        "disallowed host",
        "blocked host",
        "host not allowed",
        "not an allowed host",
        "allowed_hosts",
        "untrusted host",
    ];
    let low = text.to_lowercase();
    matches!(status, 400 | 403 | 421) && WORDS.iter().any(|word| low.contains(word))
}

fn missing_variable(log: &[String]) -> Option<Told> {
    let named = |name: String, line: &str| Told {
        cause: format!("the variable {name} is missing (its log: `{}`)", shown(line)),
        next: format!(
            "name it under `environment:` in cutover.yml; a secret without a value there (`{name}:`), then `cutover env set {name}`"
        ),
    };
    log.iter().enumerate().rev().find_map(|(place, line)| {
        let low = line.to_lowercase();
        if low.contains("field required") && low.contains("missing") {
            // Pydantic names the field on the line before.
            let field = place.checked_sub(1).and_then(|before| log.get(before))?.trim();
            let is_name = !field.is_empty() && field.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return is_name.then(|| named(field.to_uppercase(), line));
        }
        variable_in(line, &low).map(|name| named(name, line))
    })
}

/// The name of a variable that a line says is not there.
fn variable_in(line: &str, low: &str) -> Option<String> {
    const ABSENT: [&str; 15] = [
        "not set",
        "must be set",
        "be set",
        "unset",
        "missing",
        "required",
        "not found",
        "not defined",
        "undefined",
        "unbound variable",
        "not provided",
        "must specify",
        "keyerror",
        "could not resolve placeholder",
        "set the",
    ];
    if !ABSENT.iter().any(|phrase| low.contains(phrase)) {
        return None;
    }
    let sure = low.contains("environment variable") || low.contains("env var") || low.contains("keyerror");
    let mut names = words(line).filter(|word| is_variable(word));
    names.clone().find(|word| word.contains('_')).or_else(|| names.find(|_| sure)).map(str::to_owned)
}

fn words(line: &str) -> impl Iterator<Item = &str> + Clone {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// A word in capitals that is neither a level of logging nor an error's code nor part of a protocol.
fn is_variable(word: &str) -> bool {
    const NOT: [&str; 20] = [
        "ERROR", "WARN", "WARNING", "INFO", "DEBUG", "TRACE", "FATAL", "CRITICAL", "PANIC", "HTTP", "HTTPS",
        "GET", "POST", "URL", "API", "JSON", "SQL", "ENV", "YAML", "UTC",
    ];
    word.len() >= 3
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        && !NOT.contains(&word)
        && !word.starts_with("ERR_")
        && !word.starts_with("SQLSTATE")
        && !word.ends_with("_NOT_FOUND")
        && !word.ends_with("_ERROR")
}

fn address_in_use(log: &[String]) -> Option<Told> {
    let line = last_with(log, &["eaddrinuse", "address already in use", "address in use"])?;
    Some(Told {
        cause: format!("its port is taken by something else (its log: `{}`)", shown(line)),
        next: "make it listen on the port in PORT and on no other; two programs in one instance may want the same".to_owned(),
    })
}

fn wrong_processor(log: &[String]) -> Option<Told> {
    let line = last_with(log, &["exec format error", "cannot execute binary file"])?;
    Some(Told {
        cause: format!("it is built for another processor (its log: `{}`)", shown(line)),
        next: "build it for this host's processor, or set `platform`".to_owned(),
    })
}

fn missing_module(log: &[String]) -> Option<Told> {
    let line = last_with(
        log,
        &[
            "modulenotfounderror",
            "no module named",
            "cannot find module",
            "cannot find package",
            "error while loading shared libraries",
        ],
    )?;
    Some(Told {
        cause: format!("something it is made of is not there (its log: `{}`)", shown(line)),
        next: "add it to what is built: the dependency file, the image's packages, the artifact".to_owned(),
    })
}

fn missing_command(log: &[String]) -> Option<Told> {
    let line = last_with(
        log,
        &[
            "command not found",
            "executable file not found",
            "can't open file",
            "no such file or directory",
            ": not found",
        ],
    )?;
    Some(Told {
        cause: format!("a command or file it needs is not there (its log: `{}`)", shown(line)),
        next: "check `command` and `working_dir`, and what is in the image or artifact".to_owned(),
    })
}

fn unreachable_peer(log: &[String]) -> Option<Told> {
    let line = last_with(
        log,
        &[
            "econnrefused",
            "connection refused",
            "could not connect to server",
            "could not translate host name",
            "name or service not known",
            "temporary failure in name resolution",
            "enotfound",
            "no such host",
        ],
    )?;
    Some(Told {
        cause: format!("it cannot reach something it needs (its log: `{}`)", shown(line)),
        next: "check the address it uses (a backing service is reached by its name), and that `depends_on` names what must be up before".to_owned(),
    })
}

fn permission(log: &[String]) -> Option<Told> {
    let line =
        last_with(log, &["permission denied", "permissionerror", "eacces", "operation not permitted"])?;
    Some(Told {
        cause: format!("it may not do what it wants (its log: `{}`)", shown(line)),
        next: "look at `user`, at the owner of its volumes and files, and at ports below 1024".to_owned(),
    })
}

fn unwritable(log: &[String]) -> Option<Told> {
    let line = last_with(log, &["read-only file system", "erofs", "no space left on device", "enospc"])?;
    let full = line.to_lowercase().contains("space") || line.contains("ENOSPC");
    let (cause, next) = if full {
        ("the disk is full", "free some room on the host")
    } else {
        (
            "it writes where nothing can be written",
            "give it a volume or a `tmpfs` there, or take `read_only` away",
        )
    };
    Some(Told { cause: format!("{cause} (its log: `{}`)", shown(line)), next: next.to_owned() })
}

/// The last line that has one of the phrases, which are in lower case.
fn last_with<'log>(log: &'log [String], phrases: &[&str]) -> Option<&'log str> {
    let has = |line: &str| {
        let low = line.to_lowercase();
        phrases.iter().any(|phrase| low.contains(phrase))
    };
    log.iter().rev().map(String::as_str).find(|line| has(line))
}

/// A line as it stands in a sentence.
fn shown(line: &str) -> String {
    const MOST: usize = 160;
    let line = line.trim();
    if line.chars().count() <= MOST {
        line.to_owned()
    } else {
        line.chars().take(MOST).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    fn variable(text: &str) -> Option<String> {
        let told = missing_variable(&lines(text))?;
        let rest = told.cause.strip_prefix("the variable ").unwrap().to_owned();
        rest.split(' ').next().map(str::to_owned)
    }

    #[test]
    fn a_missing_variable_is_named_as_each_kind_of_program_says_it() {
        for (name, sample) in [
            (
                "SECRET_KEY",
                "  File \"/usr/lib/python3.11/os.py\", line 679, in __getitem__\n    raise KeyError(key) from None\nKeyError: 'SECRET_KEY'",
            ),
            ("TOKEN", "KeyError: 'TOKEN'"),
            (
                "DATABASE_URL",
                "pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings\ndatabase_url\n  Field required [type=missing, input_value={}, input_type=dict]\n    For further information visit https://errors.pydantic.dev/2.5/v/missing",
            ),
            (
                "DATABASE_URL",
                "django.core.exceptions.ImproperlyConfigured: Set the DATABASE_URL environment variable",
            ),
            (
                "SECRET_KEY",
                "decouple.UndefinedValueError: SECRET_KEY not found. Declare it as envvar or define a default value.",
            ),
            ("DATABASE_URL", "error: Environment variable not found: DATABASE_URL.\n  -->  schema.prisma:7"),
            (
                "SESSION_SECRET",
                "Error: SESSION_SECRET is required\n    at Object.<anonymous> (/app/server.js:3:9)",
            ),
            ("STRIPE_KEY", "Missing required environment variable: STRIPE_KEY"),
            (
                "DATABASE_URL",
                "thread 'main' panicked at src/main.rs:9:40:\nDATABASE_URL must be set: NotPresent",
            ),
            ("DATABASE_URL", "2026/11/21 14:00:01 required key DATABASE_URL missing value"),
            ("DB_DSN", "panic: env: required environment variable \"DB_DSN\" is not set"),
            ("SECRET_KEY_BASE", "bin/rails:4:in `fetch': key not found: \"SECRET_KEY_BASE\" (KeyError)"),
            (
                "POSTGRES_PASSWORD",
                "Error: Database is uninitialized and superuser password is not specified.\n       You must specify POSTGRES_PASSWORD to a non-empty value for the\n       superuser.",
            ),
            ("APP_HOME", "./start.sh: line 3: APP_HOME: unbound variable"),
            ("APP_HOME", "start.sh: 4: APP_HOME: parameter not set"),
            (
                "DATABASE_URL",
                "** (RuntimeError) environment variable DATABASE_URL is missing.\nFor example: ecto://USER:PASS@HOST/DATABASE",
            ),
            (
                "MAIL_HOST",
                "java.lang.IllegalArgumentException: Could not resolve placeholder 'MAIL_HOST' in value \"${MAIL_HOST}\"",
            ),
        ] {
            assert_eq!(variable(sample).as_deref(), Some(name), "{sample}");
        }
    }

    #[test]
    fn what_only_looks_like_a_variable_is_none() {
        for sample in [
            "ERROR: relation \"users\" not found",
            "INFO  404 GET /favicon.ico not found",
            "node:internal/errors:496\nError [ERR_MODULE_NOT_FOUND]: Cannot find package 'express' imported from /app/server.js",
            "  code: 'MODULE_NOT_FOUND', requireStack: []",
            "WARNING: this is not set in stone",
        ] {
            assert_eq!(variable(sample), None, "{sample}");
        }
    }

    #[test]
    fn each_other_kind_is_told_apart() {
        for (cause, sample) in [
            ("its port is taken", "Error: listen EADDRINUSE: address already in use 0.0.0.0:8000"),
            ("its port is taken", "OSError: [Errno 98] Address already in use"),
            ("it is built for another processor", "exec /app/server: exec format error"),
            ("something it is made of is not there", "ModuleNotFoundError: No module named 'uvicorn'"),
            ("something it is made of is not there", "Error: Cannot find module '/app/server.js'"),
            (
                "something it is made of is not there",
                "./server: error while loading shared libraries: libssl.so.3: cannot open shared object file: No such file or directory",
            ),
            ("a command or file it needs is not there", "/bin/sh: 1: gunicorn: not found"),
            ("it cannot reach something it needs", "Error: connect ECONNREFUSED 172.20.0.2:5432"),
            (
                "it cannot reach something it needs",
                "psycopg2.OperationalError: could not translate host name \"postgres\" to address: Name or service not known",
            ),
            ("it may not do what it wants", "PermissionError: [Errno 13] Permission denied: '/data/app.db'"),
            (
                "it writes where nothing can be written",
                "OSError: [Errno 30] Read-only file system: '/app/cache'",
            ),
            ("the disk is full", "sqlite3.OperationalError: No space left on device"),
        ] {
            let told = explain(&lines(sample)).unwrap_or_else(|| panic!("nothing for {sample}"));
            assert!(told.cause.starts_with(cause), "{sample}: {}", told.cause);
        }
        assert_eq!(explain(&lines("listening on 0.0.0.0:8000\nGET / 200 in 3 ms")), None);
    }

    #[test]
    fn a_refused_host_is_known_by_status_and_words() {
        assert!(refuses_host(400, "Invalid host header"));
        assert!(refuses_host(400, "DisallowedHost at /health"));
        assert!(refuses_host(
            400,
            "Invalid HTTP_HOST header: '172.20.0.3:8000'. You may need to add '172.20.0.3' to ALLOWED_HOSTS."
        ));
        assert!(refuses_host(403, "Blocked hosts: example.test"));
        assert!(!refuses_host(500, "Invalid host header"));
        assert!(!refuses_host(400, "Bad Request"));
    }
}
