//! What `PostgreSQL` is asked of a database: its size, what tells one schema from another, and what migration tools wrote into tables of their own.

use cutover_core::layout;
use cutover_core::state::SchemaVersion;
use serde::Deserialize;

use crate::ports::RowCounts;

/// One row, one value: what it is and has, as JSON.
pub(super) const STATE: &str = "with own as (select oid from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'),
relations as (select c.* from pg_class c where c.relnamespace in (select oid from own))
select json_build_object(
    'number', current_setting('server_version_num')::int,
    'database', current_database(),
    'bytes', pg_database_size(current_database()),
    'tables', (select count(*) from relations where relkind in ('r', 'p')
        and not exists (select 1 from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = relations.oid and d.deptype = 'e')),
    'others', (select coalesce(json_agg(datname order by datname), '[]') from pg_database
        where not datistemplate and datname not in ('postgres', current_database())),
    'tools', (select coalesce(json_agg(json_build_object('name', relname, 'table', quote_ident(nspname) || '.' || quote_ident(relname),
            'columns', (select json_agg(attname) from pg_attribute where attrelid = relations.oid and attnum > 0)) order by nspname, relname), '[]')
        from relations join pg_namespace n on n.oid = relations.relnamespace
        where relkind in ('r', 'p') and relname in ('alembic_version', 'django_migrations', 'schema_migrations', '_sqlx_migrations',
            '_prisma_migrations', 'flyway_schema_history')),
    -- Counts are begun anew after a crash, which nothing of the database itself says: what is counted of the whole server is, too, and does.
    'counts', (select json_build_object(
            'from', concat_ws(' ', d.oid, pg_stat_get_db_stat_reset_time(d.oid), (select stats_reset from pg_stat_bgwriter)),
            'tables', (select coalesce(json_object_agg(oid, pg_stat_get_tuples_inserted(oid) + pg_stat_get_tuples_updated(oid) + pg_stat_get_tuples_deleted(oid)), '{}')
                from relations where relkind = 'r'))
        from pg_database d where datname = current_database() and current_setting('track_counts')::bool),
    'catalogue', (select md5(coalesce(string_agg(line, E'\\n' order by line), '')) from (
        select 'relation ' || relkind::text || ' ' || oid::regclass::text as line from relations
        union all select 'column ' || c.oid::regclass::text || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' '
            || a.attnotnull::text || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
            from pg_attribute a join relations c on c.oid = a.attrelid
            left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
            where a.attnum > 0 and not a.attisdropped
        union all select 'constraint ' || conrelid::regclass::text || ' ' || conname || ' ' || pg_get_constraintdef(oid)
            from pg_constraint where connamespace in (select oid from own)
        union all select pg_get_indexdef(oid) from relations where relkind in ('i', 'I')
        union all select 'view ' || oid::regclass::text || ' ' || pg_get_viewdef(oid) from relations where relkind in ('v', 'm')
        union all select 'function ' || oid::regprocedure::text || ' ' || md5(prosrc) from pg_proc where pronamespace in (select oid from own)
        union all select pg_get_triggerdef(t.oid) from pg_trigger t join relations on relations.oid = tgrelid where not tgisinternal
        union all select 'enum ' || enumtypid::regtype::text || ' ' || enumlabel || ' ' || enumsortorder::text
            from pg_enum join pg_type on pg_type.oid = enumtypid where typnamespace in (select oid from own)
    ) lines))";

/// One value: an object of what each thing of the schema is, by its name.
pub(super) const SCHEMA: &str = "with own as (select oid from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'),
relations as (select c.* from pg_class c where c.relnamespace in (select oid from own))
select coalesce(json_object_agg(name, says order by name), '{}') from (
    select case relkind when 'v' then 'view ' when 'm' then 'materialized view ' when 'S' then 'sequence ' when 'f' then 'foreign table '
            when 'c' then 'type ' else 'table ' end || oid::regclass::text as name,
        case when relkind in ('v', 'm') then 'definition ' || left(md5(pg_get_viewdef(oid)), 7) else 'is there' end as says
        from relations where relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c')
    union all select 'column ' || c.oid::regclass::text || '.' || a.attname,
        format_type(a.atttypid, a.atttypmod) || case when a.attnotnull then ' not null' else '' end
            || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
        from pg_attribute a join relations c on c.oid = a.attrelid
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c')
    union all select 'constraint ' || conname || coalesce(' of ' || nullif(conrelid, 0)::regclass::text, ''), pg_get_constraintdef(oid)
        from pg_constraint where connamespace in (select oid from own)
    union all select 'index ' || oid::regclass::text, pg_get_indexdef(oid) from relations where relkind in ('i', 'I')
    union all select 'function ' || oid::regprocedure::text, 'definition ' || left(md5(prosrc), 7)
        from pg_proc where pronamespace in (select oid from own)
    union all select 'trigger ' || tgname || ' of ' || tgrelid::regclass::text, pg_get_triggerdef(t.oid)
        from pg_trigger t join relations on relations.oid = tgrelid where not tgisinternal
    union all select 'value ' || quote_literal(enumlabel) || ' of ' || enumtypid::regtype::text, 'at ' || enumsortorder::text
        from pg_enum join pg_type on pg_type.oid = enumtypid where typnamespace in (select oid from own)
    union all select 'extension ' || extname, 'version ' || extversion from pg_extension
) things";

/// One value: which locks of tables clients have or wait for at this moment, but for the one that asks. On one line, for it is asked again and again.
/// A table that its own transaction has just made is nobody else's yet.
pub(super) const LOCKS: &str = "select json_build_object('at_ms', (extract(epoch from clock_timestamp()) * 1000)::bigint, 'locks', \
    (select coalesce(json_agg(json_build_object('holder', l.virtualtransaction, 'table', c.oid::regclass::text, 'mode', l.mode, 'granted', l.granted)), '[]') \
    from pg_locks l join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace join pg_stat_activity a on a.pid = l.pid \
    where l.locktype = 'relation' and l.database = (select oid from pg_database where datname = current_database()) and l.pid <> pg_backend_pid() \
    and a.backend_type = 'client backend' and c.relkind in ('r', 'p', 'm') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'))";

/// Who has the database open besides the session that asks: a line each.
pub(super) fn sessions() -> String {
    format!(
        "select coalesce(nullif(application_name, ''), 'somebody') || ' of ' || {OF} || ' (' || coalesce(state, 'connected') || ')'
from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend' and application_name <> '{}' order by 1",
        layout::ALONE_CLIENT
    )
}

/// Whose sessions of migrations there are: a line each.
pub(super) fn migrations() -> String {
    format!(
        "select 'session ' || pid || ' of ' || {OF} from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and application_name = '{}' order by pid",
        layout::MIGRATION_CLIENT
    )
}

/// Whose a session is, and from where.
const OF: &str = "coalesce(usename, '?') || coalesce(' at ' || host(client_addr), '')";

/// A list of roles that own something of the database, or are granted something there, but for those that every server has.
pub(super) const ROLES: &str = "select coalesce(json_agg(distinct r.rolname), '[]') from pg_shdepend d
    join pg_roles r on d.refclassid = 'pg_authid'::regclass and r.oid = d.refobjid
    join pg_database b on b.datname = current_database()
    where (d.dbid = b.oid or d.classid = 'pg_database'::regclass and d.objid = b.oid) and r.rolname !~ '^pg_'";

/// The answer to [`STATE`].
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    pub(super) number: u32,
    pub(super) database: String,
    pub(super) bytes: u64,
    pub(super) tables: u64,
    pub(super) others: Vec<String>,
    pub(super) tools: Vec<ToolTable>,
    pub(super) catalogue: String,
    /// `None`: it does not count.
    pub(super) counts: Option<RowCounts>,
}

/// A table of a migration tool.
#[derive(Debug, Deserialize)]
pub(super) struct ToolTable {
    name: String,
    table: String,
    columns: Vec<String>,
}

impl ToolTable {
    /// What asks it: one row of the tool's name, its version, and whether a migration did not come to its end.
    fn question(&self) -> Option<String> {
        let table = &self.table;
        let has = |column: &str| self.columns.iter().any(|name| name == column);
        Some(match self.name.as_str() {
            "alembic_version" => format!(
                "select 'alembic', coalesce(string_agg(version_num, ', ' order by version_num), ''), false from {table}"
            ),
            "django_migrations" => format!(
                "select 'django', coalesce((select app || '.' || name from {table} order by id desc limit 1) || ', ' || count(*) || ' in all', ''), false from {table}"
            ),
            "schema_migrations" if has("dirty") => format!(
                "select 'golang-migrate', coalesce(max(version)::text, ''), coalesce(bool_or(dirty), false) from {table}"
            ),
            "schema_migrations" if has("version") => {
                format!("select 'rails', coalesce(max(version::text), ''), false from {table}")
            }
            "_sqlx_migrations" => format!(
                "select 'sqlx', coalesce((coalesce(min(version) filter (where not success), max(version)))::text, ''), coalesce(bool_or(not success), false) from {table}"
            ),
            "_prisma_migrations" => format!(
                "select 'prisma', coalesce((select migration_name from {table} where finished_at is not null and rolled_back_at is null order by finished_at desc limit 1), ''), \
                 exists (select 1 from {table} where finished_at is null and rolled_back_at is null)"
            ),
            "flyway_schema_history" => format!(
                "select 'flyway', coalesce((select version from {table} where success order by installed_rank desc limit 1), ''), \
                 coalesce((select not success from {table} order by installed_rank desc limit 1), false)"
            ),
            _ => return None,
        })
    }
}

/// What asks all of them, as lines of JSON; `None`: there is none.
pub(super) fn versions(tools: &[ToolTable]) -> Option<String> {
    let asked: Vec<String> = tools.iter().filter_map(ToolTable::question).collect();
    if asked.is_empty() {
        return None;
    }
    let all = asked.join(" union all ");
    Some(format!(
        "select json_build_object('tool', tool, 'version', version, 'broken', broken) from ({all}) as told (tool, version, broken)"
    ))
}

/// The answers to [`versions`].
pub(super) fn read_versions(lines: &str) -> Vec<SchemaVersion> {
    lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, columns: &[&str]) -> ToolTable {
        ToolTable {
            name: name.to_owned(),
            table: format!("public.{name}"),
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn one_table_name_of_two_tools_is_told_by_its_columns() {
        let tool = |columns: &[&str]| table("schema_migrations", columns).question().unwrap_or_default();
        assert!(tool(&["version", "dirty"]).contains("golang-migrate"));
        assert!(tool(&["version"]).contains("rails"));
        assert_eq!(tool(&["name"]), "", "somebody's own");
        assert!(versions(&[table("schema_migrations", &["name"])]).is_none());
    }

    #[test]
    fn answers_are_read_a_line_each() {
        let lines = "{\"tool\" : \"alembic\", \"version\" : \"1a\", \"broken\" : false}\n";
        assert_eq!(read_versions(lines)[0].to_string(), "1a (alembic)");
        let broken =
            SchemaVersion { tool: "golang-migrate".to_owned(), version: "3".to_owned(), broken: true };
        assert_eq!(broken.to_string(), "3 (golang-migrate, not finished)");
    }
}
