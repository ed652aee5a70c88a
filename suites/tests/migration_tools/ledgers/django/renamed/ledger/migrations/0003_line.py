from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("ledger", "0002_mark")]
    operations = [
        migrations.RenameField("entry", "text", "line")
    ]
