//! The applications of the sweep, each as its cutover.yml.

/// A routed service with replicas, and a bot beside it.
pub(crate) const WEB_AND_BOT: &str = r"
app: shop
bake: 300ms
services:
  web:
    artifact: web
    command: ./web
    port: 8000
    replicas: 2
    route: { host: shop.example.com }
    health: { path: /health, within: 300ms }
  bot:
    artifact: bot
    command: ./bot
    ready: { log: polling, within: 300ms }
";

/// The same, and what was replaced stays warm.
pub(crate) const WARM: &str = r"
app: shop
bake: 300ms
keep_warm: 1h
services:
  web:
    artifact: web
    command: ./web
    port: 8000
    replicas: 2
    route: { host: shop.example.com }
    health: { path: /health, within: 300ms }
";

/// A service that greets with a variable, and one that does not.
pub(crate) const GREETING: &str = r#"
app: shop
bake: 300ms
services:
  web:
    artifact: web
    command: ./web
    environment: { GREETING: "${GREETING}" }
    port: 8000
    route: { host: shop.example.com }
    health: { path: /health, within: 300ms }
  api:
    artifact: api
    command: ./api
    port: 8001
    route: { host: api.example.com }
    health: { path: /health, within: 300ms }
"#;

/// A routed service of which two may never run at once.
pub(crate) const SINGLETON: &str = r"
app: shop
bake: 300ms
services:
  web:
    artifact: web
    command: ./web
    port: 8000
    strategy: handover
    route: { host: shop.example.com }
    health: { path: /health, within: 300ms }
";

/// An app without routes.
pub(crate) const BOT_ALONE: &str = r"
app: bot
bake: 300ms
services:
  bot:
    artifact: bot
    command: ./bot
    ready: { log: polling, within: 300ms }
";

/// Two services on one `SQLite` file, with replicas of the routed one.
pub(crate) const DATABASE: &str = r#"
app: shop
bake: 300ms
services:
  web:
    artifact: web
    command: ./web
    environment: { DATABASE_FILE: "${databases.main.file}" }
    port: 8000
    replicas: 2
    route: { host: shop.example.com }
    health: { path: /health, within: 300ms }
  bot:
    artifact: bot
    command: ./bot
    environment: { DATABASE_FILE: "${databases.main.file}" }
    ready: { log: polling, within: 300ms }
databases:
  main:
    engine: sqlite
    volume: data
    file: app.db
    services: [web, bot]
    migrate: { service: web, command: ./migrate, compatible: COMPATIBLE }
"#;

/// The same with a database that has a server, whose migrations break what was live.
pub(crate) const SERVER: &str = r#"
app: shop
bake: 300ms
services:
  web:
    artifact: web
    command: ./web
    environment: { DATABASE_URL: "postgres://postgres/shop" }
    port: 8000
    replicas: 2
    route: { host: shop.example.com }
    health: { path: /health, within: 300ms }
backing:
  postgres: { artifact: postgres, command: ./postgres, port: 5432, health: { tcp: 5432, within: 300ms } }
databases:
  main:
    engine: postgres
    service: postgres
    migrate: { service: web, command: ./migrate, compatible: breaking }
"#;

/// Two services that log in with the server's password, one of them routed, and one that does not.
pub(crate) const PASSWORD: &str = r#"
app: shop
bake: 300ms
services:
  web:
    artifact: web
    command: ./web
    environment: { DATABASE: "postgres://app:${POSTGRES_PASSWORD}@postgres/shop" }
    port: 8000
    replicas: 2
    route: { host: shop.example.com }
    health: { path: /health, within: 300ms }
  api:
    artifact: api
    command: ./api
    port: 8001
    route: { host: api.example.com }
    health: { path: /health, within: 300ms }
  bot:
    artifact: bot
    command: ./bot
    environment: { DATABASE: "postgres://app:${POSTGRES_PASSWORD}@postgres/shop" }
    ready: { log: polling, within: 300ms }
backing:
  postgres:
    artifact: postgres
    command: ./postgres
    environment: { POSTGRES_USER: app, POSTGRES_PASSWORD: "${POSTGRES_PASSWORD}" }
    port: 5432
    health: { tcp: 5432, within: 300ms }
"#;

/// An app without routes that logs in with the server's password.
pub(crate) const PASSWORD_OF_A_BOT: &str = r#"
app: bot
bake: 300ms
services:
  bot:
    artifact: bot
    command: ./bot
    environment: { DATABASE: "postgres://app:${POSTGRES_PASSWORD}@postgres/shop" }
    ready: { log: polling, within: 300ms }
backing:
  postgres:
    artifact: postgres
    command: ./postgres
    environment: { POSTGRES_PASSWORD: "${POSTGRES_PASSWORD}" }
    port: 5432
    health: { tcp: 5432, within: 300ms }
"#;

/// Containers: a routed service that calls another by name, a worker, and a backing service.
pub(crate) const CONTAINERS: &str = r#"
app: shop
bake: 300ms
services:
  web:
    image: web:latest
    environment: { API: "${services.api.url}" }
    port: 8000
    replicas: 2
    route: { host: shop.example.com }
    health: { path: /health, within: 300ms }
  api:
    image: api:latest
    port: 8001
    strategy: blue-green
    health: { path: /health, within: 300ms }
  worker:
    image: worker:latest
    ready: { log: polling, within: 300ms }
backing:
  redis:
    image: redis:7
    port: 6379
    health: { tcp: 6379, within: 300ms }
"#;

/// Containers on one `SQLite` file in a volume of the engine.
pub(crate) const CONTAINER_DATABASE: &str = r#"
app: shop
bake: 300ms
services:
  web:
    image: web:latest
    environment: { DATABASE_FILE: "${databases.main.file}" }
    volumes: [ "data:/data" ]
    port: 8000
    route: { host: shop.example.com }
    health: { path: /health, within: 300ms }
databases:
  main:
    engine: sqlite
    volume: data
    file: app.db
    services: [web]
    migrate: { service: web, command: ./migrate, compatible: breaking }
"#;
