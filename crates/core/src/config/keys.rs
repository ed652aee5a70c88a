//! cutover's own keys, section by section, each with shape, default and one sentence.

use super::compose_keys;
use super::shape::{
    APP, BYTES, DURATION, FOLDER, HOST, Key, Naming, PORT, Pairs, SERVER, STATUS, Shape, Treatment, URL_PATH,
    VOLUME_FILE,
};

const HOST_SHAPE: Shape = Shape::Form(&HOST);
const HOSTS: Shape = Shape::List(&HOST_SHAPE);
const FOLDERS: Shape = Shape::List(&Shape::Form(&FOLDER));
const OPENINGS: Shape = Shape::List(&Shape::Form(&OPENING));
const TIME: Shape = Shape::Form(&DURATION);
const NAMES: Shape = Shape::List(&Shape::Text);
const STATUSES: Shape = Shape::Either(&[Shape::Form(&STATUS), Shape::List(&Shape::Form(&STATUS))]);
const BACKING_ALL: Shape = Shape::Either(&[Shape::Map(Naming::Service, &BACKING), NAMES]);

/// The whole file.
pub(crate) static ROOT: Shape = Shape::Keys(&[TOP]);

const TOP: &[Key] = &[
    Key::own("app", Shape::Form(&APP), "", "The app's name. Needed."),
    Key::own("services", Shape::Map(Naming::Service, &SERVICE), "", "The long-running parts of the app."),
    Key::own(
        "backing",
        BACKING_ALL,
        "",
        "Backing services: started when absent or down; one that a live release has is never replaced by a deploy. A list names those of `compose:`.",
    ),
    Key::own(
        "databases",
        Shape::Map(Naming::Database, &DATABASE),
        "",
        "Databases, and how they are migrated.",
    ),
    Key::own(
        "volumes",
        Shape::Map(Naming::Volume, &VOLUME),
        "",
        "Volumes that need more than a name; others are made when a service names them.",
    ),
    Key::own(
        "environment",
        Shape::Pairs(Pairs::Environment),
        "",
        "Variables of all services; a name without a value is required from the env file.",
    ),
    Key::own(
        "registry",
        REGISTRY,
        "",
        "Where images come from; sent with each deploy, not kept on the host.",
    ),
    Key::own(
        "compose",
        FOLDERS,
        "",
        "Compose files whose services are taken over; cutover.yml adds to them.",
    ),
    Key::own(
        "backup",
        BACKUP,
        "",
        "Backups of every database and volume, in a repository that restic reads.",
    ),
    Key::own("bake", TIME, "10s", "Watching after the switch, up to 10m; `0` switches it off."),
    Key::own("keep_warm", TIME, "0", "How long the old release keeps running after the bake."),
    Key::own("keep", Shape::Whole { least: 1, most: 100 }, "5", "Releases that rollback can reach."),
    Key::own("hold", HOLD, "30s", "Bounds of a hold, for all services."),
    Key::own(
        "drain",
        TIME,
        "30s",
        "How long requests in flight may finish on what was replaced, for all services.",
    ),
    Key::own(
        "environments",
        Shape::Map(Naming::Environment, &ENVIRONMENT),
        "local",
        "The places the app runs in. Beside them there is always `local`, this machine; but a command that names none means the only one that stands here.",
    ),
    Key::later("jobs", "run it from the host's own scheduler with `cutover exec --once`"),
    Key {
        name: "name",
        shape: Shape::Anything,
        treatment: Treatment::Refused("it is `app` here"),
        about: "",
        default: "",
    },
    Key {
        name: "version",
        shape: Shape::Anything,
        treatment: Treatment::Ignored("formats of Compose files have no versions any more"),
        about: "",
        default: "",
    },
    Key {
        name: "networks",
        shape: Shape::Anything,
        treatment: Treatment::Ignored("each release has a network of its own, and backing services theirs"),
        about: "",
        default: "",
    },
];

static SERVICE: Shape = Shape::Keys(&[SERVICE_OWN, compose_keys::TABLE]);
static BACKING: Shape = Shape::Keys(&[BACKING_OWN, compose_keys::TABLE]);

const SERVICE_OWN: &[Key] = &[
    Key::own(
        "artifact",
        Shape::Form(&FOLDER),
        "",
        "A file or folder of the work tree, less env files, run as plain processes by `command`; needs no container engine. It goes with its release: write only to `${databases.NAME.file}`, a volume or an absolute path.",
    ),
    Key::own(
        "port",
        Shape::Form(&PORT),
        "",
        "The port it listens on. A plain process is told another one in `PORT`, whatever stands here, and listens on that.",
    ),
    Key::own("route", ROUTE, "", "How requests reach it."),
    Key::own(
        "health",
        HEALTH,
        "",
        "What a candidate must answer before it is put live, and a live instance goes on answering.",
    ),
    Key::own("ready", READY, "", "What a candidate must show once."),
    Key::own("verify", VERIFY, "", "What the public route must show after the switch."),
    Key::own(
        "strategy",
        Shape::OneOf(&["blue-green", "handover", "rolling", "canary"]),
        "blue-green with a route or replicas, else handover",
        "How it is replaced: new beside old, or never two at once. `rolling` and `canary` come later.",
    ),
    Key::own("replicas", Shape::Whole { least: 1, most: 100 }, "1", "Equal instances."),
    Key::own("hold", HOLD, "30s", "Bounds of its hold: how long, or a map."),
    Key::own("drain", TIME, "30s", "How long requests in flight may finish on what was replaced."),
    Key::own(
        "restart_unhealthy",
        Shape::Flag,
        "false",
        "Restart the last healthy instance, too, when it turns unhealthy.",
    ),
];

const BACKING_OWN: &[Key] = &[
    Key::own(
        "artifact",
        Shape::Form(&FOLDER),
        "",
        "A file or folder of the repository, run as a plain process.",
    ),
    Key::own("port", Shape::Form(&PORT), "known images: their usual one", "The port its clients use."),
    Key::own("health", HEALTH, "", "When it counts as up."),
    Key::own("ready", READY, "", "What it must show once."),
    Key::own("on", Shape::Form(&SERVER), "", "On which host it runs, where there are several."),
];

const ROUTE: Shape = Shape::Keys(&[&[
    Key::own(
        "host",
        HOST_SHAPE,
        "every host",
        "The host name it answers to; `SERVICE.APP.localhost` in `local`.",
    ),
    Key::own("hosts", HOSTS, "", "Several host names."),
    Key::own("path", Shape::Form(&URL_PATH), "/", "Path prefix; the longest that fits wins."),
    Key::own("strip", Shape::Flag, "false", "Take the prefix off before the app sees it."),
    Key::own(
        "tls",
        Shape::OneOf(&["off", "acme", "files"]),
        "off",
        "Certificates come later; until then every route is served without.",
    ),
    Key::later("redirect", "answer with a redirect in the app"),
    Key::later("assets", "serve them from the app"),
]]);

const HEALTH: Shape = Shape::Keys(&[&[
    Key::own("path", Shape::Form(&URL_PATH), "", "A GET on it is answered with `status`."),
    Key::own("command", Shape::Words, "", "Run in the instance, it exits with 0."),
    Key::own(
        "tcp",
        Shape::Form(&PORT_OR_TRUE),
        "",
        "A connection is accepted: a port, or `true` for the service's.",
    ),
    Key::own("port", Shape::Form(&PORT), "the service's", "The port that is asked."),
    Key::own("host", HOST_SHAPE, "the route's first", "Sent as `Host`."),
    Key::own("status", STATUSES, "200-399", "Accepted status codes."),
    Key::own("json", Shape::Pairs(Pairs::Public), "", "Dotted keys of a JSON body, and what they are."),
    Key::own("interval", TIME, "1s", "Between two tries; the first come faster."),
    Key::own("timeout", TIME, "5s", "For one try."),
    Key::own("rise", Shape::Whole { least: 1, most: 100 }, "1", "Successes in a row until it counts."),
    Key::own(
        "fall",
        Shape::Whole { least: 1, most: 100 },
        "3",
        "Failures in a row until a live instance counts as unhealthy.",
    ),
    Key::own("within", TIME, "60s", "For all gates together, from the start of the instance."),
    Key::own(
        "inside",
        Shape::Flag,
        "false",
        "Ask from within the instance's network: for an app that listens on loopback on purpose.",
    ),
]]);

static OPENING: super::shape::Form = super::shape::Form {
    expected: "a TCP port, or a UDP port as `51820/udp`",
    check: |text| super::value::opening(text).map(drop),
    pattern: r"^[0-9]{1,5}(/(tcp|udp))?$",
};

static PORT_OR_TRUE: super::shape::Form = super::shape::Form {
    expected: "a port, or `true` for the service's",
    check: |text| if text == "true" { Ok(()) } else { super::value::port(text).map(drop) },
    pattern: r"^(true|[0-9]{1,5})$",
};

const READY: Shape = Shape::Keys(&[&[
    Key::own("log", Shape::Text, "", "A line of its output has this text in it."),
    Key::own("file", Shape::Text, "", "This file appears in the instance."),
    Key::own("command", Shape::Words, "", "Run in the instance, it exits with 0."),
    Key::own("within", TIME, "60s", "For all gates together, from the start of the instance."),
]]);

const VERIFY_ONE: Shape = Shape::Keys(&[&[
    Key::own("path", Shape::Form(&URL_PATH), "", "A GET through the proxy, on the route's host."),
    Key::own("contains", Shape::Text, "", "Text in the body, such as `${CUTOVER_COMMIT}`."),
    Key::own("json", Shape::Pairs(Pairs::Public), "", "Dotted keys of a JSON body, and what they are."),
    Key::own("command", Shape::Words, "", "A smoke test, run in an instance of the service."),
    Key::own("timeout", TIME, "60s", "For the command."),
]]);
const VERIFY: Shape = Shape::Either(&[VERIFY_ONE, Shape::List(&VERIFY_ONE)]);

const HOLD: Shape = Shape::Either(&[
    TIME,
    Shape::Keys(&[&[
        Key::own("budget", TIME, "30s", "How long requests may be kept waiting, up to 5m."),
        Key::own("requests", Shape::Whole { least: 1, most: 100_000 }, "1000", "Requests waiting."),
        Key::own("bytes", Shape::Form(&BYTES), "64m", "Bytes of their bodies."),
    ]]),
]);

static DATABASE: Shape = Shape::Keys(&[&[
    Key::own(
        "engine",
        Shape::OneOf(&["sqlite", "postgres", "mysql", "mariadb"]),
        "",
        "Which engine. Needed.",
    ),
    Key::own("volume", Shape::Text, "", "SQLite: the volume the file lies in."),
    Key::own("file", Shape::Form(&VOLUME_FILE), "", "SQLite: its path below the volume."),
    Key::own(
        "services",
        NAMES,
        "",
        "The services that open it. SQLite: needed; they are handed over together. Other engines: those that are stopped for a breaking migration, all where none are named.",
    ),
    Key::own("service", Shape::Text, "", "Other engines: the backing service."),
    Key::own(
        "name",
        Shape::Text,
        "what `POSTGRES_DB`, `MARIADB_DATABASE` or `MYSQL_DATABASE` says",
        "Other engines: the database's name in its backing service.",
    ),
    Key::own(
        "url",
        Shape::Secret,
        "",
        "Other engines: where it is (`postgres://…`, `mysql://…`), when it is not a backing service; a reference such as `${DATABASE_URL}`.",
    ),
    Key::own(
        "snapshot",
        SNAPSHOT,
        "",
        "`none` is the recorded decision to migrate without a snapshot; a map says which of them stay.",
    ),
    Key::own(
        "migrate",
        Shape::Either(&[MIGRATE, Shape::List(&MIGRATE)]),
        "",
        "How it is migrated: one, or a list of them, which are run one after another and are one migration.",
    ),
    Key::later("backup", "`backup:` of the file, or of an environment, takes every database and volume"),
]]);

const SNAPSHOT: Shape = Shape::Either(&[
    Shape::OneOf(&["none"]),
    Shape::Keys(&[&[Key::own(
        "keep",
        Shape::Form(&SNAPSHOT_KEEP),
        "the newest ten",
        "How long each of them stays, however many there are. Those that rollback needs, and the newest, stay longer.",
    )]]),
]);

static SNAPSHOT_KEEP: super::shape::Form = super::shape::Form {
    expected: "a duration from 1h to 365d, such as `7d`",
    check: |text| super::database::kept(text).map(drop),
    pattern: r"^([0-9.]+(s|m|h|d))+$",
};

const MIGRATE: Shape = Shape::Keys(&[&[
    Key::own(
        "service",
        Shape::Text,
        "",
        "In whose image or artifact, with whose variables. This or `image` is needed.",
    ),
    Key::own(
        "image",
        Shape::Text,
        "",
        "Not for SQLite: an image of its own, such as the migration tool's, with the variables that all services have.",
    ),
    Key::own(
        "files",
        Shape::Either(&[Shape::Text, NAMES]),
        "",
        "With `image`: files or folders of the repository that it reads, each `./migrations` (which it finds at `/migrations`) or `./migrations:/flyway/sql`.",
    ),
    Key::own("environment", Shape::Pairs(Pairs::Environment), "", "With `image`: variables of its own."),
    Key::own("entrypoint", Shape::Words, "the image's", "With `image`: what `command` is handed to."),
    Key::own("command", Shape::Words, "", "What is run. Needed."),
    Key::own(
        "pending",
        Shape::Words,
        "",
        "Not for SQLite: a command, run as `command` is, whose exit code 0 says that nothing is pending. Then no snapshot is taken and nothing is migrated; without it something may be.",
    ),
    Key::own("timeout", TIME, "10m", "How long it may take."),
    Key::own(
        "compatible",
        Shape::OneOf(&["expand", "breaking"]),
        "undeclared, which counts as expand",
        "Whether the old release can live with the migrated schema.",
    ),
    Key::own(
        "down",
        Shape::Words,
        "",
        "What takes the migration back, run as `command` is by `rollback --migrate-down`, in the release that was migrated. `CUTOVER_SCHEMA_BEFORE` in its environment is the schema's version before it, where the migration tool keeps one.",
    ),
]]);

static VOLUME: Shape = Shape::Keys(&[&[
    Key::own("external", Shape::Flag, "false", "Made elsewhere: never made or removed by cutover."),
    Key::own("name", Shape::Text, "", "Its name in the engine, where it is external."),
    Key {
        name: "labels",
        shape: Shape::Anything,
        treatment: Treatment::Ignored("cutover labels volumes itself"),
        about: "",
        default: "",
    },
    Key {
        name: "driver",
        shape: Shape::Anything,
        treatment: Treatment::Refused("make the volume yourself, and name it with `external: true`"),
        about: "",
        default: "",
    },
    Key {
        name: "driver_opts",
        shape: Shape::Anything,
        treatment: Treatment::Refused("make the volume yourself, and name it with `external: true`"),
        about: "",
        default: "",
    },
]]);

const REGISTRY: Shape = Shape::Keys(&[&[
    Key::own("server", Shape::Text, "", "Its address. Needed."),
    Key::own("username", Shape::Secret, "", "User name; may be a reference."),
    Key::own("password", Shape::Secret, "", "A reference such as `${REGISTRY_TOKEN}`; never a value."),
]]);

const BACKUP: Shape = Shape::Keys(&[&[
    Key::own("to", Shape::Form(&BACKUP_PLACE), "", "Where the repository lies. Needed."),
    Key::own(
        "password",
        Shape::Secret,
        "",
        "What it is encrypted with: a reference such as `${BACKUP_PASSWORD}`, to a value that you keep elsewhere, too. Needed.",
    ),
    Key::own("key", Shape::Secret, "", "`s3:`: the access key's id, a reference."),
    Key::own("secret", Shape::Secret, "", "`s3:`: the access key's secret, a reference."),
    Key::own("every", Shape::Form(&BACKUP_PERIOD), "day", "From one to the next."),
    Key::own(
        "at",
        Shape::Form(&TIME_OF_DAY),
        "",
        "The time of day, in UTC, of those that come in whole days.",
    ),
    Key::own("keep", BACKUP_KEEP, "", "Which stay."),
    Key::own(
        "drill",
        BACKUP_DRILL,
        "",
        "The newest is put back beside everything for a trial, and taken away again.",
    ),
    Key::own(
        "volumes",
        Shape::Map(Naming::Volume, &BACKUP_VOLUME),
        "",
        "Volumes that are copied while nothing changes them: `before` and `after`, or `pause`. All others are taken from where they lie.",
    ),
]]);

static BACKUP_VOLUME: Shape = Shape::Keys(&[&[
    Key::own("service", Shape::Text, "", "In a running instance of which `before` and `after` are run."),
    Key::own("before", Shape::Words, "", "Run before the volume is copied: from then on nothing changes it."),
    Key::own("after", Shape::Words, "", "Run after that, however it went."),
    Key::own("pause", NAMES, "", "Services that are paused while the volume is copied."),
    Key::own(
        "timeout",
        TIME,
        "`1m`, with `pause` `30s`",
        "For `before` and the copy, and again for `after`.",
    ),
]]);

const BACKUP_DRILL: Shape = Shape::Keys(&[&[
    Key::own(
        "every",
        Shape::Form(&BACKUP_PERIOD),
        "",
        "From one to the next; else when somebody asks for it.",
    ),
    Key::own(
        "checks",
        Shape::Map(Naming::Database, &QUERIES),
        "",
        "A query, or a list of them, for each database that is back: the first value of the answer is neither nothing, nor zero, nor false.",
    ),
]]);

static QUERIES: Shape = Shape::Either(&[Shape::Text, NAMES]);

const BACKUP_KEEP: Shape = Shape::Keys(&[&[
    Key::own("daily", Shape::Whole { least: 1, most: 3_650 }, "7", "The newest of so many days."),
    Key::own("weekly", Shape::Whole { least: 0, most: 520 }, "4", "The newest of so many weeks."),
    Key::own("monthly", Shape::Whole { least: 0, most: 120 }, "6", "The newest of so many months."),
]]);

static BACKUP_PLACE: super::shape::Form = super::shape::Form {
    expected: "a folder of the host such as `/mnt/backups`, or a place such as `sftp:user@host:/backups` or `s3:https://s3.example.com/bucket`",
    check: |text| text.parse::<crate::backup::Target>().map(drop),
    pattern: r"^(/|sftp:|s3:)",
};

static BACKUP_PERIOD: super::shape::Form = super::shape::Form {
    expected: "`hour`, `day`, `week`, or a duration from 1h to 31 days",
    check: |text| super::backup::every(text).map(drop),
    pattern: r"^(hour|day|week|([0-9.]+(m|h|d))+)$",
};

static TIME_OF_DAY: super::shape::Form = super::shape::Form {
    expected: "a time of day such as `\"03:00\"`",
    check: |text| super::backup::time_of_day(text).map(drop),
    pattern: r"^[0-2][0-9]:[0-5][0-9]$",
};

const SETUP: Shape = Shape::Keys(&[&[
    Key::own(
        "docker",
        Shape::Flag,
        "true",
        "Install Docker Engine from the distribution's packages where there is none.",
    ),
    Key::own(
        "logs",
        Shape::Flag,
        "true",
        "Rotate cutover's logs, and limit those of containers where the engine does not.",
    ),
    Key::own("services", Shape::Flag, "true", "Start proxy and watch by systemd."),
    Key::own("upgrades", Shape::Flag, "true", "Install security upgrades every day."),
    Key::own("time", Shape::Flag, "true", "Keep the clock right, where nothing does."),
    Key::own(
        "firewall",
        Shape::Flag,
        "true",
        "Let in SSH, and HTTP where a service has a route, and nothing else.",
    ),
    Key::own("ssh_hardening", Shape::Flag, "true", "Let sshd accept keys only."),
    Key::own(
        "open",
        OPENINGS,
        "",
        "Ports that the firewall leaves open, too: of TCP, or of UDP as `51820/udp`.",
    ),
]]);

/// What an environment may say.
pub(crate) static ENVIRONMENT: Shape = Shape::Keys(&[&[
    Key::own("hosts", Shape::List(&Shape::Form(&SERVER)), "this machine", "The servers, as ssh takes them."),
    Key::own(
        "variables",
        Shape::Pairs(Pairs::Variables),
        "",
        "Public values for `${…}` anywhere in the file, and over `environment`.",
    ),
    Key::own("protected", Shape::Flag, "false", "Verbs that change it ask for its name."),
    Key::own("setup", SETUP, "", "What `cutover setup` does on its hosts."),
    Key::own(
        "services",
        Shape::Map(Naming::Service, &SERVICE),
        "",
        "Laid over `services`, as Compose lays one file over another.",
    ),
    Key::own("backing", Shape::Map(Naming::Service, &BACKING), "", "Laid over `backing`."),
    Key::own("databases", Shape::Map(Naming::Database, &DATABASE), "", "Laid over `databases`."),
    Key::own("volumes", Shape::Map(Naming::Volume, &VOLUME), "", "Laid over `volumes`."),
    Key::own("backup", BACKUP, "", "Laid over `backup`."),
]]);

/// A Compose file named in `compose:`.
pub(crate) static COMPOSE_FILE: Shape = Shape::Keys(&[&[
    Key::own("services", Shape::Map(Naming::Service, &Shape::Keys(&[compose_keys::TABLE])), "", ""),
    Key::own("volumes", Shape::Map(Naming::Volume, &VOLUME), "", ""),
    Key {
        name: "name",
        shape: Shape::Anything,
        treatment: Treatment::Ignored("the app's name is `app`"),
        about: "",
        default: "",
    },
    Key {
        name: "version",
        shape: Shape::Anything,
        treatment: Treatment::Ignored("formats of Compose files have no versions any more"),
        about: "",
        default: "",
    },
    Key {
        name: "networks",
        shape: Shape::Anything,
        treatment: Treatment::Ignored("each release has a network of its own, and backing services theirs"),
        about: "",
        default: "",
    },
    Key {
        name: "configs",
        shape: Shape::Anything,
        treatment: Treatment::Ignored("files ship with the release by `volumes`"),
        about: "",
        default: "",
    },
    Key {
        name: "secrets",
        shape: Shape::Anything,
        treatment: Treatment::Ignored("values live in the host's env file"),
        about: "",
        default: "",
    },
    Key {
        name: "include",
        shape: Shape::Anything,
        treatment: Treatment::Refused("name each file in `compose:`"),
        about: "",
        default: "",
    },
]]);
