"""pages of ports and images by index."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward; there is no way back but a backup."""
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.create_index("ix_image_visibility", ["visibility", "created_at", "id"], unique=False)

    with op.batch_alter_table("port", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_port_device"))
        batch_op.create_index("ix_port_device", ["device_id", "project_id", "id"], unique=False)
        batch_op.create_index("ix_port_network", ["network_id", "project_id", "id"], unique=False)

    with op.batch_alter_table("security_group_rule", schema=None) as batch_op:
        batch_op.create_index("ix_security_group_rule_project", ["project_id", "id"], unique=False)
