from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from tests.articles.models import Article

STAFF_PERMISSIONS = {"PATCH": "articles.change_article", "DELETE": "articles.delete_article"}


class IsOwnerOrStaffOrReadOnly(BasePermission):
    """Allow reads for all, and writes for the owner and for staff with the permission."""

    def has_object_permission(self, request: Request, view: APIView, obj: Article) -> bool:
        if request.method not in STAFF_PERMISSIONS or obj.owner_id == request.user.pk:
            return True
        return request.user.is_staff and request.user.has_perm(STAFF_PERMISSIONS[request.method])
