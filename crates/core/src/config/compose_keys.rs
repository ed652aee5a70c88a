//! Every key of a service in the Compose specification, and what cutover does with it: one table for checks, notes, schema and docs.

use super::shape::{BYTES, CPUS, DURATION, Key, Naming, Pairs, SIGNAL, Shape, Treatment};
use super::shape::{FOLDER, PORT};

const PLAIN_TEXT: Shape = Shape::Text;
const TEXT_LIST: Shape = Shape::List(&PLAIN_TEXT);
const TEXT_OR_LIST: Shape = Shape::Either(&[Shape::Text, TEXT_LIST]);
const PUBLIC_PAIRS: Shape = Shape::Pairs(Pairs::Public);

const fn honoured(name: &'static str, shape: Shape, default: &'static str, about: &'static str) -> Key {
    Key { name, shape, treatment: Treatment::Honoured, about, default }
}

const fn translated(name: &'static str, shape: Shape, how: &'static str, about: &'static str) -> Key {
    Key { name, shape, treatment: Treatment::Translated(how), about, default: "" }
}

const fn ignored(name: &'static str, note: &'static str) -> Key {
    Key { name, shape: Shape::Anything, treatment: Treatment::Ignored(note), about: "", default: "" }
}

const fn refused(name: &'static str, reason: &'static str) -> Key {
    Key { name, shape: Shape::Anything, treatment: Treatment::Refused(reason), about: "", default: "" }
}

/// The keys, in the order of the alphabet.
pub(crate) const TABLE: &[Key] = &[
    ignored("annotations", "use `labels`"),
    ignored("attach", "output is always kept; see `cutover logs`"),
    refused("blkio_config", "limits of block devices are not set; use `mem_limit` and `cpus`"),
    honoured("build", BUILD, "", "How the image is built: a folder, or a map."),
    honoured("cap_add", TEXT_LIST, "", "Capabilities added."),
    honoured("cap_drop", TEXT_LIST, "", "Capabilities dropped."),
    refused("cgroup", "a container has a control group of its own"),
    refused("cgroup_parent", "a container has a control group of its own"),
    honoured(
        "command",
        Shape::Words,
        "the image's",
        "What is run: text is split into words, no shell reads it. For an artifact it is needed.",
    ),
    refused("configs", "ship the file with the release: `volumes: [./app.conf:/etc/app.conf:ro]`"),
    ignored("container_name", "names are given by cutover, since old and new run side by side"),
    refused("cpu_count", "use `cpus`"),
    refused("cpu_percent", "use `cpus`"),
    refused("cpu_period", "use `cpus`"),
    refused("cpu_quota", "use `cpus`"),
    refused("cpu_rt_period", "real-time scheduling is not set"),
    refused("cpu_rt_runtime", "real-time scheduling is not set"),
    refused("cpu_shares", "use `cpus`"),
    honoured("cpus", Shape::Form(&CPUS), "", "Processors it may use."),
    refused("cpuset", "use `cpus`"),
    refused("credential_spec", "it is for Windows containers"),
    honoured("depends_on", DEPENDS_ON, "", "What must be up before it: names, or a map with `condition`."),
    translated(
        "deploy",
        DEPLOY,
        "`replicas` and `resources.limits` are taken; the rest is cutover's own",
        "Replicas and limits.",
    ),
    ignored("develop", "it is for work on a laptop"),
    refused("device_cgroup_rules", "name the device in `devices`"),
    honoured("devices", TEXT_LIST, "", "Devices of the host: `host:container[:rights]`."),
    honoured("dns", TEXT_OR_LIST, "", "Name servers."),
    refused("dns_opt", "resolver options are not set"),
    refused("dns_search", "write names in full"),
    refused("domainname", "use `hostname`"),
    refused("driver_opts", "networks are made by cutover"),
    honoured("entrypoint", Shape::Words, "the image's", "Replaces the image's entrypoint."),
    translated(
        "env_file",
        ENV_FILE,
        "its names count as declared without a value, and its values travel as secrets",
        "Files of variables.",
    ),
    honoured(
        "environment",
        Shape::Pairs(Pairs::Environment),
        "",
        "Variables of its instances; a name without a value is required from the env file.",
    ),
    ignored("expose", "services of a release reach each other on every port"),
    refused("extends", "use an anchor, or `compose:` with several files"),
    refused("external_links", "a container of another app is not reached by name"),
    honoured("extra_hosts", PUBLIC_PAIRS, "", "Names and their addresses."),
    refused("gpus", "GPUs are not given out yet; `devices` passes a device"),
    refused("group_add", "set `user` to `user:group`"),
    honoured(
        "healthcheck",
        HEALTHCHECK,
        "the image's",
        "The container's own health command, run at cutover's pace.",
    ),
    honoured("hostname", Shape::Text, "", "The host name it sees."),
    honoured("image", Shape::Text, "", "A ready image; `--version TAG` takes another tag of it."),
    honoured("init", Shape::Flag, "", "An init as PID 1, which passes signals on and reaps."),
    refused("ipc", "a container has a name space of its own"),
    refused("isolation", "it is for Windows containers"),
    refused("label_file", "use `labels`"),
    honoured("labels", PUBLIC_PAIRS, "", "Labels of its containers; `cutover.…` is reserved."),
    refused("links", "services reach each other by name without it"),
    honoured("logging", LOGGING, "", "Log driver and options."),
    refused("mac_address", "addresses are given by cutover, since old and new run side by side"),
    translated(
        "mem_limit",
        Shape::Form(&BYTES),
        "the same as `deploy.resources.limits.memory`",
        "Memory it may use.",
    ),
    ignored("mem_reservation", "nothing is reserved; `mem_limit` bounds"),
    ignored("mem_swappiness", "the host decides"),
    ignored("memswap_limit", "the host decides"),
    refused("models", "give the address in `environment`"),
    refused("network_mode", "the proxy needs an address of each container; `ports` publishes on the host"),
    ignored("networks", "each release has a network of its own, and backing services theirs"),
    refused("oom_kill_disable", "it freezes hosts; set `mem_limit`"),
    ignored("oom_score_adj", "the host decides"),
    refused("pid", "a container has a name space of its own"),
    honoured(
        "pids_limit",
        Shape::Whole { least: -1, most: 4_194_304 },
        "",
        "Processes it may have; -1: any number.",
    ),
    honoured("platform", Shape::Text, "", "Platform of its image, such as `linux/amd64`."),
    honoured(
        "ports",
        PORTS,
        "",
        "Ports published on the host besides routes; on 127.0.0.1 unless an address is given.",
    ),
    refused("post_start", "run it in the image's entrypoint, or as `migrate`"),
    refused("pre_stop", "handle the stop signal; see `stop_signal` and `stop_grace_period`"),
    refused("privileged", "it gives the host away; use `cap_add` or `devices`"),
    translated(
        "profiles",
        TEXT_OR_LIST,
        "a service of a `compose:` file that has profiles is left out unless cutover.yml names it",
        "For Compose files only.",
    ),
    refused("provider", "run it outside, and give its address in `environment`"),
    ignored("pull_policy", "an image is pulled when the host lacks it"),
    honoured("read_only", Shape::Flag, "false", "The root file system cannot be written."),
    ignored("restart", "cutover restarts what should run, and never a candidate"),
    refused("runtime", "the engine's own runtime is used"),
    translated("scale", Shape::Whole { least: 1, most: 100 }, "the same as `replicas`", "Equal instances."),
    refused(
        "secrets",
        "values live in the host's env file: declare the name in `environment` without a value",
    ),
    honoured("security_opt", TEXT_LIST, "", "Security options."),
    honoured("shm_size", Shape::Form(&BYTES), "", "Size of `/dev/shm`."),
    ignored("stdin_open", "nobody types into a service; see `cutover exec`"),
    honoured("stop_grace_period", Shape::Form(&DURATION), "10s", "From the stop signal to the kill."),
    honoured("stop_signal", Shape::Form(&SIGNAL), "the image's, else TERM", "How it is asked to stop."),
    refused("storage_opt", "storage is the engine's matter"),
    honoured("sysctls", PUBLIC_PAIRS, "", "Kernel settings of the container."),
    honoured("tmpfs", TEXT_OR_LIST, "", "Folders in memory: `target[:options]`."),
    ignored("tty", "nobody looks at it; see `cutover exec`"),
    honoured("ulimits", ULIMITS, "", "Limits: a number, or `soft` and `hard`."),
    refused("use_api_socket", "it gives the host away"),
    honoured("user", Shape::Text, "the image's", "The user it runs as."),
    refused("userns_mode", "set it for the engine"),
    refused("uts", "a container has a name space of its own"),
    honoured(
        "volumes",
        VOLUMES,
        "",
        "Volumes, read-only files of the repository, paths of the host. For containers.",
    ),
    refused("volumes_from", "name the volume in both services"),
    honoured("working_dir", Shape::Text, "the image's", "Its working folder; for an artifact, below it."),
];

/// How an image is built.
const BUILD: Shape = Shape::Either(&[
    Shape::Form(&FOLDER),
    Shape::Keys(&[&[
        honoured("context", Shape::Form(&FOLDER), ".", "The folder that is sent."),
        honoured("dockerfile", Shape::Form(&FOLDER), "Dockerfile", "Relative to the context."),
        honoured("target", Shape::Text, "", "The stage to stop at."),
        honoured("args", PUBLIC_PAIRS, "", "Build-time variables; public, since an image keeps them."),
        honoured(
            "on",
            Shape::OneOf(&["here", "host"]),
            "here",
            "Whose container engine builds it: that of the machine where the command is run, or the host's, to which no env file is sent.",
        ),
        honoured("labels", Shape::Anything, "", "Not needed: cutover labels images itself."),
        Key::later("secrets", "build without them, or build elsewhere and pass `--image SERVICE=REF@digest`"),
        refused("ssh", "fetch private sources before the build"),
        refused("dockerfile_inline", "write a Dockerfile"),
        ignored("cache_from", "the engine's own cache is used"),
        ignored("cache_to", "the engine's own cache is used"),
        ignored("pull", "the engine decides"),
        ignored("no_cache", "the engine decides"),
        ignored("tags", "images are known by content"),
        ignored("platforms", "the host's platform is built"),
        refused("additional_contexts", "put what is needed into the context"),
        refused("network", "builds use the engine's default"),
        refused("extra_hosts", "builds use the engine's default"),
        refused("privileged", "it gives the host away"),
        refused("shm_size", "builds use the engine's default"),
        refused("ulimits", "builds use the engine's default"),
        refused("isolation", "it is for Windows containers"),
        refused("entitlements", "builds have none"),
        refused("provenance", "not made yet"),
        refused("sbom", "not made yet"),
    ]]),
]);

const DEPENDS_ON: Shape = Shape::Either(&[
    TEXT_LIST,
    Shape::Map(
        Naming::Service,
        &Shape::Keys(&[&[
            honoured(
                "condition",
                Shape::OneOf(&["service_started", "service_healthy"]),
                "service_started",
                "What must hold of it.",
            ),
            ignored("restart", "a dependency is not restarted by a deploy"),
            honoured("required", Shape::Flag, "true", "Whether it must be there at all."),
        ]]),
    ),
]);

const LIMITS: Shape = Shape::Keys(&[&[
    honoured("cpus", Shape::Form(&CPUS), "", "Processors."),
    honoured("memory", Shape::Form(&BYTES), "", "Memory."),
    honoured("pids", Shape::Whole { least: 1, most: 4_194_304 }, "", "Processes."),
]]);

const RESOURCES: Shape = Shape::Keys(&[&[
    honoured("limits", LIMITS, "", "Bounds."),
    ignored("reservations", "nothing is reserved; `limits` bounds"),
]]);

const DEPLOY: Shape = Shape::Keys(&[&[
    translated(
        "replicas",
        Shape::Whole { least: 1, most: 100 },
        "the same as `replicas`",
        "Equal instances.",
    ),
    honoured("resources", RESOURCES, "", "Limits."),
    ignored("mode", "see `replicas`"),
    ignored("update_config", "see `strategy`"),
    ignored("rollback_config", "a failed release never goes live"),
    ignored("restart_policy", "cutover restarts what should run"),
    ignored("placement", "see `environments.X.hosts`"),
    ignored("labels", "use the service's `labels`"),
    ignored("endpoint_mode", "the proxy balances"),
]]);

const ENV_FILE: Shape = Shape::Either(&[
    Shape::Form(&FOLDER),
    Shape::List(&Shape::Either(&[
        Shape::Form(&FOLDER),
        Shape::Keys(&[&[
            honoured("path", Shape::Form(&FOLDER), "", "The file."),
            honoured("required", Shape::Flag, "true", "Whether it must be there."),
            ignored("format", "it is read as Compose reads it"),
        ]]),
    ])),
]);

const HEALTHCHECK: Shape = Shape::Keys(&[&[
    honoured(
        "test",
        TEXT_OR_LIST,
        "",
        "Text for a shell, or a list that begins with `CMD`, `CMD-SHELL` or `NONE`.",
    ),
    honoured("interval", Shape::Form(&DURATION), "30s", "The engine's own pace, after the gate."),
    honoured("timeout", Shape::Form(&DURATION), "30s", "For one try."),
    honoured("retries", Shape::Whole { least: 1, most: 1_000 }, "3", "Failures in a row until unhealthy."),
    honoured("start_period", Shape::Form(&DURATION), "0", "Failures do not count at first."),
    ignored("start_interval", "the gate tries from 5 ms on"),
    honoured("disable", Shape::Flag, "false", "Do without the image's own."),
]]);

const LOGGING: Shape = Shape::Keys(&[&[
    honoured("driver", Shape::Text, "json-file", "The log driver."),
    honoured("options", PUBLIC_PAIRS, "", "Its options."),
]]);

const PORTS: Shape = Shape::List(&Shape::Either(&[
    Shape::Text,
    Shape::Keys(&[&[
        honoured("target", Shape::Form(&PORT), "", "The port in the container."),
        honoured("published", Shape::Form(&PORT), "", "The port of the host."),
        honoured("host_ip", Shape::Text, "127.0.0.1", "The address of the host."),
        honoured("protocol", Shape::OneOf(&["tcp", "udp"]), "tcp", "Which protocol."),
        ignored("mode", "there is one mode"),
        ignored("name", "names of ports are not used"),
        ignored("app_protocol", "protocols are not told apart"),
    ]]),
]));

const ULIMITS: Shape = Shape::Map(
    Naming::Free,
    &Shape::Either(&[
        Shape::Whole { least: -1, most: i64::MAX },
        Shape::Keys(&[&[
            honoured("soft", Shape::Whole { least: -1, most: i64::MAX }, "", "The soft limit."),
            honoured("hard", Shape::Whole { least: -1, most: i64::MAX }, "", "The hard limit."),
        ]]),
    ]),
);

const TMPFS_OPTIONS: Shape = Shape::Keys(&[&[
    honoured("size", Shape::Form(&BYTES), "", "At most so much."),
    honoured("mode", Shape::Text, "", "Rights, octal."),
]]);

const VOLUMES: Shape = Shape::List(&Shape::Either(&[
    Shape::Text,
    Shape::Keys(&[&[
        honoured("type", Shape::OneOf(&["volume", "bind", "tmpfs"]), "volume", "What is mounted."),
        honoured(
            "source",
            Shape::Text,
            "",
            "A volume's name, `./path` of the repository (read-only), or `/path` of the host.",
        ),
        honoured("target", Shape::Text, "", "Where."),
        honoured("read_only", Shape::Flag, "false", "Cannot be written."),
        honoured("tmpfs", TMPFS_OPTIONS, "", "Options of memory."),
        ignored("bind", "cutover binds what ships read-only"),
        ignored("volume", "options of volumes are not used"),
        ignored("consistency", "it has no effect on Linux"),
    ]]),
]));

/// Keys that mean nothing to a plain process: told as a note, since nothing goes wrong without them.
pub(crate) const NOTHING_TO_A_PROCESS: &[&str] = &[
    "cap_add",
    "cap_drop",
    "dns",
    "extra_hosts",
    "hostname",
    "init",
    "labels",
    "logging",
    "platform",
    "read_only",
    "security_opt",
    "shm_size",
    "sysctls",
];

/// Limits of a whole instance, which need control groups: not kept for plain processes, and told so. (`ulimits` are kept: the kernel keeps
/// them for single processes.)
pub(crate) const NOT_KEPT_FOR_A_PROCESS: &[&str] = &["cpus", "mem_limit", "pids_limit", "deploy.resources"];

/// Keys that a plain process cannot have, and what to do instead.
pub(crate) const NOT_FOR_A_PROCESS: &[(&str, &str)] = &[
    ("devices", "a plain process sees the host's own devices"),
    ("entrypoint", "name the program in `command`"),
    ("ports", "a plain process publishes its ports itself; requests come by `route`"),
    ("tmpfs", "a plain process sees the host's own `/tmp`"),
    (
        "volumes",
        "a plain process sees the host's own files: pass a path in `environment`, or `${databases.NAME.file}`",
    ),
];
