create table entries (text text primary key);
