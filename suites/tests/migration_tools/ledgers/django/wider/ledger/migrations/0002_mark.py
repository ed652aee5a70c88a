from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("ledger", "0001_entries")]
    operations = [
        # Django takes the default of a column away again: one that may not be empty would keep the old release from writing.
        migrations.AddField("entry", "mark", models.TextField(null=True, default="wider"))
    ]
