from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("ledger", "0002_mark")]
    operations = [
        migrations.AddField("entry", "half", models.TextField(null=True)),
        migrations.RunSQL("select pg_sleep(600)"),
    ]
