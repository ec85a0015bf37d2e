from django.contrib import admin
from django.contrib.auth.models import User
from django.urls import include, path
from rest_framework import permissions, serializers, viewsets
from rest_framework.decorators import api_view, permission_classes
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from bench.stock.models import Product


class UserSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ["id", "username", "email", "first_name", "date_joined"]


class ProductSerializer(serializers.ModelSerializer[Product]):
    class Meta:
        model = Product
        fields = ["id", "title", "description", "amount", "owner", "created_at", "updated_at"]
        read_only_fields = ["owner"]


class ProductViewSet(viewsets.ModelViewSet[Product]):
    queryset = Product.objects.all()
    serializer_class = ProductSerializer

    def perform_create(self, serializer: serializers.BaseSerializer[Product]) -> None:
        serializer.save(owner=self.request.user)


@api_view(["GET"])
@permission_classes([permissions.IsAuthenticated])
def me(request: Request) -> Response:
    return Response(UserSerializer(request.user).data)


router = DefaultRouter()
router.register("product", ProductViewSet)

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/auth/login/", TokenObtainPairView.as_view()),
    path("api/v1/auth/refresh/", TokenRefreshView.as_view()),
    path("api/v1/users/me/", me),
    path("api/v1/", include(router.urls)),
]
