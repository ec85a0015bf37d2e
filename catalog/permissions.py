from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog.models import Product

STAFF_PERMISSIONS = {"PATCH": "catalog.change_product", "DELETE": "catalog.delete_product"}


class IsOwnerOrStaffOrReadOnly(BasePermission):
    """Allow reads for all, and writes for the owner and for staff with the permission."""

    def has_object_permission(self, request: Request, view: APIView, obj: Product) -> bool:
        if request.method not in STAFF_PERMISSIONS or obj.owner_id == request.user.pk:
            return True
        return request.user.is_staff and request.user.has_perm(STAFF_PERMISSIONS[request.method])
