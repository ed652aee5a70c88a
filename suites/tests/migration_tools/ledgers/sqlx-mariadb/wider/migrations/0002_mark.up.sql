alter table entries add column mark varchar(100) not null default 'wider';
