"""Views as DRF's tutorial and documentation write them, without a base class of this project."""

import asyncio

from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseForbidden,
    JsonResponse,
)
from django.shortcuts import get_object_or_404
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_page
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import TemplateView
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import extend_schema
from rest_framework import filters, generics, permissions, renderers, status, viewsets
from rest_framework.authentication import BaseAuthentication, BasicAuthentication
from rest_framework.decorators import action, api_view, permission_classes
from rest_framework.exceptions import NotFound, ParseError
from rest_framework.pagination import CursorPagination, LimitOffsetPagination, PageNumberPagination
from rest_framework.parsers import JSONParser
from rest_framework.response import Response
from rest_framework.throttling import UserRateThrottle
from rest_framework.views import APIView

from accounts.models import User
from api.parsers import StrictJSONArrayParser
from api.schema import problems
from tests.service.guest.exceptions import (
    ClosedOnMondays,
    Gone,
    OrderShipped,
    OutOfStock,
    PaymentRequired,
    PreconditionFailed,
    StaffOnly,
    Unprocessable,
)
from tests.service.guest.models import Customer, Order, Restaurant, Snippet
from tests.service.guest.serializers import (
    CustomerSerializer,
    NumberSerializer,
    OrderSerializer,
    RestaurantSerializer,
    SnippetSerializer,
)


# Part 1 of the tutorial: plain functions.
@csrf_exempt
def plain_snippets(request):
    if request.method == "GET":
        serializer = SnippetSerializer(
            Snippet.objects.all(), many=True, context={"request": request}
        )
        return JsonResponse(serializer.data, safe=False)
    data = JSONParser().parse(request)
    serializer = SnippetSerializer(data=data, context={"request": request})
    if serializer.is_valid():
        serializer.save()
        return JsonResponse(serializer.data, status=201)
    return JsonResponse(serializer.errors, status=400)


def plain_snippet(request, pk):
    try:
        snippet = Snippet.objects.get(pk=pk)
    except Snippet.DoesNotExist:
        return HttpResponse(status=404)
    return JsonResponse({"id": snippet.pk, "user": str(request.user)})


# Part 2: functions with @api_view.
@api_view(["GET", "POST"])
@permission_classes([permissions.AllowAny])
def function_snippets(request, format=None):
    if request.method == "GET":
        context = {"request": request}
        snippets = SnippetSerializer(Snippet.objects.all(), many=True, context=context)
        return Response(snippets.data)
    serializer = SnippetSerializer(data=request.data, context={"request": request})
    if serializer.is_valid():
        serializer.save()
        return Response(serializer.data, status=status.HTTP_201_CREATED)
    return Response(serializer.errors, status=status.HTTP_400_BAD_REQUEST)


# Part 3: generic class-based views.
class SnippetList(generics.ListCreateAPIView):
    queryset = Snippet.objects.all()
    serializer_class = SnippetSerializer
    permission_classes = [permissions.IsAuthenticatedOrReadOnly]


# Part 4 to 6: permissions and viewsets.
class IsOwnerOrReadOnly(permissions.BasePermission):
    message = "Only the owner may change a snippet."
    code = "not_the_owner"

    def has_object_permission(self, request, view, obj):
        return request.method in permissions.SAFE_METHODS or obj.owner == request.user


class SnippetViewSet(viewsets.ModelViewSet):
    queryset = Snippet.objects.all()
    serializer_class = SnippetSerializer
    permission_classes = [permissions.IsAuthenticatedOrReadOnly, IsOwnerOrReadOnly]

    @action(detail=True, renderer_classes=[renderers.StaticHTMLRenderer])
    def highlight(self, request, *args, **kwargs):
        return Response(f"<pre>{self.get_object().code}</pre>")

    def perform_create(self, serializer):
        serializer.save(owner=self.request.user)


class CustomerViewSet(viewsets.ModelViewSet):
    queryset = Customer.objects.all()
    serializer_class = CustomerSerializer
    permission_classes = [permissions.AllowAny]
    filter_backends = [filters.SearchFilter, filters.OrderingFilter]
    search_fields = ["name", "orders__number"]


@extend_schema(responses={200: OrderSerializer, **problems(OrderShipped, OutOfStock, Gone)})
class OrderViewSet(viewsets.ModelViewSet):
    queryset = Order.objects.all()
    serializer_class = OrderSerializer
    permission_classes = [permissions.AllowAny]
    filter_backends = [DjangoFilterBackend, filters.SearchFilter, filters.OrderingFilter]
    filterset_fields = ["customer", "state", "due", "total"]
    search_fields = ["number", "customer__name"]

    def get_queryset(self):
        orders = super().get_queryset()
        if rank := self.request.query_params.get("at_least"):
            orders = orders.filter(rank__gte=rank)
        if due := self.request.query_params.get("due_on"):
            orders = orders.filter(due=due)
        return orders

    @action(detail=True, methods=["post"])
    def cancel(self, request, pk=None):
        self.get_object().cancel()
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(detail=True, methods=["post"])
    def ship(self, request, pk=None):
        body = {"error": "Nothing is left.", "missing": [1, 2]}
        return Response(body, status=status.HTTP_409_CONFLICT)

    @action(detail=False, methods=["post"], parser_classes=[StrictJSONArrayParser])
    def bulk(self, request):
        serializer = self.get_serializer(data=request.data, many=True)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=status.HTTP_201_CREATED)


class ForgetfulView(generics.CreateAPIView):
    """A view that does not set the customer."""

    serializer_class = NumberSerializer
    permission_classes = [permissions.AllowAny]


class RestaurantViewSet(viewsets.ReadOnlyModelViewSet):
    queryset = Restaurant.objects.all()
    serializer_class = RestaurantSerializer
    permission_classes = [permissions.AllowAny]


class FewerPages(PageNumberPagination):
    page_size = 2


class Offsets(LimitOffsetPagination):
    default_limit = 2


class Cursors(CursorPagination):
    page_size = 2
    ordering = ["-rank", "-id"]


class PagedOrders(generics.ListAPIView):
    """One list for each of DRF's own paginators."""

    queryset = Order.objects.all()
    serializer_class = OrderSerializer
    permission_classes = [permissions.AllowAny]


class NamesView(generics.GenericAPIView):
    """A page of what is not a queryset."""

    permission_classes = [permissions.AllowAny]

    def get(self, request):
        names = [f"name {number}" for number in range(25)]
        return self.get_paginated_response(self.paginate_queryset(names))


EXCEPTIONS = {
    "409": OrderShipped(),
    "402": PaymentRequired(),
    "410": Gone(),
    "412": PreconditionFailed("Read it again."),
    "422": Unprocessable({"number": ["It is too late."]}),
    "own-403": ClosedOnMondays(),
    "own-text": StaffOnly(),
    "own-404": NotFound("No such order.", code="no_such_order"),
    "own-400": ParseError("The page must be a number.", code="bad_page"),
    "mapping": OutOfStock({"code": "few", "detail": "Two are left.", "left": 2}),
    "list": OutOfStock(["One.", "Two."]),
    "django-403": PermissionDenied("Come back on Tuesday."),
    "django-404": Http404("The order is lost."),
}


class ErrorsView(APIView):
    permission_classes = [permissions.AllowAny]

    def get(self, request, name):
        if name == "model":
            get_object_or_404(Order, pk=0)
        raise EXCEPTIONS[name]


def plain_errors(request, name):
    raise EXCEPTIONS[name]


def texts(request, name):
    if name == "bad":
        return HttpResponseBadRequest("The coupon is missing.")
    if name == "page":
        return HttpResponseForbidden("<h1>Members only</h1>")
    if name == "broken-json":
        return HttpResponse("{", status=409, content_type="application/json")
    if name == "long":
        return HttpResponse(b"x" * 100_000, status=409)
    response = JsonResponse({"detail": "Try the other one.", "other": "/b"}, status=409)
    response.set_cookie("seen", "1")
    return response


async def async_view(request):
    await asyncio.sleep(0)
    return JsonResponse({"count": await Order.objects.acount()})


class AsyncView(View):
    async def get(self, request):
        await asyncio.sleep(0)
        return JsonResponse({"is": "async"})


class ClassView(View):
    def get(self, request):
        return JsonResponse({"method": request.method})


@extend_schema(exclude=True)
@api_view(["GET"])
def internal(request):
    """A view that the schema does not have."""


class DispatchingView(View):
    """A view that dispatches by itself, as those of GraphQL libraries do."""

    def dispatch(self, request, *args, **kwargs):
        return JsonResponse({"method": request.method})


class DescribedView(View):
    """A view that responds to OPTIONS by itself."""

    def options(self, request, *args, **kwargs):
        return JsonResponse({"described": True})


@method_decorator(cache_page(60), name="dispatch")
class CachedView(APIView):
    permission_classes = [permissions.AllowAny]
    calls = 0

    def get(self, request):
        CachedView.calls += 1
        return Response({"calls": CachedView.calls}, headers={"X-Own": "kept"})


class Thrice(UserRateThrottle):
    rate = "3/min"


class ThrottledView(APIView):
    permission_classes = [permissions.AllowAny]
    throttle_classes = [Thrice]

    def get(self, request):
        return Response({"ok": True})


class ScopedView(APIView):
    """A scope of the settings, as DRF documents."""

    permission_classes = [permissions.AllowAny]
    throttle_scope = "uploads"

    def get(self, request):
        return Response({"ok": True})


class KeyAuthentication(BaseAuthentication):
    """The custom authentication of DRF's guide; `request.auth` is a text."""

    def authenticate(self, request):
        username = request.META.get("HTTP_X_USERNAME")
        return (get_object_or_404(User, username=username), "a key") if username else None


class KeyView(APIView):
    authentication_classes = [KeyAuthentication]

    def get(self, request):
        return Response({"user": request.user.username, "auth": request.auth})


class BasicView(KeyView):
    authentication_classes = [BasicAuthentication]


class TextRenderer(renderers.BaseRenderer):
    media_type = "text/plain"
    format = "txt"

    def render(self, data, accepted_media_type=None, renderer_context=None):
        return str(data).encode()


class RenderedView(APIView):
    permission_classes = [permissions.AllowAny]
    renderer_classes = [renderers.JSONRenderer, TextRenderer]

    def get(self, request):
        return Response({"ok": True})


class ParsedView(APIView):
    """A view with DRF's own parser."""

    permission_classes = [permissions.AllowAny]
    parser_classes = [JSONParser]

    def post(self, request):
        return Response({"received": request.data})


# Pages outside the API.
class AboutView(TemplateView):
    template_name = "guest/about.html"


def own_policy(request):
    return HttpResponse(
        "<h1>Map</h1>", headers={"Content-Security-Policy": "img-src https://tiles.example.com"}
    )


def own_error(request):
    return HttpResponseForbidden("<h1>Members only</h1>")


def missing(request):
    raise Http404("This page has moved.")


def broken(request):
    raise RuntimeError("secret")


def page_not_found(request, exception):
    return HttpResponse("<h1>Not here</h1>", status=404)


def server_error(request):
    return HttpResponse("<h1>Sorry</h1>", status=500)
