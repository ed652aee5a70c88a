alter table entries add column half text;
select nonsense;
