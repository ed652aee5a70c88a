alter table entries add column half text;
do sleep(600);
