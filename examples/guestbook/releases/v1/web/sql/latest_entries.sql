SELECT id, name, message, strftime('%Y-%m-%d %H:%M', created_at, 'unixepoch') AS created_at
FROM entries ORDER BY id DESC LIMIT :limit;
