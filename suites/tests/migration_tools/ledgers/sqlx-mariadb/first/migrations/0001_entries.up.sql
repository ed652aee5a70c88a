create table entries (text varchar(100) primary key);
