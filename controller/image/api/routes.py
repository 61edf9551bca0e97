"""Every endpoint of the image API (Glance v2)."""

from typing import Final

from controller.http import faults
from controller.http.op import PUBLIC, Op, Service
from controller.http.policy import authenticated
from controller.image.api import bodies, images, members, patch, versions
from controller.image.policy import RULES

_BYTES: Final = ("application/octet-stream",)
_OPEN: Final = "Image properties are top-level keys (Image API v2, create image)."

SERVICE: Final = Service(
    name="image",
    types=("image",),
    prefix="/image",
    catalog_path="/image",
    policies={**RULES, "schemas": authenticated},
    envelope=faults.glance,
    over_quota_status=413,
    is_slash_an_id=True,
    ops=(
        Op("GET", "/", versions.choices, policy=PUBLIC, status=300),
        Op("GET", "/versions", versions.versions, policy=PUBLIC),
        Op("GET", "/v2/schemas/image", versions.image_schema, policy="schemas"),
        Op("GET", "/v2/schemas/images", versions.images_schema, policy="schemas"),
        Op("GET", "/v2/schemas/member", versions.member_schema, policy="schemas"),
        Op("GET", "/v2/schemas/members", versions.members_schema, policy="schemas"),
        Op("POST", "/v2/images", images.create, policy="add_image", body=bodies.NewImage, status=201, open_body=_OPEN),
        Op("GET", "/v2/images", images.index, policy="get_images"),
        Op("GET", "/v2/images/{image_id}", images.show, policy="get_image"),
        Op(
            "PATCH",
            "/v2/images/{image_id}",
            images.update,
            policy="modify_image",
            body=list[bodies.PatchStep],
            media=patch.MEDIA,
        ),
        Op("DELETE", "/v2/images/{image_id}", images.delete, policy="delete_image", status=204),
        Op(
            "PUT",
            "/v2/images/{image_id}/file",
            images.upload,
            policy="upload_image",
            status=204,
            media=_BYTES,
            streams=True,
        ),
        Op("GET", "/v2/images/{image_id}/file", images.download, policy="download_image"),
        Op("POST", "/v2/images/{image_id}/actions/deactivate", images.deactivate, policy="deactivate", status=204),
        Op("POST", "/v2/images/{image_id}/actions/reactivate", images.reactivate, policy="reactivate", status=204),
        Op("PUT", "/v2/images/{image_id}/tags/{tag}", images.put_tag, policy="modify_image", status=204),
        Op("DELETE", "/v2/images/{image_id}/tags/{tag}", images.delete_tag, policy="modify_image", status=204),
        Op("GET", "/v2/images/{image_id}/members", members.index, policy="get_members"),
        Op("POST", "/v2/images/{image_id}/members", members.create, policy="add_member", body=bodies.NewMember),
        Op("GET", "/v2/images/{image_id}/members/{member_id}", members.show, policy="get_member"),
        Op(
            "PUT",
            "/v2/images/{image_id}/members/{member_id}",
            members.update,
            policy="modify_member",
            body=bodies.MemberAnswer,
        ),
        Op("DELETE", "/v2/images/{image_id}/members/{member_id}", members.delete, policy="delete_member", status=204),
    ),
)
