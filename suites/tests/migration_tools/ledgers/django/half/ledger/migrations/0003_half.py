from django.db import migrations, models


class Migration(migrations.Migration):
    # Each statement by itself, as for an index that is made concurrently.
    atomic = False
    dependencies = [("ledger", "0002_mark")]
    operations = [
        migrations.AddField("entry", "half", models.TextField(null=True)),
        migrations.RunSQL("select nonsense"),
    ]
