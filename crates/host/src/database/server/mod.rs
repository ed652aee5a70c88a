//! Databases in a server, by the server's own client programs: inside the server's instance, or on this host. What one engine has for itself lies in
//! files of its name; the way to a server, the programs' streams and a dump's way into a file are the same for all.

mod alone;
mod client;
mod dump;
mod following;
mod mariadb;
mod mariadb_catalogue;
mod mariadb_dump;
mod mariadb_locks;
mod mariadb_login;
mod mariadb_password;
mod mariadb_restore;
mod mariadb_sessions;
mod mariadb_users;
mod mariadb_version;
mod password;
mod port;
mod postgres;
mod postgres_catalogue;
mod postgres_locks;
mod postgres_login;
mod postgres_password;
mod postgres_restore;
mod postgres_tools;
mod url;

pub(super) use port::of;
