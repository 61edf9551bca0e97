"""Images, whom they are shared with, and where their bytes are. Rows of deleted images stay: no id is used twice."""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata

image = sa.Table(
    "image",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255)),
    sa.Column("visibility", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("disk_format", sa.String(16)),
    sa.Column("container_format", sa.String(16)),
    sa.Column("size", sa.BigInteger),
    sa.Column("virtual_size", sa.BigInteger),
    sa.Column("md5", sa.String(32)),
    sa.Column("sha256", sa.String(64)),
    sa.Column("min_disk", sa.Integer, nullable=False),
    sa.Column("min_ram", sa.Integer, nullable=False),
    sa.Column("protected", sa.Boolean, nullable=False),
    sa.Column("os_hidden", sa.Boolean, nullable=False),
    sa.Column("properties", sa.JSON, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("reserved_bytes", sa.BigInteger, nullable=False),  # Of a running upload, charged before they are written.
    sa.Column("upload_until", sa.Float),  # An upload that has not moved this on is dead.
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.Column("deleted_at", sa.Float),
    sa.Index("ix_image_created", "created_at", "id"),
    sa.Index("ix_image_owner", "owner", "created_at", "id"),
    sa.Index("ix_image_visibility", "visibility", "created_at", "id"),
)

image_member = sa.Table(
    "image_member",
    metadata,
    sa.Column("image_id", sa.ForeignKey("image.id"), primary_key=True),
    sa.Column("member_id", sa.String(64), primary_key=True, index=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
)

image_location = sa.Table(
    "image_location",
    metadata,
    sa.Column("image_id", sa.ForeignKey("image.id"), primary_key=True),
    sa.Column("store", sa.String(32), primary_key=True),
)

cached_image = sa.Table(
    "cached_image",
    metadata,
    sa.Column("host_id", sa.String(36), primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("generation", sa.Integer, nullable=False),  # Rises when it is evicted, and when it is wanted again.
    sa.Column("is_wanted", sa.Boolean, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("used_at", sa.Float, nullable=False),  # When somebody last asked for it there, to some minutes.
)
"""Which images hosts have, or had, in their caches. By content: two images with the same bytes are one there."""

sa.Index("ix_cached_image_sha256", cached_image.c.sha256)
