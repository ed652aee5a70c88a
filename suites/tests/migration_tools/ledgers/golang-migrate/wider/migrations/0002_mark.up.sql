alter table entries add column mark text not null default 'wider';
