from django.urls import path

from health.views import HealthView, LiveView, ReadyView

urlpatterns = [
    path("health", HealthView.as_view()),
    path("health/ready", ReadyView.as_view()),
    path("health/live", LiveView.as_view()),
]
