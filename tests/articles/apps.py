from django.apps import AppConfig


class ArticlesConfig(AppConfig):
    name = "tests.articles"
