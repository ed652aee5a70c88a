SELECT id, name, message, strftime('%Y-%m-%dT%H:%M:%SZ', created_at, 'unixepoch') AS created_at
FROM entries WHERE id > :after ORDER BY id LIMIT :limit;
