//! What `MariaDB` and `MySQL` are asked of a database: its size, what tells one schema from another, and what migration tools wrote into tables of their own.

use std::collections::{BTreeMap, BTreeSet};

use cutover_core::hash::ContentHash;
use cutover_core::state::SchemaVersion;

use super::mariadb_version::Version;
use crate::ports::DatabaseError;

/// A row each: of what it tells, of which object, and what. What has several lines is hashed.
pub(super) const STATE: &str = "/*!80000 set session information_schema_stats_expiry = 0 */;
select 'version', version();
select 'database', database(), default_character_set_name, default_collation_name from information_schema.schemata where schema_name = database();
select 'bytes', cast(coalesce(sum(data_length + index_length), 0) as unsigned) from information_schema.tables where table_schema = database();
select 'packet', @@global.max_allowed_packet;
select 'versioned', table_name from information_schema.tables where table_schema = database() and table_type = 'SYSTEM VERSIONED';
select 'loose', table_name from information_schema.tables where table_schema = database() and table_type in ('BASE TABLE', 'SYSTEM VERSIONED')
    and engine not in (select engine from information_schema.engines where transactions = 'YES') order by 2;
select 'child', concat(constraint_schema, '.', table_name) from information_schema.referential_constraints
    where unique_constraint_schema = database() and constraint_schema <> database();
select distinct 'definer', 'view', definer from information_schema.views where table_schema = database();
select distinct 'definer', lower(routine_type), definer from information_schema.routines where routine_schema = database();
select distinct 'definer', 'trigger', definer from information_schema.triggers where trigger_schema = database();
select distinct 'definer', 'event', definer from information_schema.events where event_schema = database();
select 'other', schema_name from information_schema.schemata
    where schema_name not in (database(), 'mysql', 'information_schema', 'performance_schema', 'sys') order by 2;
select 'tool', table_name, column_name from information_schema.columns where table_schema = database()
    and table_name in ('alembic_version', 'django_migrations', 'schema_migrations', '_sqlx_migrations', '_prisma_migrations', 'flyway_schema_history')
    order by table_name, ordinal_position;
select 'table', table_name, table_type, engine, table_collation, create_options, quote(table_comment) from information_schema.tables
    where table_schema = database() and table_type <> 'VIEW';
select 'table', table_name, 'column', column_name, ordinal_position, quote(column_default), is_nullable, column_type, character_set_name, collation_name,
    extra, quote(generation_expression), quote(column_comment) from information_schema.columns where table_schema = database();
select 'table', table_name, 'index', index_name, seq_in_index, column_name, sub_part, non_unique, index_type from information_schema.statistics
    where table_schema = database();
select 'table', k.table_name, 'key', k.constraint_name, k.ordinal_position, k.column_name, k.referenced_table_schema, k.referenced_table_name,
    k.referenced_column_name, r.update_rule, r.delete_rule
    from information_schema.key_column_usage k left join information_schema.referential_constraints r
    on r.constraint_schema = k.constraint_schema and r.constraint_name = k.constraint_name and r.table_name = k.table_name
    where k.table_schema = database();
select 'table', t.table_name, 'check', c.constraint_name, quote(c.check_clause) from information_schema.check_constraints c
    join information_schema.table_constraints t on t.constraint_schema = c.constraint_schema and t.constraint_name = c.constraint_name
    where c.constraint_schema = database();
select 'table', table_name, 'partition', partition_name, partition_method, quote(partition_expression), quote(partition_description)
    from information_schema.partitions where table_schema = database() and partition_name is not null;
select 'view', table_name, md5(view_definition), check_option, definer, security_type from information_schema.views where table_schema = database();
select lower(routine_type), routine_name, md5(routine_definition), dtd_identifier, definer, security_type, sql_data_access
    from information_schema.routines where routine_schema = database();
select lower(routine_type), specific_name, 'parameter', ordinal_position, parameter_mode, parameter_name, dtd_identifier
    from information_schema.parameters where specific_schema = database();
select 'trigger', trigger_name, event_object_table, action_timing, event_manipulation, md5(action_statement), definer
    from information_schema.triggers where trigger_schema = database();
select 'event', event_name, md5(event_definition), event_type, execute_at, interval_value, interval_field, status, definer
    from information_schema.events where event_schema = database();
";

/// A row each: what a thing of the schema is called, and what it is. What is one thing may have several.
pub(super) const SCHEMA: &str = "set session group_concat_max_len = 65536;
select concat(if(table_type = 'SEQUENCE', 'sequence ', 'table '), table_name), concat_ws(', ', engine, table_collation, nullif(trim(create_options), ''),
    if(table_type in ('BASE TABLE', 'SEQUENCE'), null, lower(table_type)), if(table_comment = '', null, concat('comment ', quote(table_comment))))
    from information_schema.tables where table_schema = database() and table_type <> 'VIEW';
select concat('column ', c.table_name, '.', c.column_name), concat(c.column_type, if(c.is_nullable = 'NO', ' not null', ''),
    if(c.collation_name <> t.table_collation, concat(' collate ', c.collation_name), ''),
    if(coalesce(c.column_default, 'NULL') = 'NULL', '', concat(' default ', c.column_default)),
    if(coalesce(c.generation_expression, '') = '', '', concat(' as (', c.generation_expression, ')')),
    if(c.extra = '', '', concat(' ', lower(c.extra))), if(c.column_comment = '', '', concat(' comment ', quote(c.column_comment))))
    from information_schema.columns c left join information_schema.tables t on t.table_schema = c.table_schema and t.table_name = c.table_name
    where c.table_schema = database() and coalesce(t.table_type, '') <> 'SEQUENCE';
select concat('index ', table_name, '.', index_name), concat(if(max(non_unique) = 0, 'unique ', ''), lower(max(index_type)), ' (',
    group_concat(concat(coalesce(column_name /*!80013 , concat('(', expression, ')') */, ''), coalesce(concat('(', sub_part, ')'), ''), if(collation = 'D', ' desc', ''))
    order by seq_in_index separator ', '), ')' /*!80000 , if(max(is_visible) = 'NO', ' invisible', '') */ /*M!100600 , if(max(ignored) = 'YES', ' ignored', '') */)
    from information_schema.statistics where table_schema = database() group by table_name, index_name;
select concat('constraint ', k.constraint_name, ' of ', k.table_name), concat('foreign key (', group_concat(k.column_name order by k.ordinal_position separator ', '),
    ') references ', if(max(k.referenced_table_schema) = database(), '', concat(max(k.referenced_table_schema), '.')), max(k.referenced_table_name), ' (',
    group_concat(k.referenced_column_name order by k.ordinal_position separator ', '), ') on update ', lower(max(r.update_rule)), ' on delete ', lower(max(r.delete_rule)))
    from information_schema.key_column_usage k join information_schema.referential_constraints r
    on r.constraint_schema = k.constraint_schema and r.constraint_name = k.constraint_name and r.table_name = k.table_name
    where k.table_schema = database() and k.referenced_table_name is not null group by k.table_name, k.constraint_name;
select concat('constraint ', c.constraint_name, ' of ', t.table_name), concat('check (', c.check_clause, ')' /*!80016 , if(t.enforced = 'NO', ' not enforced', '') */)
    from information_schema.check_constraints c join information_schema.table_constraints t
    on t.constraint_schema = c.constraint_schema and t.constraint_name = c.constraint_name /*M! and t.table_name = c.table_name */
    where c.constraint_schema = database();
select concat('partition ', partition_name, ' of ', table_name), concat_ws(' ', lower(partition_method), partition_expression, partition_description)
    from information_schema.partitions where table_schema = database() and partition_name is not null;
select concat('view ', table_name), concat('definition ', left(md5(concat_ws(' ', view_definition, check_option, definer, security_type)), 7))
    from information_schema.views where table_schema = database();
select concat(lower(routine_type), ' ', routine_name), concat('definition ', left(md5(concat_ws(' ', routine_definition, definer, security_type, sql_data_access, is_deterministic)), 7))
    from information_schema.routines where routine_schema = database();
select concat(lower(routine_type), ' ', specific_name), if(ordinal_position = 0, concat('returns ', dtd_identifier),
    concat_ws(' ', 'parameter', ordinal_position, lower(parameter_mode), parameter_name, dtd_identifier))
    from information_schema.parameters where specific_schema = database();
select concat('trigger ', trigger_name, ' of ', event_object_table), concat(lower(action_timing), ' ', lower(event_manipulation), ', definition ', left(md5(concat_ws(' ', action_statement, definer)), 7))
    from information_schema.triggers where trigger_schema = database();
select concat('event ', event_name), concat(concat_ws(' ', 'every', interval_value, lower(interval_field)), ', ', lower(status), ', definition ', left(md5(concat_ws(' ', event_definition, definer)), 7))
    from information_schema.events where event_schema = database() and interval_value is not null;
select concat('event ', event_name), concat('at ', execute_at, ', ', lower(status), ', definition ', left(md5(concat_ws(' ', event_definition, definer)), 7))
    from information_schema.events where event_schema = database() and interval_value is null;
";

/// Who has the database open besides the session that asks: a line each.
pub(super) const SESSIONS: &str = "select concat(user, ' at ', host, ' (', lower(command), ', ', time, ' s)') from information_schema.processlist
    where db = database() and id <> connection_id() order by 1;";

/// The answer to [`STATE`].
#[derive(Debug)]
pub(super) struct Found {
    pub(super) version: Version,
    pub(super) database: String,
    /// The letters of a text whose column does not say, and their order.
    pub(super) letters: (String, String),
    pub(super) views: Vec<String>,
    pub(super) bytes: u64,
    pub(super) tables: u64,
    pub(super) others: Vec<String>,
    /// Tables that keep what their rows were.
    pub(super) versioned: Vec<String>,
    /// Tables whose engine has no transactions.
    pub(super) loose: Vec<String>,
    /// Tables of other databases that refer to this one's.
    pub(super) children: Vec<String>,
    /// A kind of what cannot move, and by whom some of that kind was defined.
    pub(super) definers: Vec<(String, String)>,
    /// Bytes that a statement may have.
    pub(super) packet: u64,
    /// Columns of migration tools' tables.
    pub(super) tools: BTreeMap<String, BTreeSet<String>>,
    /// By what each is called, a hash of all that is told of it.
    pub(super) objects: BTreeMap<String, ContentHash>,
}

pub(super) fn read(lines: &str) -> Result<Found, DatabaseError> {
    let version = lines.lines().find_map(|line| line.strip_prefix("version\t")).unwrap_or_default();
    let mut found = Found {
        version: Version::of_server(version)
            .ok_or_else(|| DatabaseError::plain(format!("a server of version `{version}` is not known")))?,
        database: String::new(),
        letters: Default::default(),
        views: Vec::new(),
        bytes: 0,
        tables: 0,
        others: Vec::new(),
        versioned: Vec::new(),
        loose: Vec::new(),
        children: Vec::new(),
        definers: Vec::new(),
        packet: 0,
        tools: BTreeMap::new(),
        objects: BTreeMap::new(),
    };
    let mut told: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for line in lines.lines() {
        let mut words = line.split('\t');
        let (of, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match of {
            "version" => {}
            "database" => {
                found.database = unescaped(name);
                let mut word = || words.next().unwrap_or_default().to_owned();
                found.letters = (word(), word());
            }
            "bytes" => found.bytes = name.parse().unwrap_or_default(),
            "packet" => found.packet = name.parse().unwrap_or_default(),
            "versioned" => found.versioned.push(unescaped(name)),
            "loose" => found.loose.push(unescaped(name)),
            "child" => found.children.push(unescaped(name)),
            "definer" => {
                let who = words.next().map(unescaped).unwrap_or_default();
                found.definers.push((name.to_owned(), who));
            }
            "other" => found.others.push(name.to_owned()),
            "tool" => {
                let columns = found.tools.entry(name.to_owned()).or_default();
                columns.extend(words.next().map(str::to_owned));
            }
            _ => drop(told.entry(format!("{of} `{name}`")).or_default().insert(line)),
        }
    }
    if found.database.is_empty() {
        return Err(DatabaseError::plain(
            "which of the server's databases is the app's is not known: it is said by `name`, or by `MARIADB_DATABASE` (MySQL: `MYSQL_DATABASE`) of the backing service",
        ));
    }
    // Columns of views are among the tables' lines.
    let views: Vec<String> =
        told.keys().filter_map(|name| Some(name.strip_prefix("view ")?.to_owned())).collect();
    found.views = views.iter().map(|view| unescaped(view.trim_matches('`'))).collect();
    for view in views {
        let columns = told.remove(&format!("table {view}")).unwrap_or_default();
        told.entry(format!("view {view}")).or_default().extend(columns);
    }
    found.tables = told.keys().filter(|name| name.starts_with("table ")).count() as u64;
    found.objects = told.into_iter().map(|(name, lines)| (name, ContentHash::of_value(&lines))).collect();
    Ok(found)
}

/// The answer to [`SCHEMA`].
pub(super) fn read_schema(lines: &str) -> BTreeMap<String, String> {
    let mut things: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, says) in lines.lines().filter_map(|line| line.split_once('\t')) {
        things.entry(unescaped(name)).or_default().insert(unescaped(says));
    }
    let told = |says: BTreeSet<String>| says.into_iter().collect::<Vec<_>>().join(", ");
    things.into_iter().map(|(name, says)| (name, told(says))).collect()
}

/// A value as the client program writes it in a line.
pub(super) fn unescaped(text: &str) -> String {
    let (mut plain, mut letters) = (String::with_capacity(text.len()), text.chars());
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('0') => '\0',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    plain
}

/// What asks a tool's table: one row of the tool's name, its version, and whether a migration did not come to its end.
fn question(name: &str, columns: &BTreeSet<String>) -> Option<String> {
    Some(match name {
        "alembic_version" => format!(
            "select 'alembic', coalesce(group_concat(version_num order by version_num separator ', '), ''), 0 from {name}"
        ),
        "django_migrations" => format!(
            "select 'django', coalesce(concat((select concat(app, '.', name) from {name} order by id desc limit 1), ', ', count(*), ' in all'), ''), 0 from {name}"
        ),
        "schema_migrations" if columns.contains("dirty") => {
            format!(
                "select 'golang-migrate', coalesce(max(version), ''), coalesce(max(dirty), 0) from {name}"
            )
        }
        "schema_migrations" if columns.contains("version") => {
            format!("select 'rails', coalesce(max(version), ''), 0 from {name}")
        }
        "_sqlx_migrations" => {
            // One that was merged late has a lower version than those before it.
            format!(
                "select 'sqlx', coalesce(min(case when not success then version end), max(version), ''), \
                 coalesce(max(not success), 0) from {name}"
            )
        }
        "_prisma_migrations" => format!(
            "select 'prisma', coalesce((select migration_name from {name} where finished_at is not null and rolled_back_at is null order by finished_at desc limit 1), ''), \
             exists (select 1 from {name} where finished_at is null and rolled_back_at is null)"
        ),
        "flyway_schema_history" => format!(
            "select 'flyway', coalesce((select version from {name} where success order by installed_rank desc limit 1), ''), \
             coalesce((select not success from {name} order by installed_rank desc limit 1), 0)"
        ),
        _ => return None,
    })
}

/// What asks all of them; `None`: there is none.
pub(super) fn versions(tools: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let asked: Vec<String> = tools.iter().filter_map(|(name, columns)| question(name, columns)).collect();
    (!asked.is_empty()).then(|| asked.iter().map(|one| format!("{one};\n")).collect())
}

/// The answers to [`versions`].
pub(super) fn read_versions(lines: &str) -> Vec<SchemaVersion> {
    let row = |line: &str| {
        let mut words = line.split('\t').map(str::to_owned);
        Some(SchemaVersion { tool: words.next()?, version: words.next()?, broken: words.next()? != "0" })
    };
    lines.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_database_is_sorted_by_object() {
        let lines = "version\t10.11.18-MariaDB\ndatabase\tshop\tutf8mb4\tutf8mb4_general_ci\nbytes\t16384\nloose\thits\nother\tblog\ntool\tschema_migrations\tversion\ntool\tschema_migrations\tdirty\n\
            table\tentries\tBASE TABLE\tInnoDB\ntable\tentries\tcolumn\ttext\nview\tseen\tabc\ntable\tseen\tcolumn\ttext\n";
        let found = read(lines).unwrap();

        assert_eq!((found.database.as_str(), found.bytes, found.tables), ("shop", 16384, 1));
        assert_eq!((found.loose, found.others), (vec!["hits".to_owned()], vec!["blog".to_owned()]));
        assert_eq!(found.objects.keys().collect::<Vec<_>>(), ["table `entries`", "view `seen`"]);
        let wider = read(&format!("{lines}table\tentries\tcolumn\tmark\n")).unwrap();
        assert_ne!(wider.objects["table `entries`"], found.objects["table `entries`"]);
        assert_eq!(wider.objects["view `seen`"], found.objects["view `seen`"]);
        assert!(versions(&found.tools).unwrap().contains("golang-migrate"));
        assert_eq!(found.letters.1, "utf8mb4_general_ci");
        assert_eq!(found.views, ["seen"]);
        assert!(read("version\t10.11.18-MariaDB\n").is_err(), "no database");
        assert!(read("database\tshop\ta\tb\n").is_err(), "no version");
        assert_eq!(unescaped(r"a\tb\\c"), "a\tb\\c");
    }

    #[test]
    fn a_thing_of_the_schema_may_have_several_lines() {
        let lines = "column t.a\tint(11) not null\nfunction twice\treturns int(11)\nfunction twice\tdefinition 1a2b3c4\n";
        let schema = read_schema(lines);
        assert_eq!(schema["function twice"], "definition 1a2b3c4, returns int(11)");
        assert_eq!((schema["column t.a"].as_str(), schema.len()), ("int(11) not null", 2));
    }

    #[test]
    fn answers_are_read_a_line_each() {
        let told: Vec<String> =
            read_versions("alembic\t1a\t0\ngolang-migrate\t3\t1\n").iter().map(ToString::to_string).collect();
        assert_eq!(told, ["1a (alembic)", "3 (golang-migrate, not finished)"]);
    }
}
