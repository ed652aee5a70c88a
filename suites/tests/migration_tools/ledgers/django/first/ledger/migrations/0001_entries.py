from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = []
    operations = [
        migrations.CreateModel(
            "Entry",
            [("text", models.TextField(primary_key=True))],
            options={"db_table": "entries"},
        )
    ]
