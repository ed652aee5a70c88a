SELECT entries.id, name, message, strftime('%Y-%m-%dT%H:%M:%SZ', created_at, 'unixepoch') AS created_at
FROM entries JOIN visitors ON visitors.id = visitor_id
WHERE entries.id > :after ORDER BY entries.id LIMIT :limit;
