import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import firmware.validators
import otaplatform.accounts.fields


class Migration(migrations.Migration):

    dependencies = [
        ('firmware', '0001_initial'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterConstraint(
            model_name='firmware',
            name='firmware_name_once_per_account',
            constraint=models.UniqueConstraint(fields=('account', 'name'), name='firmware_name_once_per_account', violation_error_code='name_taken', violation_error_message='The account already has a firmware of this name.'),
        ),
        migrations.AlterConstraint(
            model_name='firmware',
            name='firmware_version_once_per_product',
            constraint=models.UniqueConstraint(fields=('product', 'module', 'version', 'source_version'), name='firmware_version_once_per_product', violation_error_code='version_taken', violation_error_message='The product already has a firmware of this version.'),
        ),
        migrations.AlterField(
            model_name='firmware',
            name='created_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='uploaded by'),
        ),
        migrations.AlterField(
            model_name='firmware',
            name='version',
            field=otaplatform.accounts.fields.CodePointField(max_length=64, validators=[firmware.validators.validate_version], verbose_name='firmware version'),
        ),
    ]
