//! What a configuration may look like, as data: checks, the JSON Schema and the reference page are all made from it.

/// What may stand at a place.
pub(crate) enum Shape {
    /// Any scalar, as text.
    Text,
    /// Text that may keep references to secrets.
    Secret,
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds.
    Whole { least: i64, most: i64 },
    /// Text with a form of its own.
    Form(&'static Form),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A command: text that is split into words, or a list of words. May refer to services and database files.
    Words,
    /// A list.
    List(&'static Shape),
    /// Free names, each with the same shape.
    Map(Naming, &'static Shape),
    /// `NAME: value` as a map, or `NAME=value` as a list.
    Pairs(Pairs),
    /// Known keys.
    Keys(&'static [&'static [Key]]),
    /// By what is found: a scalar, a list or a map.
    Either(&'static [Shape]),
    /// Not looked into.
    Anything,
}

/// A text with a form: how it is read, and how it is described.
pub(crate) struct Form {
    /// `a duration such as …`.
    pub(crate) expected: &'static str,
    /// Says what is wrong with it.
    pub(crate) check: fn(&str) -> Result<(), String>,
    /// For editors.
    pub(crate) pattern: &'static str,
}

/// What free names are names of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    Environment,
    Service,
    Database,
    Volume,
    Variable,
    Free,
}

/// Which pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairs {
    /// Variables of instances: values may keep references to secrets; a name without a value is required.
    Environment,
    /// Variables: public values, each with a value.
    Variables,
    /// Labels, build arguments and the like: public values.
    Public,
}

/// A known key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) treatment: Treatment,
    /// One sentence for the reference page and for editors.
    pub(crate) about: &'static str,
    /// The default, where there is one to tell.
    pub(crate) default: &'static str,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// cutover's own.
    Own,
    /// Means what the Compose specification says.
    Honoured,
    /// Done in another way: how.
    Translated(&'static str),
    /// Accepted without effect: why. Told as a note.
    Ignored(&'static str),
    /// A problem: why, and what to do instead.
    Refused(&'static str),
    /// A problem for now: what to do until then.
    Later(&'static str),
}

impl Key {
    pub(crate) const fn own(
        name: &'static str,
        shape: Shape,
        default: &'static str,
        about: &'static str,
    ) -> Self {
        Self { name, shape, treatment: Treatment::Own, about, default }
    }

    pub(crate) const fn later(name: &'static str, until: &'static str) -> Self {
        Self { name, shape: Shape::Anything, treatment: Treatment::Later(until), about: "", default: "" }
    }

    /// Whether it can be written to some effect.
    pub(crate) fn is_usable(&self) -> bool {
        !matches!(self.treatment, Treatment::Refused(_) | Treatment::Later(_))
    }
}

impl Naming {
    pub(crate) fn check(self, name: &str) -> Result<(), String> {
        let rule = |error: crate::names::NameError| error.to_string();
        match self {
            Self::Environment => name.parse::<crate::names::EnvironmentName>().map(drop).map_err(rule),
            Self::Service => name.parse::<crate::names::ServiceName>().map(drop).map_err(rule),
            Self::Database => name.parse::<crate::names::DatabaseName>().map(drop).map_err(rule),
            Self::Volume => name.parse::<crate::names::VolumeName>().map(drop).map_err(rule),
            Self::Variable => name.parse::<crate::names::VariableName>().map(drop).map_err(rule),
            Self::Free => Ok(()),
        }
    }

    /// What stands for the name in the reference page.
    pub(crate) fn placeholder(self) -> &'static str {
        match self {
            Self::Environment => "ENVIRONMENT",
            Self::Service => "SERVICE",
            Self::Database => "DATABASE",
            Self::Volume => "VOLUME",
            Self::Variable | Self::Free => "NAME",
        }
    }
}

impl Shape {
    /// What is expected, for people.
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Text | Self::Secret => "text".to_owned(),
            Self::Flag => "`true` or `false`".to_owned(),
            Self::Whole { least, most } if *most == i64::MAX => format!("a whole number from {least}"),
            Self::Whole { least, most } => format!("a whole number from {least} to {most}"),
            Self::Form(form) => form.expected.to_owned(),
            Self::OneOf(words) => {
                words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ")
            }
            Self::Words => "a command, as text or as a list of words".to_owned(),
            Self::List(item) => format!("a list, each of it {}", item.expected()),
            Self::Map(naming, _) => format!("a map from {}", naming.names()),
            Self::Pairs(_) => "a map of names and values, or a list of `NAME=value`".to_owned(),
            Self::Keys(_) => "a map".to_owned(),
            Self::Either(shapes) => shapes.iter().map(Self::expected).collect::<Vec<_>>().join(", or "),
            Self::Anything => "anything".to_owned(),
        }
    }

    /// All keys of a [`Shape::Keys`]; of others none.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static Key> {
        let tables: &'static [&'static [Key]] = if let Self::Keys(tables) = self { tables } else { &[] };
        tables.iter().flat_map(|table| table.iter())
    }
}

impl Naming {
    fn names(self) -> &'static str {
        match self {
            Self::Environment => "names of environments",
            Self::Service => "names of services",
            Self::Database => "names of databases",
            Self::Volume => "names of volumes",
            Self::Variable => "names of variables",
            Self::Free => "names",
        }
    }
}

macro_rules! form {
    ($name:ident, $reader:path, $expected:literal, $pattern:literal) => {
        pub(crate) static $name: Form =
            Form { expected: $expected, check: |text| $reader(text).map(drop), pattern: $pattern };
    };
}

form!(
    DURATION,
    super::value::duration,
    "a duration such as `30s`, `5m` or `1h30m`",
    r"^(0|([0-9.]+(us|ms|s|m|h|d))+)$"
);
form!(
    BYTES,
    super::value::bytes,
    "a size such as `64m` or `1g`",
    r"^[0-9.]+ *([bkmgtBKMGT]|[kmgtKMGT]i?[bB])?$"
);
form!(CPUS, super::value::cpus, "a number of processors such as `0.5`", r"^[0-9]+(\.[0-9]{1,3})?$");
form!(PORT, super::value::port, "a port from 1 to 65535", r"^[0-9]{1,5}$");
form!(
    STATUS,
    super::value::status,
    "a status code such as `200`, or a range such as `200-399`",
    r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"
);
form!(APP, app_name, "up to 40 lower-case letters, digits, `-` and `_`", r"^[a-z0-9][a-z0-9_-]{0,39}$");
form!(URL_PATH, url_path, "a path that begins with `/`", r"^/");
form!(HOST, route_host, "a host name such as `example.com`", r"^[A-Za-z0-9.-]+$");
form!(FOLDER, relative, "a path below the folder of cutover.yml", r"^[^/]");
form!(VOLUME_FILE, below_volume, "a path below the volume, such as `app.db`", r"^[^/]");
form!(SIGNAL, signal, "a signal's name such as `TERM` or `SIGQUIT`", r"^(SIG)?[A-Z0-9]+$");
form!(SERVER, server, "a server as ssh takes it, such as `deploy@example.com`", r"^[A-Za-z0-9@._:\[\]-]+$");
form!(ADDRESS, address, "an address and port such as `127.0.0.1:8080`", r"^.+:[0-9]{1,5}$");
form!(
    SUBNETS,
    subnets,
    "a range of IPv4 addresses such as `10.213.0.0/16`",
    r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$"
);

form!(PORTS, ports, "a range of ports such as `20000-31999`", r"^[0-9]{4,5}-[0-9]{4,5}$");

/// The address of a socket, with a port that can be told.
fn address(text: &str) -> Result<(), String> {
    match text.parse::<std::net::SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            Err(format!("`{text}`: port 0 is any port, and nobody would find it"))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(format!("`{text}` is not an address with its port")),
    }
}

/// Room for more than one network of each kind.
fn subnets(text: &str) -> Result<(), String> {
    let range = crate::addresses::Subnet::parse(text)
        .ok_or_else(|| format!("`{text}` is not a range of addresses"))?;
    match range.prefix() {
        8..=20 => Ok(()),
        0..8 => Err(format!("`{text}` is larger than any range of private addresses")),
        _ => Err(format!("`{text}` is too small: the networks of a few apps need a /20")),
    }
}

fn ports(text: &str) -> Result<(), String> {
    text.parse::<crate::addresses::Ports>().map(drop)
}

fn app_name(text: &str) -> Result<(), String> {
    let name = text.parse::<crate::names::AppName>();
    name.map(drop).map_err(|_| format!("`{text}` is not an app's name"))
}

/// The name of a file in a volume.
fn below_volume(text: &str) -> Result<(), String> {
    relative(text).map_err(|_| format!("`{text}` does not lie below the volume"))
}

fn server(text: &str) -> Result<(), String> {
    text.parse::<crate::names::HostName>().map(drop).map_err(|error| error.to_string())
}

fn url_path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` does not begin with `/`"));
    }
    match text.chars().find(|c| c.is_whitespace() || c.is_control() || *c == '#') {
        Some(bad) => Err(format!("{bad:?} does not belong into a path")),
        None => Ok(()),
    }
}

fn route_host(text: &str) -> Result<(), String> {
    let labels_good = text.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    });
    if text.contains("://") || text.contains('/') {
        Err(format!("`{text}` is a URL; only the host's name belongs here, and the path into `path`"))
    } else if text.contains(':') {
        Err(format!("`{text}` has a port; routes are served on the proxy's own ports"))
    } else if text.contains('*') {
        Err(format!("`{text}`: wildcards are not served; list the hosts"))
    } else if labels_good && text.len() <= 253 {
        Ok(())
    } else {
        Err(format!("`{text}` is not a host name"))
    }
}

/// A path that stays below the folder of cutover.yml.
pub(crate) fn relative(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Err("the path is empty".to_owned())
    } else if text.starts_with('/') || text.starts_with('~') {
        Err(format!("`{text}` is absolute: what ships with a release lies in the repository"))
    } else if text.split('/').any(|part| part == "..") {
        Err(format!("`{text}` leaves the folder of cutover.yml by `..`"))
    } else {
        Ok(())
    }
}

fn signal(text: &str) -> Result<(), String> {
    const KNOWN: [&str; 12] =
        ["HUP", "INT", "QUIT", "ABRT", "KILL", "USR1", "USR2", "PIPE", "ALRM", "TERM", "CONT", "WINCH"];
    let name = text.strip_prefix("SIG").unwrap_or(text);
    if KNOWN.contains(&name) || name.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number)) {
        Ok(())
    } else {
        Err(format!("`{text}` is not a signal's name"))
    }
}
