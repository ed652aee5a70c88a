SELECT entries.id, name, message, strftime('%Y-%m-%d %H:%M', created_at, 'unixepoch') AS created_at
FROM entries JOIN visitors ON visitors.id = visitor_id ORDER BY entries.id DESC LIMIT :limit;
